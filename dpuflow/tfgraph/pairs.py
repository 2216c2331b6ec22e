"""Sum, difference, greater and lesser one of two activations of a graph.

One place that stands for many (a number per channel, a number per pixel) is repeated first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpuflow.network import Layer, differences
from dpuflow.network.differences import Emit
from dpuflow.tfgraph.rearranging_nodes import channel_product
from dpuflow.tfgraph.values import Node, Tensor, Translator, Value, each_value, pseudo_node, tensor

Handler = Callable[[Translator, Node, Sequence[Value]], Tensor]


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


STANDS_FOR = {
    "minus": ("Neg", "minus/Neg"),
    "less": ("Neg", "less/Neg"),
    "difference": ("Sub", "difference/Sub"),
    "beyond": ("Relu", "beyond/Relu"),
}
"""Part of `differences.Emit` -> op and name of the node that it would be."""


def _joined(join: Callable[[Emit, Layer, Layer], Layer]) -> Handler:
    """The handler of what `join` makes of two layers of one shape."""

    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Tensor:
        first, second = _pair(translator, node, inputs)

        def emit(
            part: str,
            op: str,
            layers: Sequence[Layer],
            weights: np.ndarray | None = None,
            bias: np.ndarray | None = None,
            **attrs: Any,
        ) -> Layer:
            maker = pseudo_node(node, *STANDS_FOR[part]) if part else node
            names, shape = [layer.name for layer in layers], layers[0].shape
            return translator.layer(translator.emit(maker, op, names, shape, weights, bias, **attrs))

        made = join(emit, *(translator.layer(value) for value in (first, second)))
        return first.through(Tensor(made.name))

    return handler


add, subtract = _joined(differences.total), _joined(differences.difference)
greater, lesser = _joined(differences.greater), _joined(differences.lesser)
