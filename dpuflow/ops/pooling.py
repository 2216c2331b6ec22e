"""Maximum and average pooling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.device.dpuczdx8g import POOL_SHIFT_RANGE, average_pool_factor
from dpuflow.ops import arithmetic, work
from dpuflow.ops.arithmetic import EXACT_FLOAT32
from dpuflow.ops.operator import Array, Arrays, Integers, Shape, Shifts, Window


@dataclass(frozen=True)
class MaxPool(Window):
    """Largest value per window; padding counts as lowest."""

    kind: ClassVar[str] = "max_pool"
    moves_bytes: ClassVar[bool] = True
    vendor_aligns: ClassVar[str] = "pool"
    passes_positive_scale: ClassVar[bool] = True
    commutes_with_relu: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(OH, OW, C)."""
        return self.window_shape(inputs[0], inputs[0][-1])

    def times_behind(self, scale: np.ndarray, output: Shape) -> int:
        """Not with a negative scale, which would turn the maximum into a minimum."""
        return 0 if np.any(scale <= 0) else 1

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        padded = arithmetic.pad_map(inputs[0], self.pad, -np.inf)
        view = arithmetic.windows(padded, self.kernel, self.stride)
        out = view[:, :, :, 0, 0].copy()
        for i in range(view.shape[3]):
            for j in range(view.shape[4]):
                np.maximum(out, view[:, :, :, i, j], out=out)
        return out

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """OH OW C KH KW."""
        return work.pool_workload(output, self.kernel)


@dataclass(frozen=True)
class AveragePool(Window):
    """Mean per window; padding counts as zero. Its input's size tells whether it is global."""

    kind: ClassVar[str] = "avg_pool"
    vendor_aligns: ClassVar[str] = "pool"
    passes_positive_scale: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(OH, OW, C)."""
        return self.window_shape(inputs[0], inputs[0][-1])

    def is_global(self, shape: Shape) -> bool:
        """Whether the window is the whole map (H, W, C)."""
        return self.kernel == (shape[1], shape[0])

    def shares_fix_point(self, inputs: Sequence[Shape]) -> bool:
        """Global pooling rescales, so its two sides are free (docs/reference/numerics.md, "Pooling")."""
        return not self.is_global(inputs[0])

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """A mean is no larger than what it is of."""
        return None

    def shifts(self, fix_points: Sequence[int], fix_out: int) -> Shifts:
        """The instruction's, with the factor's own."""
        shift = average_pool_factor(self.kernel[1], self.kernel[0])[1]
        return {"shift of the average": (fix_points[0] - fix_out + shift, POOL_SHIFT_RANGE)}

    def times_behind(self, scale: np.ndarray, output: Shape) -> int:
        """Not with padding, which counts as zero behind the offset and not in front of it."""
        return 0 if any(self.pad) else 1

    def window_sum(self, x: np.ndarray) -> np.ndarray:
        """Sum per window."""
        view = arithmetic.windows(arithmetic.pad_map(x, self.pad), self.kernel, self.stride)
        if view.shape[1:3] == (1, 1):
            return view.sum(axis=(3, 4))
        out = np.zeros(view.shape[:3] + view.shape[5:], x.dtype)
        for i in range(view.shape[3]):
            for j in range(view.shape[4]):
                out += view[:, :, :, i, j]
        return out

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Exact division, not the DPU's factor."""
        return self.window_sum(inputs[0]) / np.float32(self.area)

    def needs_float64(self) -> bool:
        """True when float32 cannot hold every possible sum of a window times its multiplier exactly."""
        multiplier, _ = average_pool_factor(self.kernel[1], self.kernel[0])
        return 256 * self.area * multiplier >= EXACT_FLOAT32

    def average(self, x: np.ndarray, shift: int) -> np.ndarray:
        """Sum * M / 2**S * 2**shift as real numbers (exact in float64, float32 where it fits)."""
        multiplier, divisor_shift = average_pool_factor(self.kernel[1], self.kernel[0])
        dtype: type[np.floating] = np.float64 if self.needs_float64() else np.float32
        return self.window_sum(x).astype(dtype) * dtype(multiplier * 2.0 ** (shift - divisor_shift))

    def before_rounding(
        self, inputs: Arrays, fix_points: Sequence[int], weights: Integers = None, bias: Integers = None
    ) -> np.ndarray:
        """With the DPU's stand-in for the division."""
        return self.average(inputs[0], -fix_points[0])

    def unrounded(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """sum * M / 2**S * 2**(fix_out - fix_in)."""
        return self.average(inputs[0], fix_out - fix_points[0]).astype(np.float64)

    def _steps(self, fix_points: Sequence[int], fix_out: int) -> float:
        """Steps of the output that one step of a window's sum makes."""
        multiplier, shift = average_pool_factor(self.kernel[1], self.kernel[0])
        return multiplier * 2.0 ** (fix_out - fix_points[0] - shift)

    def half_sums(self, fix_points: Sequence[int], fix_out: int) -> np.ndarray:
        """Sums of one window that are rounded at a half inside the range."""
        sums = np.arange(INT8_MIN * self.area, INT8_MAX * self.area + 1)
        results = sums * self._steps(fix_points, fix_out)
        return sums[(results - np.floor(results) == 0.5) & (results >= INT8_MIN) & (results < INT8_MAX)]

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """All values of the window at one end."""
        share = self.area * self._steps(fix_points, fix_out)
        return INT8_MIN * share, INT8_MAX * share

    def rounds_halves(self, fix_points: Sequence[int], fix_out: int) -> bool:
        """The factor seldom gives a half."""
        return len(self.half_sums(fix_points, fix_out)) > 0

    def integer(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """sat8(DPU_ROUND(sum * M / 2**S * 2**(fix_out - fix_in)))."""
        return arithmetic.finish(self.average(inputs[0], fix_out - fix_points[0]), 0, "NONE", fix_out)

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Twice OH OW C KH KW, as the vendor's compiler counts."""
        return work.pool_workload(output, self.kernel, average=True)


@dataclass(frozen=True)
class InsideAveragePool(AveragePool):
    """Mean per window over its pixels inside the map: padding does not count (count_include_pad False).

    The DPU's stand-in for the division is that of so many pixels, so windows at the border have others.
    """

    kind: ClassVar[str] = "avg_pool_inside"

    def times_behind(self, scale: np.ndarray, output: Shape) -> int:
        """A mean of x * scale + offset is one of x, times scale, plus offset."""
        return 1

    def counts(self, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) inside a map (H, W, C) that each row and each column of windows sees."""
        out_h, out_w, _ = self.window_shape(shape, shape[-1])
        left, _, top, _ = self.pad
        found = []
        for count, size, kernel, stride, before in (
            (out_h, shape[0], self.kernel[1], self.stride[1], top),
            (out_w, shape[1], self.kernel[0], self.stride[0], left),
        ):
            start = np.arange(count) * stride - before
            inside = np.minimum(start + kernel, size) - np.maximum(start, 0)
            if count and inside.min() < 1:
                raise ValueError(f"windows of {kernel} in the padding alone")
            found.append(inside)
        return found[0], found[1]

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(OH, OW, C)."""
        self.counts(inputs[0])
        return self.window_shape(inputs[0], inputs[0][-1])

    def factors(self, shape: Shape) -> np.ndarray:
        """M / 2**S of every window on a map (H, W, C): float64 (OH, OW, 1)."""
        rows, columns = self.counts(shape)
        table = {}
        for h in set(rows.tolist()):
            for w in set(columns.tolist()):
                multiplier, shift = average_pool_factor(h, w)
                table[h, w] = multiplier * 2.0**-shift
        return np.array([[table[h, w] for w in columns.tolist()] for h in rows.tolist()])[:, :, None]

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Exact division by the pixels inside."""
        rows, columns = self.counts(inputs[0].shape[1:])
        area = np.outer(rows, columns).astype(np.float32)
        return self.window_sum(inputs[0]) / area[:, :, None]

    def average(self, x: np.ndarray, shift: int) -> np.ndarray:
        """Sum * M / 2**S * 2**shift as real numbers, exact in float64."""
        return self.window_sum(x.astype(np.float64)) * self.factors(x.shape[1:]) * 2.0**shift

    def needs_float64(self) -> bool:
        """Windows have different multipliers, so no one bound: always."""
        return True

    def _possible_counts(self) -> Iterator[tuple[int, int]]:
        """Every (rows, columns) that a window may have inside."""
        left, right, top, bottom = self.pad
        for rows in range(max(1, self.kernel[1] - top - bottom), self.kernel[1] + 1):
            for columns in range(max(1, self.kernel[0] - left - right), self.kernel[0] + 1):
                yield rows, columns

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """All values of the window with the greatest sum of shares at one end."""
        step = 2.0 ** (fix_out - fix_points[0])
        shares = []
        for rows, columns in self._possible_counts():
            multiplier, shift = average_pool_factor(rows, columns)
            shares.append(rows * columns * multiplier * 2.0**-shift)
        return INT8_MIN * max(shares) * step, INT8_MAX * max(shares) * step
