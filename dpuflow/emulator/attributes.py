"""What an XIR op says of itself, checked: fix point, element, inputs, axis; UserError names the op."""

from collections.abc import Collection

from dpuflow.base.errors import UserError
from dpuflow.xir import Graph, Op


def fix_point(op: Op) -> int:
    """fix_point of an op's output tensor; UserError when the file has none."""
    value = op.tensor.fix_point
    if value is None:
        raise UserError(f"op {op.name!r} ({op.type}): its tensor has no fix_point; quantize the model first")
    return value


def check_output(op: Op) -> None:
    """UserError unless the output is signed 8-bit and rounded as the DPU rounds."""
    check_signed(op)
    mode = op.tensor.attrs.get("round_mode", "DPU_ROUND")
    if mode != "DPU_ROUND":
        raise UserError(f"op {op.name!r} ({op.type}): round_mode {mode}; the DPU only knows DPU_ROUND")


def check_signed(op: Op) -> None:
    """UserError unless the output is signed 8-bit."""
    width = op.tensor.bit_width
    if width != 8:
        raise UserError(f"op {op.name!r} ({op.type}): {width}-bit output; the emulator executes 8-bit models")
    if not op.tensor.attrs.get("if_signed", True):
        raise UserError(f"op {op.name!r} ({op.type}): unsigned output; the emulator executes signed models")


def only_input(op: Op, graph: Graph, argument: str = "input") -> Op:
    """The op that feeds `argument`."""
    return graph.op(op.inputs[argument][0])


def one_of(op: Op, known: Collection[str]) -> str:
    """The op's attribute `type`; UserError when the emulator has no such kind."""
    kind = op.attr("type")
    if kind not in known:
        raise UserError(f"op {op.name!r} ({op.type}): type {kind!r}; {' or '.join(known)} expected")
    return kind


def inner_axis(op: Op, axis: int) -> int:
    """`axis` of the op's output, counted from the front; UserError when it is the batch's."""
    return inner_axis_of(op, axis, len(op.tensor.shape))


def inner_axis_of(op: Op, axis: int, rank: int) -> int:
    """`axis` of a tensor of `rank` axes, counted from the front; UserError when it is the batch's."""
    axis %= rank
    if axis == 0:
        raise UserError(f"op {op.name!r} ({op.type}): axis 0 is the batch; images are executed one by one")
    return axis
