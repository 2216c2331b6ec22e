"""Ops that few networks have: paddings, reductions, scales. What each computes is said here only.

The board's application gets the same numbers from the functions without underscore (`board.rare_parts`).
"""

from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.emulator import float_ops, oracle
from dpuflow.emulator.attributes import check_output, fix_point, inner_axis_of, only_input
from dpuflow.emulator.operations import Concat, Constants
from dpuflow.emulator.step_functions import Chosen, Maker, StepFunction, one
from dpuflow.xir import Graph, Op

PAD_MODES = {"CONSTANT": "constant", "0": "constant", "REFLECT": "reflect", "SYMMETRIC": "symmetric"}
"""XIR's name of a mode -> NumPy's: REFLECT leaves the edge out, SYMMETRIC repeats it."""
MOST_PLACES = 128
"""Places that argmax-fix can write into a byte."""


def padding(op: Op, graph: Graph) -> dict[str, Any]:
    """paddings (before, after) of each axis, NumPy's mode and the value of a pad or pad-fix op."""
    source = only_input(op, graph)
    paddings = np.array(op.attr("paddings")).reshape(-1, 2)
    mode = PAD_MODES.get(op.attr("mode").upper())
    if mode is None:
        raise UserError(
            f"op {op.name!r} ({op.type}): mode {op.attr('mode')!r}; {', '.join(PAD_MODES)} expected"
        )
    if paddings[0].any():
        raise UserError(f"op {op.name!r} ({op.type}): pads the batch; images are executed one by one")
    least = 1 if mode == "reflect" else 0
    if mode != "constant" and (paddings.max(axis=1) > np.array(source.tensor.shape) - least).any():
        raise UserError(
            f"op {op.name!r} ({op.type}): paddings {paddings.tolist()} of {list(source.tensor.shape)} reach "
            f"beyond what mode {op.attr('mode')} repeats"
        )
    if op.type == "pad-fix" and fix_point(source) != fix_point(op):
        raise UserError(
            f"op {op.name!r} ({op.type}): its input has fix_point {fix_point(source)}, its output "
            f"{fix_point(op)}; a padding moves bytes only"
        )
    value = op.attrs.get("constant_values") or [0]
    if isinstance(value, bytes):
        value = np.frombuffer(value, np.int8).tolist()
    return {"paddings": paddings.tolist(), "mode": mode, "value": value[0]}


def pad(x: np.ndarray, paddings: Any, mode: str, value: float) -> np.ndarray:
    """`padding`, done."""
    more = {"constant_values": x.dtype.type(value)} if mode == "constant" else {}
    return np.pad(x, paddings, mode=mode, **more)  # type: ignore[call-overload]


def _pad(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    settings = padding(op, graph)
    return one(lambda x: pad(x, **settings))


def reduced(op: Op, graph: Graph) -> tuple[tuple[int, ...], bool]:
    """(axes, whether they are kept) of a reduction over axes behind the batch."""
    rank = len(only_input(op, graph).tensor.shape)
    axes = tuple(sorted({inner_axis_of(op, axis, rank) for axis in op.attr("axis")}))
    return axes, bool(op.attr("keep_dims"))


def _maximum(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    axes, keep = reduced(op, graph)
    return one(lambda x: x.max(axis=axes, keepdims=keep))


def _sum(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    axes, keep = reduced(op, graph)
    return one(lambda x: float_ops.total(x, axes, keep))


def reduction_shift(op: Op, graph: Graph) -> int:
    """fix_in - fix_out of a reduction_max-fix op."""
    check_output(op)
    return fix_point(only_input(op, graph)) - fix_point(op)


def _maximum_fix(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    largest, shift = _maximum(op, graph, constants), reduction_shift(op, graph)
    table = oracle.concat(Concat(0, (shift,)), np.arange(-128, 128, dtype=np.int8)).astype(np.int8)
    return lambda inputs, workspace: table[largest(inputs, workspace).astype(np.int16) + 128]


def searched_axis(op: Op, graph: Graph) -> int:
    """Axis of its input that an argmax takes away."""
    rank, axis = len(only_input(op, graph).tensor.shape), op.attr("axis")
    if not axis % rank > 0 or not -rank <= axis < rank:
        raise UserError(f"op {op.name!r} ({op.type}): axis {axis} of {rank}; images are executed one by one")
    places = only_input(op, graph).tensor.shape[axis % rank]
    if op.type == "argmax-fix" and places > MOST_PLACES:
        raise UserError(f"op {op.name!r} ({op.type}): {places} places; a signed byte holds {MOST_PLACES}")
    return axis % rank


def _argmax(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    """Place of the largest value, the first of equal ones: float32, or int8 of argmax-fix."""
    axis, shape = searched_axis(op, graph), op.tensor.shape[1:]
    dtype = np.int8 if op.type == "argmax-fix" else np.float32
    return one(lambda x: np.argmax(x, axis=axis).astype(dtype).reshape(len(x), *shape))


def parameters(op: Op, constants: Constants, *names: str) -> list[np.ndarray]:
    """The constants of a scale's arguments, [C] or [1] each; UserError where one is no such constant."""
    found, channels = [], op.tensor.shape[-1]
    for name in names:
        feeder = op.inputs[name][0]
        if feeder not in constants:
            raise UserError(f"op {op.name!r} ({op.type}): its {name} {feeder!r} must be constant")
        size = constants[feeder].size
        if size not in (1, channels):
            raise UserError(
                f"op {op.name!r} ({op.type}): its {name} has {size} values for {channels} channels"
            )
        found.append(constants[feeder].reshape(-1))
    return found


def _last_axis(op: Op) -> None:
    rank, axis = len(op.tensor.shape), op.attr("axis")
    if axis % rank != rank - 1:
        raise UserError(f"op {op.name!r} ({op.type}): axis {axis}; only the channels', the last, is known")


def scale_and_offset(op: Op, constants: Constants) -> list[np.ndarray]:
    """[factors, offsets] of a scale or batchnorm op, per channel; a scale may have no offsets.

    batchnorm in float32, in the order in which the vendor's runner does it.
    """
    _last_axis(op)
    if op.type == "scale":
        return parameters(op, constants, "scale", *(["bias"] if op.inputs.get("bias") else []))
    names = ("gamma", "beta", "moving_mean", "moving_var")
    gamma, beta, mean, variance = (x.astype(np.float32) for x in parameters(op, constants, *names))
    inverse = np.float32(1) / np.sqrt(variance + np.float32(op.attr("epsilon")))
    return [inverse * gamma, beta - mean * inverse * gamma]


def _scale(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    given = scale_and_offset(op, constants)
    return Chosen(one(lambda x: float_ops.scale(x, *given)), op.inputs["input"])


def _prelu(op: Op, graph: Graph, constants: Constants) -> StepFunction:
    (slopes,) = parameters(op, constants, "weight")
    return Chosen(one(lambda x: float_ops.prelu(x, slopes)), op.inputs["input"])


MAKERS: dict[str, Maker] = {
    **dict.fromkeys(("pad-fix", "pad"), _pad),
    "reduction_max": _maximum,
    "reduction_max-fix": _maximum_fix,
    "reduction_sum": _sum,
    **dict.fromkeys(("argmax", "argmax-fix"), _argmax),
    **dict.fromkeys(("scale", "batchnorm"), _scale),
    "prelu": _prelu,
    "neg": lambda op, graph, constants: one(np.negative),
}
"""Type of an op -> maker of its function."""
