"""ONNX's pooling: one handler per operator, see `values` for what a handler is."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from dpuflow.network import Layer
from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.values import (
    NO_PAD,
    Reader,
    Tensor,
    Value,
    channel_product,
    feature_map,
    pair,
    unpadded,
    whole_map,
    whole_numbers,
    with_zeros,
)
from dpuflow.onnx_graph.weighted_nodes import padding

Handler = Callable[[Reader, Node, Sequence[Value | None]], Value]


def _pool(op: str) -> Handler:
    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        layer, pending = feature_map(reader, node, inputs[0])
        if pending != NO_PAD and layer.op not in ("relu", "relu6"):
            # the zeros count, and may be the greatest
            layer, pending = with_zeros(reader, node, layer, pending), NO_PAD
        if node.outputs[1:] and node.outputs[1]:
            reader.fail(node, "max pooling that gives the places of the maxima, too (return_indices)")
        height, width, channels = layer.shape
        kernel, stride = pair(node, "kernel_shape", (1, 1)), pair(node, "strides", (1, 1))
        if len(node.attrs.get("kernel_shape", ())) != 2:
            reader.fail(node, "pools over another number of axes than two")
        if pair(node, "dilations", (1, 1)) != (1, 1):
            reader.fail(node, "pooling with dilation; the DPU has none")
        size = height + pending[2] + pending[3], width + pending[0] + pending[1]
        own = padding(reader, node, size, kernel, stride, (1, 1))
        left, right, top, bottom = (a + b for a, b in zip(pending, own, strict=True))
        shape = reader.shape(node, node.outputs[0])[2:]
        # ceil_mode: windows that reach beyond the padding
        beyond = [
            max(0, (count - 1) * step + window - length)
            for count, step, window, length in zip(
                shape, stride, kernel, (height + top + bottom, width + left + right), strict=True
            )
        ]
        kind, counted = op, bool(node.attrs.get("count_include_pad", 0))
        if op == "avg_pool" and counted and any(beyond) and any((left, right, top, bottom)):
            # padding counts, what a window of ceil_mode reaches beyond it does not
            layer = with_zeros(reader, node, layer, (left, right, top, bottom))
            left = right = top = bottom = 0
            kind = "avg_pool_inside"
        elif op == "avg_pool" and (any(beyond) or (any(own) and not counted)):
            if pending != NO_PAD:
                layer, (left, right, top, bottom) = with_zeros(reader, node, layer, pending), own
            kind = "avg_pool_inside"
        pad = (left, right + beyond[1], top, bottom + beyond[0])
        made = reader.emit(
            node, kind, [layer.name], (*shape, channels), kernel=kernel[::-1], stride=stride[::-1], pad=pad
        )
        return whole_map(made)

    return handler


def _over_map(reader: Reader, node: Node, layer: Layer, op: str, over: Sequence[int]) -> Layer:
    """A layer's map pooled over all of its rows (0 in `over`), its columns (1), or both."""
    height, width, channels = layer.shape
    kernel = (height if 0 in over else 1, width if 1 in over else 1)
    shape = (height // kernel[0], width // kernel[1], channels)
    if kernel == (1, 1):
        return layer
    return reader.emit(node, op, [layer.name], shape, kernel=kernel[::-1], stride=(1, 1), pad=NO_PAD)


def _global(op: str) -> Handler:
    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        layer, _ = feature_map(reader, node, unpadded(reader, node, inputs[0]))
        return whole_map(_over_map(reader, node, layer, op, (0, 1)))

    return handler


def _reduce(op: str, total: bool = False) -> Handler:
    """A reduction over rows, columns or both (pooling), or over the channels; total : a sum, not a mean."""

    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        value = unpadded(reader, node, inputs[0])
        rank = len(value.axes) + 1
        given = whole_numbers(reader, node, inputs, 1, "axes") or []
        reduced = sorted({axis % rank for axis in given})
        keep = bool(node.attrs.get("keepdims", 1))
        if not reduced or 0 in reduced:
            reader.fail(node, f"reduces the axes {given}, the images among them")
        if not _reducible(reader, value, reduced) and len(value.axes) == 3:
            # rows and columns that are made of channels, or channels that are made of pixels: a layer first
            value = whole_map(feature_map(reader, node, value)[0])
        if not _reducible(reader, value, reduced):
            reader.fail(
                node,
                f"reduces the axes {given} of {algebra.sizes(value.axes)}; only rows, columns, both (global "
                "pooling) or all channels of a map are supported",
            )
        atoms = [atom for axis in reduced for atom in value.axes[axis - 1]]
        layer = reader.layers[value.layer]
        made = _reduced(reader, node, layer, op, {atom.axis for atom in atoms})
        if total:
            scale = np.full(made.shape[-1], algebra.size(atoms), np.float32)
            none = np.zeros_like(scale)
            made = reader.emit(node, "batch_norm", [made.name], made.shape, scale, none, suffix="sum")
        kept = [axis for axis in range(1, rank) if keep or axis not in reduced]
        return Tensor(made.name, tuple(() if axis in reduced else value.axes[axis - 1] for axis in kept))

    return handler


def _reducible(reader, value, reduced):
    """Whether the axes are all rows, all columns, or all channels of a layer's map, or some of these."""
    shape = reader.layers[value.layer].shape
    atoms = [atom for axis in reduced for atom in value.axes[axis - 1]]
    axes = {atom.axis for atom in atoms}
    return len(shape) == 3 and algebra.size(atoms) == math.prod(shape[axis] for axis in axes)


def _reduced(reader, node, layer, op, axes):
    """The layer reduced over its own axes: pixels by pooling, channels by a product or a shuffle."""
    made = _over_map(reader, node, layer, op, sorted(axes - {2}))
    channels = made.shape[2]
    if 2 not in axes or channels == 1:
        return made
    if op == "avg_pool":
        share = np.full((1, channels), np.float32(1) / np.float32(channels))
        return channel_product(reader, node, made, share, suffix="channels")
    # the channels as a block of pixels, the last one again where they do not fill it; then its greatest
    block = math.isqrt(channels - 1) + 1
    places = np.minimum(np.arange(block**2), channels - 1)
    chosen = np.zeros((block**2, channels), np.float32)
    chosen[np.arange(block**2), places] = 1
    source = made if block**2 == channels else channel_product(reader, node, made, chosen, suffix="block")
    shape = (made.shape[0] * block, made.shape[1] * block, 1)
    spread = reader.emit(
        node, "pixel_shuffle", [source.name], shape, suffix="shuffle", scale=block, upscale=True
    )
    window = {"kernel": (block, block), "stride": (block, block), "pad": NO_PAD}
    return reader.emit(node, op, [spread.name], (*made.shape[:2], 1), suffix="channels", **window)


HANDLERS = {
    "AveragePool": _pool("avg_pool"),
    "GlobalAveragePool": _global("avg_pool"),
    "GlobalMaxPool": _global("max_pool"),
    "MaxPool": _pool("max_pool"),
    "ReduceMax": _reduce("max_pool"),
    "ReduceMean": _reduce("avg_pool"),
    "ReduceSum": _reduce("avg_pool", total=True),
}
"""Operator -> handler."""
