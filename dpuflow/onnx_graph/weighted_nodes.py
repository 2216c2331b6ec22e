"""ONNX's convolutions and dense layers: one handler per operator, see `values` for what a handler is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dpuflow.network.dilation import spread_kernel
from dpuflow.network.groups import dense_kernel
from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.values import (
    Constant,
    Joined,
    Reader,
    Tensor,
    Value,
    channel_product,
    constant,
    feature_map,
    flattened,
    float_constant,
    pair,
    tensor,
    unpadded,
    whole_map,
)

Pad = tuple[int, int, int, int]


def padding(
    reader: Reader,
    node: Node,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Pad:
    """(left, right, top, bottom) of a node with windows; all else as (height, width)."""
    auto = node.attrs.get("auto_pad", b"NOTSET").decode() or "NOTSET"
    if auto == "NOTSET":
        pads = [int(n) for n in node.attrs.get("pads", (0, 0, 0, 0))]
        if len(pads) != 4 or min(pads) < 0:
            reader.fail(node, f"pads {pads}: expected 4 numbers of 0 or more (top, left, bottom, right)")
        top, left, bottom, right = pads
        return left, right, top, bottom
    if auto == "VALID":
        return 0, 0, 0, 0
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        reader.fail(node, f"auto_pad {auto!r}: expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    sides: list[tuple[int, int]] = []
    for length, window, step, apart in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-length // step) - 1) * step + (window - 1) * apart + 1 - length, 0)
        less, more = total // 2, total - total // 2
        sides.append((less, more) if auto == "SAME_UPPER" else (more, less))
    (top, bottom), (left, right) = sides
    return left, right, top, bottom


def _conv(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
    weights = float_constant(reader, node, inputs[1], "its weights")  # [OC, IC / groups, KH, KW]
    if weights.ndim == 3:
        return _along_channels(reader, node, inputs, weights)
    if weights.ndim != 4:
        reader.fail(node, f"a convolution over {weights.ndim - 2} axes; the DPU has those over two (Conv2d)")
    bias = float_constant(reader, node, inputs[2], "its bias") if inputs[2:] and inputs[2] else None
    layer, pending = feature_map(reader, node, inputs[0])
    height, width, channels = layer.shape
    outputs, each, groups = len(weights), weights.shape[1], int(node.attrs.get("group", 1))
    if each * groups != channels or outputs % groups or (bias is not None and bias.shape != (outputs,)):
        reader.fail(
            node, f"weights {weights.shape} in {groups} groups do not fit an input of {channels} channels"
        )
    kernel = weights.shape[2], weights.shape[3]
    stride, dilation = pair(node, "strides", (1, 1)), pair(node, "dilations", (1, 1))
    size = height + pending[2] + pending[3], width + pending[0] + pending[1]
    pad = tuple(
        a + b for a, b in zip(pending, padding(reader, node, size, kernel, stride, dilation), strict=True)
    )
    hwio = weights.transpose(2, 3, 1, 0)
    if groups == channels == outputs and channels > 1:
        op = "depthwise_conv"
        if dilation != (1, 1):
            # no DPU has a dilated depthwise convolution
            hwio, dilation = spread_kernel(hwio, dilation[::-1], (0, 1)), (1, 1)
        values = hwio.transpose(2, 0, 1, 3)  # [1, KH, KW, C]
    else:
        op = "conv"
        values = (dense_kernel(hwio, channels) if groups > 1 else hwio).transpose(3, 0, 1, 2)
    kernel = values.shape[1], values.shape[2]
    lengths = [
        (length + before + after - (window - 1) * apart - 1) // step + 1
        for length, before, after, window, apart, step in (
            (height, pad[2], pad[3], kernel[0], dilation[0], stride[0]),
            (width, pad[0], pad[1], kernel[1], dilation[1], stride[1]),
        )
    ]
    window: dict[str, Any] = {
        "kernel": kernel[::-1],
        "stride": stride[::-1],
        "dilation": dilation[::-1],
        "pad": pad,
    }
    made = reader.emit(
        node, op, [layer.name], (*lengths, outputs), np.ascontiguousarray(values), bias,
        **window, activation="NONE",
    )  # fmt: skip
    return whole_map(made)


def _along_channels(
    reader: Reader, node: Node, inputs: Sequence[Value | None], weights: np.ndarray
) -> Tensor:
    """A Conv1d along the channels of one place (efficient channel attention): a matrix on these channels."""
    value = unpadded(reader, node, inputs[0])
    layer = reader.layers[value.layer]
    length = layer.shape[-1]
    if value.axes[0] or not algebra.has_whole(value.axes[1], layer.shape, len(layer.shape) - 1):
        reader.fail(
            node,
            f"a convolution over one axis, on (images, {algebra.sizes(value.axes)}); the DPU has Conv2d, and "
            "those over the channels of a pooled map",
        )
    outputs, kernel = len(weights), weights.shape[2]
    step, apart = (int(node.attrs.get(key, (1,))[0]) for key in ("strides", "dilations"))
    count = reader.shape(node, node.outputs[0])[2]
    auto = node.attrs.get("auto_pad", b"NOTSET").decode() or "NOTSET"
    before = int(node.attrs.get("pads", (0, 0))[0])
    if auto.startswith("SAME"):
        total = max((count - 1) * step + (kernel - 1) * apart + 1 - length, 0)
        before = total // 2 if auto == "SAME_UPPER" else total - total // 2
    matrix = np.zeros((outputs, count, length), np.float32)
    for place in range(count):
        for tap in range(kernel):
            source = place * step + tap * apart - before
            if 0 <= source < length:
                matrix[:, place, source] += weights[:, 0, tap]
    bias = None
    if inputs[2:] and inputs[2]:
        bias = np.repeat(float_constant(reader, node, inputs[2], "its bias"), count)
    made = channel_product(reader, node, layer, matrix.reshape(-1, length), bias)
    last = len(made.shape) - 1
    axes = [[algebra.Atom(last, outputs, count)], [algebra.Atom(last, count)]]
    return Tensor(made.name, tuple(algebra.simplified(atoms) for atoms in axes))


def _dense(reader: Reader, node: Node, value: Tensor, weights: np.ndarray, bias: np.ndarray | None) -> Tensor:
    """weights [OC, IN] on the last of ONNX's axes; IN in ONNX's order."""
    layer = reader.layers[value.layer]
    outputs = len(weights)
    last = value.axes[-1]
    if weights.shape[1] != algebra.size(last):
        reader.fail(node, f"weights {weights.shape[::-1]} do not fit an input of {algebra.sizes(value.axes)}")
    if (
        algebra.has_whole(last, layer.shape, len(layer.shape) - 1)
        and len(layer.shape) == 3
        and (any(value.axes[:-1]))
    ):
        # over the channels of each pixel
        product = channel_product(reader, node, layer, np.ascontiguousarray(weights), bias)
        axes = (*value.axes[:-1], algebra.simplified([algebra.Atom(2, outputs)]))
        return replace(value, layer=product.name, axes=axes)
    if any(value.axes[:-1]):
        reader.fail(
            node, f"a dense layer over the last of the axes {algebra.sizes(value.axes)}, which are no pixels"
        )
    flat = flattened(reader, node, value)
    places = algebra.positions([flat.axes[-1]], reader.layers[flat.layer].shape)
    ordered = np.empty_like(weights)
    ordered[:, places] = weights  # from ONNX's order (channels first) to that of the layer
    made = reader.emit(node, "dense", [flat.layer], (outputs,), ordered, bias, activation="NONE")
    return Tensor(made.name, (*value.axes[:-1], algebra.simplified([algebra.Atom(0, outputs)])))


def _dense_of(reader, node, value, weights, bias):
    """`_dense`, also of flattened maps that are joined."""
    if not isinstance(value, Joined):
        return _dense(reader, node, unpadded(reader, node, value), weights, bias)
    if weights.shape[1] != len(value.places):
        reader.fail(node, f"weights {weights.shape[::-1]} do not fit an input of {len(value.places)}")
    ordered = np.empty_like(weights)
    ordered[:, value.places] = weights
    made = reader.emit(node, "dense", [value.layer], (len(weights),), ordered, bias, activation="NONE")
    return whole_map(made)


def _gemm(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
    """alpha * A B + beta * C."""
    attrs = node.attrs
    value = inputs[0] if isinstance(inputs[0], Joined) else unpadded(reader, node, inputs[0])
    if attrs.get("transA", 0):
        reader.fail(node, "multiplies the transposed batch (transA)")
    weights = float_constant(reader, node, inputs[1], "its weights")
    if weights.ndim != 2 or (isinstance(value, Tensor) and len(value.axes) != 1):
        reader.fail(node, f"weights {weights.shape} on an input of another number of axes than two")
    weights = weights if attrs.get("transB", 0) else weights.T
    if attrs.get("alpha", 1.0) != 1:  # else no copy of what may be 400 MB
        weights = weights * np.float32(attrs["alpha"])
    bias = None
    if inputs[2:] and inputs[2] is not None:
        given = float_constant(reader, node, inputs[2], "its bias") * np.float32(attrs.get("beta", 1.0))
        if given.size not in (1, len(weights)):
            reader.fail(node, f"a bias of shape {given.shape} for {len(weights)} outputs")
        bias = np.ascontiguousarray(np.broadcast_to(given.reshape(-1), (len(weights),)))
    return _dense_of(reader, node, value, np.ascontiguousarray(weights), bias)


def _matmul(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
    if isinstance(inputs[0], Constant) or not isinstance(inputs[1], Constant):
        for value in inputs:
            tensor(reader, node, value)
        reader.fail(node, "multiplies two activations (attention?); the DPU multiplies by fixed weights only")
    weights = float_constant(reader, node, inputs[1], "its weights")
    if weights.ndim != 2:
        reader.fail(node, f"weights of shape {weights.shape}; expected two axes")
    return _dense_of(reader, node, inputs[0], np.ascontiguousarray(weights.T), None)


def _einsum(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
    constant(reader, node, inputs[-1], "its weights")
    reader.fail(node, "an Einsum; write it as a linear layer or a 1x1 convolution")


HANDLERS = {"Conv": _conv, "Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}
"""Operator -> handler."""
