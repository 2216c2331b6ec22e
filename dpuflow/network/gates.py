"""The hard sigmoid that was written as arithmetic, relu6(x + 3) / 6, recognised among a network's layers."""

import numpy as np

from dpuflow.network import Layer

TOLERANCE = 1e-3
"""Relative difference from 1 / 6 that written-out sixths may have (0.16667, 0.1666)."""


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
