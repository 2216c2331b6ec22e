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
    layers = _clips(layers)
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


def _clips(layers):
    """max(c - relu(c - y), 0), which is y cut to 0 ... c, as c times the hard sigmoid of 6 y / c - 3.

    Keras's own hard sigmoid is 0.2 x + 0.5 cut to 0 ... 1.
    """
    by_name = {layer.name: layer for layer in layers}
    for relu in [layer for layer in layers if layer.op == "relu"]:
        chain = [relu]
        for op in ("batch_norm", "relu", "batch_norm"):
            before = by_name[chain[-1].inputs[0]]
            if before.op != op or sum(before.name in layer.inputs for layer in layers) != 1:
                break
            chain.append(before)
        if len(chain) < 4:
            continue
        upper, _, below = chain[1:]
        top = float(upper.bias[0])
        if not (_is(upper.weights, -1) and _is(below.weights, -1) and top > 0):
            continue
        if not (_is(upper.bias, top) and _is(below.bias, top)):
            continue
        shape, channels = relu.shape, relu.shape[-1]
        argument = Layer(below.name, "batch_norm", below.inputs, shape, {}, *_affine(channels, 6 / top, -3))
        gate = Layer(f"{relu.name}/hard_sigmoid", "hard_sigmoid", [argument.name], shape)
        scaled = Layer(relu.name, "batch_norm", [gate.name], shape, {}, *_affine(channels, top, 0))
        at = layers.index(relu)
        layers[at : at + 1] = [argument, gate, scaled]
        layers = [layer for layer in layers if not any(layer is gone for gone in chain[1:])]
        by_name = {layer.name: layer for layer in layers}
    return layers


def _affine(channels, scale, offset):
    return np.full(channels, scale, np.float32), np.full(channels, offset, np.float32)


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
