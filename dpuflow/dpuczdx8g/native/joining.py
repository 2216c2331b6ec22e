"""Ops of several maps -> operations of the code generator: sums, products, factors per channel, concats.

`reader` is the `lowering._Reader` of the op's subgraph.
"""

from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.device.dpuczdx8g import PRODUCT_SHIFT_RANGE
from dpuflow.dpuczdx8g.native.operations import FeatureMap, Operation
from dpuflow.xir import Op


def activation(op: Op, allowed: tuple[str, ...]) -> str:
    """The op's fused activation; UserError when it is none of the allowed ones."""
    name = op.attr("nonlinear") or "NONE"
    if name not in allowed:
        raise UserError(f"op {op.name!r}: activation {name} is not supported, only {', '.join(allowed)}")
    return name


def eltwise(reader: Any, op: Op) -> None:
    """A sum of two to four maps, or a product of two."""
    handler = {"ADD": _add, "MUL": _multiply}.get(op.attr("type"))
    if handler is None:
        raise UserError(
            f"op {op.name!r}: eltwise type {op.attr('type')!r} is not supported, only ADD and MUL"
        )
    handler(reader, op)


def _multiply(reader, op):
    """Two maps of one shape."""
    maps, shift = _factors(reader, op)
    if maps[0].shape != maps[1].shape:
        raise UserError(f"op {op.name!r}: multiplies maps of different shapes, which is not supported")
    fused = activation(op, ("NONE", "RELU"))
    settings: dict[str, Any] = {"activation": fused, "shift_cut": shift, "shift_read": (0, 0)}
    reader.job.operations.append(Operation(op.name, "multiply", maps, reader.new_map(op), **settings))


def scale(reader: Any, op: Op) -> None:
    """A map times one factor per channel: a 1x1 depthwise convolution, as the vendor has it."""
    if op.attr("type") != "MUL":
        raise UserError(f"op {op.name!r}: {op.type} type {op.attr('type')!r} is not supported, only MUL")
    maps, shift = _factors(reader, op)
    source, factors = maps if maps[1].shape == (1, 1, maps[0].shape[2]) else maps[::-1]
    if factors.shape != (1, 1, source.shape[2]) or op.tensor.shape[1:] != source.shape:
        raise UserError(
            f"op {op.name!r}: maps of {source.shape} and {factors.shape}; one of them must hold one "
            "factor per channel of the other"
        )
    settings: dict[str, Any] = {"shift_cut": shift, "factors": factors}
    reader.job.operations.append(Operation(op.name, "scale", [source], reader.new_map(op), **settings))


def _factors(reader, op):
    """(the two maps that an op multiplies, bits of the product below the output's step)."""
    sources = op.inputs["input"]
    if len(sources) != 2:
        raise UserError(f"op {op.name!r}: multiplies {len(sources)} maps, the DPU multiplies two")
    shift = sum(reader._fix_point(name) for name in sources) - op.tensor.fix_point
    reader._limits(op, "shift of the product", shift, *PRODUCT_SHIFT_RANGE)
    return [reader.map_of(name) for name in sources], shift


def _add(reader, op):
    sources = op.inputs["input"]
    if not 2 <= len(sources) <= 4:
        raise UserError(f"op {op.name!r}: adds {len(sources)} maps, the DPU adds 2 to 4")
    fix_points = [reader._fix_point(name) for name in sources]
    least = min(fix_points)
    shift_read = tuple(fix - least for fix in fix_points)
    reader._limits(op, "shift_read", max(shift_read), 0, 15)
    shift_write = least - op.tensor.fix_point
    reader._limits(op, "shift_write", shift_write, -15, 15)
    maps = [reader.map_of(name) for name in sources]
    if any(m.shape != maps[0].shape for m in maps):
        raise UserError(f"op {op.name!r}: adds maps of different shapes, which is not supported")
    reader.job.operations.append(
        Operation(
            op.name,
            "add",
            maps,
            reader.new_map(op),
            activation=activation(op, ("NONE", "RELU")),
            shift_cut=shift_write,
            shift_read=shift_read,
        )
    )


def concat(reader: Any, op: Op) -> None:
    """Maps side by side in the channels, each at the output's fix_point."""
    if op.attr("axis") not in (3, -1):
        raise UserError(f"op {op.name!r}: concat on axis {op.attr('axis')}; the DPU joins channels (axis 3)")
    maps = [_at_fix_point(reader, op, name) for name in op.inputs["input"]]
    reader.job.operations.append(Operation(op.name, "concat", maps, reader.new_map(op)))


def _at_fix_point(reader, op, name):
    """The map that an op produced, rounded to the fix_point of `op` by an add of one operand."""
    source, shift = reader.map_of(name), reader._fix_point(name) - op.tensor.fix_point
    if not shift:
        return source
    reader._limits(op, f"fix_point of input {name!r} less that of the output", shift, -15, 15)
    rounded = FeatureMap(f"{name} for {op.name}", source.shape)
    settings: dict[str, Any] = {"shift_cut": shift, "shift_read": (0,), "part": True}
    reader.job.operations.append(Operation(op.name, "add", [source], rounded, **settings))
    return rounded
