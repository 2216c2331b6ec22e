"""Arithmetic of two activations in ONNX: sum, difference, product, greater and lesser one.

One place that stands for many (a factor per channel, a number per pixel) is repeated where the DPU needs it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpuflow.network import Layer, differences
from dpuflow.network.differences import Emit
from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.values import (
    Reader,
    Tensor,
    Value,
    channel_product,
    feature_map,
    flattened,
    through,
    unpadded,
    whole_map,
)
from dpuflow.ops.gating import is_factors

Pair = Callable[[Reader, Node, Sequence[Value | None]], Tensor]


def repeated(reader: Reader, node: Node, layer: Layer, shape: Sequence[int]) -> Layer:
    """A map (H, W, C) whose axes of one place are repeated to those of `shape`."""
    height, width, channels = shape
    name = layer.name
    if layer.shape[2] < channels:
        ones = np.ones((channels, 1), np.float32)
        layer = reader.once(
            ("copies", name, channels), lambda: channel_product(reader, node, layer, ones, suffix="copies")
        )
    factor = (width // layer.shape[1], height // layer.shape[0])
    if factor == (1, 1):
        return layer
    whole = (height, width, channels)
    return reader.once(
        ("repeated", name, whole),
        lambda: reader.emit(node, "upsample", [layer.name], whole, suffix="repeated", factor=factor),
    )


def _same_axes(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> tuple[Tensor, Tensor]:
    """Two activations brought to one shape, seen alike."""
    first, second = (unpadded(reader, node, value) for value in inputs)
    shapes = [reader.layers[value.layer].shape for value in (first, second)]
    if first.axes == second.axes and shapes[0] == shapes[1]:
        return first, second
    if len(first.axes) == len(second.axes) == 3:
        maps = [feature_map(reader, node, value)[0] for value in (first, second)]
        shapes = [layer.shape for layer in maps]
        if all(a == b or 1 in (a, b) for a, b in zip(*shapes, strict=True)):
            whole = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
            first, second = (whole_map(repeated(reader, node, layer, whole)) for layer in maps)
            return first, second
    if len(first.axes) == len(second.axes) == 1:
        flat = [flattened(reader, node, value) for value in (first, second)]
        if flat[0].axes == flat[1].axes:
            return flat[0], flat[1]
    reader.fail(
        node,
        f"combines activations of different shapes or orders, {shapes[0]} and {shapes[1]}; bring them to one "
        "shape with a 1x1 convolution",
    )


def _joined(join: Callable[[Emit, Layer, Layer], Layer]) -> Pair:
    """The handler of what `join` makes of two layers of one shape."""

    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Tensor:
        first, second = _same_axes(reader, node, inputs)

        def emit(
            part: str,
            op: str,
            layers: Sequence[Layer],
            weights: np.ndarray | None = None,
            bias: np.ndarray | None = None,
            **attrs: Any,
        ) -> Layer:
            suffix = "relu" if part == "beyond" else part
            names, shape = [layer.name for layer in layers], layers[0].shape
            return reader.emit(node, op, names, shape, weights, bias, suffix=suffix, **attrs)

        return through(first, join(emit, *(reader.layers[value.layer] for value in (first, second))))

    return handler


add, subtract = _joined(differences.total), _joined(differences.difference)
greater, lesser = _joined(differences.greater), _joined(differences.lesser)


def multiply(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Tensor:
    """The product; one factor per channel stays one, what else is one place is repeated."""
    values = [unpadded(reader, node, value) for value in inputs]
    if values[0].axes == values[1].axes or not all(len(value.axes) == 3 for value in values):
        first, second = _same_axes(reader, node, values)
        shape = reader.layers[first.layer].shape
        return through(first, reader.emit(node, "multiply", [first.layer, second.layer], shape))
    layers = [_factors(reader, node, value) for value in values]
    for k, (layer, other) in enumerate((layers, layers[::-1])):
        one, shape = layer.shape, other.shape
        if len(one) == len(shape) == 3 and not is_factors(one, shape):
            if not all(a == b or 1 in (a, b) for a, b in zip(one, shape, strict=True)):
                continue
            places = [max(sizes) for sizes in zip(one, shape, strict=True)]
            if one[:2] == (1, 1) and one[2] < shape[2]:  # one factor, for all channels
                places[:2] = 1, 1
            layers[k] = repeated(reader, node, layer, places)
    shapes = [layer.shape for layer in layers]
    if shapes[0] != shapes[1] and not is_factors(shapes[1], shapes[0]) and not is_factors(*shapes):
        reader.fail(
            node,
            f"multiplies activations of shapes {shapes[0]} and {shapes[1]}; only maps of one shape, or a map "
            "by one factor per channel or per pixel, are supported",
        )
    big = shapes[1] if is_factors(shapes[0], shapes[1]) else shapes[0]
    return whole_map(reader.emit(node, "multiply", [layer.name for layer in layers], big))


def _factors(reader, node, value):
    """The layer of one side of a product: a map, or a vector seen as (N, C, 1, 1)."""
    layer = reader.layers[value.layer]
    if len(layer.shape) == 1 and value.axes == (*whole_map(layer).axes, (), ()):
        return layer
    return feature_map(reader, node, value)[0]
