"""Arithmetic of the DPUCZDX8G that no other family need share: slopes, clamps, factors, ranges of shifts.

What follows from a number's grid alone is `base.numerics`. Sources: docs/reference/numerics.md and
docs/reference/quantizers.md.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

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
above 6.0, so that no network may have one there: the quantizer raises it, the compilers refuse it."""
SHIFT_WRITE_RANGE = (-15, 15)
"""Of an addition: least input fix_point minus output's (docs/reference/numerics.md)."""
REFERENCE_GUARD_BITS = 7
"""Bits that an addition keeps below its inputs' common step (docs/reference/numerics.md, "Element-wise")."""
ADD_GUARD_BITS = 2
"""Bits that the add instruction keeps below the coarsest input's step; the reference semantics keep 7."""
SHIFT_READ_MAX = 15
"""Greatest difference between the fix_points of an addition's inputs (docs/reference/numerics.md)."""


HARD_SIGMOID_FACTOR = (2731, 14)
"""2731 / 2**14 for 1 / 6 in the hard sigmoid (docs/reference/numerics.md, "Hard sigmoid, product")."""
HARD_SIGMOID_FIX_POINT = 7
"""Of a hard sigmoid's output: the only one at which saturation is the clamp at 1 (nearly: 127 / 128)."""
HARD_SIGMOID_INPUT_RANGE = (0, 15)
"""Allowed fix_point of its input, the instruction's shift_bias."""
HARD_SIGMOID_SHIFT_RANGE = (0, 31)
"""Allowed 14 + fix_in - fix_out, the instruction's shift_cut."""
POOL_SHIFT_RANGE = (-7, 23)
"""Allowed fix_in - fix_out (and an average's S) of pooling: what the instruction's code of a shift holds."""
PRODUCT_SHIFT_RANGE = (0, 15)
"""Allowed sum of the fix_points of a product's two inputs less the output's: the vendor's limit, which
both instructions hold (ELEW for two maps, ALU for a map and one factor per channel)."""


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
    "Convolution"). Exact for all activations but LEAKYRELU: what floor takes away lies below the last bit
    of the integer sum
    2 acc + bias * 2**(shift_bias + 1), to which rounding adds an integer before its own floor.
    """
    lost = HARDWARE_SHIFT_BIAS_MIN - shift_bias
    return np.asarray(bias, np.int8) >> lost if lost > 0 else np.asarray(bias, np.int8)


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
