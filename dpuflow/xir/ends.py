"""The ops at a graph's ends: where values come from, and which are its outputs."""

from dpuflow.xir.nodes import Op, OpGraph
from dpuflow.xir.parameters import CONSTANT_TYPES

SOURCES = ("data", "data-fix")
"""Types of the ops that are inputs."""


def outputs(graph: OpGraph) -> list[Op]:
    """The ops that the graph's return_ops name if all are there, else what computes and nobody reads."""
    named = graph.attrs.get("return_ops")
    if named and all(name in graph for name in named):
        return [graph.op(name) for name in named]
    read = {name for op in graph.ops for name in op.input_names}
    return [op for op in graph.ops if op.name not in read and op.type not in (*SOURCES, *CONSTANT_TYPES)]
