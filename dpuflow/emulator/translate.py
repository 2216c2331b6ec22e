"""XIR integer ops -> the operations of `operations`: attributes and fix points to shifts."""

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import HARDWARE_SHIFT_BIAS_MIN, LEAKY_RELU_SLOPE
from dpuflow.emulator.operations import (
    ELTWISE_KINDS,
    NONLINEAR,
    POOL_KINDS,
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    Nonlinear,
    Pool,
)

CONV_KINDS = {"conv2d-fix": "conv2d", "depthwise-conv2d-fix": "depthwise"}


def fix_point(op):
    """fix_point of an op's output tensor; UserError when the file has none."""
    value = op.tensor.fix_point
    if value is None:
        raise UserError(f"op {op.name!r} ({op.type}): its tensor has no fix_point; quantize the model first")
    return value


def check_output(op):
    """UserError unless the output is signed 8-bit and rounded as the DPU rounds."""
    check_signed(op)
    mode = op.tensor.attrs.get("round_mode", "DPU_ROUND")
    if mode != "DPU_ROUND":
        raise UserError(f"op {op.name!r} ({op.type}): round_mode {mode}; the DPU only knows DPU_ROUND")


def check_signed(op):
    """UserError unless the output is signed 8-bit."""
    width = op.tensor.bit_width
    if width != 8:
        raise UserError(f"op {op.name!r} ({op.type}): {width}-bit output; the emulator executes 8-bit models")
    if not op.tensor.attrs.get("if_signed", True):
        raise UserError(f"op {op.name!r} ({op.type}): unsigned output; the emulator executes signed models")


def nonlinear(op):
    """Nonlinear of an op's attributes."""
    kind = op.attrs.get("nonlinear") or "NONE"
    if kind not in NONLINEAR:
        raise UserError(f"op {op.name!r} ({op.type}): nonlinear {kind!r}; known are {', '.join(NONLINEAR)}")
    slope = LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]
    if kind == "LEAKYRELU" and op.attrs.get("LEAKYRELU_alpha", slope) != slope:
        alpha = op.attrs["LEAKYRELU_alpha"]
        raise UserError(f"op {op.name!r} ({op.type}): LEAKYRELU_alpha {alpha}; the DPU only knows {slope}")
    if kind not in ("HSIGMOID", "HSWISH"):
        return Nonlinear(kind)
    keys = ("hsigmoid_in", "shift_hsigmoid", "shift_hswish")
    return Nonlinear(kind, *(op.attrs.get(key, 0) for key in keys))


def only_input(op, graph, argument="input"):
    """The op that feeds `argument`."""
    return graph.op(op.inputs[argument][0])


def convolution(op, graph, constants):
    """Conv of a conv2d-fix or depthwise-conv2d-fix op."""
    check_output(op)
    weights_op = only_input(op, graph, "weights")
    bias_op = only_input(op, graph, "bias") if op.inputs.get("bias") else None
    for feeder in (weights_op, bias_op):
        if feeder is not None and feeder.name not in constants:
            raise UserError(f"op {op.name!r} ({op.type}): {feeder.name!r} must be a constant")
    kind, weights, activation = CONV_KINDS[op.type], constants[weights_op.name], nonlinear(op)
    if kind == "depthwise" and weights.shape[0] != 1:
        raise UserError(
            f"op {op.name!r} ({op.type}): channel multiplier {weights.shape[0]}; the DPU executes 1 only"
        )
    fix_out = fix_point(op)
    if activation.kind in ("HSIGMOID", "HSWISH"):
        fix_out = activation.hsigmoid_in  # what the convolution is rounded to before its sigmoid
    scale = fix_point(only_input(op, graph)) + fix_point(weights_op)
    return Conv(
        kind=kind,
        weights=weights,
        bias=None if bias_op is None else constants[bias_op.name].reshape(-1),
        stride=tuple(op.attr("stride")),
        dilation=tuple(op.attr("dilation")),
        pad=tuple(op.attr("pad")),
        shift_cut=op.attrs.get("shift_cut", scale - fix_out),
        shift_bias=0 if bias_op is None else bias_shift(op, scale - fix_point(bias_op)),
        fix_out=fix_out,
        group=1 if kind == "depthwise" else op.attr("group"),
        nonlinear=activation,
    )


def bias_shift(op, shift):
    """The shift_bias of a convolution whose fix points give `shift` (fix_in + fix_weights - fix_bias).

    The instruction's field ends at -1. Where the fix points ask for less, the vendor's compiler stores
    floor(bias * 2**(shift + 1)), leaves the bias's fix_point as it was and shifts by -1 (
    docs/reference/numerics.md, "Convolution"); so does ours. Only what is compiled for the DPU is stored so.
    """
    if op.device == "DPU":
        shift = max(shift, HARDWARE_SHIFT_BIAS_MIN)
    return op.attrs.get("shift_bias", shift)


def _kind(op, known):
    """The op's attribute `type`; UserError when the emulator has no such kind."""
    kind = op.attr("type")
    if kind not in known:
        raise UserError(f"op {op.name!r} ({op.type}): type {kind!r}; {' or '.join(known)} expected")
    return kind


def pooling(op, graph, constants):
    """Pool of a pool-fix op."""
    check_output(op)
    kind = _kind(op, POOL_KINDS)
    shift = fix_point(only_input(op, graph)) - fix_point(op)
    return Pool(kind, tuple(op.attr("kernel")), tuple(op.attr("stride")), tuple(op.attr("pad")), shift)


def elementwise(op, graph, constants):
    """Eltwise of an eltwise-fix op."""
    check_output(op)
    kind = _kind(op, ELTWISE_KINDS)
    fixes = tuple(fix_point(graph.op(name)) for name in op.inputs["input"])
    activation = nonlinear(op)
    fix_out = activation.hsigmoid_in if activation.kind in ("HSIGMOID", "HSWISH") else fix_point(op)
    return Eltwise(kind, fixes, fix_out, activation)


def sigmoid(op, graph, constants):
    """HardSigmoid of a hard-sigmoid-fix op; without attributes, from the fix points."""
    check_output(op)
    fix_in = fix_point(only_input(op, graph))
    shift = op.attrs.get("shift_hsigmoid", 14 + fix_in - fix_point(op))
    return HardSigmoid(op.attrs.get("hsigmoid_in", fix_in), shift)


def concatenation(op, graph, constants):
    """Concat of a concat-fix op: its inputs may have other fix_points (docs/reference/instruction-set.md,
    "Rules that are none")."""
    check_output(op)
    shifts = tuple(fix_point(graph.op(name)) - fix_point(op) for name in op.inputs["input"])
    return Concat(inner_axis(op, op.attr("axis")), shifts)


def inner_axis(op, axis):
    """`axis` of the op's output, counted from the front; UserError when it is the batch's."""
    axis %= len(op.tensor.shape)
    if axis == 0:
        raise UserError(f"op {op.name!r} ({op.type}): axis 0 is the batch; images are executed one by one")
    return axis


INTEGER_OPS = {
    "concat-fix": concatenation,
    "conv2d-fix": convolution,
    "depthwise-conv2d-fix": convolution,
    "pool-fix": pooling,
    "eltwise-fix": elementwise,
    "hard-sigmoid-fix": sigmoid,
}
