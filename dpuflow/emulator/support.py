"""What the emulator can execute: DPU families and op types, checked when a file is opened."""

from collections.abc import Collection, Sequence

from dpuflow.base.errors import UserError
from dpuflow.device.targets import describe_fingerprint
from dpuflow.xir import Graph, Op

READABLE, TYPE = "DPUCZDX8G", 1
"""The family whose arithmetic and parameters are known, and its number in a fingerprint's highest byte.

Its parameters lie whole, tensor by tensor in OHWI order; other families lay them out in blocks of
channels, so the numbers would be wrong without an error.
"""

TENSORS = {("XINT", 8), ("INT", 8), ("FLOAT", 32)}
"""(data type, width) of the tensors that the kernels compute."""


def require_family(graph: Graph) -> None:
    """UserError when a DPU subgraph is compiled for another family of DPUs, by fingerprint or name.

    Both instruction sets of the DPUCZDX8G are read: the graph and its parameters are alike, only the
    machine code differs. A subgraph without fingerprint and name is taken for one.
    """
    for subgraph in graph.subgraphs("DPU"):
        number = subgraph.attrs.get("dpu_fingerprint") or 0
        name = subgraph.attrs.get("dpu_name") or READABLE
        if (number and number >> 56 != TYPE) or not name.startswith(READABLE):
            family = describe_fingerprint(number) if number >> 56 != TYPE else None
            raise UserError(
                f"subgraph {subgraph.name!r} is compiled for another DPU, {family or name} (dpu_name {name}, "
                f"fingerprint {number:#x}); its parameters and arithmetic are not those of a {READABLE}, "
                f"so the emulator would give wrong numbers: compile the model for a {READABLE}, or give "
                "the quantized graph that is not compiled"
            )


def require_ops(ops: Sequence[Op], known: Collection[str]) -> None:
    """UserError that lists every op of a type which is not among `known`, and every odd tensor."""
    unknown: dict[str, list[str]] = {}
    for op in ops:
        if op.type not in known:
            unknown.setdefault(op.type, []).append(repr(op.name))
    if unknown:
        listed = "; ".join(f"{type_} ({', '.join(names)})" for type_, names in unknown.items())
        count = sum(map(len, unknown.values()))
        raise UserError(
            f"the emulator cannot execute {count} of its ops: {listed}. It knows "
            f"{', '.join(sorted(known))}. Subgraphs without such ops can be run alone: Emulator(file, "
            "subgraphs=[names])"
        )
    for op in ops:
        element = (op.tensor.data_type, op.tensor.bit_width)
        if element not in TENSORS:
            raise UserError(
                f"op {op.name!r} ({op.type}): {element[1]}-bit output of type {element[0]}; the emulator "
                "executes signed 8-bit and 32-bit float tensors"
            )
