"""Operators of the CPU: in float32, in front of, between and behind what the DPU does.

They have no grid: their inputs come as real numbers, of layers on the DPU by `fix2float`. What takes them
back to integers is `ToGrid`. Axes count the batch, as in XIR: axis 1 is a layer's first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.ops.operator import MANY, Array, Arrays, Integers, Operator, Shape


@dataclass(frozen=True)
class Float(Operator):
    """Computes in float32 on the CPU."""

    quantized: ClassVar[bool] = False

    def integer(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """`real` of the integers' real values."""
        reals = [
            x.astype(np.float32, copy=False) * np.float32(2.0**-fix)
            for x, fix in zip(inputs, fix_points, strict=True)
        ]
        return self.real(reals)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The input's shape."""
        return inputs[0]

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """The vendor's files give work on the CPU 0."""
        return 0


@dataclass(frozen=True)
class Constant(Float):
    """A value that no input influences: the layer's weights."""

    kind: ClassVar[str] = "constant"
    arity: ClassVar[tuple[int, int]] = (0, 0)
    holds_value: ClassVar[bool] = True

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """(1, ...): one for all images."""
        if weights is None:
            raise ValueError("a constant without its value")
        return np.asarray(weights, np.float32)[None]


@dataclass(frozen=True)
class ToGrid(Operator):
    """Real numbers onto an int8 grid: how a layer on the DPU reads one of the CPU."""

    kind: ClassVar[str] = "to_grid"

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The input's shape."""
        return inputs[0]

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """The input."""
        return inputs[0]

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """It is not known: its input has no grid."""
        return None

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """Of int8 inputs, which it has none of in a network: their ends."""
        step = 2.0 ** (fix_out - fix_points[0])
        return INT8_MIN * step, INT8_MAX * step

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None on the DPU."""
        return 0


@dataclass(frozen=True)
class FloatSigmoid(Float):
    """1 / (1 + exp(-x))."""

    kind: ClassVar[str] = "float_sigmoid"

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return sigmoid(inputs[0])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in float32; exp of at most 88, below float32's largest."""
    x = np.asarray(x, np.float32)
    return np.float32(1) / (np.float32(1) + np.exp(-np.maximum(x, np.float32(-88))))


@dataclass(frozen=True)
class Exp(Float):
    """exp(x)."""

    kind: ClassVar[str] = "exp"

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return np.exp(np.asarray(inputs[0], np.float32))


@dataclass(frozen=True)
class Tanh(Float):
    """tanh(x)."""

    kind: ClassVar[str] = "tanh"

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return np.tanh(np.asarray(inputs[0], np.float32))


@dataclass(frozen=True)
class FloatReshape(Float):
    """The same values in another shape, the batch apart."""

    target: tuple[int, ...]

    kind: ClassVar[str] = "float_reshape"

    def check(self) -> None:
        """ValueError for an impossible shape."""
        _whole_numbers("target", self.target, 1)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """`target`."""
        if math.prod(inputs[0]) != math.prod(self.target):
            raise ValueError(f"{inputs[0]} reshaped to {self.target}")
        return self.target

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """A view of the input."""
        return inputs[0].reshape(len(inputs[0]), *self.target)


@dataclass(frozen=True)
class Transpose(Float):
    """Axes in another order, the batch first."""

    order: tuple[int, ...]

    kind: ClassVar[str] = "transpose"

    def check(self) -> None:
        """ValueError for what is no order of axes with the batch first."""
        _whole_numbers("order", self.order, 0)
        if sorted(self.order) != list(range(len(self.order))) or self.order[0]:
            raise ValueError(f"order {self.order}: expected every axis once, the batch first")

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The input's sizes in this order."""
        if len(self.order) != len(inputs[0]) + 1:
            raise ValueError(f"order {self.order} of an input {inputs[0]}")
        return tuple(inputs[0][axis - 1] for axis in self.order[1:])

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Contiguous, so that what follows finds the values in this order."""
        return np.ascontiguousarray(inputs[0].transpose(self.order))


@dataclass(frozen=True)
class Slice(Float):
    """begin, begin + stride, ... below end along each axis, the batch apart."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    strides: tuple[int, ...]

    kind: ClassVar[str] = "float_slice"

    def check(self) -> None:
        """ValueError for bounds that are no numbers in order."""
        for name, least in (("begin", 0), ("end", 1), ("strides", 1)):
            _whole_numbers(name, getattr(self, name), least)
        if not len(self.begin) == len(self.end) == len(self.strides) or any(
            first >= last for first, last in zip(self.begin, self.end, strict=True)
        ):
            raise ValueError(f"begin {self.begin}, end {self.end}, strides {self.strides}")

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """What is left of each axis."""
        if len(inputs[0]) != len(self.begin) or any(e > n for e, n in zip(self.end, inputs[0], strict=True)):
            raise ValueError(f"{self.begin} to {self.end} of an input {inputs[0]}")
        return tuple(len(range(b, e, s)) for b, e, s in zip(self.begin, self.end, self.strides, strict=True))

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """A view of the input."""
        return inputs[0][
            (
                slice(None),
                *(slice(*bounds) for bounds in zip(self.begin, self.end, self.strides, strict=True)),
            )
        ]


@dataclass(frozen=True)
class FloatConcat(Float):
    """Joined along an axis."""

    axis: int

    kind: ClassVar[str] = "float_concat"
    arity: ClassVar[tuple[int, int]] = (1, MANY)

    def check(self) -> None:
        """ValueError for the batch's axis."""
        _whole_numbers("axis", (self.axis,), 1)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The inputs' shape with their sizes along the axis added up."""
        at = self.axis - 1
        if at >= len(inputs[0]) or len({(*shape[:at], *shape[self.axis :]) for shape in inputs}) != 1:
            raise ValueError(f"inputs {list(inputs)} along axis {self.axis}")
        return (*inputs[0][:at], sum(shape[at] for shape in inputs), *inputs[0][self.axis :])

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics; a constant counts for every image."""
        return concatenate(inputs, self.axis)


def concatenate(inputs: Arrays, axis: int) -> np.ndarray:
    """Joined along an axis; an input of one image (a constant) is repeated for all."""
    images = max(len(x) for x in inputs)
    return np.concatenate([x if len(x) == images else np.repeat(x, images, axis=0) for x in inputs], axis)


@dataclass(frozen=True)
class Arithmetic(Float):
    """Of two inputs, value by value; axes of size 1 (or that lack in front) stand for all places."""

    arity: ClassVar[tuple[int, int]] = (2, 2)
    function: ClassVar[np.ufunc]

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The inputs' shapes broadcast; of equal rank, because the batch comes first."""
        if len({len(shape) for shape in inputs}) != 1:
            raise ValueError(f"of inputs {list(inputs)}")
        return tuple(int(n) for n in np.broadcast_shapes(*inputs))

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        first, second = (np.asarray(x, np.float32) for x in inputs)
        with np.errstate(all="ignore"):
            return type(self).function(first, second)


@dataclass(frozen=True)
class FloatAdd(Arithmetic):
    """a + b."""

    kind: ClassVar[str] = "float_add"
    function: ClassVar[np.ufunc] = np.add


@dataclass(frozen=True)
class FloatSubtract(Arithmetic):
    """a - b."""

    kind: ClassVar[str] = "float_subtract"
    function: ClassVar[np.ufunc] = np.subtract


@dataclass(frozen=True)
class FloatMultiply(Arithmetic):
    """a * b."""

    kind: ClassVar[str] = "float_multiply"
    function: ClassVar[np.ufunc] = np.multiply


@dataclass(frozen=True)
class FloatDivide(Arithmetic):
    """a / b."""

    kind: ClassVar[str] = "float_divide"
    function: ClassVar[np.ufunc] = np.divide


@dataclass(frozen=True)
class FloatMatmul(Float):
    """x @ b over the last axis of x; b is a constant (K, M), or one matrix per image."""

    kind: ClassVar[str] = "float_matmul"
    arity: ClassVar[tuple[int, int]] = (2, 2)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """x's shape with M for its last size."""
        first, second = inputs
        if len(second) != 2 or first[-1] != second[0]:
            raise ValueError(f"of inputs {first} and {second}")
        return (*first[:-1], second[1])

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Sums in float64 in the order of K, so that they are the same on every machine."""
        return matrix_product(inputs[0], inputs[1])


def matrix_product(x: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """x (N, ..., K) times matrices (N or 1, K, M): float32, summed in float64 in the order of K."""
    flat = np.asarray(x, np.float64).reshape(len(x), -1, x.shape[-1])
    matrices = np.asarray(matrices, np.float64)
    total = np.zeros((len(x), flat.shape[1], matrices.shape[-1]))
    for k in range(flat.shape[-1]):
        total += flat[:, :, k, None] * matrices[:, k, None, :]
    return total.astype(np.float32).reshape(*x.shape[:-1], matrices.shape[-1])


@dataclass(frozen=True)
class Argmax(Float):
    """Place of the largest value along an axis, which goes; the first of equal ones. As float32."""

    axis: int

    kind: ClassVar[str] = "argmax"

    def check(self) -> None:
        """ValueError for the batch's axis."""
        _whole_numbers("axis", (self.axis,), 1)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The input's without the axis; (1,) where nothing would be left."""
        at = self.axis - 1
        if at >= len(inputs[0]):
            raise ValueError(f"axis {self.axis} of an input {inputs[0]}")
        return (*inputs[0][:at], *inputs[0][self.axis :]) or (1,)

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Whole numbers as float32."""
        found = np.argmax(inputs[0], axis=self.axis).astype(np.float32)
        return found if found.ndim > 1 else found[:, None]


def _whole_numbers(name: str, values: object, least: int) -> None:
    if not isinstance(values, tuple) or not values or not all(type(n) is int and n >= least for n in values):
        raise ValueError(f"{name} {values!r}: expected whole numbers from {least} on")
