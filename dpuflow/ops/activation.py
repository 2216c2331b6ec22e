"""Activations as layers of their own, batch normalisation, and what ends a network on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.ops import arithmetic
from dpuflow.ops.operator import Array, Arrays, Integers, Operator, Shape


@dataclass(frozen=True)
class Elementwise(Operator):
    """One value in, one value out."""

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The input's shape."""
        return inputs[0]

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Fused behind another operator or done on the CPU: the vendor's compiler counts none."""
        return 0


@dataclass(frozen=True)
class Relu(Elementwise):
    """max(x, 0)."""

    kind: ClassVar[str] = "relu"
    survives_folding: ClassVar[bool] = False
    fuses_as: ClassVar[str] = "RELU"

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return np.maximum(inputs[0], 0)


@dataclass(frozen=True)
class Relu6(Elementwise):
    """min(max(x, 0), 6)."""

    kind: ClassVar[str] = "relu6"
    survives_folding: ClassVar[bool] = False
    fuses_as: ClassVar[str] = "RELU6"

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return np.clip(inputs[0], 0, 6)


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """x, below zero alpha * x."""

    alpha: float

    kind: ClassVar[str] = "leaky_relu"
    survives_folding: ClassVar[bool] = False
    fuses_as: ClassVar[str] = "LEAKYRELU"

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics, with the layer's own slope."""
        return np.where(inputs[0] < 0, inputs[0] * np.float32(self.alpha), inputs[0])


@dataclass(frozen=True)
class BatchNorm(Elementwise):
    """x * weights + bias per channel (the statistics are folded in when it is read)."""

    kind: ClassVar[str] = "batch_norm"
    survives_folding: ClassVar[bool] = False

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return inputs[0] * weights + bias


@dataclass(frozen=True)
class Softmax(Elementwise):
    """Softmax over the last axis: in float, on the CPU."""

    kind: ClassVar[str] = "softmax"
    quantized: ClassVar[bool] = False

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return arithmetic.softmax(inputs[0])

    def integer(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """Probabilities of the integers' real values."""
        return arithmetic.softmax(inputs[0].astype(np.float32) * np.float32(2.0 ** -fix_points[0]))
