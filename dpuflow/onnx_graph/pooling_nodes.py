"""ONNX's pooling: one handler per operator, see `values` for what a handler is."""

from collections.abc import Callable, Sequence

import numpy as np

from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.values import (
    NO_PAD,
    Reader,
    Tensor,
    Value,
    constant,
    feature_map,
    pair,
    unpadded,
    whole_map,
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
        if op == "avg_pool" and not counted and (any(own) or any(beyond)):
            if pending != NO_PAD:
                layer, (left, right, top, bottom) = with_zeros(reader, node, layer, pending), own
            kind = "avg_pool_inside"
        elif op == "avg_pool" and any(beyond):
            reader.fail(
                node,
                "average pooling that counts padding, with ceil_mode whose last window reaches beyond it; "
                "export with ceil_mode=False",
            )
        pad = (left, right + beyond[1], top, bottom + beyond[0])
        made = reader.emit(
            node, kind, [layer.name], (*shape, channels), kernel=kernel[::-1], stride=stride[::-1], pad=pad
        )
        return whole_map(made)

    return handler


def _over_map(reader: Reader, node: Node, value: Value | None, op: str, keep: bool) -> Tensor:
    layer, _ = feature_map(reader, node, unpadded(reader, node, value))
    height, width, channels = layer.shape
    made = reader.emit(
        node, op, [layer.name], (1, 1, channels), kernel=(width, height), stride=(1, 1), pad=NO_PAD
    )
    axes = whole_map(made).axes
    return Tensor(made.name, axes if keep else axes[:1])


def _global(op: str) -> Handler:
    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        return _over_map(reader, node, inputs[0], op, True)

    return handler


def _reduce(op: str) -> Handler:
    """A reduction over height and width: global pooling."""

    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        value = unpadded(reader, node, inputs[0])
        rank = len(value.axes) + 1
        if inputs[1:] and inputs[1] is not None:
            given = [int(n) for n in np.atleast_1d(constant(reader, node, inputs[1], "the axes"))]
        else:
            given = [int(n) for n in node.attrs.get("axes", ())]
        reduced = sorted(axis % rank for axis in given)
        keep = bool(node.attrs.get("keepdims", 1))
        layer = reader.layers[value.layer]
        atoms = [value.axes[axis - 1] for axis in reduced if axis]
        pixels = (
            len(layer.shape) == 3
            and 0 not in reduced
            and {*(atom.axis for axis in atoms for atom in axis)} <= {0, 1}
        )
        count = np.prod([algebra.size(axis) for axis in atoms]) if atoms else 0
        if rank == 4 and reduced == [2, 3] and not (pixels and count == np.prod(layer.shape[:2])):
            # rows and columns that are made of channels, or channels that are made of pixels: a layer first
            value = whole_map(feature_map(reader, node, value)[0])
            return _over_map(reader, node, value, op, keep)
        if not pixels or count != np.prod(layer.shape[:2]):
            reader.fail(
                node,
                f"reduces the axes {given}; only height and width together (global pooling) are supported",
            )
        rest = [axis for axis in range(1, rank) if axis not in reduced]
        channels = [axis for axis in rest if value.axes[axis - 1]]
        axes = (*(value.axes[axis - 1] for axis in channels), *_pixels(layer))
        shaped = Tensor(value.layer, axes, value.pad)
        pooled = _over_map(reader, node, shaped, op, False)
        kept = [axis for axis in range(1, rank) if keep or axis not in reduced]
        axes = tuple(pooled.axes[0] if axis in channels else () for axis in kept)
        return Tensor(pooled.layer, axes)

    return handler


def _pixels(layer):
    return whole_map(layer).axes[1:]


HANDLERS = {
    "AveragePool": _pool("avg_pool"),
    "GlobalAveragePool": _global("avg_pool"),
    "GlobalMaxPool": _global("max_pool"),
    "MaxPool": _pool("max_pool"),
    "ReduceMax": _reduce("max_pool"),
    "ReduceMean": _reduce("avg_pool"),
}
"""Operator -> handler."""
