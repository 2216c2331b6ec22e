"""INT8 power-of-two numerics of the DPU tools.

A quantized value is ``q * 2**-fix_point`` with ``q`` an int8; one fix_point per
tensor, any integer (it may be negative or above 7). Sources:
docs/reference/numerics.md.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

INT8_MIN = -128
INT8_MAX = 127

SHIFT_CUT_RANGE = (0, 16)
"""Allowed fix_in + fix_weights - fix_out (docs/reference/quantizers.md, "Constraints and repairs")."""
SHIFT_BIAS_RANGE = (0, 16)
"""Allowed fix_in + fix_weights - fix_bias; stricter than the vendor's quantizer,
whose lower limit reaches below what the instruction field holds (docs/reference/numerics.md)."""

HARDWARE_SHIFT_BIAS_MIN = -1
"""Least fix_in + fix_weights - fix_bias that an instruction holds: its field is that + 1, unsigned
(docs/reference/numerics.md). Below it a compiled file stores the bias shifted (`stored_bias`)."""
VENDOR_SHIFT_BIAS_MIN = -16
"""The least that the vendor's quantizer gives (docs/reference/quantizers.md)."""

LEAKY_RELU_SLOPE = (26, 8)
"""The DPU's only leaky slope, 26 / 2**8 (docs/reference/numerics.md)."""
RELU6_LIMIT = 96
"""RELU6 clamps at integer 6 * 2**4 whatever the fix_point, while fix_out <= 4
(a quirk of the reference semantics, docs/reference/numerics.md)."""
RELU6_FIX_POINT = 4
"""The one fix_point at which that clamp means 6.0. Above it 6.0 lies beyond 127, so that saturation
alone is exact and RELU6 is RELU (docs/reference/numerics.md, "Fused activations"); below it the clamp lies
above 6.0, so that no
network may have one there: the quantizer raises it, the compilers refuse it."""


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


def quantize(x: ArrayLike, fix_point: int, rounding: str = "DPU_ROUND") -> np.ndarray:
    """Real values -> int8: round(x * 2**fix_point) with `rounding`, then saturate."""
    scaled = np.ldexp(np.asarray(x, dtype=np.float64), fix_point)
    return np.clip(ROUNDING[rounding](scaled), INT8_MIN, INT8_MAX).astype(np.int8)


def dequantize(q: ArrayLike, fix_point: int) -> np.ndarray:
    """int8 -> float64 values q * 2**-fix_point (exact)."""
    return np.ldexp(np.asarray(q, dtype=np.float64), -fix_point)


ADD_GUARD_BITS = 2
"""Bits that the add instruction keeps below the coarsest input's step; the reference semantics keep 7."""
SHIFT_READ_MAX = 15
"""Greatest difference between the fix_points of an addition's inputs (docs/reference/numerics.md)."""


def is_exact_add(fix_in: Sequence[int], fix_out: int) -> bool:
    """Whether the add instruction gives the reference semantics' result for every int8 input.

    The instruction floors an input that is finer than the guard bits; one such input makes the sum t
    a floor(t + e), 0 <= e < 1, which rounding to a step of at least two guard steps (fix_out at most 1
    above the least fix_in) does not see. Two such inputs may carry. (docs/reference/numerics.md,
    "Element-wise" tried it out.)
    """
    least = min(fix_in)
    finer = sum(fix - least > ADD_GUARD_BITS for fix in fix_in)
    return finer == 0 or (finer == 1 and fix_out - least < ADD_GUARD_BITS)


def stored_bias(bias: ArrayLike, shift_bias: int) -> np.ndarray:
    """The int8 bias that a compiled file holds: floor(bias * 2**(shift_bias + 1)) below shift_bias -1.

    The instruction then gets shift_bias -1, the bias's fix_point stays (docs/reference/numerics.md,
    "Convolution"). Exact for
    all activations but LEAKYRELU: what floor takes away lies below the last bit of the integer sum
    2 acc + bias * 2**(shift_bias + 1), to which rounding adds an integer before its own floor.
    """
    lost = HARDWARE_SHIFT_BIAS_MIN - shift_bias
    return np.asarray(bias, np.int8) >> lost if lost > 0 else np.asarray(bias, np.int8)


def images_at_a_time(shape: Sequence[int]) -> int:
    """How many uint8 images of a shape (H, W, C) make a batch: 512, or fewer when they are large.

    8 MiB of pixels at most: as floats, and with a network's maps, they take a hundred times as much.
    """
    return max(1, min(512, (8 << 20) // math.prod(shape)))


def scale_pixels(images: ArrayLike, input_scaling: Mapping[str, float]) -> np.ndarray:
    """uint8 pixels -> the float network's input, (pixel - subtract) / divide in float32."""
    subtract, divide = np.float32(input_scaling["subtract"]), np.float32(input_scaling["divide"])
    return (np.asarray(images, np.float32) - subtract) / divide


def input_table(subtract: float, divide: float, fix_point: int) -> np.ndarray:
    """Lookup table (256,) int8: what each uint8 pixel becomes at the DPU's input.

    (pixel - subtract) / divide is the float input of the network; the table holds
    its DPU_ROUND quantization (docs/reference/numerics.md, "Rounding").
    """
    value = scale_pixels(np.arange(256), {"subtract": subtract, "divide": divide})
    return quantize(value, fix_point)


_AVERAGE_POOL_FACTORS = {
    (3, 3): (7, 6),
    (5, 5): (10, 8),
    (6, 6): (7, 8),
    (7, 7): (21, 10),
    (14, 14): (21, 12),
}


def average_pool_factor(kernel_h: int, kernel_w: int) -> tuple[int, int]:
    """(M, S) with M / 2**S, the DPU's stand-in for 1 / (kernel_h * kernel_w).

    docs/reference/numerics.md, "Pooling": five fixed pairs, else the first shift
    with the smallest float32 error.
    """
    fixed = _AVERAGE_POOL_FACTORS.get((kernel_h, kernel_w))
    if fixed:
        return fixed
    area = kernel_h * kernel_w
    target = np.float32(1.0 / area)
    pairs = ((math.floor(2**shift / area + 0.5), shift) for shift in range(math.ceil(math.log2(area * 128))))
    return min(pairs, key=lambda pair: abs(np.float32(pair[0] / 2 ** pair[1]) - target))


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
    return short(10 * math.log10(power / noise)) if power > 0 and noise > 0 else None
