"""From exact sums to int8: one affine step, floor and clip, on floating-point units.

y = floor((2 acc + b 2**(shift_bias + 1)) / 2**(shift_cut + 1) + 1/2) (docs/reference/numerics.md) is
computed as floor(acc * scale + offset), where scale is a power of two and
offset holds bias and rounding half. That is exact as long as every number on the way is
an integer multiple of one step and stays below 2**24 (float32) or 2**53 (float64) steps,
which is checked here from bounds on |acc|, not hoped for.
"""

from collections.abc import Sequence

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.base.totality import Total
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE, RELU6_LIMIT
from dpuflow.emulator import oracle
from dpuflow.emulator.operations import NONLINEAR, Nonlinear

LOWEST = Total(
    "emulator.requantise: least int8 behind the first rounding",
    NONLINEAR,
    {
        **dict.fromkeys(("RELU", "RELU6"), 0),
        **dict.fromkeys(("NONE", "LEAKYRELU", "HSIGMOID", "HSWISH"), INT8_MIN),
    },
)

MANTISSA: dict[np.dtype, int] = {np.dtype(np.float32): 24, np.dtype(np.float64): 53}
_LARGEST_SHIFT: dict[np.dtype, int] = {np.dtype(np.float32): 60, np.dtype(np.float64): 500}


class OutOfRangeError(Exception):
    """No floating-point type holds the sums exactly; the caller falls back to the oracle."""


def exact_dtype(largest: int) -> np.dtype:
    """Smallest float type whose integers reach `largest`; OutOfRangeError if none does."""
    for dtype, bits in MANTISSA.items():
        if largest < 1 << bits:
            return dtype
    raise OutOfRangeError


def _shifted(value: int, shift: int) -> int:
    """floor(value * 2**shift) of a Python integer."""
    return value << shift if shift >= 0 else value >> -shift


class Requantise:
    """Turns sums into int8 values (held in floats or int8).

    Parameters
    ----------
    largest : bound on |acc| for each output channel, or one for all (sequence of int).
    bias : int8 [OC] or None.

    Attributes
    ----------
    dtype : float type in which the sums must arrive.
    scale : factor the sums must already carry (fold it into the weights).
    """

    def __init__(
        self,
        largest: Sequence[int] | np.ndarray,
        shift_cut: int,
        nonlinear: Nonlinear,
        fix_out: int,
        bias: np.ndarray | None = None,
        shift_bias: int = 0,
    ) -> None:
        largest = [int(v) for v in largest]
        biases = [0] * len(largest) if bias is None else [int(b) for b in bias]
        self.low = LOWEST[nonlinear.kind]
        self.high = RELU6_LIMIT if nonlinear.kind == "RELU6" and fix_out <= 4 else INT8_MAX
        self.table = _second_stage(nonlinear)
        self.leaky = nonlinear.kind == "LEAKYRELU"
        if self.leaky:
            self._leaky(largest, shift_cut, biases, shift_bias)
        else:
            self._affine(largest, shift_cut, biases, shift_bias)

    def _affine(self, largest: list[int], shift_cut: int, biases: list[int], shift_bias: int) -> None:
        if shift_cut >= 0:
            # numerator 2 acc + c over 2**(shift_cut + 1): an odd c's last bit cannot change
            # the floor, so whole steps of acc are enough - also for bits of a bias below them
            offsets = [(_shifted(b, shift_bias + 1) + (1 << shift_cut)) >> 1 for b in biases]
            bound = max(a + abs(c) for a, c in zip(largest, offsets, strict=True))
            exponent = -shift_cut
        else:
            # the scaled sum is an integer already, so the bias alone is rounded
            offsets = [(_shifted(b, shift_bias - shift_cut + 1) + 1) >> 1 for b in biases]
            bound = max((a << -shift_cut) + abs(c) for a, c in zip(largest, offsets, strict=True))
            exponent = 0
        self.dtype = exact_dtype(bound)
        if abs(shift_cut) > _LARGEST_SHIFT[self.dtype]:
            self.dtype = np.dtype(np.float64)
        if abs(shift_cut) > _LARGEST_SHIFT[self.dtype]:
            raise OutOfRangeError
        self.scale = 2.0**-shift_cut
        self.offset = np.ldexp(np.array(offsets, dtype=np.float64), exponent).astype(self.dtype)
        self.integer_offsets = offsets
        self.shift_cut = shift_cut

    def _leaky(self, largest: list[int], shift_cut: int, biases: list[int], shift_bias: int) -> None:
        slope, bits = LEAKY_RELU_SLOPE
        self.dtype = exact_dtype(max(largest))
        finest = min(0, shift_bias, shift_cut - 1) - bits
        sums = [(a << max(0, -finest)) for a in largest]
        scaled_bias = [abs(_shifted(b, shift_bias - finest)) for b in biases]
        bound = max(a + c for a, c in zip(sums, scaled_bias, strict=True)) * slope
        bound += _shifted(1, shift_cut - 1 - finest)
        if bound >= 1 << 53 or max(abs(shift_cut), abs(shift_bias)) > 500:
            raise OutOfRangeError
        self.scale = 1.0
        self.offset = np.ldexp(np.array(biases, dtype=np.float64), shift_bias)
        self.shift_cut = shift_cut

    def __call__(self, sums: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Write clip(round(...)) of `sums` (..., OC) to `out` (float32 or int8), and return it."""
        if self.leaky:
            slope, bits = LEAKY_RELU_SLOPE
            value = sums.astype(np.float64) + self.offset
            value = np.where(value < 0, value * (slope / 2**bits), value)
            value = np.floor(np.ldexp(value, -self.shift_cut) + 0.5)
        else:
            value = np.add(sums, self.offset, out=sums)
            np.floor(value, out=value)
        np.clip(value, self.low, self.high, out=value)
        if self.table is not None:
            value = self.table[value.astype(np.int16) + 128]
        np.copyto(out, value, casting="unsafe")
        return out


def _second_stage(nonlinear: Nonlinear) -> np.ndarray | None:
    """Table (256,) int8 of what follows the first rounding, for HSIGMOID and HSWISH; else None."""
    if nonlinear.kind not in ("HSIGMOID", "HSWISH"):
        return None
    q = oracle.Exact(np.arange(-128, 128, dtype=np.int64))
    return oracle.activate(q, nonlinear, fix_out=0)
