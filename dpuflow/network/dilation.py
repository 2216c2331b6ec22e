"""A dilated kernel as a larger one with zeros between its weights: the same function, exactly."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from dpuflow.network import QuantizedNetwork


def spread_kernel(weights: np.ndarray, dilation: tuple[int, int], axes: tuple[int, int]) -> np.ndarray:
    """`weights` with dilation (w, h) written out; axes : those of the kernel's height and width."""
    shape, places = list(weights.shape), [slice(None)] * weights.ndim
    for axis, step in zip(axes, dilation[::-1], strict=True):
        shape[axis] = (shape[axis] - 1) * step + 1
        places[axis] = slice(None, None, step)
    spread = np.zeros(shape, weights.dtype)
    spread[tuple(places)] = weights
    return spread


def without_dilation(quantized: QuantizedNetwork, but_for: Collection[str] = ()) -> QuantizedNetwork:
    """The same network with dilation 1 everywhere; the very same object where it is so already.

    but_for : names of layers that keep theirs.
    """
    layers, weights = [], dict(quantized.weights)
    for layer in quantized.network.layers:
        dilation = layer.attrs.get("dilation", (1, 1))
        if tuple(dilation) != (1, 1) and layer.name not in but_for:
            data, fix_point = weights[layer.name]
            data = spread_kernel(data, dilation, (1, 2))
            real = None if layer.weights is None else spread_kernel(layer.weights, dilation, (1, 2))
            weights[layer.name] = data, fix_point
            kernel = (data.shape[2], data.shape[1])
            layer = replace(layer, attrs={**layer.attrs, "kernel": kernel, "dilation": (1, 1)}, weights=real)
        layers.append(layer)
    if all(new is old for new, old in zip(layers, quantized.network.layers, strict=True)):
        return quantized
    return replace(quantized, network=replace(quantized.network, layers=layers), weights=weights)
