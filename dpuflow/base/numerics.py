"""INT8 power-of-two numerics of the DPU tools.

A quantized value is ``q * 2**-fix_point`` with ``q`` an int8; one fix_point per
tensor, any integer (it may be negative or above 7). Sources:
docs/reference/numerics.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

INT8_MIN = -128
INT8_MAX = 127


def round_half_up(x: ArrayLike) -> np.ndarray:
    """DPU_ROUND: floor(x + 1/2), so -2.5 -> -2 and 2.5 -> 3 (activations, input).

    Exact also for |x| >= 2**52 and for 0.49999999999999994, where adding 0.5
    in float64 would round: the fraction is compared instead.
    """
    x = np.asarray(x, dtype=np.float64)
    floor = np.floor(x)
    return floor + (x - floor >= 0.5)


def round_half_away(x: ArrayLike) -> np.ndarray:
    """Round half away from zero: -2.5 -> -3, 2.5 -> 3 (weights, biases)."""
    x = np.asarray(x, dtype=np.float64)
    return np.copysign(round_half_up(np.abs(x)), x)


def round_half_even(x: ArrayLike) -> np.ndarray:
    """PY3_ROUND: round half to even, as NumPy and Python do."""
    return np.rint(np.asarray(x, dtype=np.float64))


ROUNDING = {
    "DPU_ROUND": round_half_up,
    "STD_ROUND": round_half_away,
    "PY3_ROUND": round_half_even,
}
"""round_mode attribute of an xmodel -> function (docs/reference/numerics.md)."""


@dataclass(frozen=True)
class Grid:
    """Whole numbers of some bits with a power of two as step: value = q * 2**-fix_point."""

    fix_point: int
    bits: int = 8
    signed: bool = True

    @property
    def low(self) -> int:
        """The least number."""
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The greatest number."""
        return 2 ** (self.bits - self.signed) - 1

    def integers(self, x: ArrayLike, rounding: str = "DPU_ROUND") -> np.ndarray:
        """Real values -> round(x * 2**fix_point) with `rounding`, saturated, as float64."""
        scaled = np.ldexp(np.asarray(x, dtype=np.float64), self.fix_point)
        return np.clip(ROUNDING[rounding](scaled), self.low, self.high)

    def reals(self, q: ArrayLike) -> np.ndarray:
        """Whole numbers -> float64 values q * 2**-fix_point (exact)."""
        return np.ldexp(np.asarray(q, dtype=np.float64), -self.fix_point)

    def attributes(self, rounding: str = "DPU_ROUND") -> dict[str, int | bool | str]:
        """The grid as XIR's attributes of an op or a tensor."""
        return {
            "fix_point": self.fix_point,
            "bit_width": self.bits,
            "if_signed": self.signed,
            "round_mode": rounding,
        }


PIECE = 1 << 16
"""Values that are widened at a time: as float64 they and their like stay in the cache."""


def quantize(x: ArrayLike, fix_point: int, rounding: str = "DPU_ROUND") -> np.ndarray:
    """Real values -> int8: round(x * 2**fix_point) with `rounding`, then saturate."""
    x, grid = np.asarray(x), Grid(fix_point)
    flat, out = x.reshape(-1), np.empty(x.size, np.int8)
    for start in range(0, x.size, PIECE):
        piece = slice(start, start + PIECE)
        out[piece] = grid.integers(flat[piece], rounding)
    return out.reshape(x.shape)


def row_sums(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum of |w|, sum of w) of each row of int8 values (N, K), int64 (N,): what sums of products may reach.

    Widened about PIECE values at a time, since a dense layer may have a hundred million.
    """
    size = max(1, PIECE // max(1, rows.shape[1]))
    sizes, sums = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for start in range(0, len(rows), size):
        part = rows[start : start + size].astype(np.int16)
        sums[start : start + size] = part.sum(axis=1, dtype=np.int64)
        sizes[start : start + size] = np.abs(part).sum(axis=1, dtype=np.int64)
    return sizes, sums


def dequantize(q: ArrayLike, fix_point: int) -> np.ndarray:
    """int8 -> float64 values q * 2**-fix_point (exact)."""
    return Grid(fix_point).reals(q)


def images_at_a_time(shape: Sequence[int]) -> int:
    """How many uint8 images of a shape (H, W, C) make a batch: 512, or fewer when they are large.

    8 MiB of pixels at most: as floats, and with a network's maps, they take a hundred times as much.
    """
    return max(1, min(512, (8 << 20) // math.prod(shape)))


SIX_DIGITS = 6
"""Significant digits of a figure that a report holds: more would differ between machines."""


def short(value: float | None) -> float | None:
    """A figure to six significant digits; None of infinity and of None."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{SIX_DIGITS}g}")


def sqnr_db(signal: ArrayLike, approximation: ArrayLike) -> float | None:
    """Signal to quantization noise in dB, 10 log10(sum x**2 / sum (x - q)**2); None when either is zero.

    To six digits (`short`).
    """
    power = float(np.square(signal, dtype=np.float64).sum())
    noise = float(np.square(np.subtract(signal, approximation, dtype=np.float64)).sum())
    return decibels(power, noise)


def decibels(power: float, noise: float) -> float | None:
    """10 log10(power / noise) to six digits (`short`); None when either is zero."""
    return short(10 * math.log10(power / noise)) if power > 0 and noise > 0 else None
