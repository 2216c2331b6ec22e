"""A dilated kernel as another one that is the same function, exactly.

With zeros between its weights it is a larger one without dilation; without the rows and columns of weights
that read nothing but padding it is a smaller one. Networks that see whole scenes have such: rates of 18 to
36 on a map of 14 x 14.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from dpuflow.network import Layer, QuantizedNetwork


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


def without_idle_taps(quantized: QuantizedNetwork) -> QuantizedNetwork:
    """The same network without the outer rows and columns of dilated kernels that read padding alone.

    The very same object where there are none.
    """
    layers, weights = [], dict(quantized.weights)
    for layer in quantized.network.layers:
        small = smaller_kernel(layer, quantized.network[layer.inputs[0]].shape) if layer.inputs else layer
        if small is not layer:
            data, fix_point = weights[layer.name]
            weights[layer.name] = data[_kept(layer, small)], fix_point
            if layer.weights is not None:
                small = replace(small, weights=layer.weights[_kept(layer, small)])
        layers.append(small)
    if all(new is old for new, old in zip(layers, quantized.network.layers, strict=True)):
        return quantized
    return replace(quantized, network=replace(quantized.network, layers=layers), weights=weights)


def smaller_kernel(layer: Layer, source: Sequence[int]) -> Layer:
    """A layer on a map (H, W, C) with its kernel's attributes without the outer taps that read padding alone.

    Its weights are left as they are; the very same object where it is not dilated or has no such taps.
    """
    dilation = tuple(layer.attrs.get("dilation", (1, 1)))
    if dilation == (1, 1):
        return layer
    found, pads = [], []
    for axis in (0, 1):  # width, height
        pad = layer.attrs["pad"][2 * axis : 2 * axis + 2]
        span, stride = (layer.attrs["kernel"][axis], dilation[axis]), layer.attrs["stride"][axis]
        first, end = _reaching(span, stride, pad, source[1 - axis], layer.shape[1 - axis])
        found.append((end - first, dilation[axis] if end - first > 1 else 1))
        pads += [pad[0] - first * dilation[axis], pad[1] - (span[0] - end) * dilation[axis]]
    kernel, steps = zip(*found, strict=True)
    if kernel == tuple(layer.attrs["kernel"]):
        return layer
    return replace(layer, attrs={**layer.attrs, "kernel": kernel, "dilation": steps, "pad": tuple(pads)})


def _reaching(
    span: tuple[int, int], stride: int, pad: Sequence[int], size: int, length: int
) -> tuple[int, int]:
    """(first, end) of an axis' taps without outer ones that read no pixel of `size` for any output."""
    (taps, step), (before, after) = span, pad
    starts = range(-before, length * stride - before, stride)
    idle = [not any(0 <= start + tap * step < size for start in starts) for tap in range(taps)]
    first, end = 0, taps
    while end - first > 1 and idle[first] and before - (first + 1) * step >= 0:
        first += 1
    while end - first > 1 and idle[end - 1] and after - (taps - end + 1) * step >= 0:
        end -= 1
    # no more padding than windows, none of which may see padding alone
    beyond = max(before - first * step, after - (taps - end) * step) > (end - first - 1) * step
    return (0, taps) if beyond else (first, end)


def _kept(layer, small):
    """What of weights [O, KH, KW, I] a kernel without its outer taps has, of the layer with them."""
    steps, kernel = layer.attrs["dilation"], small.attrs["kernel"]
    first = [(layer.attrs["pad"][2 * axis] - small.attrs["pad"][2 * axis]) // steps[axis] for axis in (0, 1)]
    across, down = (slice(start, start + taps) for start, taps in zip(first, kernel, strict=True))
    return slice(None), down, across
