"""A graph as text: its ops, its subgraph tree, its problems."""

from collections.abc import Sequence
from typing import Any

from dpuflow.xir.graph import Graph
from dpuflow.xir.nodes import Op, Tensor
from dpuflow.xir.validate import oddities, validate

_SHOWN = (
    *("kernel", "stride", "pad", "dilation", "group", "nonlinear", "type", "axis", "shape", "alpha"),
    *("transpose_b", "channel_augmentation"),
)
_BORING = {"dilation": [1, 1], "group": 1, "pad": [0, 0, 0, 0], "nonlinear": "NONE"}


def describe(graph: Graph) -> str:
    """The whole listing, as `python -m dpuflow.xir show` prints it."""
    lines = [f"graph {graph.name}: {len(graph.ops)} ops"]
    lines += [f"  {name} = {abridged(graph.attrs[name])}" for name in graph.attrs]
    lines += ["", *_op_table(graph), "", "subgraphs"]
    lines += [f"  {line}" for line in _tree(graph)] if graph.proto.HasField("subg_root") else ["  none"]
    problems = validate(graph)
    lines += ["", f"problems: {len(problems) or 'none'}"]
    lines += [f"  - {problem}" for problem in problems]
    lines += [f"odd, but it runs: {oddity}" for oddity in oddities(graph)]
    return "\n".join(lines) + "\n"


def element_type(tensor: Tensor) -> str:
    """For instance "XINT8"."""
    return f"{tensor.data_type}{tensor.bit_width}"


def shape_text(shape: Sequence[int]) -> str:
    """(1, 28, 28, 1) -> "1x28x28x1"."""
    return "x".join(map(str, shape)) or "scalar"


def fix_text(op: Op) -> str:
    """fix_point of an op's tensor, or of the grid that a `fix` op rounds to; "-" when there is none."""
    value = op.tensor.fix_point
    if value is None and op.type in ("fix", "float2fix"):
        value = op.attrs.get("fix_point")
    return "-" if value is None else str(value)


def _op_table(graph):
    number = {op.name: str(i) for i, op in enumerate(graph.ops)}
    rows = [("#", "op", "type", "inputs", "output", "element", "fix_point", "attributes")]
    for op in graph.ops:
        inputs = [
            f"{argument}=" * (argument != "input") + ",".join(number.get(name, f"{name}?") for name in names)
            for argument, names in op.inputs.items()
        ]
        shown = [
            f"{name}={abridged(op.attrs[name])}"
            for name in _SHOWN
            if name in op.attrs
            and op.attrs[name] != _BORING.get(name)
            and not (name == "shape" and tuple(op.attrs[name]) == op.tensor.shape)
        ]
        row = (number[op.name], op.name, op.type, " ".join(inputs), shape_text(op.tensor.shape))
        rows.append((*row, element_type(op.tensor), fix_text(op), " ".join(shown)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _tree(graph):
    for depth, subgraph in graph.root.walk():
        parts = [f"{'  ' * depth}{subgraph.name}"]
        if subgraph.device:
            parts.append(f"[{subgraph.device}]")
        attrs = subgraph.attrs
        if "dpu_name" in attrs:
            parts.append(str(attrs["dpu_name"]))
        if attrs.kind("dpu_fingerprint") == "uint64":
            parts.append(f"{attrs['dpu_fingerprint']:#x}")
        if "workload" in attrs:
            parts.append(f"workload {attrs['workload']} on_arch {attrs.get('workload_on_arch', '-')}")
        if attrs.kind("mc_code") == "bytes":
            parts.append(f"mc_code {len(attrs['mc_code'])} bytes")
        elif subgraph.device == "DPU":
            parts.append("no mc_code")
        count = len(subgraph.op_names)
        parts.append(f"{count} op{'s' if count != 1 else ''}")
        yield "  ".join(parts)
        if subgraph.is_leaf and depth:
            yield f"{'  ' * (depth + 1)}{', '.join(subgraph.op_names)}"


def abridged(value: Any) -> str:
    """Value of an attribute on one line, long ones abridged."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, list):
        text = ",".join(str(item) for item in value[:8])
        return f"[{text}{f',... {len(value)} in all' if len(value) > 8 else ''}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {abridged(item)}" for key, item in value.items()) + "}"
    return str(value)
