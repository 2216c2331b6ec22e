"""Layers that a graph's reading leaves side by side and that are one: affine ones, and choices of channels.

A choice of channels is a 1x1 convolution or dense layer (without bias) that has at most one weight per
output, a power of two: what reading makes of slices, splits and reversals of channels (RGB to BGR), and of
a sigmoid output. In front of another weighted layer, or right behind one, it goes into that layer's
weights, which is exact.
"""

import math

import numpy as np

from dpuflow.network import WEIGHTED, Layer


def merge(layers: list[Layer]) -> list[Layer]:
    """All of it; layers : in topological order, outputs marked, changed in place, returned without those
    that went."""
    return _push_up(merge_affine(_push_down(layers)))


def merge_affine(layers: list[Layer]) -> list[Layer]:
    """Merge chains of batch_norm layers, and turn a pure offset behind a weighted layer into its bias."""
    while True:
        by_name = {layer.name: layer for layer in layers}
        readers: dict[str, list[Layer]] = {}
        for layer in layers:
            for name in layer.inputs:
                readers.setdefault(name, []).append(layer)
        for layer in layers:
            if layer.op != "batch_norm":
                continue
            before = by_name[layer.inputs[0]]
            if len(readers[before.name]) == 1 and _absorb(before, layer):
                layers = bypass(layers, layer.name, before.name)
                break
            if np.all(layer.weights == 1) and np.all(layer.bias == 0) and before.op != "input":
                layers = bypass(layers, layer.name, before.name)
                break
        else:
            return layers


def _absorb(before, affine):
    """Merge `affine` into `before` if that is batch_norm, or a weighted layer and affine a mere offset."""
    if before.op == "batch_norm":
        before.bias = (before.bias * affine.weights + affine.bias).astype(np.float32)
        before.weights = (before.weights * affine.weights).astype(np.float32)
        return True
    if before.op in WEIGHTED and np.all(affine.weights == 1):
        before.bias = affine.bias if before.bias is None else (before.bias + affine.bias).astype(np.float32)
        return True
    return False


def bypass(layers: list[Layer], removed: str, replacement: str) -> list[Layer]:
    """The layers without `removed`, whose readers read `replacement` instead."""
    for layer in layers:
        layer.inputs = [replacement if name == removed else name for name in layer.inputs]
    return [layer for layer in layers if layer.name != removed]


# -- choices of channels -------------------------------------------------------------------


def _choice(layer):
    """The weights [OC, IC] of a layer that chooses channels; None for any other."""
    if layer.op not in ("conv", "dense") or layer.bias is not None or layer.attrs["activation"] != "NONE":
        return None
    if layer.op == "conv" and (
        layer.attrs["kernel"] != (1, 1) or layer.attrs["stride"] != (1, 1) or any(layer.attrs["pad"])
    ):
        return None
    weights = layer.weights.reshape(len(layer.weights), -1)
    if (np.count_nonzero(weights, axis=1) > 1).any():
        return None
    mantissa = np.frexp(np.abs(weights[weights != 0]))[0]
    return weights if (mantissa == 0.5).all() else None


def _push_down(layers):
    """Move choices of channels that stand before any other weights into the layers that read them."""
    for chooser in [layer for layer in layers if layer.op in ("conv", "dense")]:
        weights = _choice(chooser)
        if weights is None:
            continue
        moved = True
        while moved:
            moved = False
            for reader in [layer for layer in layers if chooser.name in layer.inputs]:
                layers, done = _into_reader(layers, chooser, weights, reader)
                moved = moved or done
        if not any(chooser.name in layer.inputs for layer in layers):
            layers = [layer for layer in layers if layer is not chooser]
    return layers


def _into_reader(layers, chooser, weights, reader):
    """(layers, whether `reader` now does without `chooser`)."""
    if reader.op == "conv" or (reader.op == "dense" and chooser.op == "dense"):
        reader.weights = np.ascontiguousarray(reader.weights @ weights)
        reader.inputs = list(chooser.inputs)
        return layers, True
    if reader.op == "flatten":
        readers = [layer for layer in layers if reader.name in layer.inputs]
        if not readers or any(layer.op != "dense" for layer in readers):
            return layers, False
        outputs, inputs = weights.shape
        for layer in readers:
            per_pixel = layer.weights.reshape(len(layer.weights), -1, outputs) @ weights
            layer.weights = np.ascontiguousarray(per_pixel.reshape(len(layer.weights), -1))
        reader.inputs, reader.shape = list(chooser.inputs), (math.prod(reader.shape) // outputs * inputs,)
        return layers, True
    alone = sum(chooser.name in layer.inputs for layer in layers) == 1
    if reader.op == "batch_norm" and alone and _reorders(weights):
        return _behind(layers, chooser, weights, reader), True
    return layers, False


def _reorders(weights):
    """Whether a choice takes every channel once, as it is."""
    return weights.shape[0] == weights.shape[1] and (weights.sum(axis=0) == 1).all() and weights.max() == 1


def _behind(layers, chooser, weights, norm):
    """chooser - norm becomes norm - chooser: the arithmetic goes with the channels."""
    norm.weights, norm.bias = norm.weights @ weights, norm.bias @ weights
    for layer in layers:
        layer.inputs = [chooser.name if name == norm.name else name for name in layer.inputs]
    norm.inputs, chooser.inputs = list(chooser.inputs), [norm.name]
    layers = [layer for layer in layers if layer is not chooser]
    layers.insert(layers.index(norm) + 1, chooser)
    return layers


def _push_up(layers):
    """Move a choice of channels right behind a convolution or dense layer into its weights and bias."""
    for chooser in list(layers):
        weights = _choice(chooser)
        before = next((layer for layer in layers if layer.name in chooser.inputs), None)
        if (
            weights is None
            or before.op not in ("conv", "dense")
            or sum(before.name in layer.inputs for layer in layers) != 1
        ):
            continue
        # a product with zeros and one power of two is exact
        flat = before.weights.reshape(len(before.weights), -1)
        before.weights = (weights @ flat).reshape(len(weights), *before.weights.shape[1:])
        before.bias = None if before.bias is None else weights @ before.bias
        before.shape = (*before.shape[:-1], len(weights))
        layers = bypass(layers, chooser.name, before.name)
    return layers
