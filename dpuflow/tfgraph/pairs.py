"""Sum, difference, greater and lesser one of two activations of a graph.

One place that stands for many (a number per channel, a number per pixel) is repeated first.
"""

from collections.abc import Sequence

import numpy as np

from dpuflow.network import Layer
from dpuflow.tfgraph.rearranging_nodes import channel_product
from dpuflow.tfgraph.values import Node, Tensor, Translator, Value, each_value, pseudo_node, tensor


def _pair(translator: Translator, node: Node, inputs: Sequence[Value]) -> tuple[Tensor, Tensor]:
    """Two activations brought to one shape."""
    a, b = (tensor(translator, node, value) for value in inputs)
    layers = [each_value(translator, node, value) for value in (a, b)]
    if a.space is not None or b.space is not None:
        translator.fail(node, "combines activations inside a dilated convolution; combine them behind it")
    shapes = [layer.shape for layer in layers]
    if shapes[0] == shapes[1] and a.view == b.view:
        return a, b
    maps = len(shapes[0]) == len(shapes[1]) == 3 and a.view is None and b.view is None
    if not maps or any(m != n and 1 not in (m, n) for m, n in zip(*shapes, strict=True)):
        translator.fail(
            node,
            f"combines activations of different shapes {shapes[0]} and {shapes[1]}; bring them to one shape "
            "with a 1x1 convolution",
        )
    whole = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
    first, second = (_repeated(translator, node, layer, whole, k) for k, layer in enumerate(layers))
    return first, second


def _repeated(
    translator: Translator, node: Node, layer: Layer, shape: tuple[int, ...], number: int
) -> Tensor:
    """A map whose axes of one place are repeated to those of `shape`."""
    height, width, channels = shape
    made = Tensor(layer.name)
    if layer.shape[2] < channels:
        copies = pseudo_node(node, "Conv2D", f"copies{number}/Conv2D")
        made = channel_product(translator, copies, layer, np.ones((channels, 1), np.float32))
    factor = (width // layer.shape[1], height // layer.shape[0])
    if factor == (1, 1):
        return made
    repeat = pseudo_node(node, "ResizeNearestNeighbor", f"repeated{number}/ResizeNearestNeighbor")
    return translator.emit(repeat, "upsample", [made.layer], shape, factor=factor)


def _sum(translator, node, first, second):
    names, shape = [first.layer, second.layer], translator.layer(first).shape
    return first.through(translator.emit(node, "add", names, shape, activation="NONE"))


def _negated(translator, node, value, suffix="minus/Neg"):
    layer = translator.layer(value)
    channels = layer.shape[-1]
    scale, offset = np.full(channels, -1, np.float32), np.zeros(channels, np.float32)
    named = pseudo_node(node, "Neg", suffix)
    return value.through(translator.emit(named, "batch_norm", [layer.name], layer.shape, scale, offset))


def _beyond(translator, node, one, other):
    """relu(one - other)."""
    named = pseudo_node(node, "Sub", "difference/Sub")
    difference = _sum(translator, named, one, _negated(translator, node, other))
    shape = translator.layer(difference).shape
    cut = pseudo_node(node, "Relu", "beyond/Relu")
    return difference.through(translator.emit(cut, "relu", [difference.layer], shape))


def add(translator: Translator, node: Node, inputs: Sequence[Value]) -> Tensor:
    """The sum."""
    return _sum(translator, node, *_pair(translator, node, inputs))


def subtract(translator: Translator, node: Node, inputs: Sequence[Value]) -> Tensor:
    """The difference, as the sum with the negated one."""
    first, second = _pair(translator, node, inputs)
    return _sum(translator, node, first, _negated(translator, node, second))


def greater(translator: Translator, node: Node, inputs: Sequence[Value]) -> Tensor:
    """max(a, b) = a + relu(b - a)."""
    first, second = _pair(translator, node, inputs)
    return _sum(translator, node, first, _beyond(translator, node, second, first))


def lesser(translator: Translator, node: Node, inputs: Sequence[Value]) -> Tensor:
    """min(a, b) = a - relu(a - b)."""
    first, second = _pair(translator, node, inputs)
    more = _beyond(translator, node, first, second)
    return _sum(translator, node, first, _negated(translator, node, more, "less/Neg"))
