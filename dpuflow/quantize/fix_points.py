"""Choosing the fix_point of one tensor: the vendor's two criteria (docs/reference/quantizers.md).

*non_overflow*: the finest fix_point that does not saturate, with half a step of guard.
*min_diffs*: of that fix_point and the four finer ones, the least sum of squared errors.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX, INT8_MIN, PIECE, Grid
from dpuflow.ops.operator import Quantized
from dpuflow.quantize import blocks

FixPoints = dict[str, int]
"""Layer name -> fix_point of its output."""
Table = dict[str, Quantized]
"""Layer name -> int8 weights (or biases) and their fix_point."""
Change = dict[str, Any]
"""{"tensor", "from", "to", "why"}: a fix_point that was moved."""

METHODS = ("non_overflow", "min_diffs")
CANDIDATES = 5
ANY_FIX_POINT = 127
"""What the vendor's tool returns for an all-zero tensor: any fix_point would do."""
COARSEST, FINEST = -56, 60
"""Bounds of fix_points from a range. Beyond 2**63 squares leave float32: refused. What is smaller than
2**-60 counts as zero, and CANDIDATES finer fix_points still fit into a file (`network.check`)."""


def non_overflow(smallest: float, largest: float) -> int:
    """Position from a tensor's range: floor(log2(1 / max(min / -128.5, max / 127.5))), at most FINEST.

    UserError for a range that is infinite, no number, or would need less than COARSEST.
    """
    step = max(float(smallest) / (INT8_MIN - 0.5), float(largest) / (INT8_MAX + 0.5))
    if not math.isfinite(smallest + largest) or step > 2.0**-COARSEST:
        raise UserError(
            f"values from {smallest:g} to {largest:g}; the quantizer takes up to "
            f"{INT8_MAX * 2.0**-COARSEST:.0e}: the network has diverged in training, or its input scaling is "
            "another one"
        )
    return ANY_FIX_POINT if step <= 0 else min(math.floor(-math.log2(step)), FINEST)


def choose_activation(
    x: np.ndarray, method: str, ends: tuple[float, float] | None = None, most: int | None = None
) -> int:
    """fix_point for activations `x` (real values, DPU_ROUND) by `method`.

    ends : least and greatest value, if they are known; most : how many values errors are summed over
    (None: all of them), taken in runs from all over x.
    """
    fix_point = non_overflow(*(ends or (x.min(), x.max())))
    if method == "non_overflow" or fix_point == ANY_FIX_POINT:
        return fix_point
    if most is not None and x.size > most:
        runs = x.reshape(-1)[: x.size // RUN * RUN].reshape(-1, RUN)
        x = runs[blocks.evenly(len(runs), max(1, most // RUN))]
    candidates = range(fix_point, fix_point + CANDIDATES)
    errors = blocks.in_turns(lambda p: squared_error(x, p), candidates)
    return candidates[int(np.argmin(errors))]  # ties go to the smaller fix_point


def choose_weights(x: np.ndarray, method: str) -> int:
    """fix_point for weights or biases `x` (rounded half away from zero) by `method`."""
    x = np.asarray(x)
    fix_point = non_overflow(x.min(), x.max())
    if method == "non_overflow" or fix_point == ANY_FIX_POINT:
        return fix_point
    flat = x.ravel(order="K")

    def errors(which: slice) -> np.ndarray:
        real = flat[which].astype(np.float64)
        return np.array([_weights_error(real, p) for p in candidates])

    candidates = range(fix_point, fix_point + CANDIDATES)
    return candidates[int(np.argmin(pairwise_sum(errors, flat.size)))]  # ties go to the smaller fix_point


def _weights_error(x: np.ndarray, fix_point: int) -> float:
    """Sum of (x - Q(x))**2 for STD_ROUND at `fix_point`; x float64 (n,)."""
    grid = Grid(fix_point)
    return float(np.square(grid.reals(grid.integers(x, "STD_ROUND")) - x).sum())


def pairwise_sum(function: Callable[[slice], np.ndarray], count: int) -> np.ndarray:
    """The sum of function(slice) over `count` values in pieces of at most PIECE.

    Halved as NumPy halves a contiguous array that it sums: where function is `np.sum` of a slice, the result
    is bit for bit `np.sum` of the whole.
    """

    def part(start: int, stop: int) -> np.ndarray:
        if stop - start <= PIECE:
            return function(slice(start, stop))
        half = (stop - start) // 2
        middle = start + half - half % 8
        return part(start, middle) + part(middle, stop)

    return part(0, count)


RUN = 4096
"""Values of a run, where a sample of all values does."""


def squared_error(x: np.ndarray, fix_point: int) -> float:
    """Sum of (x - Q(x))**2 for DPU_ROUND at `fix_point`; x float32 or float64 of any shape."""
    scale = x.dtype.type(2.0**fix_point)
    flat = x.reshape(-1)
    total = 0.0
    buffer = np.empty(min(PIECE, flat.size), x.dtype)
    rounded = np.empty_like(buffer)
    for start in range(0, flat.size, PIECE):  # pieces that stay in cache
        piece = flat[start : start + PIECE]
        scaled, grid = buffer[: len(piece)], rounded[: len(piece)]
        np.multiply(piece, scale, out=scaled)
        np.add(scaled, x.dtype.type(0.5), out=grid)
        np.floor(grid, out=grid)
        np.clip(grid, INT8_MIN, INT8_MAX, out=grid)
        grid -= scaled
        total += float(np.dot(grid, grid))
    return total * 4.0**-fix_point
