"""XIR, the graph format of AMD's DPU compiler and runtime: read, write, check and show `.xmodel` files.

    from dpuflow.xir import Graph

    graph = Graph.load(path)              # UserError on a missing, foreign, truncated or ill-formed file
    graph.name, graph.attrs               # mapping name -> number, str, bytes, list or dict
    for op in graph.ops:                  # topological order
        op.name, op.type, op.device       # device "USER" | "DPU" | "CPU" | None
        op.inputs                         # {"input": ["conv1"], "weights": ["w"]}: names of ops
        op.input_names                    # the same, flat
        op.attrs["kernel"]                # stored value; op.attrs.kind("kernel") -> "int32_vec"
        op.attr("dilation")               # stored value, or the default of the op's definition
        op.array()                        # const data as ndarray, None when empty (vendor-compiled)
        op.tensor.name, .shape, .data_type ("XINT"), .bit_width, .fix_point, .attrs
    graph.op(name); name in graph; graph.consumers(name)

    graph.root                            # subgraph tree: .name .op_names .children .attrs .device .is_leaf
    for depth, subgraph in graph.root.walk(): ...
    graph.subgraphs("DPU")                # top-level subgraphs in execution order, of one device

    graph = Graph("net")
    op = graph.add_op("x", "data-fix", attrs={"shape": [1, 28, 28, 1], "data_type": "XINT8"})
    op.tensor.attrs["fix_point"] = 6      # kinds by the definition tables (opdefs.py)
    op.attrs.set("note", [1, 2], "int32_vec")   # an attribute outside the tables: say the kind
    child = graph.root.add_child("subgraph_x", ["x"]); child.attrs["device"] = "USER"
    graph.save(path)                      # checked (validate.validate), atomic, deterministic

`validate.validate(graph)` lists every broken rule; `python -m dpuflow.xir show|diff|svg FILE` for the shell.
"""

from dpuflow.xir.graph import Graph
from dpuflow.xir.nodes import Op, Subgraph, Tensor

__all__ = ["Graph", "Op", "Subgraph", "Tensor"]
