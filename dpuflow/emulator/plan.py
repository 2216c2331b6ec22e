"""A graph, or part of one, as a list of steps with everything prepared that can be.

Weights are unfolded, folded and checked for exactness once; what depends on constants
only is computed once. A plan is immutable, so threads can execute it at the same time,
each with a `Workspace` of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.emulator import float_ops, oracle, rare_makers, resampling
from dpuflow.emulator.attributes import check_signed, inner_axis
from dpuflow.emulator.axes import mean_axes, norm_axis, slice_bounds
from dpuflow.emulator.implementations import prepare
from dpuflow.emulator.native_program import Node, can_execute
from dpuflow.emulator.operations import INTEGER_OPS, Constants, Operation, Pad, Resample
from dpuflow.emulator.step_functions import Chosen, Maker, StepFunction, one
from dpuflow.emulator.workspace import Workspace
from dpuflow.ops.floats import concatenate, sigmoid
from dpuflow.ops.rearranging import pixel_shuffle
from dpuflow.xir import Graph, Op
from dpuflow.xir.ends import SOURCES
from dpuflow.xir.parameters import CONSTANT_TYPES
from dpuflow.xir.shapes import Shape


@dataclass(frozen=True)
class Step:
    """One op: ``function(list of input arrays, workspace) -> array`` (batch first).

    operation : of an integer op. node : what the compiled kernels can execute instead, if they can.
    multiplies : whether `function` may multiply matrices.
    """

    name: str
    inputs: tuple[str, ...]
    function: StepFunction
    integer: bool
    shape: Shape
    operation: Operation | None = None
    node: Node | None = None
    multiplies: bool = True


@dataclass(frozen=True)
class Plan:
    """Steps in order of execution.

    Attributes
    ----------
    sources : names of the ops whose values the caller supplies.
    constants : values that no input influences.
    outputs : names of the ops whose values are results.
    """

    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: dict[str, np.ndarray]
    outputs: tuple[str, ...]


def build(
    graph: Graph,
    ops: Sequence[Op],
    sources: Sequence[str],
    outputs: Sequence[str],
    constants: Constants,
    native: bool,
) -> Plan:
    """Plan for `ops` (in topological order) given the values of `sources`."""
    known = dict(constants)
    steps = []
    for op in ops:
        if op.name in known or op.name in sources:
            continue
        step = _step(op, graph, known, native)
        if step.inputs and all(name in known for name in step.inputs):
            known[op.name] = step.function([known[name] for name in step.inputs], Workspace())
            continue
        steps.append(step)
    return Plan(tuple(sources), tuple(steps), known, tuple(outputs))


def known_types() -> set[str]:
    """Op types that can be executed."""
    return {*INTEGER_OPS, *_MAKERS, *SOURCES, *CONSTANT_TYPES}


def _step(op: Op, graph: Graph, known: Constants, native: bool) -> Step:
    """The Step of one op of `known_types`."""
    integer = op.tensor.data_type in ("XINT", "INT")
    if op.type not in INTEGER_OPS:
        function = _MAKERS[op.type](op, graph, known)
        inputs = tuple(getattr(function, "inputs", None) or op.input_names)
        node = None
        if native and integer and op.type in _MOVING and inputs[0] not in known:
            node = Node(op.name, inputs[:1], None, op.tensor.shape)
        return Step(op.name, inputs, function, integer, op.tensor.shape, None, node, op.type not in _LIGHT)
    inputs = tuple(op.inputs["input"])
    operation, shapes = INTEGER_OPS[op.type](op, graph, known), [graph.op(n).tensor.shape for n in inputs]
    oracle.require(operation)
    fixed = [known[name] for name in inputs if name in known]
    foldable = len(fixed) == len(inputs) or any(x.dtype != np.int8 or len(x) != 1 for x in fixed)
    if native and not foldable and can_execute(operation, shapes):
        node = Node(op.name, inputs, operation, op.tensor.shape)
        return Step(op.name, inputs, _within_a_program, integer, op.tensor.shape, operation, node)
    return Step(op.name, inputs, prepare(operation, shapes, native), integer, op.tensor.shape, operation)


def _within_a_program(inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
    """Function of a step that has a node: `execute.Executor` makes a program of it."""
    raise NotImplementedError


def _move(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    """Ops that leave values and layout alone."""
    return one(lambda x: x)


def _reshape(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    """New shape of each image; the first dimension of the op's shape is the batch."""
    source, tail = op.inputs["input"][0], tuple(op.tensor.shape[1:])
    if source in constants:
        return Chosen(one(lambda x: x.reshape(op.tensor.shape)), [source])
    if graph.op(source).tensor.shape[:1] != op.tensor.shape[:1]:
        raise UserError(
            f"op {op.name!r} ({op.type}): joins or splits images, {graph.op(source).tensor.shape} becomes "
            f"{op.tensor.shape}; the emulator keeps the first dimension as the batch"
        )
    return Chosen(one(lambda x: x.reshape(x.shape[0], *tail)), [source])


def _concatenate(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    axis = inner_axis(op, op.attr("axis"))
    return lambda inputs, workspace: concatenate(inputs, axis)


def _stack(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    """Constants only: the shape of a reshape (docs/reference/instruction-set.md, "Rules that are none")."""
    if not all(name in constants for name in op.input_names):
        raise UserError(f"op {op.name!r} ({op.type}): only constants can be stacked")
    axis = op.attr("axis")
    return lambda inputs, workspace: np.stack(inputs, axis=axis)


def _resize(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    source = op.inputs["input"][0]
    function = resampling.floats(Resample.of_grid(op, 0), graph.op(source).tensor.shape)
    return Chosen(one(function), [source])


def _grid(op: Op) -> dict[str, Any]:
    return {key: op.attr(key) for key in ("fix_point", "bit_width", "round_mode", "if_signed")}


def _window(op: Op, *names: str) -> dict[str, Any]:
    attributes = {name: tuple(op.attr(name)) for name in ("stride", "pad", *names)}
    return {**attributes, "pad_mode": op.attr("pad_mode")}


def _float_convolution(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    weights_name = op.inputs["weights"][0]
    if weights_name not in constants:
        raise UserError(f"op {op.name!r} ({op.type}): weights {weights_name!r} must be constant")
    weights = constants[weights_name]
    bias = constants[op.inputs["bias"][0]] if op.inputs.get("bias") else None
    attributes = _window(op, "dilation")
    if op.type == "conv2d":
        attributes["group"] = op.attr("group")
    run: Callable[..., np.ndarray] = float_ops.conv2d
    if "depthwise" in op.type:
        run = float_ops.depthwise_conv2d
    if op.type.startswith("transposed"):
        stride = attributes["stride"]
        attributes |= {"stride": (1, 1), "pad": around_spread(op, (weights.shape[2], weights.shape[1]))}
        spread = partial(float_ops.spread, stride=stride)
        return Chosen(one(lambda x: run(spread(x), weights, bias, **attributes)), op.inputs["input"])
    return Chosen(one(lambda x: run(x, weights, bias, **attributes)), op.inputs["input"])


def around_spread(op: Op, kernel: Sequence[int]) -> Pad:
    """Zeros around the spread map of a float transposed convolution with a kernel (w, h)."""
    if op.attr("pad_mode") != "FLOOR" or list(op.attr("dilation")) != [1, 1]:
        raise UserError(f"op {op.name!r} ({op.type}): only pad_mode FLOOR without dilation is known")
    (width, height), (left, right, top, bottom) = kernel, op.attr("pad")
    return width - 1 - left, width - 1 - right, height - 1 - top, height - 1 - bottom


def _global_window(op: Op, graph: Graph) -> dict[str, Any]:
    """Attributes of a float pool; `global` makes the whole map the window."""
    attributes = _window(op, "kernel")
    if op.attr("global"):
        _, h, w, _ = graph.op(op.input_names[0]).tensor.shape
        attributes.update(kernel=(w, h), stride=(w, h), pad=(0, 0, 0, 0))
    return attributes


def _float_pool(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    attributes = _global_window(op, graph)
    if op.type == "maxpool2d":
        return one(lambda x: float_ops.max_pool(x, **attributes))
    attributes["count_include_pad"] = op.attr("count_include_pad")
    return one(lambda x: float_ops.average_pool(x, **attributes))


def _multiply(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    """mul; the constant that follows an average pool, a mean or a hard sigmoid is joined with its division.

    The pool's mean times its area times M / 2**S (every window's own where padding does not count) stands
    for the DPU's sum * M / 2**S, the hard sigmoid relu6(x + 3) / 6 times 6 * 2731 / 2**14 for
    relu6(x + 3) * 2731 / 2**14 (docs/reference/numerics.md); computing it that way keeps a division out of
    the exact numbers.
    """
    joined = joined_factor(op, graph, constants)
    if joined:
        other, factor = joined
        function, divisor = _UNDIVIDED[other.type](other, graph)
        scale = factor / divisor
        return Chosen(one(lambda x: function(x) * scale), other.inputs["input"])
    return lambda inputs, workspace: _fold(np.multiply, float_ops.common(inputs))


def joined_factor(op: Op, graph: Graph, constants: Constants) -> tuple[Op, np.ndarray] | None:
    """(dividing op, factor, float64) where a `mul` multiplies one by a constant, else None."""
    factors = [np.asarray(constants[name], np.float64) for name in op.input_names if name in constants]
    others = [graph.op(name) for name in op.input_names if name not in constants]
    if len(factors) == len(others) == 1 and others[0].type in _UNDIVIDED:
        (other,), (factor,) = others, factors
        whole = other.type != "avgpool2d" or other.attr("count_include_pad")
        if whole and factor.size == 1:
            return other, factor.reshape(())
        if not whole and factor.shape == (1, *other.tensor.shape[1:3], 1):
            return other, factor
    return None


def _window_sums(op: Op, graph: Graph) -> tuple[Callable[[np.ndarray], np.ndarray], int | np.ndarray]:
    attributes = _global_window(op, graph)
    divisor: int | np.ndarray = attributes["kernel"][0] * attributes["kernel"][1]
    if not op.attr("count_include_pad"):
        ones = np.ones((1, *graph.op(op.input_names[0]).tensor.shape[1:3], 1))
        divisor = float_ops.window_sum(ones, **attributes)
    return lambda x: float_ops.window_sum(x, **attributes), divisor


def _axis_sums(op: Op, graph: Graph) -> tuple[Callable[[np.ndarray], np.ndarray], int | np.ndarray]:
    axes, keep = mean_axes(op, graph)
    shape = graph.op(op.input_names[0]).tensor.shape
    return lambda x: x.astype(float_ops.REAL).sum(axis=axes, keepdims=keep), math.prod(shape[i] for i in axes)


_UNDIVIDED = {
    "avgpool2d": _window_sums,
    "reduction_mean": _axis_sums,
    "hard-sigmoid": lambda op, graph: (float_ops.shifted_relu6, 6),
}
"""Type of a dividing op -> (what it computes before its division, divisor)."""


def _fold(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], inputs: Sequence[np.ndarray]
) -> np.ndarray:
    total = inputs[0]
    for x in inputs[1:]:
        total = function(total, x)
    return total


def _folded(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Maker:
    return lambda op, graph, constants: lambda inputs, workspace: _fold(function, float_ops.common(inputs))


def _matmul(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    flags: dict[str, Any] = {key: bool(op.attr(key)) for key in ("transpose_a", "transpose_b")}
    if not op.inputs.get("bias"):
        return lambda inputs, workspace: float_ops.matmul(*inputs, **flags)
    return lambda inputs, workspace: float_ops.matmul(inputs[0], inputs[1], inputs[2], **flags)


def _transpose(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    order = tuple(op.attr("order"))
    if order[0] != 0 and op.input_names[0] not in constants:
        raise UserError(f"op {op.name!r} ({op.type}): order {list(order)} moves the batch")
    return one(lambda x: x.transpose(order))


def _to_fix(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    """float2fix as int8: the compiled kernels of the ops behind it read bytes."""
    check_signed(op)
    grid = op.attr("fix_point"), op.attr("round_mode")
    return one(lambda x: float_ops.float2fix(x, *grid).astype(np.int8))


def _strided_slice(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    bounds = slice_bounds(op, graph.op(op.input_names[0]).tensor.shape)
    index = (slice(None), *(slice(*each) for each in bounds))
    return one(lambda x: x[index])


def _softmax(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    axis = inner_axis(op, op.attr("axis"))
    return one(lambda x: float_ops.softmax(x, axis))


def _norm(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    axis, keep = norm_axis(op, graph)
    return one(lambda x: float_ops.length(x, axis, keep))


def _mean(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    axes, keep = mean_axes(op, graph)
    return one(lambda x: float_ops.mean(x, axes, keep))


def _pixel_shuffle(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    scale, upscale = int(op.attr("scale")), bool(op.attr("upscale"))
    return one(lambda x: pixel_shuffle(x, scale, upscale))


def _leaky_relu(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    alpha = op.attr("alpha")
    return one(lambda x: float_ops.leaky_relu(x, alpha))


_MOVING = ("upload", "download", "identity", "reshape-fix", "reshape", "flatten", "squeeze")
"""Types of ops that leave the bytes of an image as they are."""
_LIGHT = (*_MOVING, "fix2float", "float2fix", "softmax")
"""Types of ops without a product of matrices."""
_MAKERS: dict[str, Maker] = {
    **rare_makers.MAKERS,
    **dict.fromkeys(("upload", "download", "identity"), _move),
    **dict.fromkeys(("reshape-fix", "reshape", "flatten", "squeeze"), _reshape),
    "concat": _concatenate,
    "stack": _stack,
    "resize": _resize,
    **dict.fromkeys(
        ("conv2d", "depthwise-conv2d", "transposed-conv2d", "transposed-depthwise-conv2d"), _float_convolution
    ),
    **dict.fromkeys(("maxpool2d", "avgpool2d"), _float_pool),
    "fix": lambda op, graph, constants: one(lambda x: float_ops.fake_quantize(x, **_grid(op))),
    "fix2float": lambda op, graph, constants: one(lambda x: float_ops.fix2float(x, op.attr("fix_point"))),
    "float2fix": _to_fix,
    "softmax": _softmax,
    "nndct_normalize": _norm,
    **dict.fromkeys(("reduction_mean", "aten::mean"), _mean),
    "hard-sigmoid": lambda op, graph, constants: one(lambda x: float_ops.shifted_relu6(x) / 6),
    "relu": lambda op, graph, constants: one(lambda x: np.maximum(x, 0)),
    "relu6": lambda op, graph, constants: one(lambda x: np.clip(x, 0, 6)),
    "leaky-relu": _leaky_relu,
    "pixel-shuffle": _pixel_shuffle,
    "mul": _multiply,
    "add": _folded(np.add),
    "max": _folded(np.maximum),
    "min": _folded(np.minimum),
    "sub": _folded(np.subtract),
    "div": _folded(np.divide),
    "sigmoid": lambda op, graph, constants: one(sigmoid),
    "exp": lambda op, graph, constants: one(lambda x: np.exp(x.astype(np.float32))),
    "tanh": lambda op, graph, constants: one(lambda x: np.tanh(x.astype(np.float32))),
    "strided_slice": _strided_slice,
    "matmul": _matmul,
    "transpose": _transpose,
}
