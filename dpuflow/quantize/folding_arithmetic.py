"""What folding does to weights and biases, as steps that can be repeated with other values.

`folding.Folding` decides on the values that it was given and takes these steps; the steps it took are the
recipe of a network. `replay` takes them again with other values of the same shapes, also with TensorFlow's
(`xp` is its NumPy interface then), so that training sees the folded parameters as a function of its own.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Parameters:
    """Weights and bias of a layer (None: it has none); a batch norm's are its scale and offset.

    They are never written to, so copies are one.
    """

    weights: Any
    bias: Any

    def __deepcopy__(self, memo: dict) -> "Parameters":
        """Parameters of their own with the same arrays."""
        return Parameters(self.weights, self.bias)


@dataclass(frozen=True)
class Step:
    """`function(xp, table, *arguments)` changes a table {layer name: Parameters} in place."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]


ParameterTable = dict[str, Parameters]
"""Layer name -> Parameters."""


def replay(recipe: Iterable[Step], table: ParameterTable, xp: Any) -> ParameterTable:
    """Take the steps of a recipe on `table` in place, with the array functions of `xp`."""
    for step in recipe:
        step.function(xp, table, *step.arguments)
    return table


def _wide(xp, x):
    return x.astype(np.float64) if xp is np else x


def _narrow(xp, x):
    return np.ascontiguousarray(x, np.float32) if xp is np else x


def _along(xp, values, axis, rank):
    """values (channels,) in a shape that multiplies `axis` of an array of `rank` axes."""
    shape = [1] * rank
    shape[axis] = -1
    return xp.reshape(values, shape)


def _sum(bias, more):
    return more if bias is None else bias + more


def norm_into_producer(xp: Any, table: ParameterTable, norm: str, name: str, axis: int) -> None:
    """y = (W x + b) * scale + offset as one layer; `axis` of W counts the output channels."""
    scale, layer = _wide(xp, table[norm].weights), table[name]
    rank = len(layer.weights.shape)
    layer.weights = _narrow(xp, layer.weights * _along(xp, scale, axis, rank))
    layer.bias = _narrow(
        xp, table[norm].bias if layer.bias is None else layer.bias * scale + table[norm].bias
    )


def copy_norm(xp: Any, table: ParameterTable, norm: str, name: str, times: int = 1) -> None:
    """A batch norm under a new name, its channels repeated `times` (behind a flatten)."""
    found = table[norm]
    table[name] = Parameters(xp.tile(found.weights, times), xp.tile(found.bias, times))


def norm_into_reader(xp: Any, table: ParameterTable, norm: str, name: str, axis: int) -> None:
    """y = W (x * scale + offset) + b as one layer, where no padding makes x * scale + offset zero."""
    layer = table[name]
    kernel = _wide(xp, layer.weights) * _wide(xp, table[norm].bias)
    rows = xp.moveaxis(kernel, axis, 0)
    scale_into_reader(xp, table, norm, name)
    total = xp.sum(xp.reshape(rows, (rows.shape[0], -1)), axis=1)
    layer.bias = _narrow(xp, _sum(layer.bias, total))


def scale_into_reader(xp: Any, table: ParameterTable, norm: str, name: str) -> None:
    """y = W (x * scale) as one layer."""
    layer = table[name]
    layer.weights = _narrow(xp, _wide(xp, layer.weights) * _wide(xp, table[norm].weights))


def offset_kernel(xp: Any, table: ParameterTable, norm: str, name: str) -> Any:
    """[OC, KH, KW]: weights of a channel that is constantly 1, which carry the offset of a norm in front."""
    return xp.sum(_wide(xp, table[name].weights) * _wide(xp, table[norm].bias), axis=-1)


def norm_by_constant_channel(
    xp: Any, table: ParameterTable, norm: str, name: str, producer: str, constant: float
) -> None:
    """As `norm_into_reader` where padding is in the way: the offset comes from a channel of the producer.

    The producer, a convolution, gets a channel of the value `constant`, which padding cuts off as it
    does the others.
    """
    kernel = offset_kernel(xp, table, norm, name)
    scale_into_reader(xp, table, norm, name)
    source, layer = table[producer], table[name]
    channels = source.weights.shape[0]
    nothing = np.zeros((1, *source.weights.shape[1:]), np.float32)
    source.weights = xp.concatenate([source.weights, nothing], axis=0)
    bias = np.zeros(channels, np.float32) if source.bias is None else source.bias
    source.bias = _narrow(xp, xp.concatenate([bias, np.array([constant], np.float32)], axis=0))
    extra = _narrow(xp, xp.reshape(kernel / constant, (*kernel.shape, 1)))
    layer.weights = _narrow(xp, xp.concatenate([layer.weights, extra], axis=-1))


def identity(xp: Any, table: ParameterTable, name: str, channels: int) -> None:
    """The norm y = x, from which an activation becomes a layer of its own."""
    table[name] = Parameters(np.ones(channels, np.float32), np.zeros(channels, np.float32))


def share(xp: Any, table: ParameterTable, name: str, value: float, channels: int) -> None:
    """The norm y = value * x."""
    table[name] = Parameters(np.full(channels, value, np.float32), np.zeros(channels, np.float32))


def norm_as_dense(xp: Any, table: ParameterTable, name: str) -> None:
    """A batch norm of a vector as a dense layer."""
    table[name].weights = _narrow(xp, xp.diag(table[name].weights))
    table[name].bias = _narrow(xp, table[name].bias)


def norm_as_depthwise(xp: Any, table: ParameterTable, name: str) -> None:
    """A batch norm of a map as a 1x1 depthwise convolution."""
    table[name].weights = _narrow(xp, xp.reshape(table[name].weights, (1, 1, 1, -1)))
    table[name].bias = _narrow(xp, table[name].bias)
