"""Shape and data type of an op's output, inferred from its inputs and attributes.

Rules of XIR 3.5 (docs/reference/xmodel.md); those of ops on maps (convolutions, pools, ...) stand in
`map_shapes`.
"""

import math
import re
from functools import partial

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.totality import Total
from dpuflow.xir import map_shapes, opdefs
from dpuflow.xir.nodes import Op, OpGraph, Shape
from dpuflow.xir.shape_checks import ShapeError, axis_of, one_shape

UNCHECKED = opdefs.OTHER_TYPES | {type_ for type_, d in opdefs.OPDEFS.items() if d.shape == "stored"}
"""Types of XIR without a rule here: their stored output is taken as it is, and none can be added."""


def known(type_: str) -> bool:
    """Whether `infer` has a rule for this op type."""
    return type_ in opdefs.OPDEFS and opdefs.OPDEFS[type_].shape != "stored"


def infer(graph: OpGraph, op: Op) -> tuple[Shape, str, int]:
    """(shape, data_type, bit_width) of `op`'s output; ShapeError if inputs and attributes do not fit."""
    if op.type in BUILT:
        inputs = {key: [graph.op(feeder).tensor for feeder in feeders] for key, feeders in op.inputs.items()}
        return tuple(BUILT[op.type](op, inputs)), "FLOAT", 32
    if not known(op.type):
        raise ShapeError(f"no shape rule for ops of type {op.type!r} in dpuflow.xir.opdefs")
    name = opdefs.OPDEFS[op.type].shape
    inputs = {name: [graph.op(feeder).tensor for feeder in feeders] for name, feeders in op.inputs.items()}
    rule = RULES[name]
    if name in _GIVEN:
        rule = partial(rule, **_GIVEN[name](graph, op))
    shape = tuple(rule(op, inputs))
    if any(n <= 0 for n in shape):
        raise ShapeError(f"output would be {list(shape)}: the kernel does not fit the padded input")
    data_type, bit_width = _element(op, inputs)
    return shape, data_type, bit_width


def _element(op, inputs):
    """Data type and width: by attribute for sources, the input's for -fix ops and what moves, else FLOAT."""
    if opdefs.OPDEFS[op.type].shape == "given":
        return parse_data_type(op.attrs["data_type"])
    if op.type == "float2fix":
        return "XINT", op.attrs["bit_width"]
    if op.type.endswith("-fix") or op.type in _KEEPS_ELEMENT:
        first = inputs["input"][0]
        return first.data_type, first.bit_width
    return "FLOAT", 32


def parse_data_type(text: str) -> tuple[str, int]:
    """ "XINT8" or "float32" -> ("XINT", 8), ("FLOAT", 32)."""
    match = re.fullmatch(r"(INT|UINT|XINT|XUINT|FLOAT|BFLOAT)(\d{1,2})", text.upper())
    if not match:
        raise ShapeError(f"data_type {text!r} is not a type and a width such as XINT8 or FLOAT32")
    return match[1], int(match[2])


def _broadcast(op, inputs):
    shapes = [tensor.shape for tensor in inputs.get("input", [])]
    if not shapes:
        raise ShapeError("argument 'input' needs at least one op")
    rank = max(map(len, shapes))
    result = []
    for column in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        sizes = set(column) - {1}
        if len(sizes) > 1:
            raise ShapeError(f"inputs {[list(shape) for shape in shapes]} cannot be broadcast to one shape")
        result.append(sizes.pop() if sizes else 1)
    return result


def _concat(op, inputs):
    shapes = [tensor.shape for tensor in inputs.get("input", [])]
    if not shapes:
        raise ShapeError("argument 'input' needs at least one op")
    axis = axis_of(op.attr("axis"), len(shapes[0]))
    rest = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(rest) > 1 or len({len(shape) for shape in shapes}) > 1:
        raise ShapeError(f"inputs {[list(shape) for shape in shapes]} differ outside axis {axis}")
    return *shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :]


def integers(graph: OpGraph, name: str) -> list[int] | None:
    """The integers that a const, or a stack of consts, holds as a shape; None when `name` is no such op.

    vai_q_pytorch writes ``x.view(x.size(0), -1)`` as a reshape whose argument `shape` is one (
    docs/reference/instruction-set.md, "Rules that are none"); its numbers are floats.
    """
    op, found = graph.op(name), []
    for part in (graph.op(feeder) for feeder in op.input_names) if op.type == "stack" else (op,):
        if part.type not in ("const", "const-fix") or "data" not in part.attrs:
            return None
        try:
            values = part.array()
        except UserError as error:
            raise ShapeError(str(error)) from None
        if values is None or not np.isfinite(values).all() or (values != np.rint(values)).any():
            return None
        found += [int(n) for n in values.reshape(-1)]
    return found


def _target(graph, op):
    """What a reshape reshapes to: its argument `shape` where it has one, else the attribute."""
    feeders = op.inputs.get("shape")
    if not feeders:
        return list(op.attr("shape"))
    found = integers(graph, feeders[0])
    if found is None:
        raise ShapeError(f"its argument 'shape' ({feeders[0]!r}) is no constant shape")
    return found


def _size(graph, op):
    """The integers of the argument `size` of a resizing op, or None."""
    feeders = op.inputs.get("size")
    if not feeders:
        return None
    found = integers(graph, feeders[0])
    if found is None:
        raise ShapeError(f"its argument 'size' ({feeders[0]!r}) is no constant shape")
    return found


def _reshape(op, inputs, target):
    shape, asked = one_shape(inputs, "input"), target
    target = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(target)]
    if target.count(-1) == 1:
        rest = math.prod(n for n in target if n != -1)
        target[target.index(-1)] = math.prod(shape) // rest if rest > 0 else 0
    if math.prod(target) != math.prod(shape):
        raise ShapeError(f"{list(shape)} cannot be reshaped to {asked}")
    return target


def _stack(op, inputs):
    shapes = [tensor.shape for tensor in inputs.get("input", [])]
    if len(set(shapes)) != 1:
        raise ShapeError(f"inputs {[list(shape) for shape in shapes]} are not of one shape")
    axis = axis_of(op.attr("axis"), len(shapes[0]) + 1)
    return *shapes[0][:axis], len(shapes), *shapes[0][axis:]


def _flatten(op, inputs):
    shape = one_shape(inputs, "input")
    start, end = (axis_of(op.attr(name), len(shape)) for name in ("start_axis", "end_axis"))
    if end < start:
        raise ShapeError(f"start_axis {start} lies after end_axis {end}")
    return *shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]


def _squeeze(op, inputs):
    shape = one_shape(inputs, "input")
    axes = {axis_of(axis, len(shape)) for axis in op.attr("axis")} or {
        i for i, n in enumerate(shape) if n == 1
    }
    if any(shape[i] != 1 for i in axes):
        raise ShapeError(f"axes {sorted(axes)} of {list(shape)} are not all 1")
    return [n for i, n in enumerate(shape) if i not in axes]


def _inner_product(op, inputs):
    shape, weights = one_shape(inputs, "input"), one_shape(inputs, "weights", 2)
    axis = axis_of(op.attr("axis"), len(shape))
    if math.prod(shape[axis:]) != weights[1]:
        raise ShapeError(f"weights {list(weights)} do not fit {list(shape)} from axis {axis}")
    return *shape[:axis], weights[0]


def _matmul(op, inputs):
    tensors = [tensor.shape for tensor in inputs.get("input", [])]
    if len(tensors) != 2 or min(map(len, tensors)) < 2:
        raise ShapeError("argument 'input' needs two matrices")
    a, b = tensors
    a = (*a[:-2], a[-1], a[-2]) if op.attr("transpose_a") else a
    b = (*b[:-2], b[-1], b[-2]) if op.attr("transpose_b") else b
    if a[-1] != b[-2]:
        raise ShapeError(f"matrices {list(a)} and {list(b)} do not fit")
    if "bias" in inputs and math.prod(one_shape(inputs, "bias")) != b[-1]:
        raise ShapeError(f"bias {list(one_shape(inputs, 'bias'))} does not have {b[-1]} elements")
    return *a[:-1], b[-1]


def _transpose(op, inputs):
    shape, order = one_shape(inputs, "input"), op.attr("order")
    if sorted(order) != list(range(len(shape))):
        raise ShapeError(f"order {order} is not a permutation of {len(shape)} axes")
    return [shape[axis] for axis in order]


def _pad(op, inputs):
    shape, paddings = one_shape(inputs, "input"), op.attr("paddings")
    if len(paddings) != 2 * len(shape) or min(paddings) < 0:
        raise ShapeError(f"paddings {paddings} must be {2 * len(shape)} non-negative integers")
    return [n + before + after for n, before, after in zip(shape, paddings[::2], paddings[1::2], strict=True)]


def _reduce(op, inputs):
    shape, keep = one_shape(inputs, "input"), op.attr("keep_dims")
    axes = {axis_of(axis, len(shape)) for axis in op.attr("axis")}
    return [1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes] or [1]


def _argmax(op, inputs):
    shape = one_shape(inputs, "input")
    axis = axis_of(op.attr("axis"), len(shape))
    left = [n for i, n in enumerate(shape) if i != axis]
    return left if len(left) > 1 else [*left, 1]


def _strided_slice(op, inputs):
    shape = one_shape(inputs, "input")
    bounds = [op.attr(name) for name in ("begin", "end", "strides")]
    if any(len(each) != len(shape) for each in bounds) or min(bounds[2]) < 1:
        raise ShapeError(f"bounds {bounds} of {list(shape)}")
    return [len(range(n)[b:e:s]) for n, b, e, s in zip(shape, *bounds, strict=True)]


BUILT = {"argmax": _argmax, "strided_slice": _strided_slice}
"""Rules for ops that are added here. Files of others are not held against them: what the vendor's tools
store for these types is not known."""
RULES = Total(
    "xir.shapes: rule by the name that opdefs gives it",
    lambda: {definition.shape for definition in opdefs.OPDEFS.values()} - {"stored"},
    {
        "given": lambda op, inputs: op.attrs["shape"],
        "same": lambda op, inputs: one_shape(inputs, "input"),
        "conv": map_shapes.conv,
        "transposed_conv": map_shapes.transposed_conv,
        "pool": map_shapes.pool,
        "resample": map_shapes.resample,
        "broadcast": _broadcast,
        "concat": _concat,
        "reshape": _reshape,
        "stack": _stack,
        "flatten": _flatten,
        "squeeze": _squeeze,
        "inner_product": _inner_product,
        "matmul": _matmul,
        "transpose": _transpose,
        "pad": _pad,
        "reduce": _reduce,
        "pixel_shuffle": map_shapes.pixel_shuffle,
    },
)

_GIVEN = {
    "reshape": lambda graph, op: {"target": _target(graph, op)},
    "resample": lambda graph, op: {"size": _size(graph, op)},
}
"""Rules that need what an argument holds."""

_KEEPS_ELEMENT = ("upload", "download", "identity", "threshold", "stack")
"""Besides the -fix ops."""
