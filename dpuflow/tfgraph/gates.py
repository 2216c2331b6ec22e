"""Gates in a graph: products of two activations, and the hard sigmoid that was written as arithmetic."""

from collections.abc import Sequence

import numpy as np

from dpuflow.network import Layer
from dpuflow.ops.gating import is_factors
from dpuflow.tfgraph.shape_nodes import channel_product
from dpuflow.tfgraph.values import (
    Node,
    Tensor,
    Translator,
    Value,
    each_value,
    pseudo_node,
    tensor,
)

TOLERANCE = 1e-3
"""Relative difference from 1 / 6 that written-out sixths may have (0.16667, 0.1666)."""


def multiply(translator: Translator, node: Node, inputs: Sequence[Value]) -> Tensor:
    """Product of two activations: of one shape, or a map and one factor per channel, or one per pixel.

    A map of one channel (spatial attention) is copied to all channels by a 1x1 convolution of ones, which is
    exact.
    """
    values = [tensor(translator, node, value) for value in inputs]
    if any(value.space is not None for value in values):
        translator.fail(node, "multiplies activations inside a dilated convolution; multiply behind it")
    layers = [_factor(translator, node, value, values) for value in values]
    first, second = (layer.shape for layer in layers)
    if first == second and values[0].view == values[1].view:
        product = translator.emit(node, "multiply", [layer.name for layer in layers], first)
        return values[0].through(product)
    if is_factors(second, first) or is_factors(first, second):
        shape = first if is_factors(second, first) else second
        return translator.emit(node, "multiply", [layer.name for layer in layers], shape)
    for k, (one, other) in enumerate(((first, second), (second, first))):
        if len(one) == len(other) == 3 and one[2] == 1 and (one[:2] == other[:2] or one[:2] == (1, 1)):
            copies = pseudo_node(node, "Conv2D", "copies/Conv2D")
            ones = np.ones((other[2], 1), np.float32)
            copied = channel_product(translator, copies, layers[k], ones)
            names = [copied.layer, layers[1 - k].name]
            return translator.emit(node, "multiply", names if k == 0 else names[::-1], other)
    translator.fail(
        node,
        f"multiplies activations of shapes {first} and {second}; only maps of one shape, or a map by one "
        "factor per channel (1, 1, channels) or per pixel (height, width, 1), are supported",
    )


def _factor(translator, node, value, values):
    """The layer behind one side of a product; a vector may be in the shape (1, 1, channels)."""
    layer = each_value(translator, node, value)
    view = value.view
    if view is not None and any(other.view != view for other in values):
        vector = len(layer.shape) == 1 and view[1:-1] == (1,) * (len(view) - 2)
        if not vector:
            translator.fail(node, f"multiplies an activation of shape {layer.shape} that was reshaped before")
    return layer


# -- relu6(x + 3) / 6 -----------------------------------------------------------------------


def recognise(layers: list[Layer]) -> list[Layer]:
    """The layers with a `hard_sigmoid` where relu6(x + 3) is divided by 6 or multiplied with an activation.

    layers : in topological order, before per-channel arithmetic is merged. The factor 6 that is then left
    over is a `batch_norm` of its own, which merges with the division.
    """
    by_name = {layer.name: layer for layer in layers}
    for relu6 in [layer for layer in layers if layer.op == "relu6"]:
        shifted = by_name[relu6.inputs[0]]
        readers = [layer for layer in layers if relu6.name in layer.inputs]
        if not (shifted.op == "batch_norm" and _is(shifted.weights, 1) and _is(shifted.bias, 3)):
            continue
        if not readers or not all(reader.op == "multiply" or _divides(reader) for reader in readers):
            continue
        gate = Layer(f"{relu6.name}/hard_sigmoid", "hard_sigmoid", list(shifted.inputs), relu6.shape)
        at = layers.index(relu6)
        layers[at : at + 1] = [gate]
        for reader in readers:
            reader.inputs = [gate.name if name == relu6.name else name for name in reader.inputs]
            if reader.op == "multiply":
                layers = _times_six(layers, reader)
            else:  # a sixth, to the last bits that it was written with
                reader.weights = np.ones_like(reader.weights)
        if not any(shifted.name in layer.inputs for layer in layers):
            layers = [layer for layer in layers if layer is not shifted]
    return layers


def _is(array, number):
    return bool(np.all(array == np.float32(number)))


def _divides(layer):
    """Whether a layer divides by 6."""
    return (
        layer.op == "batch_norm"
        and _is(layer.bias, 0)
        and bool(np.all(np.abs(layer.weights * 6 - 1) < TOLERANCE))
    )


def _times_six(layers, product):
    """The product under another name, and 6 times it under its own."""
    channels = product.shape[-1]
    inner = Layer(f"{product.name}/sixth", product.op, product.inputs, product.shape, product.attrs)
    six = np.full(channels, 6, np.float32), np.zeros(channels, np.float32)
    outer = Layer(product.name, "batch_norm", [inner.name], product.shape, {}, *six)
    at = layers.index(product)
    divided = [layer for layer in layers if product.name in layer.inputs]
    if divided and all(_divides(layer) for layer in divided):
        for layer in divided:
            layer.weights = np.full(channels, np.float32(1) / np.float32(6))
    return [*layers[:at], inner, outer, *layers[at + 1 :]]
