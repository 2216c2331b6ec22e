"""Difference, greater and lesser of two activations as layers of the DPU: sums, ReLUs, factors of -1."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from dpuflow.network import Layer


class Emit(Protocol):
    """How a reader appends a layer.

    part : which of several it is: minus, less, difference or beyond, "" for the result.
    """

    def __call__(
        self,
        part: str,
        op: str,
        layers: Sequence[Layer],
        weights: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        **attrs: Any,
    ) -> Layer:
        """The new layer, of the shape of the first that it reads."""


def total(emit: Emit, first: Layer, second: Layer, part: str = "") -> Layer:
    """The sum of two layers of one shape."""
    return emit(part, "add", [first, second], activation="NONE")


def difference(emit: Emit, first: Layer, second: Layer, part: str = "") -> Layer:
    """first - second, as the sum with the negated one."""
    return total(emit, first, _negated(emit, second, "minus"), part)


def greater(emit: Emit, first: Layer, second: Layer) -> Layer:
    """max(a, b) = a + relu(b - a)."""
    return total(emit, first, _beyond(emit, second, first))


def lesser(emit: Emit, first: Layer, second: Layer) -> Layer:
    """min(a, b) = a - relu(a - b)."""
    return total(emit, first, _negated(emit, _beyond(emit, first, second), "less"))


def _beyond(emit, one, other):
    """relu(one - other)."""
    return emit("beyond", "relu", [difference(emit, one, other, "difference")])


def _negated(emit, layer, part):
    channels = layer.shape[-1]
    scale, offset = np.full(channels, -1, np.float32), np.zeros(channels, np.float32)
    return emit(part, "batch_norm", [layer], scale, offset)
