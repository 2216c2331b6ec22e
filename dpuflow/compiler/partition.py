"""Top-level subgraphs of a compiled graph while it is being built, and their tree at the end.

A segment is a run of ops on one device, so segments execute in order. Inside a DPU segment
each superlayer is a leaf (docs/reference/xmodel.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dpuflow.device.targets import Target
from dpuflow.xir import Graph

CPU_RUNNER = dict.fromkeys(("run", "sim", "ref"), "libvart-cpu-runner.so")
DPU_RUNNER = {
    "run": "libvart-dpu-runner.so",
    "sim": "libvart-sim-runner.so",
    "ref": "libvart-cpu-runner.so",
}


@dataclass
class Superlayer:
    """Ops that run as one: constants, the op that names it, a pool fused behind it."""

    first: str
    ops: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)
    transfer: bool = False
    """Upload or download: nothing to order, so not in children_topological_sort."""


@dataclass
class Segment:
    """A top-level subgraph to be."""

    device: str
    leaves: list[Superlayer] = field(default_factory=list)
    uploads: dict[str, str] = field(default_factory=dict)

    def leaf_of(self, op_name: str) -> Superlayer:
        """The superlayer that holds an op."""
        return next(leaf for leaf in self.leaves if op_name in leaf.ops)


def build_tree(graph: Graph, segments: Sequence[Segment], target: Target) -> None:
    """Fill the graph's subgraph tree from its segments, with devices, runners and workloads."""
    root = graph.root
    root.proto.subgraph_name = "root"
    for segment in segments:
        named = next((leaf for leaf in segment.leaves if not leaf.transfer), segment.leaves[0])
        child = root.add_child(f"subgraph_{named.first}")
        child.attrs["device"] = segment.device
        if segment.device == "DPU":
            _describe_dpu(graph, child, segment, target)
        else:
            child.proto.op_name.extend(name for leaf in segment.leaves for name in leaf.ops)
            if segment.device == "CPU":
                child.attrs["runner"] = CPU_RUNNER
        _set_workload(graph, child)
    _set_workload(graph, root)


def _describe_dpu(graph, child, segment, target):
    child.attrs["dpu_name"] = target.dpu
    child.attrs["dpu_fingerprint"] = target.fingerprint
    child.attrs["runner"] = DPU_RUNNER
    for leaf in segment.leaves:
        node = child.add_child(f"subgraph_{leaf.first}", leaf.ops)
        for name, value in leaf.attrs.items():
            node.attrs[name] = value
        _set_workload(graph, node)
    child.attrs["children_topological_sort"] = [
        f"subgraph_{leaf.first}" for leaf in segment.leaves if not leaf.transfer
    ]


def _set_workload(graph, subgraph):
    """Sum of the ops below; only the DPU counts (the vendor's files give CPU work 0)."""
    ops = [graph.op(name) for name in subgraph.op_names]
    for name in ("workload", "workload_on_arch"):
        subgraph.attrs[name] = sum(op.attrs.get(name, 0) for op in ops if op.device == "DPU")
