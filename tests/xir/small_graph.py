"""A tiny compiled graph to mutate: data-fix -> upload -> conv2d-fix -> download -> fix2float."""

import numpy as np

from dpuflow.xir import Graph

FIXED = {"bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}


def fixed(op, fix_point):
    """Give an op's tensor its fixed-point attributes."""
    op.tensor.attrs.update({"fix_point": fix_point, **FIXED})


def small_graph():
    """A valid graph of seven ops."""
    graph = Graph("small")
    fixed(
        graph.add_op("x", "data-fix", attrs={"shape": [1, 5, 6, 2], "data_type": "XINT8", "device": "USER"}),
        4,
    )
    fixed(graph.add_op("up", "upload", {"input": "x"}, {"device": "DPU"}), 4)
    for name, shape in (("w", [3, 3, 2, 2]), ("b", [3])):
        data = np.arange(np.prod(shape), dtype=np.int8).tobytes()
        attrs = {"shape": shape, "data_type": "XINT8", "data": data, "device": "DPU"}
        fixed(graph.add_op(name, "const-fix", attrs=attrs), 5)
    attrs = {"kernel": [2, 3], "stride": [1, 2], "pad": [1, 0, 1, 1], "nonlinear": "RELU", "device": "DPU"}
    fixed(graph.add_op("conv", "conv2d-fix", {"input": "up", "weights": "w", "bias": "b"}, attrs), 3)
    fixed(graph.add_op("down", "download", {"input": "conv"}, {"device": "DPU"}), 3)
    attrs = {"fix_point": 3, **FIXED, "device": "CPU"}
    graph.add_op("out", "fix2float", {"input": "down"}, attrs)
    root = graph.root
    root.proto.subgraph_name = "root"
    root.add_child("subgraph_x", ["x"]).attrs["device"] = "USER"
    dpu = root.add_child("subgraph_conv")
    dpu.attrs.update({"device": "DPU", "dpu_name": "DPUCZDX8G_ISA1_B4096", "runner": {"run": "a.so"}})
    dpu.attrs["dpu_fingerprint"] = 0x101000056010407
    for name, ops in (
        ("subgraph_up", ["up"]),
        ("subgraph_conv", ["w", "b", "conv"]),
        ("subgraph_down", ["down"]),
    ):
        dpu.add_child(name, ops)
    dpu.attrs["children_topological_sort"] = ["subgraph_conv"]
    cpu = root.add_child("subgraph_out", ["out"])
    cpu.attrs.update({"device": "CPU", "runner": {"run": "b.so"}})
    return graph
