"""ONNX's concatenation, see `values` for what a handler is."""

import math

import numpy as np

from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.pairs import add
from dpuflow.onnx_graph.values import (
    Joined,
    Tensor,
    channel_product,
    feature_map,
    flattened,
    float_constant,
    unpadded,
    whole_map,
    with_zeros,
)


def _concat(reader, node, inputs):
    axis = int(node.attrs["axis"])
    tensors = [unpadded(reader, node, value) for value in inputs if isinstance(value, Tensor)]
    rank = len(tensors[0].axes) + 1
    axis %= rank
    if axis == 0:
        reader.fail(node, "joins images")
    if len(inputs) == 1:
        return tensors[0]
    if len(tensors) != len(inputs):
        return _with_constants(reader, node, inputs, tensors, axis)
    if rank == 2 and reader.only_viewed(node.outputs[0]) and any(_has_pixels(reader, v) for v in tensors):
        reader.fail(node, "joins flattened maps at the end, which is the CPU's; name the maps as outputs")
    if axis > 1 and rank == 4 and not any(algebra.only_of(value.axes[axis - 1], 2) for value in tensors):
        return _side_by_side(reader, node, tensors, axis)
    if rank == 2 and any(_has_pixels(reader, value) for value in tensors):
        return _flattened_maps(reader, node, tensors)
    values = [_joinable(reader, node, value, axis) for value in tensors]
    rest = {
        (value.axes[: axis - 1], value.axes[axis:], reader.layers[value.layer].shape[:-1]) for value in values
    }
    if len(rest) != 1:
        reader.fail(node, "joins activations of different orders, or along another axis than the channels")
    layers = [reader.layers[value.layer] for value in values]
    shape = (*layers[0].shape[:-1], sum(layer.shape[-1] for layer in layers))
    made = reader.emit(node, "concat", [layer.name for layer in layers], shape, axis=len(shape))
    axes = list(values[0].axes)
    axes[axis - 1] = algebra.simplified([algebra.Atom(len(shape) - 1, shape[-1])])
    return Tensor(made.name, tuple(axes))


def _flattened_maps(reader, node, tensors):
    """Vectors that are maps flattened in ONNX's order: `Joined`, or a Tensor where theirs is the layers'."""
    flat = [flattened(reader, node, value) for value in tensors]
    sizes = [math.prod(reader.layers[value.layer].shape) for value in flat]
    layer = reader.emit(node, "concat", [value.layer for value in flat], (sum(sizes),), axis=1)
    places = np.concatenate(
        [
            sum(sizes[:k]) + algebra.positions(value.axes, reader.layers[value.layer].shape)
            for k, value in enumerate(flat)
        ]
    )
    if np.array_equal(places, np.arange(sum(sizes))):
        return whole_map(layer)
    if sorted(places.tolist()) != list(range(sum(sizes))):
        reader.fail(node, "joins parts of flattened maps; join the maps")
    return Joined(layer.name, places)


def _has_pixels(reader, value):
    shape = reader.layers[value.layer].shape
    return math.prod(shape) > shape[-1]


def _side_by_side(reader, node, tensors, axis):
    """Maps joined along rows (axis 2) or columns (3): the sum of each with zeros where the others are."""
    layers = [feature_map(reader, node, value)[0] for value in tensors]
    sizes = [layer.shape[axis - 2] for layer in layers]
    if len({(*layer.shape[: axis - 2], *layer.shape[axis - 1 :]) for layer in layers}) != 1:
        reader.fail(node, f"joins maps of {[layer.shape for layer in layers]} along axis {axis}")
    parts = []
    for k, layer in enumerate(layers):
        around = (sum(sizes[:k]), sum(sizes[k + 1 :]))
        pad = (0, 0, *around) if axis == 2 else (*around, 0, 0)
        parts.append(whole_map(with_zeros(reader, node, layer, pad)))
    total = parts[0]
    for part in parts[1:]:
        total = add(reader, node, [total, part])
    return total


def _joinable(reader, node, value, axis):
    """`value` with its channels whole along the axis."""
    layer = reader.layers[value.layer]
    if len(value.axes) == 1:
        value = flattened(reader, node, value)
        layer = reader.layers[value.layer]
    elif len(value.axes) == 3 and axis == 1:
        layer = feature_map(reader, node, value)[0]
        value = whole_map(layer)
    if not algebra.has_whole(value.axes[axis - 1], layer.shape, len(layer.shape) - 1):
        reader.fail(node, "joins along another axis than the channels, or vectors of maps; join the maps")
    return value


def _with_constants(reader, node, inputs, tensors, axis):
    """One activation among constants (often zeros, for channels that a shortcut lacks)."""
    if len(tensors) != 1:
        reader.fail(node, "joins several activations and constants; join the constants to one of them first")
    value = _joinable(reader, node, tensors[0], axis)
    layer = reader.layers[value.layer]
    channels = layer.shape[-1]
    rows, offsets = [], []
    for each in inputs:
        if isinstance(each, Tensor):
            rows.append(np.eye(channels, dtype=np.float32))
            offsets.append(np.zeros(channels, np.float32))
            continue
        array = float_constant(reader, node, each, "a part")
        others = tuple(k for k in range(array.ndim) if k != axis)
        firsts = array.min(axis=others)
        if not (firsts == array.max(axis=others)).all():
            reader.fail(node, "joins a constant that differs from pixel to pixel")
        rows.append(np.zeros((len(firsts), channels), np.float32))
        offsets.append(firsts)
    weights, bias = np.concatenate(rows), np.concatenate(offsets)
    made = channel_product(reader, node, layer, weights, bias if bias.any() else None)
    axes = list(value.axes)
    axes[axis - 1] = algebra.simplified([algebra.Atom(len(layer.shape) - 1, len(weights))])
    return Tensor(made.name, tuple(axes))


HANDLERS = {"Concat": _concat}
"""Operator -> handler."""
