"""Operators of gates: the hard sigmoid, the product of two maps or of a map and one factor per channel.

Hard swish is no operator: it is x times its own hard sigmoid, as the vendor's compiler makes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.device.dpuczdx8g import (
    HARD_SIGMOID_FACTOR,
    HARD_SIGMOID_FIX_POINT,
    HARD_SIGMOID_INPUT_RANGE,
    HARD_SIGMOID_SHIFT_RANGE,
    PRODUCT_SHIFT_RANGE,
)
from dpuflow.ops import work
from dpuflow.ops.activation import Elementwise
from dpuflow.ops.operator import Array, Arrays, Integers, Operator, Shape, Shifts


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """relu6(x + 3) / 6.

    The DPU does not clamp at 1: int8 does, whose largest value is nearly 1 at fix_point 7 and at no other.
    """

    kind: ClassVar[str] = "hard_sigmoid"
    fixed_output: ClassVar[int] = HARD_SIGMOID_FIX_POINT

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return np.clip(inputs[0] + np.float32(3), 0, 6) / np.float32(6)

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """1."""
        return 1.0

    def shifts(self, fix_points: Sequence[int], fix_out: int) -> Shifts:
        """The fields of the instruction, and the only fix_point at which int8 clamps at 1."""
        return {
            "hsigmoid_in (the fix_point of its input)": (fix_points[0], HARD_SIGMOID_INPUT_RANGE),
            "the fix_point of a hard sigmoid": (fix_out, (HARD_SIGMOID_FIX_POINT, HARD_SIGMOID_FIX_POINT)),
            "shift_hsigmoid": (self.shift(fix_points[0], fix_out), HARD_SIGMOID_SHIFT_RANGE),
        }

    @staticmethod
    def shift(fix_in: int, fix_out: int) -> int:
        """shift_hsigmoid: what the line (2731 q + 3 * 2731 * 2**fix_in) is divided by, as a power of two."""
        return HARD_SIGMOID_FACTOR[1] + fix_in - fix_out

    def before_rounding(
        self, inputs: Arrays, fix_points: Sequence[int], weights: Integers = None, bias: Integers = None
    ) -> np.ndarray:
        """With the DPU's stand-in for the division."""
        x = inputs[0] * np.float32(2.0 ** -fix_points[0])
        factor, bits = HARD_SIGMOID_FACTOR
        return np.clip(x + np.float32(3), 0, 6) * np.float32(factor / 2**bits)

    def unrounded(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """max(0, 2731 q + 3 * 2731 * 2**fix_in) / 2**shift_hsigmoid (float64, exact)."""
        factor, fix_in = HARD_SIGMOID_FACTOR[0], fix_points[0]
        line = inputs[0].astype(np.float64) * factor + 3 * factor * 2.0**fix_in
        return np.maximum(line, 0) * 2.0 ** -self.shift(fix_in, fix_out)

    def _every(self, fix_points: Sequence[int], fix_out: int) -> np.ndarray:
        """`unrounded` of every int8."""
        every = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.float32)
        return self.unrounded([every], fix_points, fix_out)

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """Of the least and greatest int8."""
        every = self._every(fix_points, fix_out)
        return float(every[0]), float(every[-1])

    def rounds_halves(self, fix_points: Sequence[int], fix_out: int) -> bool:
        """The factor seldom gives a half."""
        every = self._every(fix_points, fix_out)
        return bool(((every - np.floor(every) == 0.5) & (every < INT8_MAX)).any())

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """One per value."""
        return prod(output)

    def counted(self, inputs: Sequence[Shape]) -> bool:
        """The vendor's compiler leaves it out of its workload."""
        return False


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)), for which folding takes the hard sigmoid, as the vendor's quantizers do."""

    kind: ClassVar[str] = "sigmoid"
    survives_folding: ClassVar[bool] = False

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return 1 / (1 + np.exp(-np.clip(inputs[0], -80, 80)))


@dataclass(frozen=True)
class Multiply(Operator):
    """Product of two maps of one shape, or of a map and one factor per channel, (1, 1, C) or (C,)."""

    kind: ClassVar[str] = "multiply"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The map's; ValueError for shapes that are neither equal nor a map's and its channels'."""
        first, second = inputs
        if first == second or is_factors(second, first):
            return first
        if is_factors(first, second):
            return second
        raise ValueError(
            f"of inputs {first} and {second}; the DPU multiplies by a map or by (1, 1, channels)"
        )

    def factors(self, inputs: Sequence[Shape]) -> int | None:
        """Which input has one factor per channel of the other; None for maps (or vectors) of one size."""
        first, second = inputs
        if prod(first) == prod(second):
            return None
        return 1 if is_factors(second, first) else 0

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return _over_map(inputs[0], inputs[1]) * _over_map(inputs[1], inputs[0])

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """Both at once."""
        return prod(sizes)

    def shifts(self, fix_points: Sequence[int], fix_out: int) -> Shifts:
        """The product's bits below the output's step."""
        return {"shift of the product": (sum(fix_points) - fix_out, PRODUCT_SHIFT_RANGE)}

    def unrounded(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """The product (at most 2**14, exact in float32) in steps of the output."""
        return self.real(inputs).astype(np.float64) * 2.0 ** (fix_out - sum(fix_points))

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """Of the ends of int8."""
        step = 2.0 ** (fix_out - sum(fix_points))
        return INT8_MIN * INT8_MAX * step, INT8_MIN * INT8_MIN * step

    def rounds_halves(self, fix_points: Sequence[int], fix_out: int) -> bool:
        """Where a bit is cut."""
        return sum(fix_points) > fix_out

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Two per value, as the vendor's compiler counts."""
        return work.eltwise_workload(output, len(inputs))

    def counted(self, inputs: Sequence[Shape]) -> bool:
        """The vendor's compiler leaves factors per channel out of its workload."""
        return self.factors(inputs) is None


def is_factors(shape: Shape, of: Shape) -> bool:
    """Whether `shape` holds one number for each channel of the map `of`: (1, 1, C) or (C,)."""
    return len(of) == 3 and shape[-1] == of[-1] and prod(shape) == of[-1]


def _over_map(x: np.ndarray, other: np.ndarray) -> np.ndarray:
    """x (N, ...) with axes of 1 for those of `other` that it lacks."""
    return x.reshape(len(x), 1, 1, -1) if x.ndim < other.ndim else x
