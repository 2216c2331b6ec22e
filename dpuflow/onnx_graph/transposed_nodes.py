"""ONNX's transposed convolution, see `values` for what a handler is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.values import (
    Reader,
    Value,
    feature_map,
    float_constant,
    pair,
    unpadded,
    whole_map,
)


def _conv_transpose(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
    """The map spread by the stride, then a convolution with the kernel turned round."""
    weights = float_constant(reader, node, inputs[1], "its weights")  # [IC, OC / groups, KH, KW]
    bias = float_constant(reader, node, inputs[2], "its bias") if inputs[2:] and inputs[2] else None
    layer, _ = feature_map(reader, node, unpadded(reader, node, inputs[0]))
    groups, channels = int(node.attrs.get("group", 1)), layer.shape[-1]
    if weights.ndim != 4 or len(weights) != channels or pair(node, "dilations", (1, 1)) != (1, 1):
        reader.fail(node, f"weights {weights.shape} on {channels} channels, or dilation; use ConvTranspose2d")
    depthwise = groups == channels > 1 and weights.shape[1] == 1
    if groups > 1 and not depthwise:
        weights = _of_one_group(weights, groups)
    kernel, stride = (weights.shape[2], weights.shape[3]), pair(node, "strides", (1, 1))
    _, outputs, *size = reader.shape(node, node.outputs[0])
    pad = _cut(reader, node, layer.shape, kernel, stride, size)
    # [OC, KH, KW, IC], or [1, KH, KW, C]
    values = np.ascontiguousarray(weights[:, :, ::-1, ::-1].transpose(1, 2, 3, 0))
    window: dict[str, Any] = {"kernel": kernel[::-1], "stride": stride[::-1], "dilation": (1, 1), "pad": pad}
    op = "transposed_depthwise_conv" if depthwise else "transposed_conv"
    shape = (*size, outputs)
    return whole_map(reader.emit(node, op, [layer.name], shape, values, bias, **window, activation="NONE"))


def _of_one_group(weights, groups):
    """Weights [IC, OC / groups, KH, KW] of groups as those of one, [IC, OC, KH, KW], zero between groups."""
    inputs, outputs = len(weights) // groups, weights.shape[1]
    full = np.zeros((len(weights), outputs * groups, *weights.shape[2:]), np.float32)
    for k in range(groups):
        mine = slice(k * inputs, (k + 1) * inputs)
        full[mine, k * outputs : (k + 1) * outputs] = weights[mine]
    return full


def _cut(reader, node, shape, kernel, stride, size):
    """(left, right, top, bottom) that is cut off the full output to get `size` (height, width)."""
    top, left, *_ = (int(n) for n in node.attrs.get("pads", (0, 0, 0, 0)))
    auto = node.attrs.get("auto_pad", b"NOTSET").decode() or "NOTSET"
    sides = []
    for axis, before in enumerate((top, left)):
        total = (shape[axis] - 1) * stride[axis] + kernel[axis] - size[axis]
        if auto == "SAME_UPPER":
            before = total // 2
        elif auto == "SAME_LOWER" or "output_shape" in node.attrs:
            before = total - total // 2
        sides.append((before, total - before))
    (top, bottom), (left, right) = sides
    if min(top, bottom, left, right) < 0:
        reader.fail(node, "its output_padding is larger than its padding; the DPU only cuts its output")
    return left, right, top, bottom


HANDLERS = {"ConvTranspose": _conv_transpose}
"""Operator -> handler."""
