"""Gates in a graph: products of two activations."""

from collections.abc import Sequence

import numpy as np

from dpuflow.ops.gating import is_factors
from dpuflow.tfgraph.rearranging_nodes import channel_product
from dpuflow.tfgraph.values import (
    Node,
    Tensor,
    Translator,
    Value,
    each_value,
    pseudo_node,
    tensor,
)


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
