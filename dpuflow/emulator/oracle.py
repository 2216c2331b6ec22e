"""Reference semantics of the integer operations: plain NumPy int64, slow, obvious.

Written to be read next to docs/reference/numerics.md and to judge the fast kernels; it
shares no arithmetic with them. Activations come in and go out as int8.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE, REFERENCE_GUARD_BITS, RELU6_LIMIT, average_pool_factor
from dpuflow.emulator.operations import (
    TRANSPOSED,
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    InsideAverage,
    Nonlinear,
    Operation,
    Pad,
    Pair,
    PixelShuffle,
    Pool,
    Resample,
    Slice,
    window_output,
)
from dpuflow.xir.shapes import Shape


class Exact:
    """An array of exact dyadic numbers: numerator / 2**exponent.

    The numerators are int64; where a shift would overflow that, Python's integers.
    """

    def __init__(self, numerator: np.ndarray, exponent: int = 0) -> None:
        self.numerator = numerator
        self.exponent = exponent

    def scaled(self, shift: int) -> "Exact":
        """self * 2**shift."""
        return Exact(self.numerator, self.exponent - shift)

    def times(self, integer: int) -> "Exact":
        """self * integer."""
        bits = int(integer).bit_length()
        return Exact(_room_for(self.numerator, bits) * integer, self.exponent)

    def plus(self, other: "Exact") -> "Exact":
        """self + other, on the finer of the two grids."""
        exponent = max(self.exponent, other.exponent)
        left = shift_left(self.numerator, exponent - self.exponent)
        right = shift_left(other.numerator, exponent - other.exponent)
        return Exact(_room_for(left, 1) + _room_for(right, 1), exponent)

    def round_half_up(self) -> np.ndarray:
        """DPU_ROUND to integers: floor(self + 1/2)."""
        if self.exponent <= 0:
            return shift_left(self.numerator, -self.exponent)
        # floor(n / 2**e + 1/2) = floor((n + 2**(e - 1)) / 2**e); >> floors negative numbers too
        half = 1 << (self.exponent - 1)
        wide = _room_for(self.numerator, 1) if self.exponent < 62 else self.numerator.astype(object)
        return (wide + half) >> self.exponent


def _room_for(integers: np.ndarray, bits: int) -> np.ndarray:
    """`integers`, as Python integers if `bits` more bits would not fit in int64."""
    if integers.dtype == object or integers.size == 0:
        return integers
    largest = max(abs(int(integers.min())), abs(int(integers.max())))
    return integers.astype(object) if largest.bit_length() + bits > 62 else integers


def shift_left(integers: np.ndarray, bits: int) -> np.ndarray:
    """integers * 2**bits, exactly (bits >= 0)."""
    return _room_for(integers, bits) * (1 << bits) if bits else integers


def saturate(integers: np.ndarray) -> np.ndarray:
    """Integers -> int8, clipped to [-128, 127]."""
    return np.clip(integers, -128, 127).astype(np.int8)


def hard_sigmoid(q: np.ndarray, hsigmoid_in: int, shift_hsigmoid: int) -> np.ndarray:
    """Hard sigmoid of integers q with fix_point hsigmoid_in, rounded and saturated to int8."""
    value = Exact(q.astype(np.int64)).times(2731).plus(Exact(np.array([3 * 2731])).scaled(hsigmoid_in))
    zero = Exact(np.array([0]))
    limit = Exact(np.array([1])).scaled(32)
    clamped = maximum(minimum(value, limit), zero)
    return saturate(clamped.scaled(-shift_hsigmoid).round_half_up())


def maximum(a: Exact, b: Exact) -> Exact:
    """Element-wise larger of two Exact arrays."""
    exponent = max(a.exponent, b.exponent)
    left = shift_left(a.numerator, exponent - a.exponent)
    right = shift_left(b.numerator, exponent - b.exponent)
    return Exact(np.maximum(left, right), exponent)


def minimum(a: Exact, b: Exact) -> Exact:
    """Element-wise smaller of two Exact arrays."""
    negated = maximum(Exact(-a.numerator, a.exponent), Exact(-b.numerator, b.exponent))
    return Exact(-negated.numerator, negated.exponent)


def activate(value: Exact, nonlinear: Nonlinear, fix_out: int) -> np.ndarray:
    """Exact results before rounding -> int8: nonlinearity, DPU_ROUND, saturation."""
    if nonlinear.kind in ("RELU", "RELU6"):
        value = maximum(value, Exact(np.array([0])))
    if nonlinear.kind == "RELU6" and fix_out <= 4:
        value = minimum(value, Exact(np.array([RELU6_LIMIT])))
    if nonlinear.kind == "LEAKYRELU":
        slope, bits = LEAKY_RELU_SLOPE
        leaked = value.times(slope).scaled(-bits)
        # a slope below 1 makes the leaked value the larger one exactly where value < 0
        value = maximum(value, leaked)
    q = saturate(value.round_half_up())
    if nonlinear.kind in ("HSIGMOID", "HSWISH"):
        gate = hard_sigmoid(q, nonlinear.hsigmoid_in, nonlinear.shift_hsigmoid)
        if nonlinear.kind == "HSIGMOID":
            return gate
        product = q.astype(np.int64) * gate.astype(np.int64)
        return saturate(Exact(product).scaled(-nonlinear.shift_hswish).round_half_up())
    return q


def pad_image(x: np.ndarray, pad: Pad, value: int) -> np.ndarray:
    """int8 (N, H, W, C) -> int64 with `value` around: pad is (left, right, top, bottom)."""
    left, right, top, bottom = pad
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(x.astype(np.int64), widths, constant_values=value)


def accumulate(x: np.ndarray, weights: np.ndarray, stride: Pair, dilation: Pair, pad: Pad) -> np.ndarray:
    """Sum of products of a convolution without groups: int64 (N, OH, OW, OC)."""
    kernel_h, kernel_w = weights.shape[1:3]
    padded = pad_image(x, pad, 0)
    out_h = window_output(x.shape[1], kernel_h, stride[1], dilation[1], pad[2], pad[3])
    out_w = window_output(x.shape[2], kernel_w, stride[0], dilation[0], pad[0], pad[1])
    total = np.zeros((x.shape[0], out_h, out_w, weights.shape[0]), np.int64)
    for row in range(out_h):
        for column in range(out_w):
            top, left = row * stride[1], column * stride[0]
            window = padded[
                :,
                top : top + kernel_h * dilation[1] : dilation[1],
                left : left + kernel_w * dilation[0] : dilation[0],
            ]
            total[:, row, column] = np.einsum("nhwc,ohwc->no", window, weights.astype(np.int64))
    return total


def accumulate_depthwise(
    x: np.ndarray, weights: np.ndarray, stride: Pair, dilation: Pair, pad: Pad
) -> np.ndarray:
    """Sum of products per channel: weights [1, KH, KW, C]."""
    channels = [
        accumulate(x[..., [c]], weights[:, :, :, [c]], stride, dilation, pad) for c in range(x.shape[3])
    ]
    return np.concatenate(channels, axis=3)


def accumulate_grouped(
    x: np.ndarray, weights: np.ndarray, stride: Pair, dilation: Pair, pad: Pad, group: int
) -> np.ndarray:
    """Convolution of `group` equal slices of the channels."""
    inputs = np.split(x, group, axis=3)
    filters = np.split(weights, group, axis=0)
    parts = [accumulate(i, f, stride, dilation, pad) for i, f in zip(inputs, filters, strict=True)]
    return np.concatenate(parts, axis=3)


def spread(x: np.ndarray, stride: Pair) -> np.ndarray:
    """(N, H, W, C) with stride - 1 zeros between its pixels."""
    step_w, step_h = stride
    n, h, w, c = x.shape
    out = np.zeros((n, (h - 1) * step_h + 1, (w - 1) * step_w + 1, c), x.dtype)
    for row in range(h):
        for column in range(w):
            out[:, row * step_h, column * step_w] = x[:, row, column]
    return out


def conv(op: Conv, x: np.ndarray) -> np.ndarray:
    """conv2d-fix and depthwise-conv2d-fix: int8 (N, H, W, IC) -> int8 (N, OH, OW, OC).

    y = sat8(floor((2 acc + b 2**(shift_bias + 1)) / 2**(shift_cut + 1) + 1/2)).
    """
    window = (x, op.weights, op.stride, op.dilation, op.pad)
    if op.kind in TRANSPOSED:
        (kernel_w, kernel_h), (left, right, top, bottom) = op.kernel, op.pad
        around = kernel_w - 1 - left, kernel_w - 1 - right, kernel_h - 1 - top, kernel_h - 1 - bottom
        window = (spread(x, op.stride), op.weights, (1, 1), op.dilation, around)
    acc = {
        "depthwise": lambda: accumulate_depthwise(*window),
        "conv2d": lambda: accumulate_grouped(*window, op.group),
        "transposed": lambda: accumulate(*window),
        "transposed depthwise": lambda: accumulate_depthwise(*window),
    }[op.kind]()
    value = Exact(acc)
    if op.bias is not None:
        value = value.plus(Exact(op.bias.astype(np.int64)).scaled(op.shift_bias))
    return activate(value.scaled(-op.shift_cut), op.nonlinear, op.fix_out)


def concat(op: Concat, *inputs: np.ndarray) -> np.ndarray:
    """concat-fix: round(x / 2**shift) of each int8 input, saturated, side by side along the axis."""
    parts = [
        saturate(Exact(x.astype(np.int64)).scaled(-shift).round_half_up())
        for x, shift in zip(inputs, op.shifts, strict=True)
    ]
    return np.concatenate(parts, axis=op.axis)


def windows(x: np.ndarray, op: Pool, fill: int) -> tuple[list[tuple[int, int, np.ndarray]], Shape]:
    """Every pooling window: list of (row, column, int64 (N, KH, KW, C)), and the output's shape."""
    kernel_w, kernel_h = op.kernel
    padded = pad_image(x, op.pad, fill)
    out_h = window_output(x.shape[1], kernel_h, op.stride[1], 1, op.pad[2], op.pad[3])
    out_w = window_output(x.shape[2], kernel_w, op.stride[0], 1, op.pad[0], op.pad[1])
    found = []
    for row in range(out_h):
        for column in range(out_w):
            top, left = row * op.stride[1], column * op.stride[0]
            found.append((row, column, padded[:, top : top + kernel_h, left : left + kernel_w]))
    return found, (x.shape[0], out_h, out_w, x.shape[3])


def pool(op: Pool, x: np.ndarray) -> np.ndarray:
    """pool-fix MAX or AVG: int8 (N, H, W, C) -> int8 (N, OH, OW, C).

    MAX: padding counts as the lowest value. AVG: padding is 0, and M / 2**S stands for
    the division by the window's area.
    """
    reductions: dict[str, tuple[int, Callable[..., np.ndarray]]] = {"MAX": (-128, np.max), "AVG": (0, np.sum)}
    fill, reduce = reductions[op.kind]
    found, shape = windows(x, op, fill)
    result = np.empty(shape, np.int64)
    for row, column, window in found:
        result[:, row, column] = reduce(window, axis=(1, 2))
    value = Exact(result)
    if op.kind == "AVG":
        multiplier, shift = average_pool_factor(op.kernel[1], op.kernel[0])
        value = value.times(multiplier).scaled(-shift)
    return saturate(value.scaled(-op.shift).round_half_up())


def inside_average(op: InsideAverage, x: np.ndarray) -> np.ndarray:
    """pool-fix AVG whose padding does not count: M / 2**S of the pixels that each window has in the map."""
    (kernel_w, kernel_h), (step_w, step_h), (left, right, top, bottom) = op.kernel, op.stride, op.pad
    out_h = window_output(x.shape[1], kernel_h, step_h, 1, top, bottom)
    out_w = window_output(x.shape[2], kernel_w, step_w, 1, left, right)
    result = np.empty((x.shape[0], out_h, out_w, x.shape[3]), np.int8)
    for row in range(out_h):
        for column in range(out_w):
            y, z = row * step_h - top, column * step_w - left
            seen = x[:, max(y, 0) : y + kernel_h, max(z, 0) : z + kernel_w].astype(np.int64)
            multiplier, shift = average_pool_factor(seen.shape[1], seen.shape[2])
            value = Exact(seen.sum(axis=(1, 2))).times(multiplier).scaled(-shift - op.shift)
            result[:, row, column] = saturate(value.round_half_up())
    return result


def eltwise(op: Eltwise, *inputs: np.ndarray) -> np.ndarray:
    """eltwise-fix ADD or MUL of int8 arrays (NumPy broadcasting).

    ADD: with m = min(fix_in), each input is used as floor(x * 2**(7 - (fix_in - m))),
    the sum is divided by 2**(7 + m - fix_out).
    """
    if op.kind == "MUL":
        product = inputs[0].astype(np.int64)
        for x in inputs[1:]:
            product = product * x.astype(np.int64)
        return activate(Exact(product).scaled(op.fix_out - sum(op.fix_in)), op.nonlinear, op.fix_out)
    lowest = min(op.fix_in)
    total = np.zeros((), np.int64)
    for x, fix in zip(inputs, op.fix_in, strict=True):
        total = total + ((x.astype(np.int64) << REFERENCE_GUARD_BITS) >> (fix - lowest))
    return activate(Exact(total).scaled(op.fix_out - lowest - REFERENCE_GUARD_BITS), op.nonlinear, op.fix_out)


def sigmoid(op: HardSigmoid, x: np.ndarray) -> np.ndarray:
    """hard-sigmoid-fix of int8 arrays."""
    return hard_sigmoid(x, op.hsigmoid_in, op.shift_hsigmoid)


def resample(op: Resample, x: np.ndarray) -> np.ndarray:
    """upsample-fix and downsample-fix, pixel by pixel: int8 (N, H, W, C) -> int8 (N, OH, OW, C)."""
    width, height = op.size
    result = np.empty((x.shape[0], height, width, x.shape[3]), np.int8)
    for row in range(height):
        for column in range(width):
            y, z = (row, x.shape[1], height, 1), (column, x.shape[2], width, 0)
            if op.kind == "BILINEAR":
                mixed = _between(op, x, y, z)
                result[:, row, column] = saturate(np.floor(mixed * 2.0**-op.shift + 0.5).astype(np.int64))
                continue
            pixel = x[:, _nearest(op, *y), _nearest(op, *z)].astype(np.int64)
            result[:, row, column] = saturate(Exact(pixel).scaled(-op.shift).round_half_up())
    return result


def _nearest(op: Resample, place: int, size: int, out: int, axis: int) -> int:
    """Input position that output position `place` of `out` takes."""
    if op.kind == "STRIDE":
        return min(int(place * op.scale[axis]), size - 1)
    if op.align_corners and out > 1:  # the nearest, halves up
        return int(Fraction(place * (size - 1), out - 1) + Fraction(1, 2))
    centre = Fraction(1, 2) if op.half_pixel_centers else 0
    return int((place + centre) * Fraction(size, out))


def _share(op: Resample, place: int, size: int, out: int) -> tuple[int, int, np.float32]:
    """(lower, upper, share of the upper) of a bilinear output position, in float32 step by step."""
    f, half = np.float32, np.float32(0.5)
    corners = op.align_corners and out > 1
    scale = f(size - 1) / f(out - 1) if corners else f(size) / f(out)
    at = (f(place) + half) * scale - half if op.half_pixel_centers else f(place) * scale
    lower, upper = max(math.floor(at), 0), min(math.ceil(at), size - 1)
    return lower, upper, at - f(lower)


def _between(
    op: Resample, x: np.ndarray, row: tuple[int, int, int, int], column: tuple[int, int, int, int]
) -> np.ndarray:
    """The four pixels around an output pixel mixed, float64 (N, C) of float32 values."""
    top, bottom, down = _share(op, *row[:3])
    left, right, across = _share(op, *column[:3])
    real = x.astype(np.float32)
    above = real[:, top, left] + (real[:, top, right] - real[:, top, left]) * across
    below = real[:, bottom, left] + (real[:, bottom, right] - real[:, bottom, left]) * across
    return (above + (below - above) * down).astype(np.float64)


def pixel_shuffle(op: PixelShuffle, x: np.ndarray) -> np.ndarray:
    """pixel-shuffle-fix, value by value: int8 (N, H, W, C), rounded to the output's grid."""
    n, height, width, channels = x.shape
    x = saturate(Exact(x.astype(np.int64)).scaled(-op.shift).round_half_up())
    block = op.scale**2
    size = (height // op.scale, width // op.scale, channels * block)
    if op.upscale:
        size = (height * op.scale, width * op.scale, channels // block)
    out = np.empty((n, *size), np.int8)
    for row, column in np.ndindex(max(height, size[0]), max(width, size[1])):
        (y, i), (z, j) = divmod(row, op.scale), divmod(column, op.scale)
        place = i * op.scale + j
        if op.upscale:
            out[:, row, column] = x[:, y, z, place::block]
        else:
            out[:, y, z, place::block] = x[:, row, column]
    return out


def strided_slice(op: Slice, x: np.ndarray) -> np.ndarray:
    """strided_slice-fix: the chosen values, rounded to the output's grid."""
    for axis, bounds in enumerate(op.bounds, 1):
        x = np.take(x, list(range(*bounds)), axis=axis)
    return saturate(Exact(x.astype(np.int64)).scaled(-op.shift).round_half_up())


SEMANTICS: dict[type, Callable[..., np.ndarray]] = {
    Conv: conv,
    Pool: pool,
    InsideAverage: inside_average,
    Eltwise: eltwise,
    Concat: concat,
    HardSigmoid: sigmoid,
    Resample: resample,
    PixelShuffle: pixel_shuffle,
    Slice: strided_slice,
}
"""Class of an operation -> function(operation, *int8 arrays): all classes of `operations.INTEGER_OPS`."""


def require(op: object) -> None:
    """TypeError for an operation without semantics here: no kernel of it could be judged."""
    if type(op) not in SEMANTICS:
        raise TypeError(f"no integer operation of dpuflow.emulator.oracle.SEMANTICS: {op!r}")


def apply(op: Operation, *inputs: np.ndarray) -> np.ndarray:
    """Execute any integer operation of `operations`."""
    require(op)
    return SEMANTICS[type(op)](op, *inputs)
