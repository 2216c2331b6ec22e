"""Floating-point operations: what a model leaves to the CPU, and uncompiled quantized graphs.

An uncompiled graph holds float ops with fake quantisation (`fix`) between them. They run
in float64, where sums of on-grid values are exact below 2**53 steps, so rounding in a
`fix` sees the true value and the result equals the integer form's (docs/reference/xmodel.md).
Every function takes arrays with the batch first and keyword attributes in XIR's terms.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN, ROUNDING, Grid
from dpuflow.emulator.operations import Pad, Pair, window_output
from dpuflow.emulator.workspace import window_view
from dpuflow.ops.floats import matrix_product

REAL = np.dtype(np.float64)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Softmax in float32 with the maximum subtracted, as the runtime computes it on the CPU."""
    x = x.astype(np.float32)
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


def round_to_grid(
    x: np.ndarray, fix_point: int, bit_width: int = 8, round_mode: str = "DPU_ROUND", if_signed: bool = True
) -> np.ndarray:
    """Integers round(x * 2**fix_point), saturated to bit_width bits (as float64)."""
    return Grid(fix_point, bit_width, if_signed).integers(x, round_mode)


def fake_quantize(x: np.ndarray, fix_point: int, **attributes: Any) -> np.ndarray:
    """`fix`: values rounded to the grid 2**-fix_point, still float64."""
    return np.ldexp(round_to_grid(x, fix_point, **attributes), -fix_point)


def fix2float(q: np.ndarray, fix_point: int) -> np.ndarray:
    """int8 values -> float32, q * 2**-fix_point (exact)."""
    return np.ldexp(q.astype(np.float32), -fix_point)


def float2fix(x: np.ndarray, fix_point: int, round_mode: str = "DPU_ROUND") -> np.ndarray:
    """float -> integers of [-128, 127]."""
    scaled = np.ldexp(np.asarray(x, dtype=REAL), fix_point)
    return np.clip(ROUNDING[round_mode](scaled), INT8_MIN, INT8_MAX)


def output_size(
    size: int, kernel: int, stride: int, dilation: int, before: int, after: int, pad_mode: str
) -> tuple[int, int, int]:
    """Output length and the padding that it implies after the end (docs/reference/xmodel.md)."""
    extent = (kernel - 1) * dilation + 1
    if pad_mode == "FLOOR":
        return window_output(size, kernel, stride, dilation, before, after), before, after
    if pad_mode == "CEIL":
        out = -(-(size + before + after - extent) // stride) + 1
    elif pad_mode == "VALID":
        out = -(-(size + before + after - extent + 1) // stride)
    elif pad_mode == "SAME":
        out = -(-(size + before + after) // stride)
        missing = max(0, (out - 1) * stride + extent - size - before - after)
        before, after = before + missing // 2, after + missing - missing // 2
    else:
        raise ValueError(f"pad_mode {pad_mode!r}")
    after += max(0, (out - 1) * stride + extent - size - before - after)
    return out, before, after


def sliding(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    pad: Pad,
    dilation: Pair = (1, 1),
    pad_mode: str = "FLOOR",
    fill: float = 0.0,
) -> np.ndarray:
    """View (N, OH, OW, KH, KW, C) of x (N, H, W, C) padded with `fill`."""
    x = np.asarray(x, dtype=REAL)
    out_w, left, right = output_size(x.shape[2], kernel[0], stride[0], dilation[0], pad[0], pad[1], pad_mode)
    out_h, top, bottom = output_size(x.shape[1], kernel[1], stride[1], dilation[1], pad[2], pad[3], pad_mode)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    return window_view(padded, kernel, stride, dilation, out_h, out_w)


def conv2d(
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Pair,
    pad: Pad,
    dilation: Pair = (1, 1),
    pad_mode: str = "FLOOR",
    group: int = 1,
) -> np.ndarray:
    """Convolution; weights [OC, KH, KW, IC / group], bias [OC]."""
    kernel = (weights.shape[2], weights.shape[1])
    view = sliding(x, kernel, stride, pad, dilation, pad_mode)
    parts = []
    step = view.shape[-1] // group
    for g, part in enumerate(np.split(np.asarray(weights, dtype=REAL), group)):
        rows = view[..., g * step : (g + 1) * step].reshape(-1, part[0].size)
        parts.append(rows @ part.reshape(part.shape[0], -1).T)
    out = np.concatenate(parts, axis=1).reshape(*view.shape[:3], -1)
    return out if bias is None else out + bias


def depthwise_conv2d(
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: Pair,
    pad: Pad,
    dilation: Pair = (1, 1),
    pad_mode: str = "FLOOR",
) -> np.ndarray:
    """Depthwise convolution; weights [1, KH, KW, C]."""
    view = sliding(x, (weights.shape[2], weights.shape[1]), stride, pad, dilation, pad_mode)
    out = np.einsum("nhwklc,klc->nhwc", view, np.asarray(weights[0], dtype=REAL))
    return out if bias is None else out + bias


def spread(x: np.ndarray, stride: Pair) -> np.ndarray:
    """(N, H, W, C) with stride - 1 zeros between its pixels."""
    (step_w, step_h), (n, h, w, c) = stride, x.shape
    out = np.zeros((n, (h - 1) * step_h + 1, (w - 1) * step_w + 1, c), REAL)
    out[:, ::step_h, ::step_w] = x
    return out


def max_pool(x: np.ndarray, *, kernel: Pair, stride: Pair, pad: Pad, pad_mode: str = "FLOOR") -> np.ndarray:
    """Maximum of each window; padding never wins."""
    return sliding(x, kernel, stride, pad, pad_mode=pad_mode, fill=-np.inf).max(axis=(3, 4))


def window_sum(x: np.ndarray, *, kernel: Pair, stride: Pair, pad: Pad, pad_mode: str = "FLOOR") -> np.ndarray:
    """Sum of each window, padding as zeros."""
    return sliding(x, kernel, stride, pad, pad_mode=pad_mode).sum(axis=(3, 4))


def average_pool(
    x: np.ndarray,
    *,
    kernel: Pair,
    stride: Pair,
    pad: Pad,
    pad_mode: str = "FLOOR",
    count_include_pad: bool = True,
) -> np.ndarray:
    """Mean of each window; padding counts as zeros, or not at all."""
    total = window_sum(x, kernel=kernel, stride=stride, pad=pad, pad_mode=pad_mode)
    if count_include_pad:
        return total / (kernel[0] * kernel[1])
    ones = np.ones((1, *x.shape[1:3], 1))
    return total / sliding(ones, kernel, stride, pad, pad_mode=pad_mode).sum(axis=(3, 4))


def matmul(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> np.ndarray:
    """x @ weight (+ bias), with either operand's last two axes swapped."""
    left = np.swapaxes(x, -1, -2) if transpose_a else x
    right = np.swapaxes(weight, -1, -2) if transpose_b else weight
    if np.float32 in (left.dtype, right.dtype):  # on the CPU; of a layer of the DPU both are float64
        out = matrix_product(left, right if right.ndim > 2 else right[None])
        return out if bias is None else out + bias.astype(np.float32)
    out = np.asarray(left, dtype=REAL) @ np.asarray(right, dtype=REAL)
    return out if bias is None else out + bias


def common(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Inputs of an element-wise op as float32 if any of them is.

    On-grid values are float64 in uncompiled graphs and float32 in compiled ones; what is float32 already is
    no grid value, and rounds the same in both.
    """
    if any(x.dtype == np.float32 for x in inputs):
        return [x.astype(np.float32, copy=False) for x in inputs]
    return inputs


def leaky_relu(x: np.ndarray, alpha: float) -> np.ndarray:
    """x where positive, alpha * x elsewhere."""
    return np.where(x < 0, x * alpha, x)


def shifted_relu6(x: np.ndarray) -> np.ndarray:
    """relu6(x + 3), six times the hard sigmoid."""
    return np.clip(np.asarray(x, dtype=REAL) + 3, 0, 6)


def mean(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Mean over axes: summed and divided in float64, rounded to float32 once."""
    return np.asarray(x, dtype=REAL).mean(axis=axes, keepdims=keepdims).astype(np.float32)


def total(x: np.ndarray, axes: tuple[int, ...], keepdims: bool) -> np.ndarray:
    """Sum over axes: in float64, rounded to float32 once."""
    return np.asarray(x, dtype=REAL).sum(axis=axes, keepdims=keepdims).astype(np.float32)


def scale(x: np.ndarray, factors: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """x * factors (+ offsets) per channel."""
    given = common([x, factors] if offsets is None else [x, factors, offsets])
    return given[0] * given[1] if offsets is None else given[0] * given[1] + given[2]


def prelu(x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """x where positive, slopes * x elsewhere, per channel."""
    x, slopes = common([x, slopes])
    return np.where(x < 0, x * slopes, x)


def length(x: np.ndarray, axis: int, keepdims: bool) -> np.ndarray:
    """Euclidean norm along an axis, in float32 as PyTorch gives it."""
    squares = np.square(np.asarray(x, dtype=REAL)).sum(axis=axis, keepdims=keepdims)
    return np.sqrt(squares).astype(np.float32)
