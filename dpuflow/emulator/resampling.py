"""Resizing of maps, fast: where each output pixel reads, and the kernels on NumPy.

Which pixel a map's output reads: docs/reference/numerics.md, "Resizing".
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import DTypeLike

from dpuflow.emulator.operations import Resample
from dpuflow.xir.shapes import Shape


def nearest(op: Resample, size: int, axis: int) -> np.ndarray:
    """Input positions (OUT,) along an axis (0: width, 1: height) of `size`, of NEAREST or STRIDE."""
    out = np.arange(op.size[axis])
    if op.kind == "STRIDE":
        return np.minimum((out * op.scale[axis]).astype(np.int64), size - 1)
    if op.align_corners and len(out) > 1:
        return (2 * out * (size - 1) + len(out) - 1) // (2 * (len(out) - 1))
    if op.half_pixel_centers:
        return (2 * out + 1) * size // (2 * len(out))
    return out * size // len(out)


def bilinear(op: Resample, size: int, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lower, upper, share of the upper) along an axis, the shares float32."""
    count, one = op.size[axis], np.float32(1)
    out = np.arange(count, dtype=np.float32)
    if op.align_corners and count > 1:
        scale = np.float32(size - 1) / np.float32(count - 1)
    else:
        scale = np.float32(size) / np.float32(count)
    place = (out + one / 2) * scale - one / 2 if op.half_pixel_centers else out * scale
    lower = np.maximum(np.floor(place).astype(np.int64), 0)
    upper = np.minimum(np.ceil(place).astype(np.int64), size - 1)
    return lower, upper, place - lower.astype(np.float32)


class Picked:
    """NEAREST and STRIDE: whole pixels, through a table where the fix_point changes."""

    def __init__(self, op: Resample, shape: Shape, dtype: DTypeLike, table: np.ndarray) -> None:
        self.rows, self.columns = nearest(op, shape[1], 1), nearest(op, shape[2], 0)
        self.table = table.astype(dtype) if op.shift else None

    def __call__(self, inputs: Sequence[np.ndarray], workspace: object) -> np.ndarray:
        (x,) = inputs
        if self.table is not None:
            x = self.table[x.astype(np.int16) + 128]
        return x[:, self.rows][:, :, self.columns]


class Mixed:
    """BILINEAR in float32, as the vendor's runner does it: along the rows, then along the columns."""

    def __init__(self, op: Resample, shape: Shape) -> None:
        self.rows, self.columns = bilinear(op, shape[1], 1), bilinear(op, shape[2], 0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(N, H, W, C) -> float32 (N, OH, OW, C)."""
        x = x.astype(np.float32, copy=False)
        lower, upper, share = self.columns
        left, right = x[:, :, lower], x[:, :, upper]
        x = left + (right - left) * share[:, None]
        lower, upper, share = self.rows
        top, bottom = x[:, lower], x[:, upper]
        return top + (bottom - top) * share[:, None, None]


class Blended:
    """BILINEAR, rounded to int8 values."""

    def __init__(self, op: Resample, shape: Shape) -> None:
        self.mixed, self.factor = Mixed(op, shape), 2.0**-op.shift

    def __call__(self, inputs: Sequence[np.ndarray], workspace: object) -> np.ndarray:
        result = np.floor(self.mixed(inputs[0]).astype(np.float64) * self.factor + 0.5)
        return np.clip(result, -128, 127, out=result).astype(np.float32)


def floats(op: Resample, shape: Shape) -> Callable[[np.ndarray], np.ndarray]:
    """The function of real maps, not rounded: XIR's `resize`."""
    if op.kind == "BILINEAR":
        return Mixed(op, shape)
    rows, columns = nearest(op, shape[1], 1), nearest(op, shape[2], 0)
    return lambda x: x[:, rows][:, :, columns]
