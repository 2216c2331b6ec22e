"""What every operator computes, written out value by value in whole numbers and fractions.

From docs/reference/numerics.md; nothing of `dpuflow.ops` is used but the attributes.
"""

import itertools
import math
from fractions import Fraction

import numpy as np

from dpuflow.device.dpuczdx8g import average_pool_factor


def power(exponent):
    """2**exponent, exact."""
    return Fraction(2) ** exponent


def int8(value, low=-128, high=127):
    """floor(value + 1/2), clamped."""
    return max(low, min(high, math.floor(value + Fraction(1, 2))))


def activated(value, activation, fix_out):
    """An exact sum, in steps of the output, as int8."""
    low = 0 if activation in ("RELU", "RELU6") else -128
    high = 96 if activation == "RELU6" and fix_out <= 4 else 127
    if activation == "LEAKYRELU" and value < 0:
        value = value * Fraction(26, 256)
    return int8(value, low, high)


def pixels(shape):
    """All (row, column, channel)."""
    return itertools.product(*map(range, shape))


def window(operator, x, row, column, outside):
    """{(kernel row, kernel column): the channels there} of one output pixel; `outside` in the padding."""
    left, _, top, _ = operator.pad
    step_w, step_h = getattr(operator, "dilation", (1, 1))
    found = {}
    for i in range(operator.kernel[1]):
        for j in range(operator.kernel[0]):
            y = row * operator.stride[1] - top + i * step_h
            z = column * operator.stride[0] - left + j * step_w
            inside = 0 <= y < x.shape[0] and 0 <= z < x.shape[1]
            found[i, j] = x[y, z].tolist() if inside else [outside] * x.shape[2]
    return found


def regridded(values, fix_in, fix_out):
    """int8 values on another grid."""
    moved = [int8(value * power(fix_out - fix_in)) for value in values.reshape(-1).tolist()]
    return np.array(moved).reshape(values.shape)


def conv(case, x, shape):
    """One image."""
    weights, out = case.weights.tolist(), np.zeros(shape, int)
    for row, column, channel in pixels(shape):
        total = 0
        for (i, j), values in window(case.operator, x, row, column, 0).items():
            if case.operator.kind == "depthwise_conv":
                total += values[channel] * weights[0][i][j][channel]
            else:
                total += sum(a * b for a, b in zip(values, weights[channel][i][j], strict=True))
        out[row, column, channel] = weighted(case, total, channel)
    return out


def transposed(case, x, shape):
    """One image: every pixel adds its weights to the outputs that it reaches."""
    operator, weights = case.operator, case.weights
    (kernel_w, kernel_h), (step_w, step_h), (left, _, top, _) = operator.kernel, operator.stride, operator.pad
    totals = np.zeros(shape, int)
    for y, z, source in pixels(x.shape):
        for i, j in itertools.product(range(kernel_h), range(kernel_w)):
            # stored flipped: the last tap lies on the pixel's first output
            row, column = y * step_h + kernel_h - 1 - i - top, z * step_w + kernel_w - 1 - j - left
            if not (0 <= row < shape[0] and 0 <= column < shape[1]):
                continue
            for channel in [source] if "depthwise" in operator.kind else range(shape[2]):
                tap = weights[0 if "depthwise" in operator.kind else channel, i, j, source]
                totals[row, column, channel] += int(x[y, z, source]) * int(tap)
    out = np.zeros(shape, int)
    for place in pixels(shape):
        out[place] = weighted(case, int(totals[place]), place[2])
    return out


def weighted(case, total, channel):
    """A sum of products with its bias, as int8."""
    unit = case.fix_in[0] + case.fix_weights
    total = Fraction(total)
    if case.bias is not None:
        total += int(case.bias[channel]) * power(unit - case.fix_bias)
    return activated(total * power(case.fix_out - unit), case.operator.activation, case.fix_out)


def dense(case, x, shape):
    """One image."""
    sums = [sum(a * b for a, b in zip(x.tolist(), row, strict=True)) for row in case.weights.tolist()]
    return np.array([weighted(case, total, channel) for channel, total in enumerate(sums)])


def max_pool(case, x, shape):
    """One image."""
    x, out = regridded(x, case.fix_in[0], case.fix_out), np.zeros(shape, int)
    for row, column, channel in pixels(shape):
        seen = window(case.operator, x, row, column, -1000).values()
        out[row, column, channel] = max(values[channel] for values in seen)
    return out


def avg_pool(case, x, shape):
    """One image."""
    width, height = case.operator.kernel
    multiplier, shift = average_pool_factor(height, width)
    out = np.zeros(shape, int)
    for row, column, channel in pixels(shape):
        total = sum(values[channel] for values in window(case.operator, x, row, column, 0).values())
        out[row, column, channel] = int8(total * multiplier * power(case.fix_out - case.fix_in[0] - shift))
    return out


def pixel_shuffle(case, x, shape):
    """One image: each value of the larger map has one channel of the smaller."""
    scale, x = case.operator.scale, regridded(x, case.fix_in[0], case.fix_out)
    out = np.zeros(shape, int)
    large, small = (out, x) if case.operator.upscale else (x, out)
    for row, column, channel in pixels(large.shape):
        place = channel * scale**2 + row % scale * scale + column % scale
        if case.operator.upscale:
            large[row, column, channel] = small[row // scale, column // scale, place]
        else:
            small[row // scale, column // scale, place] = large[row, column, channel]
    return out


def hard_sigmoid(case, x, shape):
    """One image: 2731 / 2**14 for a sixth; int8 clamps at 1 (127) where it has fix_point 7."""
    out = np.zeros(shape, int)
    for place in np.ndindex(*shape):
        line = max(0, 2731 * int(x[place]) + 3 * 2731 * power(case.fix_in[0]))
        out[place] = int8(line * power(case.fix_out - case.fix_in[0] - 14))
    return out


def multiply(case, x, y, shape):
    """One image: a map, or one factor per channel, on either side."""
    out = np.zeros(shape, int)
    for row, column, channel in pixels(shape):
        factors = [
            int(values[row, column, channel]) if values.shape == shape else int(values.reshape(-1)[channel])
            for values in (x, y)
        ]
        out[row, column, channel] = int8(factors[0] * factors[1] * power(case.fix_out - sum(case.fix_in)))
    return out


def avg_pool_inside(case, x, shape):
    """One image."""
    out = np.zeros(shape, int)
    for row, column, channel in pixels(shape):
        seen = window(case.operator, x, row, column, None).items()
        inside = {place: values for place, values in seen if values[0] is not None}
        rows, columns = (len({place[axis] for place in inside}) for axis in (0, 1))
        multiplier, shift = average_pool_factor(rows, columns)
        total = sum(values[channel] for values in inside.values())
        out[row, column, channel] = int8(total * multiplier * power(case.fix_out - case.fix_in[0] - shift))
    return out


def add(case, x, y, shape):
    """One image: 7 guard bits below the coarser input's step."""
    least, out = min(case.fix_in), np.zeros(shape, int)
    for place in pixels(shape):
        total = sum(
            math.floor(int(values[place]) * power(7 - (fix - least)))
            for values, fix in zip((x, y), case.fix_in, strict=True)
        )
        steps = total * power(case.fix_out - least - 7)
        out[place] = activated(steps, case.operator.activation, case.fix_out)
    return out


def concat(case, *inputs):
    """One image."""
    *inputs, shape = inputs
    out, first = np.zeros(shape, int), 0
    for values, fix in zip(inputs, case.fix_in, strict=True):
        out[..., first : first + values.shape[-1]] = regridded(values, fix, case.fix_out)
        first += values.shape[-1]
    return out


def flatten(case, x, shape):
    """One image."""
    return regridded(np.array([x[place] for place in pixels(x.shape)]), case.fix_in[0], case.fix_out)


def upsample(case, x, shape):
    """One image."""
    (width, height), x = case.operator.factor, regridded(x, case.fix_in[0], case.fix_out)
    return np.array([x[r // height, c // width, k] for r, c, k in pixels(shape)]).reshape(shape)


def downsample(case, x, shape):
    """One image."""
    (width, height), x = case.operator.factor, regridded(x, case.fix_in[0], case.fix_out)
    return np.array([x[r * height, c * width, k] for r, c, k in pixels(shape)]).reshape(shape)


def resize_bilinear(case, x, shape):
    """One image, by factors whose shares are exact."""

    def between(place, size, new):
        at = Fraction(place * size, new)
        if case.operator.grid == "half_pixel":
            at = (place + Fraction(1, 2)) * size / new - Fraction(1, 2)
        low = math.floor(at)
        return max(low, 0), min(low + 1, size - 1), at - low

    out = np.zeros(shape, int)
    for row, column, channel in pixels(shape):
        top, bottom, down = between(row, x.shape[0], shape[0])
        left, right, across = between(column, x.shape[1], shape[1])
        above = int(x[top, left, channel]) * (1 - across) + int(x[top, right, channel]) * across
        below = int(x[bottom, left, channel]) * (1 - across) + int(x[bottom, right, channel]) * across
        value = above * (1 - down) + below * down
        out[row, column, channel] = int8(value * power(case.fix_out - case.fix_in[0]))
    return out


INTEGER = {
    "conv": conv,
    "depthwise_conv": conv,
    "transposed_conv": transposed,
    "transposed_depthwise_conv": transposed,
    "dense": dense,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "avg_pool_inside": avg_pool_inside,
    "add": add,
    "hard_sigmoid": hard_sigmoid,
    "multiply": multiply,
    "pixel_shuffle": pixel_shuffle,
    "concat": concat,
    "flatten": flatten,
    "upsample": upsample,
    "downsample": downsample,
    "resize_bilinear": resize_bilinear,
    "to_grid": lambda case, x, shape: regridded(x, case.fix_in[0], case.fix_out),
}
"""Kind -> function(case, *int8 inputs of one image, output shape) -> integers."""
