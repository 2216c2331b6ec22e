"""ONNX operators that move values: one handler per operator, see `values` for what a handler is.

A reshape or transpose makes no layer: the axes note it (`axes`). Choices of channels become 1x1 convolutions,
which `network.merging` takes into their neighbours; choices of pixels become layers that step over them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dpuflow.network import Layer
from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.pairs import repeated
from dpuflow.onnx_graph.values import (
    NO_PAD,
    Constant,
    Reader,
    Tensor,
    Value,
    channel_product,
    constant,
    feature_map,
    flattened,
    pieces,
    slices,
    tensor,
    unpadded,
    whole_map,
    whole_numbers,
)

Inputs = Sequence[Value | None]


def _pass(reader: Reader, node: Node, inputs: Inputs) -> Value:
    value = inputs[0]
    assert value is not None  # a node without its first input does not get through onnxruntime
    return value


def _cast(reader, node, inputs):
    if isinstance(inputs[0], Constant):
        reader.fail(node, "casts a constant that was not folded")
    if int(node.attrs["to"]) not in (1, 10, 11, 16):
        reader.fail(node, "turns an activation into whole numbers; only casts to float are supported")
    return inputs[0]


# -- the same values with other axes -------------------------------------------------------


def _reshape(reader, node, inputs):
    """To the shape that shape inference found, also for Flatten, Squeeze, Unsqueeze and Expand."""
    value = unpadded(reader, node, inputs[0])
    batch, *shape = reader.shape(node, node.outputs[0]) or (0,)
    axes = algebra.reshaped(value.axes, shape) if batch == 1 and 0 not in shape else None
    if axes is None or math.prod(shape) != math.prod(algebra.sizes(value.axes)):
        reader.fail(
            node,
            f"reshapes (images, {_shown(algebra.sizes(value.axes))}) to ({_shown((batch, *shape))}); the "
            "images must stay the first axis, and axes be joined or cut evenly",
        )
    return replace(value, axes=axes)


def _shown(sizes):
    return ", ".join(map(str, sizes))


def _transpose(reader, node, inputs):
    value = unpadded(reader, node, inputs[0])
    rank = len(value.axes) + 1
    order = [int(n) for n in node.attrs.get("perm", range(rank)[::-1])]
    if order[0] != 0:
        reader.fail(
            node, f"moves the images from the first axis (perm {order}), as attention does; the DPU cannot"
        )
    return replace(value, axes=tuple(value.axes[axis - 1] for axis in order[1:]))


def _blocks(order: Sequence[int], split: bool):
    """Handler of SpaceToDepth (split pixels) and DepthToSpace: reshape, transpose, reshape."""

    def handler(reader: Reader, node: Node, inputs: Inputs) -> Value:
        value = unpadded(reader, node, inputs[0])
        if len(value.axes) != 3:
            reader.fail(node, f"on an input of {algebra.sizes(value.axes)}")
        block = int(node.attrs["blocksize"])
        channels, height, width = algebra.sizes(value.axes)
        places = tuple(order)
        if split:
            cut = (channels, height // block, block, width // block, block)
            joined = (channels * block**2, height // block, width // block)
        else:
            if node.attrs.get("mode", b"DCR").decode() == "CRD":
                cut = (channels // block**2, block, block, height, width)
                places = (0, 3, 1, 4, 2)
            else:
                cut = (block, block, channels // block**2, height, width)
            joined = (channels // block**2, height * block, width * block)
        axes = algebra.reshaped(value.axes, cut)
        axes = axes and algebra.reshaped(tuple(axes[k] for k in places), joined)
        if axes is None:
            reader.fail(node, f"blocks of {block} in a map of {height} x {width}")
        return replace(value, axes=axes)

    return handler


# -- choices -------------------------------------------------------------------------------


def _chosen(
    reader: Reader, node: Node, value: Tensor, axis: int, indices: Sequence[int], suffix: str = ""
) -> Tensor:
    """The places `indices` along ONNX's axis `axis` (0: behind the batch)."""
    indices = [int(n) for n in indices]
    if indices == list(range(algebra.size(value.axes[axis]))):
        return value
    if not indices:
        reader.fail(node, "takes nothing of its input")
    layer = reader.layers[value.layer]
    last = len(layer.shape) - 1
    if not algebra.has_whole(value.axes[axis], layer.shape, last):
        if len(value.axes) == 3:
            layer = feature_map(reader, node, value)[0]
            value, last = whole_map(layer), 2
        elif len(value.axes) == 1:
            value = flattened(reader, node, value)
            layer, last = reader.layers[value.layer], 0
            places = algebra.positions(value.axes, layer.shape)
            return _channels(reader, node, Tensor(layer.name, value.axes), 0, places[indices], suffix)
    if algebra.has_whole(value.axes[axis], layer.shape, last):
        return _channels(reader, node, value, axis, indices, suffix)
    if len(value.axes) != 3 or axis == 0:
        reader.fail(node, "cuts along joined axes; only channels, rows and columns of a map can be cut")
    return _pixels(reader, node, layer, axis, indices, suffix)


def _channels(reader, node, value, axis, indices, suffix):
    layer = reader.layers[value.layer]
    weights = np.zeros((len(indices), layer.shape[-1]), np.float32)
    weights[range(len(indices)), indices] = 1
    made = channel_product(reader, node, layer, weights, suffix=suffix)
    axes = list(value.axes)
    axes[axis] = algebra.simplified([algebra.Atom(len(layer.shape) - 1, len(indices))])
    return Tensor(made.name, tuple(axes))


def _pixels(reader: Reader, node: Node, layer: Layer, axis: int, indices: list[int], suffix: str) -> Tensor:
    """Rows (axis 1) or columns (2) of a map at even distances."""
    start, count, length = indices[0], len(indices), layer.shape[axis - 1]
    step = indices[1] - indices[0] if count > 1 else length
    if step < 1 or indices != list(range(start, start + step * count, step)):
        reader.fail(node, f"takes {'rows' if axis == 1 else 'columns'} backwards or at uneven distances")
    shape = list(layer.shape)
    shape[axis - 1] = count
    if start == 0 and count == -(-length // step) and step > 1:
        factor = (1, step) if axis == 1 else (step, 1)
        if layer.op == "downsample" and layer.attrs["factor"][axis % 2] == 1:  # one axis after the other
            factor = tuple(a * b for a, b in zip(factor, layer.attrs["factor"], strict=True))
            layer = reader.layers[layer.inputs[0]]
        made = reader.emit(node, "downsample", [layer.name], shape, suffix=suffix, factor=factor)
        return whole_map(made)
    window = max(start + 1, length - count * step + 1)
    kernel, stride = ((window, 1), (step, 1)) if axis == 1 else ((1, window), (1, step))
    weights = np.zeros((1, *kernel, layer.shape[-1]), np.float32)
    weights[(0, start, 0) if axis == 1 else (0, 0, start)] = 1
    made = reader.emit(
        node, "depthwise_conv", [layer.name], shape, weights, suffix=suffix, kernel=kernel[::-1],
        stride=stride[::-1], dilation=(1, 1), pad=NO_PAD, activation="NONE",
    )  # fmt: skip
    return whole_map(made)


def _slice(reader, node, inputs):
    value = unpadded(reader, node, inputs[0])
    for axis, start, end, step in slices(reader, node, inputs, len(value.axes) + 1):
        size = algebra.size(value.axes[axis])
        bound = None if step < 0 and end < -size else end
        indices = list(range(size))[slice(start, bound, step)]
        value = _chosen(reader, node, value, axis, indices, suffix=f"{axis + 1}")
    return value


def _split(reader, node, inputs):
    value = unpadded(reader, node, inputs[0])
    axis = int(node.attrs.get("axis", 0)) % (len(value.axes) + 1)
    if axis == 0:
        reader.fail(node, "splits the batch")
    return [
        _chosen(reader, node, value, axis - 1, range(start, end), suffix=str(k))
        for k, (start, end) in enumerate(pieces(reader, node, axis - 1))
    ]


def _gather(reader, node, inputs):
    value = unpadded(reader, node, inputs[0])
    axis = int(node.attrs.get("axis", 0)) % (len(value.axes) + 1)
    indices = constant(reader, node, inputs[1], "the indices").astype(np.int64)
    if axis == 0 or indices.ndim > 1:
        reader.fail(node, "gathers images, or by a table; only channels, rows and columns can be picked")
    size = algebra.size(value.axes[axis - 1])
    chosen = _chosen(reader, node, value, axis - 1, np.atleast_1d(indices) % size)
    if indices.ndim:
        return chosen
    return replace(chosen, axes=(*chosen.axes[: axis - 1], *chosen.axes[axis:]))


def _pad(reader, node, inputs):
    """Zeros around the map wait for the layer behind; zero channels are a 1x1 convolution."""
    value = tensor(reader, node, inputs[0])
    rank = len(value.axes) + 1
    if node.attrs.get("mode", b"constant").decode() != "constant":
        reader.fail(node, f"pads by {node.attrs['mode'].decode()}; the DPU pads with zeros (ZeroPad2d)")
    given = inputs[2] if len(inputs) > 2 else None
    fill = node.attrs.get("value", 0.0) if given is None else constant(reader, node, given, "the value")
    pads = whole_numbers(reader, node, inputs, 1, "pads") or [0] * (2 * rank)
    axes = whole_numbers(reader, node, inputs, 3, "axes") or range(rank)
    before, after = [0] * rank, [0] * rank
    for k, axis in enumerate(axes):
        before[axis % rank], after[axis % rank] = pads[k], pads[k + len(pads) // 2]
    if any(before + after) and float(np.asarray(fill).reshape(())) != 0:
        reader.fail(node, "pads with another number than zero")
    if before[0] or after[0]:
        reader.fail(node, "pads the batch")
    for axis in range(1, rank):  # negative ones cut
        low, high = min(before[axis], 0), min(after[axis], 0)
        if low or high:
            value = unpadded(reader, node, value)
            size = algebra.size(value.axes[axis - 1])
            value = _chosen(reader, node, value, axis - 1, range(-low, size + high), suffix=f"cut{axis}")
    before, after = [max(n, 0) for n in before], [max(n, 0) for n in after]
    if not any(before + after):
        return value
    layer, pending = feature_map(reader, node, value)
    value = replace(whole_map(layer), pad=pending)
    if before[1] or after[1]:
        channels = layer.shape[-1]
        weights = np.zeros((before[1] + channels + after[1], channels), np.float32)
        weights[before[1] + np.arange(channels), np.arange(channels)] = 1
        made = channel_product(reader, node, layer, weights)
        value = replace(whole_map(made), pad=pending)
    around = (before[3], after[3], before[2], after[2])
    return replace(value, pad=tuple(a + b for a, b in zip(pending, around, strict=True)))


def _expand(reader, node, inputs):
    """Axes of one place repeated: channels by a 1x1 convolution, pixels by nearest resizing."""
    value = unpadded(reader, node, inputs[0])
    shape = reader.shape(node, node.outputs[0])[1:]
    sizes = algebra.sizes(value.axes)
    if shape == sizes:
        return value
    if len(shape) != 3 or any(a not in (1, b) for a, b in zip(sizes, shape, strict=True)):
        reader.fail(node, f"repeats values of {sizes} to {shape}; only axes of one place of a map can be")
    channels, height, width = shape
    return whole_map(repeated(reader, node, feature_map(reader, node, value)[0], (height, width, channels)))


HANDLERS = {
    "Cast": _cast,
    "DepthToSpace": _blocks((2, 3, 0, 4, 1), False),
    "Dropout": _pass,
    "Expand": _expand,
    "Flatten": _reshape,
    "Gather": _gather,
    "Identity": _pass,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _blocks((2, 4, 0, 1, 3), True),
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _expand,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
"""Operator -> handler."""
