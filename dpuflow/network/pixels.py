"""A vector as a map of one pixel: computed as one, where its layers have that form."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpuflow.network import Layer

PIXELWISE = ("add", "batch_norm", "hard_sigmoid", "leaky_relu", "multiply", "relu", "relu6", "sigmoid")
"""Kinds of layers that do the same with a vector and with a map of one pixel."""
Emit = Callable[[Layer, Layer], Layer]
"""(the vector's layer, the new one, without a name of its own) -> the layer that was appended for it."""


def as_pixel(layers: Mapping[str, Layer], layer: Layer, emit: Emit) -> Layer | None:
    """The values of `layer`, a vector (N,), as a map (1, 1, N): dense layers as convolutions over a map.

    None where something that made it has no such form.
    """
    if len(layer.shape) == 3:
        return layer if layer.shape[:2] == (1, 1) else None
    if layer.op == "flatten":
        return as_pixel(layers, layers[layer.inputs[0]], emit)
    if layer.op != "dense" and layer.op not in PIXELWISE:
        return None
    sources = [layers[name] for name in layer.inputs]
    if layer.op == "dense" and sources[0].op == "flatten":
        sources = [layers[name] for name in sources[0].inputs]
    else:
        pixels = [as_pixel(layers, source, emit) for source in sources]
        sources = [pixel for pixel in pixels if pixel is not None]
        if len(sources) < len(pixels):
            return None
    op, attrs, weights = layer.op, dict[str, Any](layer.attrs), layer.weights
    if op == "dense" and weights is not None:
        height, width, channels = sources[0].shape
        weights = np.ascontiguousarray(weights.reshape(len(weights), height, width, channels))
        window = {"kernel": (width, height), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}
        op, attrs = "conv", {**window, **attrs}
    names = [source.name for source in sources]
    return emit(layer, Layer("", op, names, (1, 1, *layer.shape), attrs, weights, layer.bias))
