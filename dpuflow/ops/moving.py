"""Operators that compute nothing: the input, flatten."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.ops.operator import Array, Arrays, Operator, Shape


@dataclass(frozen=True)
class Input(Operator):
    """The network's input, already scaled."""

    kind: ClassVar[str] = "input"
    arity: ClassVar[tuple[int, int]] = (0, 0)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """It is given."""
        raise ValueError("an input is given, not computed")

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """It is given."""
        raise ValueError("an input is given, not computed")

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """It is given."""
        return None

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None."""
        return 0


@dataclass(frozen=True)
class Output(Operator):
    """Reads what the network gives, while it is rewritten: so that nothing takes an output for unread.

    `network.marked` puts them in, `network.unmarked` takes them out again.
    """

    kind: ClassVar[str] = "output"
    survives_folding: ClassVar[bool] = False
    renames: ClassVar[bool] = True
    moves_bytes: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """The input's."""
        return inputs[0]

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """The input."""
        return inputs[0]

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None."""
        return 0


@dataclass(frozen=True)
class Flatten(Operator):
    """A map as a vector, in NHWC order."""

    kind: ClassVar[str] = "flatten"
    renames: ClassVar[bool] = True
    moves_bytes: ClassVar[bool] = True
    passes_positive_scale: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(H * W * C,)."""
        return (math.prod(inputs[0]),)

    def times_behind(self, scale: np.ndarray, output: Shape) -> int:
        """Once per pixel: channels are fastest."""
        return math.prod(output) // len(scale)

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """A view of the input."""
        return inputs[0].reshape(len(inputs[0]), -1)

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None."""
        return 0
