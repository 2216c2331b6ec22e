"""Operators of several inputs: addition, concatenation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.device.dpuczdx8g import REFERENCE_GUARD_BITS, SHIFT_READ_MAX, SHIFT_WRITE_RANGE
from dpuflow.ops import arithmetic, work
from dpuflow.ops.activations import ACTIVATIONS
from dpuflow.ops.operator import MANY, Array, Arrays, Integers, Operator, Shape, Shifts


@dataclass(frozen=True)
class Add(Operator):
    """Sum of maps of one shape, then an activation."""

    activation: str

    kind: ClassVar[str] = "add"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def check(self) -> None:
        """ValueError for an activation that no producer can have."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r}")

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The inputs' shape."""
        if any(shape != inputs[0] for shape in inputs):
            raise ValueError(f"of different inputs {inputs}")
        return inputs[0]

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return arithmetic.activate(sum(inputs[1:], start=inputs[0].copy()), self.activation)

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """All at once."""
        return sum(sizes)

    def shifts(self, fix_points: Sequence[int], fix_out: int) -> Shifts:
        """shift_read between the inputs, shift_write to the output."""
        least = min(fix_points)
        return {
            "shift_read": (max(fix_points) - least, (0, SHIFT_READ_MAX)),
            "shift_write": (least - fix_out, SHIFT_WRITE_RANGE),
        }

    def guarded_sum(
        self, inputs: Sequence[np.ndarray], fix_points: Sequence[int], fix_out: int
    ) -> np.ndarray:
        """floor(x * 2**(7 - (fix_k - m))) summed, m the least fix_point of the inputs, in output steps."""
        lowest = min(fix_points)
        total = np.zeros_like(inputs[0])
        for x, fix in zip(inputs, fix_points, strict=True):
            total = total + np.floor(x * np.float32(2.0 ** (REFERENCE_GUARD_BITS - (fix - lowest))))
        return total * np.float32(2.0 ** (fix_out - lowest - REFERENCE_GUARD_BITS))

    def unrounded(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """The guarded sum."""
        return self.guarded_sum(inputs, fix_points, fix_out).astype(np.float64)

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """All inputs at one end."""
        share = sum(2.0 ** (fix_out - fix) for fix in fix_points)
        return INT8_MIN * share, INT8_MAX * share

    def integer(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """The guarded sum, activated, rounded, saturated."""
        total = self.guarded_sum(inputs, fix_points, fix_out)
        return arithmetic.finish(total, 0, self.activation, fix_out)

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """One per output value and input, as the vendor's compiler counts."""
        return work.eltwise_workload(output, len(inputs))


@dataclass(frozen=True)
class Concat(Operator):
    """Maps side by side along their last axis; `axis` counts the batch (3: channels of NHWC)."""

    axis: int

    kind: ClassVar[str] = "concat"
    moves_bytes: ClassVar[bool] = True
    vendor_aligns: ClassVar[str] = "concat"
    arity: ClassVar[tuple[int, int]] = (1, MANY)
    commutes_with_relu: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The inputs' shape with their channels added up."""
        first = inputs[0]
        if self.axis != len(first) or len({shape[:-1] for shape in inputs}) != 1:
            raise ValueError(f"inputs {list(inputs)} along axis {self.axis!r}")
        return (*first[:-1], sum(shape[-1] for shape in inputs))

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return np.concatenate(inputs, axis=-1)

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None."""
        return 0
