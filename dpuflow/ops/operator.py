"""What every operator of a Network has: attributes, arity, output shape, arithmetic, traits.

An operator is a frozen dataclass; its fields are its attributes. `kind` is the name under which
files and `network.Layer` know it. Other rooms ask the traits instead of keeping lists of operators;
what depends on a stage (TensorFlow nodes, XIR, machine code) stays with the stage, in a table whose
vocabulary is the registry (`base.totality`). docs/adding-an-operator.md lists these places.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from dpuflow.ops import arithmetic

Shape = tuple[int, ...]
Quantized = tuple[np.ndarray, int]
"""int8 array and its fix_point."""
Arrays = Sequence[np.ndarray]
Array = np.ndarray | None
Integers = Quantized | None
Shifts = dict[str, tuple[int, tuple[int, int]]]
"""Name of a shift -> (value, (least, greatest))."""

MANY = 2**31
NO_GRID = 0
"""The fix_point that a float tensor counts as having, of a layer on the CPU: its values are real numbers."""


@dataclass(frozen=True)
class Operator(ABC):
    """One kind of layer.

    Traits
    ------
    arity : fewest and most inputs.
    survives_folding : whether a folded network may hold it (else folding removes it).
    quantized : whether its output is int8 on a grid; else it is float on the CPU, at the end only.
    weighted : whether it has weights, and maybe a bias.
    output_axis : axis of the weights that counts output channels.
    renames : its output holds the input's integers in the same order; it computes nothing.
    moves_bytes : every int8 of its output is one of its inputs', so it lies on their grid.
    vendor_aligns : pass in which vai_q_tensorflow gives the inputs the output's position ("concat",
        "pool"), or None.
    passes_positive_scale : a positive factor per channel may be moved from its input to its output.
    commutes_with_relu : max(0, .) may be moved from its output to its inputs.
    fixed_output : the only fix_point that its output may have, or None.
    fuses_as : value of a producer's attribute `activation` that this layer becomes, or None.
    holds_value : its layer's weights are its value, in float.
    """

    kind: ClassVar[str]
    arity: ClassVar[tuple[int, int]] = (1, 1)
    survives_folding: ClassVar[bool] = True
    quantized: ClassVar[bool] = True
    weighted: ClassVar[bool] = False
    output_axis: ClassVar[int] = 0
    renames: ClassVar[bool] = False
    moves_bytes: ClassVar[bool] = False
    vendor_aligns: ClassVar[str | None] = None
    passes_positive_scale: ClassVar[bool] = False
    commutes_with_relu: ClassVar[bool] = False
    fixed_output: ClassVar[int | None] = None
    fuses_as: ClassVar[str | None] = None
    holds_value: ClassVar[bool] = False

    @classmethod
    def attributes(cls) -> tuple[str, ...]:
        """Names of the attributes, as in `Layer.attrs`."""
        return tuple(field.name for field in fields(cls))

    def check(self) -> None:  # noqa: B027 - an operator without attributes has nothing to check
        """ValueError when an attribute has an impossible value."""

    @abstractmethod
    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """Output shape without the batch, from the inputs' and the weights' shapes; ValueError."""

    def shares_fix_point(self, inputs: Sequence[Shape]) -> bool:
        """Whether output and inputs must have one fix_point: nothing is rescaled in between."""
        return self.moves_bytes

    def shifts(self, fix_points: Sequence[int], fix_out: int) -> Shifts:
        """What an instruction must be able to hold: {name: (value, (least, greatest))}.

        fix_points : of the inputs. Shifts of weights and biases are `QuantizedNetwork`'s.
        """
        if len(fix_points) > 1 and not self.moves_bytes:
            raise NotImplementedError(f"{self.kind}: the shifts between its inputs are not said")
        return {}

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """Bound of |output| for inputs of at most these sizes; None: its inputs' grid holds it."""
        if self.moves_bytes:
            return None
        raise NotImplementedError(f"{self.kind}: how large its output may be is not said")

    def times_behind(self, scale: np.ndarray, output: Shape) -> int:
        """How often the channels of x * scale + offset in front of it stand behind it (0: they cannot)."""
        return 0

    @abstractmethod
    def real(
        self, inputs: Sequence[np.ndarray], weights: np.ndarray | None = None, bias: np.ndarray | None = None
    ) -> np.ndarray:
        """Output (N, ...) in float32 for inputs (N, ...) of real numbers."""

    def before_rounding(
        self,
        inputs: Sequence[np.ndarray],
        fix_points: Sequence[int],
        weights: Quantized | None = None,
        bias: Quantized | None = None,
    ) -> np.ndarray:
        """Output in real numbers for int8-valued float32 inputs, not rounded to a grid of its own yet."""
        reals = [x * np.float32(2.0**-fix) for x, fix in zip(inputs, fix_points, strict=True)]
        return self.real(reals)

    def integer(
        self,
        inputs: Sequence[np.ndarray],
        fix_points: Sequence[int],
        fix_out: int,
        weights: Quantized | None = None,
        bias: Quantized | None = None,
    ) -> np.ndarray:
        """The DPU's output at `fix_out` for int8-valued float32 inputs, as float32 integers.

        What moves bytes brings its inputs to the output's grid first; all else is rounded and saturated
        once, behind its `unrounded` results.
        """
        results = self.unrounded(inputs, fix_points, fix_out, weights, bias)
        if results is not None:
            return arithmetic.finish(results, 0, "NONE", fix_out)
        moved = [arithmetic.requantized(x, fix, fix_out) for x, fix in zip(inputs, fix_points, strict=True)]
        return self.real(moved).astype(np.float32, copy=False)

    def unrounded(
        self,
        inputs: Sequence[np.ndarray],
        fix_points: Sequence[int],
        fix_out: int,
        weights: Quantized | None = None,
        bias: Quantized | None = None,
    ) -> np.ndarray | None:
        """Results in steps of the output before activation, rounding, saturation; None for what moves.

        By default `before_rounding`, which is exact where float32 holds the result of `real` exactly.
        """
        if self.moves_bytes or not self.quantized:
            return None
        return self.before_rounding(inputs, fix_points, weights, bias).astype(np.float64) * 2.0**fix_out

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """Least and greatest `unrounded` result of any int8 inputs without weights; None for what moves.

        Which clamps and halves a verification can reach is known from it. What has weights is bounded by
        these (`dpuczdx8g.native.branches`).
        """
        if self.moves_bytes or not self.quantized:
            return None
        raise NotImplementedError(f"{self.kind}: the range of its results is not said (result_range)")

    def rounds_halves(self, fix_points: Sequence[int], fix_out: int) -> bool:
        """Whether some int8 inputs without weights give a result that lies between two steps, at a half."""
        return max(fix_points) > fix_out

    def per_output(self, factors: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """One number per output channel, shaped to be multiplied with the weights."""
        raise ValueError(f"{self.kind} has no weights")

    @abstractmethod
    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Operations per image; a multiply and an add are two (docs/reference/targets.md)."""

    def counted(self, inputs: Sequence[Shape]) -> bool:
        """Whether the vendor's compiler counts them in its workload."""
        return True


@dataclass(frozen=True)
class Window(Operator):
    """An operator whose output pixel sees a window of the map: kernel, stride (w, h), pad (l, r, t, b)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int]

    MAX_PAD: ClassVar[int] = 255

    def check(self) -> None:
        """ValueError when an attribute has an impossible value."""
        for name, length, low, high in (
            ("kernel", 2, 1, MANY),
            ("stride", 2, 1, MANY),
            ("dilation", 2, 1, MANY),
            ("pad", 4, 0, self.MAX_PAD),
        ):
            value = getattr(self, name, (low,) * length)
            if not isinstance(value, tuple) or len(value) != length:
                raise ValueError(f"{name} {value!r}: expected {length} numbers")
            if not all(type(n) is int and low <= n <= high for n in value):
                raise ValueError(f"{name} {value!r}: expected whole numbers of {low} to {high}")

    def window_shape(self, shape: Shape, channels: int) -> Shape:
        """Output shape over a map (H, W, C), FLOOR mode; ValueError on a vector."""
        if len(shape) != 3:
            raise ValueError(f"on an input {shape}")
        left, right, top, bottom = self.pad
        dilation = getattr(self, "dilation", (1, 1))
        width = self._length(shape[1], 0, dilation[0], left + right)
        height = self._length(shape[0], 1, dilation[1], top + bottom)
        return height, width, channels

    def _length(self, size, axis, dilation, pad):
        return (size + pad - (self.kernel[axis] - 1) * dilation - 1) // self.stride[axis] + 1

    @property
    def area(self) -> int:
        """Pixels of the kernel."""
        return math.prod(self.kernel)
