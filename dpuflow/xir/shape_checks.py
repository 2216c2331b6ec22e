"""What the rules of shapes ask of an op's inputs and attributes; a ShapeError says what does not fit."""

from collections.abc import Mapping, Sequence

from dpuflow.xir.nodes import Op, Shape, Tensor


class ShapeError(ValueError):
    """The inputs and attributes of an op do not fit each other; the message says how."""


def numbers(op: Op, name: str, length: int, least: int) -> list[int]:
    """An attribute that is a list of `length` integers of at least `least`."""
    values = op.attr(name)
    if not isinstance(values, list) or len(values) != length or min(values) < least:
        raise ShapeError(f"{name} must be {length} integers of at least {least}, found {values!r}")
    return values


def one_shape(inputs: Mapping[str, Sequence[Tensor]], name: str, rank: int | None = None) -> Shape:
    """Shape of the only tensor of an argument, of `rank` dimensions where that is given."""
    tensors = inputs.get(name, [])
    if len(tensors) != 1:
        raise ShapeError(f"argument {name!r} needs one op, found {len(tensors)}")
    shape = tensors[0].shape
    if rank and len(shape) != rank:
        raise ShapeError(f"argument {name!r} must have {rank} dimensions, found {list(shape)}")
    return shape


def axis_of(value: int, rank: int) -> int:
    """An axis counted from the front, of a shape with `rank` dimensions."""
    if not -rank <= value < rank:
        raise ShapeError(f"axis {value} is outside {rank} dimensions")
    return value % rank
