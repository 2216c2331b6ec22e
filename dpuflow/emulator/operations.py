"""The integer operations of a DPU model, as plain data, and how each is read from its XIR op.

Both implementations - `oracle` (slow, obvious) and `kernels` (fast) - execute these
descriptions, so a test can hand one and the same operation to the two of them.
Shapes exclude nothing: activations are NHWC with the batch first, `kernel`, `stride`,
`dilation` are (w, h), `pad` is (left, right, top, bottom), as in XIR (docs/reference/xmodel.md). Numerics:
docs/reference/numerics.md.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.device.dpuczdx8g import HARDWARE_SHIFT_BIAS_MIN, LEAKY_RELU_SLOPE
from dpuflow.emulator.attributes import check_output, fix_point, inner_axis, one_of, only_input
from dpuflow.emulator.axes import slice_bounds
from dpuflow.ops import rearranging
from dpuflow.xir import Graph, Op
from dpuflow.xir.shapes import Shape

Pair = tuple[int, int]
"""(w, h)."""
Pad = tuple[int, int, int, int]
"""(left, right, top, bottom)."""
Constants = Mapping[str, np.ndarray]
"""Op name -> value that no input influences."""

NONLINEAR = ("NONE", "RELU", "RELU6", "LEAKYRELU", "HSIGMOID", "HSWISH")
CONV_KINDS = {
    "conv2d-fix": "conv2d",
    "depthwise-conv2d-fix": "depthwise",
    "transposed-conv2d-fix": "transposed",
    "transposed-depthwise-conv2d-fix": "transposed depthwise",
}
DEPTHWISE = ("depthwise", "transposed depthwise")
TRANSPOSED = ("transposed", "transposed depthwise")
POOL_KINDS = ("MAX", "AVG")
ELTWISE_KINDS = ("ADD", "MUL")
RESAMPLE_KINDS = ("NEAREST", "BILINEAR", "STRIDE")


def _require(kind: object, known: Collection[str]) -> None:
    """ValueError for a kind that no implementation has, so that none takes it for another one."""
    if kind not in known:
        raise ValueError(f"kind {kind!r}; known are {', '.join(known)}")


@dataclass(frozen=True)
class Nonlinear:
    """The activation fused into an operation.

    hsigmoid_in: fix_point of the value that enters the hard sigmoid; shift_hsigmoid,
    shift_hswish: right shifts behind it (attributes of the same names in XIR).
    """

    kind: str = "NONE"
    hsigmoid_in: int = 0
    shift_hsigmoid: int = 0
    shift_hswish: int = 0

    def __post_init__(self) -> None:
        _require(self.kind, NONLINEAR)

    @classmethod
    def of(cls, op: Op) -> "Nonlinear":
        """Nonlinear of an op's attributes."""
        kind = op.attrs.get("nonlinear") or "NONE"
        if kind not in NONLINEAR:
            raise UserError(
                f"op {op.name!r} ({op.type}): nonlinear {kind!r}; known are {', '.join(NONLINEAR)}"
            )
        slope = LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]
        if kind == "LEAKYRELU" and op.attrs.get("LEAKYRELU_alpha", slope) != slope:
            alpha = op.attrs["LEAKYRELU_alpha"]
            raise UserError(
                f"op {op.name!r} ({op.type}): LEAKYRELU_alpha {alpha}; the DPU only knows {slope}"
            )
        if kind not in ("HSIGMOID", "HSWISH"):
            return cls(kind)
        keys = ("hsigmoid_in", "shift_hsigmoid", "shift_hswish")
        return cls(kind, *(op.attrs.get(key, 0) for key in keys))


@dataclass(frozen=True)
class Conv:
    """conv2d-fix, depthwise-conv2d-fix, and dense as a convolution.

    Attributes
    ----------
    kind : "conv2d", "depthwise", or either of these "transposed": stride - 1 zeros between the pixels, kernel
        - 1 - pad around them, then stride 1 (docs/reference/numerics.md, "Transposed convolution").
    weights : int8, [OC, KH, KW, IC / group]; depthwise: [1, KH, KW, C].
    bias : int8 [OC] or None.
    shift_cut, shift_bias : fix_in + fix_weights - fix_out and - fix_bias.
    fix_out : fix_point of the output (RELU6 depends on it).
    """

    kind: str
    weights: np.ndarray
    bias: np.ndarray | None
    stride: Pair
    dilation: Pair
    pad: Pad
    shift_cut: int
    shift_bias: int
    fix_out: int
    group: int = 1
    nonlinear: Nonlinear = field(default_factory=Nonlinear)

    def __post_init__(self) -> None:
        _require(self.kind, CONV_KINDS.values())

    @property
    def kernel(self) -> Pair:
        """(w, h)."""
        return self.weights.shape[2], self.weights.shape[1]

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "Conv":
        """Conv of a conv2d-fix or depthwise-conv2d-fix op."""
        check_output(op)
        weights_op = only_input(op, graph, "weights")
        bias_op = only_input(op, graph, "bias") if op.inputs.get("bias") else None
        for feeder in (weights_op, bias_op):
            if feeder is not None and feeder.name not in constants:
                raise UserError(f"op {op.name!r} ({op.type}): {feeder.name!r} must be a constant")
        kind, weights, activation = CONV_KINDS[op.type], constants[weights_op.name], Nonlinear.of(op)
        if kind in DEPTHWISE and weights.shape[0] != 1:
            raise UserError(
                f"op {op.name!r} ({op.type}): channel multiplier {weights.shape[0]}; the DPU executes 1 only"
            )
        fix_out = fix_point(op)
        if activation.kind in ("HSIGMOID", "HSWISH"):
            fix_out = activation.hsigmoid_in  # what the convolution is rounded to before its sigmoid
        scale = fix_point(only_input(op, graph)) + fix_point(weights_op)
        return cls(
            kind=kind,
            weights=weights,
            bias=None if bias_op is None else constants[bias_op.name].reshape(-1),
            stride=tuple(op.attr("stride")),
            dilation=tuple(op.attr("dilation")),
            pad=tuple(op.attr("pad")),
            shift_cut=op.attrs.get("shift_cut", scale - fix_out),
            shift_bias=0 if bias_op is None else bias_shift(op, scale - fix_point(bias_op)),
            fix_out=fix_out,
            group=op.attr("group") if kind == "conv2d" else 1,
            nonlinear=activation,
        )


@dataclass(frozen=True)
class Pool:
    """pool-fix: kind is "MAX" or "AVG"; `shift` = fix_in - fix_out."""

    kind: str
    kernel: Pair
    stride: Pair
    pad: Pad
    shift: int

    def __post_init__(self) -> None:
        _require(self.kind, POOL_KINDS)

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "Pool | InsideAverage":
        """Pool of a pool-fix op; InsideAverage where padding does not count."""
        check_output(op)
        kind = one_of(op, POOL_KINDS)
        shift = fix_point(only_input(op, graph)) - fix_point(op)
        window = tuple(op.attr("kernel")), tuple(op.attr("stride")), tuple(op.attr("pad"))
        if kind == "AVG" and any(window[2]) and not op.attrs.get("count_include_pad", True):
            return InsideAverage(*window, shift)
        return cls(kind, *window, shift)


@dataclass(frozen=True)
class InsideAverage:
    """pool-fix AVG with `count_include_pad` false (our own attribute): the mean of what lies in the map."""

    kernel: Pair
    stride: Pair
    pad: Pad
    shift: int


@dataclass(frozen=True)
class Eltwise:
    """eltwise-fix, depthwise-fix: kind is "ADD" or "MUL"; fix_in has one entry per input.

    Inputs are broadcast: depthwise-fix multiplies a map by one factor per channel (1 x 1 x C).
    """

    kind: str
    fix_in: tuple[int, ...]
    fix_out: int
    nonlinear: Nonlinear = field(default_factory=Nonlinear)

    def __post_init__(self) -> None:
        _require(self.kind, ELTWISE_KINDS)

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "Eltwise":
        """Eltwise of an eltwise-fix op, or of a depthwise-fix one, which only multiplies."""
        check_output(op)
        kind = one_of(op, ELTWISE_KINDS if op.type == "eltwise-fix" else ("MUL",))
        fixes = tuple(fix_point(graph.op(name)) for name in op.inputs["input"])
        activation = Nonlinear.of(op)
        fix_out = activation.hsigmoid_in if activation.kind in ("HSIGMOID", "HSWISH") else fix_point(op)
        return cls(kind, fixes, fix_out, activation)


@dataclass(frozen=True)
class Concat:
    """concat-fix: each input is rounded to the output's fix_point, its shift = fix_in - fix_out."""

    axis: int
    shifts: tuple[int, ...]

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "Concat":
        """Concat of a concat-fix op: its inputs may have other fix_points (docs/reference/instruction-set.md,
        "Rules that are none")."""
        check_output(op)
        shifts = tuple(fix_point(graph.op(name)) - fix_point(op) for name in op.inputs["input"])
        return cls(inner_axis(op, op.attr("axis")), shifts)


@dataclass(frozen=True)
class HardSigmoid:
    """hard-sigmoid-fix: round((q * 2731 + 3 * 2731 * 2**hsigmoid_in) / 2**shift_hsigmoid)."""

    hsigmoid_in: int
    shift_hsigmoid: int

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "HardSigmoid":
        """HardSigmoid of a hard-sigmoid-fix op; without attributes, from the fix points."""
        check_output(op)
        fix_in = fix_point(only_input(op, graph))
        shift = op.attrs.get("shift_hsigmoid", 14 + fix_in - fix_point(op))
        return cls(op.attrs.get("hsigmoid_in", fix_in), shift)


@dataclass(frozen=True)
class Resample:
    """upsample-fix and downsample-fix to an output of `size` (w, h); `shift` = fix_in - fix_out.

    kind : "NEAREST" and "BILINEAR" of upsample-fix; "STRIDE" is downsample-fix, which takes every
        `scale`-th (w, h) pixel whatever its mode says (docs/reference/numerics.md, "Resizing").
    """

    kind: str
    size: Pair
    shift: int
    align_corners: bool = False
    half_pixel_centers: bool = False
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        _require(self.kind, RESAMPLE_KINDS)

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "Resample":
        """Resample of an upsample-fix or downsample-fix op."""
        check_output(op)
        return cls.of_grid(op, fix_point(only_input(op, graph)) - fix_point(op))

    @classmethod
    def of_grid(cls, op: Op, shift: int) -> "Resample":
        """Resample of an op's mode and grid alone."""
        mode = op.attr("mode").upper()
        if mode not in ("NEAREST", "BILINEAR"):
            raise UserError(
                f"op {op.name!r} ({op.type}): mode {op.attr('mode')!r}; NEAREST or BILINEAR expected"
            )
        _, height, width, _ = op.tensor.shape
        return cls(
            kind="STRIDE" if op.type == "downsample-fix" else mode,
            size=(width, height),
            shift=shift,
            align_corners=bool(op.attr("align_corners")),
            half_pixel_centers=bool(op.attr("half_pixel_centers")),
            scale=tuple(op.attr("scale")),
        )


@dataclass(frozen=True)
class PixelShuffle:
    """pixel-shuffle-fix: channels to pixels (`upscale`), or back; `shift` = fix_in - fix_out."""

    scale: int
    upscale: bool
    shift: int

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "PixelShuffle":
        """PixelShuffle of a pixel-shuffle-fix op."""
        check_output(op)
        shift = fix_point(only_input(op, graph)) - fix_point(op)
        return cls(int(op.attr("scale")), bool(op.attrs.get("upscale", op.attr("reverse"))), shift)


@dataclass(frozen=True)
class Slice:
    """strided_slice-fix: every so many values between two places of each axis; `shift` = fix_in - fix_out.

    bounds : (begin, end, stride) of each axis behind the batch, as `range` takes them.
    """

    bounds: tuple[tuple[int, int, int], ...]
    shift: int

    @property
    def index(self) -> tuple[slice, ...]:
        """The index of an array with the batch first."""
        return (slice(None), *(slice(*each) for each in self.bounds))

    @classmethod
    def of(cls, op: Op, graph: Graph, constants: Constants) -> "Slice":
        """Slice of a strided_slice-fix op."""
        check_output(op)
        shift = fix_point(only_input(op, graph)) - fix_point(op)
        return cls(slice_bounds(op, only_input(op, graph).tensor.shape), shift)


Operation = Conv | Pool | InsideAverage | Eltwise | Concat | HardSigmoid | Resample | PixelShuffle | Slice
"""What `INTEGER_OPS` makes: a class that is added there is added here."""


def bias_shift(op: Op, shift: int) -> int:
    """The shift_bias of a convolution whose fix points give `shift` (fix_in + fix_weights - fix_bias).

    The instruction's field ends at -1. Where the fix points ask for less, the vendor's compiler stores
    floor(bias * 2**(shift + 1)), leaves the bias's fix_point as it was and shifts by -1 (
    docs/reference/numerics.md, "Convolution"); so does ours. Only what is compiled for the DPU is stored so.
    """
    if op.device == "DPU":
        shift = max(shift, HARDWARE_SHIFT_BIAS_MIN)
    return op.attrs.get("shift_bias", shift)


def plain_of_transposed(op: Conv, shape: Shape) -> tuple[Conv, Shape]:
    """(ordinary convolution, shape of its input) of a transposed one: on the map with zeros between."""
    (step_w, step_h), (kernel_w, kernel_h), (left, right, top, bottom) = op.stride, op.kernel, op.pad
    around = kernel_w - 1 - left, kernel_w - 1 - right, kernel_h - 1 - top, kernel_h - 1 - bottom
    kind = "depthwise" if op.kind in DEPTHWISE else "conv2d"
    spread = shape[0], (shape[1] - 1) * step_h + 1, (shape[2] - 1) * step_w + 1, shape[3]
    return replace(op, kind=kind, stride=(1, 1), pad=around), spread


def window_output(size: int, kernel: int, stride: int, dilation: int, pad_before: int, pad_after: int) -> int:
    """Output length of a sliding window, FLOOR mode (docs/reference/xmodel.md)."""
    return (size + pad_before + pad_after - ((kernel - 1) * dilation + 1)) // stride + 1


def output_shape(op: Operation, shapes: Sequence[Shape]) -> Shape:
    """Shape of the output of an operation for inputs of `shapes` (batch first)."""
    first = tuple(shapes[0])
    if isinstance(op, Conv | Pool | InsideAverage):
        dilation_w, dilation_h = op.dilation if isinstance(op, Conv) else (1, 1)
        left, right, top, bottom = op.pad
        if isinstance(op, Conv) and op.kind in TRANSPOSED:
            height = (first[1] - 1) * op.stride[1] + op.kernel[1] - top - bottom
            width = (first[2] - 1) * op.stride[0] + op.kernel[0] - left - right
            return first[0], height, width, first[3] if op.kind in DEPTHWISE else op.weights.shape[0]
        height = window_output(first[1], op.kernel[1], op.stride[1], dilation_h, top, bottom)
        width = window_output(first[2], op.kernel[0], op.stride[0], dilation_w, left, right)
        outputs = op.weights.shape[0] if isinstance(op, Conv) and op.kind != "depthwise" else first[3]
        return first[0], height, width, outputs
    if isinstance(op, Concat):
        axis = op.axis % len(first)
        return *first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :]
    if isinstance(op, Resample):
        return first[0], op.size[1], op.size[0], first[3]
    if isinstance(op, PixelShuffle):
        return first[0], *rearranging.PixelShuffle(op.scale, op.upscale).output_shape([first[1:]])
    if isinstance(op, Slice):
        return first[0], *(len(range(*each)) for each in op.bounds)
    return np.broadcast_shapes(*shapes)


INTEGER_OPS: dict[str, Callable[[Op, Graph, Constants], Operation]] = {
    "concat-fix": Concat.of,
    "conv2d-fix": Conv.of,
    "depthwise-conv2d-fix": Conv.of,
    "downsample-fix": Resample.of,
    "pixel-shuffle-fix": PixelShuffle.of,
    "pool-fix": Pool.of,
    "eltwise-fix": Eltwise.of,
    "depthwise-fix": Eltwise.of,
    "hard-sigmoid-fix": HardSigmoid.of,
    "strided_slice-fix": Slice.of,
    "transposed-conv2d-fix": Conv.of,
    "transposed-depthwise-conv2d-fix": Conv.of,
    "upsample-fix": Resample.of,
}
"""Type of an XIR op -> function(op, graph, constants) that makes its operation."""
