"""Arithmetic on NumPy that the operators are made of: float32, and the DPU's integers in floats.

Integers travel as float32 arrays of whole numbers. Sums of int8 products are exact in float32
while 128 * sum|w| + |bias term| stays below 2**24 per output channel, in float64 below 2**53
(docs/reference/numerics.md, "Exactness in floating point"). Exact sums do not depend on their
order, so integer results are the same on every machine and for any number of threads.
"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX
from dpuflow.base.totality import Total
from dpuflow.ops.activations import ACTIVATIONS, SLOPE, Activation, rules

IM2COL_BYTES = 4 << 20
"""Size of one patch matrix: about the second-level cache."""
TAPS_BYTES = 256 << 10
"""Sums that are added up tap by tap: they and one product stay in that cache."""
EXACT_FLOAT32 = 1 << 24


def pad_map(x: np.ndarray, pad: tuple[int, int, int, int], value: float = 0.0) -> np.ndarray:
    """Pad an NHWC array by (l, r, t, b) with `value`."""
    left, right, top, bottom = pad
    if not any(pad):
        return x
    n, h, w, c = x.shape
    out = np.full((n, h + top + bottom, w + left + right, c), value, x.dtype)
    out[:, top : top + h, left : left + w] = x
    return out


def windows(
    x: np.ndarray, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> np.ndarray:
    """View (N, OH, OW, KH, KW, C) of all kernel windows of an already padded NHWC array."""
    n, h, w, c = x.shape
    (kw, kh), (sw, sh), (dw, dh) = kernel, stride, dilation
    oh, ow = (h - (kh - 1) * dh - 1) // sh + 1, (w - (kw - 1) * dw - 1) // sw + 1
    bn, bh, bw, bc = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (n, oh, ow, kh, kw, c), (bn, bh * sh, bw * sw, bh * dh, bw * dw, bc), writeable=False
    )


def activate(x: np.ndarray, activation: str) -> np.ndarray:
    """Apply an activation of `ACTIVATIONS` in real numbers (may work in place)."""
    return activation_named(activation).real(x)


def activation_named(name: str) -> Activation:
    """The fused activation called `name`; UserError for an unknown one."""
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name!r} is unknown; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def round_half_up(x: np.ndarray) -> np.ndarray:
    """floor(x + 1/2) in x's own precision, in place; exact for grid values below 2**22."""
    x += x.dtype.type(0.5)
    return np.floor(x, out=x)


def saturate(x: np.ndarray, activation: str = "NONE") -> np.ndarray:
    """Clamp to int8 in place; ReLU folds into the lower bound."""
    return np.clip(x, activation_named(activation).lowest, INT8_MAX, out=x)


def requantized(x: np.ndarray, fix_from: int, fix_to: int) -> np.ndarray:
    """Integers at one fix_point as integers at another: DPU_ROUND and saturation where it gets coarser."""
    if fix_from == fix_to:
        return x
    return saturate(round_half_up(x * np.float32(2.0 ** (fix_to - fix_from))))


def finish(accumulated: np.ndarray, shift_cut: int, activation: str, fix_point: int) -> np.ndarray:
    """Accumulator (bias included) -> int8 grid: activation, / 2**shift_cut, DPU_ROUND, saturation."""
    x, kind = accumulated, activation_named(activation)
    x = _BEFORE_ROUNDING[kind.before_rounding](x)
    x = round_half_up(x * x.dtype.type(2.0**-shift_cut))
    return np.clip(x, kind.lowest, kind.limit(fix_point), out=x).astype(np.float32, copy=False)


_BEFORE_ROUNDING = Total(
    "ops.arithmetic: an activation's share before the rounding",
    rules,
    {
        "nothing": lambda x: x,
        "slope": lambda x: np.where(x < 0, x.astype(np.float64) * SLOPE, x),
    },
)
