"""Sliding windows over maps, for the operators of CPU layers (cpu_ops.py).

Maps are NHWC with the batch first; kernel, stride and dilation are (w, h), pad is (left, right, top,
bottom), out is (height, width).
"""

import numpy as np
from board_info import AppError

LARGEST_WINDOWS = 1 << 22
"""Values of unfolded windows at a time: bounds the memory of a convolution."""


def pad_map(x, pad, fill=0):
    """x (N, H, W, C) with `fill` around it."""
    left, right, top, bottom = pad
    if not any(pad):
        return x
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(x, widths, mode="constant", constant_values=fill)


def spread(x, stride):
    """x with stride - 1 zeros between its pixels (stride None: x); of a transposed convolution."""
    if not stride:
        return x
    n, h, w, c = x.shape
    out = np.zeros((n, (h - 1) * stride[1] + 1, (w - 1) * stride[0] + 1, c), x.dtype)
    out[:, :: stride[1], :: stride[0]] = x
    return out


def windows(x, op, fill=0):
    """View (N, OH, OW, KH, KW, C) of the sliding windows of x (N, H, W, C)."""
    x = np.ascontiguousarray(pad_map(spread(x, op.get("spread")), op["pad"], fill))
    (height, width), (kernel_w, kernel_h), (step_w, step_h) = op["out"], op["kernel"], op["stride"]
    dilation_w, dilation_h = op.get("dilation", (1, 1))
    rows = (height - 1) * step_h + (kernel_h - 1) * dilation_h + 1
    columns = (width - 1) * step_w + (kernel_w - 1) * dilation_w + 1
    if rows > x.shape[1] or columns > x.shape[2]:  # a view beyond the map would read foreign memory
        raise AppError("op {!r}: its windows reach beyond its input {}".format(op["name"], x.shape[1:]))
    n, h, w, c = x.strides
    return np.lib.stride_tricks.as_strided(
        x,
        (x.shape[0], height, width, kernel_h, kernel_w, x.shape[3]),
        (n, h * step_h, w * step_w, h * dilation_h, w * dilation_w, c),
    )


def products(view, matrices):
    """Windows times matrices (KH KW IC/group, OC/group), one per group: (N, OH, OW, OC)."""
    n, height, width, kernel_h, kernel_w, channels = view.shape
    step, dtype = channels // len(matrices), matrices[0].dtype
    rows = max(1, LARGEST_WINDOWS // max(1, n * width * kernel_h * kernel_w * channels))
    bands = []
    for top in range(0, height, rows):
        band = view[:, top : top + rows]
        parts = []
        for g, matrix in enumerate(matrices):
            part = band[..., g * step : (g + 1) * step]
            unfolded = np.ascontiguousarray(part, dtype=dtype).reshape(-1, matrix.shape[0])
            parts.append(np.matmul(unfolded, matrix))
        bands.append(np.concatenate(parts, axis=1).reshape(n, band.shape[1], width, -1))
    return np.concatenate(bands, axis=1)


def group_matrices(weights, group, dtype):
    """[OC, KH, KW, IC / group] -> one contiguous matrix per group."""
    parts = np.split(weights, group)
    return [np.ascontiguousarray(part.reshape(part.shape[0], -1).T.astype(dtype)) for part in parts]


def reduce_windows(x, op, combine, fill):
    """max or sum of each window: first over its rows, then over its columns."""
    x = pad_map(x, op["pad"], fill)
    (height, width), (kernel_w, kernel_h), (step_w, step_h) = op["out"], op["kernel"], op["stride"]

    def reduced(parts):
        total = next(parts).copy()
        for part in parts:
            combine(total, part, out=total)
        return total

    end_h, end_w = (height - 1) * step_h + 1, (width - 1) * step_w + 1
    rows = reduced(x[:, row : row + end_h : step_h] for row in range(kernel_h))
    return reduced(rows[:, :, column : column + end_w : step_w] for column in range(kernel_w))


def fold(function, inputs):
    """function over all inputs, from the left."""
    total = inputs[0]
    for x in inputs[1:]:
        total = function(total, x)
    return total
