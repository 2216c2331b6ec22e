"""TensorFlow's convolutions and dense layers: one handler per op, see `values` for what a handler is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpuflow.network import Layer
from dpuflow.network.dilation import spread_kernel
from dpuflow.network.groups import dense_kernel
from dpuflow.tfgraph.dilation import dilated, in_space
from dpuflow.tfgraph.rearranging_nodes import channel_product, map_of
from dpuflow.tfgraph.values import (
    Node,
    Stored,
    Tensor,
    Translator,
    activation,
    channels_last,
    constant,
    each_value,
    ints,
    sizes,
    text,
)

Pair = tuple[int, int]
"""(height, width)."""


def window(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int, int]:
    """Output length and (before, after) padding of one axis; TensorFlow's SAME / VALID rule."""
    reach = (kernel - 1) * dilation + 1
    if padding == "SAME":
        length = -(-size // stride)
        total = max((length - 1) * stride + reach - size, 0)
        return length, total // 2, total - total // 2
    return (size - reach) // stride + 1, 0, 0


def spatial(translator: Translator, node: Node, key: str, values: Sequence[int] | None = None) -> Pair:
    """(height, width) of a list attribute with one entry per axis of NHWC; the others must be 1."""
    values = ints(node, key, [1, 1, 1, 1]) if values is None else values
    if len(values) != 4 or values[0] != 1 or values[3] != 1 or not 1 <= min(values) <= max(values) < 2**31:
        translator.fail(node, f"{key} {values}: expected [1, height, width, 1]")
    return values[1], values[2]


def _weights(translator, node, value, axes):
    """Constant float32 weights with so many axes."""
    own = isinstance(value, Stored)
    array = constant(translator, node, value, "the weights").astype(np.float32, copy=not own)
    if array.ndim != axes or not array.size:
        translator.fail(node, f"weights of shape {array.shape}; expected {axes} axes")
    return array


def sliding(
    translator: Translator,
    node: Node,
    layer: Layer,
    kernel: Sequence[int],
    pending: tuple[int, int, int, int],
    strides: Pair | None = None,
) -> tuple[Pair, dict[str, Any]]:
    """(output H, W) and attributes kernel, stride, dilation, pad of a convolution or pooling node."""
    channels_last(translator, node)
    strides = strides or spatial(translator, node, "strides")
    dilations = spatial(translator, node, "dilations")
    padding = text(node, "padding", "VALID")
    if padding not in ("SAME", "VALID", "EXPLICIT"):
        translator.fail(node, f"padding {padding!r} is not SAME, VALID or EXPLICIT")
    if min(kernel) < 1:
        translator.fail(node, f"a window of {tuple(kernel)}")
    left, right, top, bottom = pending
    if padding == "EXPLICIT":
        explicit = ints(node, "explicit_paddings", [0] * 8)
        if len(explicit) != 8 or any(explicit[:2] + explicit[6:]) or min(explicit) < 0:
            translator.fail(node, f"explicit_paddings {explicit} are not 8 numbers that pad height and width")
        top, bottom, left, right = (
            top + explicit[2],
            bottom + explicit[3],
            left + explicit[4],
            right + explicit[5],
        )
        padding = "VALID"
    height, width, _ = layer.shape
    out_h, t, b = window(height + top + bottom, kernel[0], strides[0], dilations[0], padding)
    out_w, le, r = window(width + left + right, kernel[1], strides[1], dilations[1], padding)
    if out_h <= 0 or out_w <= 0:
        translator.fail(node, f"kernel {tuple(kernel)} is larger than its input {layer.shape}")
    attrs = {
        "kernel": (int(kernel[1]), int(kernel[0])),
        "stride": strides[::-1],
        "dilation": dilations[::-1],
        "pad": (left + le, right + r, top + t, bottom + b),
    }
    return (out_h, out_w), attrs


def _convolved(translator, node, value, layer, kernel):
    """`sliding` of a convolution; between SpaceToBatchND and BatchToSpaceND it is a dilated one."""
    if value.space is None:
        return sliding(translator, node, layer, kernel, value.pad)
    dilation = dilated(translator, node, value.space)
    plain = type(node)(name=node.name, op=node.op)
    plain.attr["dilations"].list.i.extend([1, *dilation, 1])
    return sliding(translator, plain, layer, kernel, value.space.pad)


def _conv2d(translator, node, inputs):
    layer = map_of(translator, node, inputs[0])
    weights = _weights(translator, node, inputs[1], 4)  # HWIO
    channels = layer.shape[-1]
    if weights.shape[2] != channels:
        weights = ungrouped(translator, node, weights, channels)
    (height, width), attrs = _convolved(translator, node, inputs[0], layer, weights.shape[:2])
    shape = (height, width, weights.shape[3])
    return in_space(inputs[0], translator.emit(
        node, "conv", [layer.name], shape, np.ascontiguousarray(weights.transpose(3, 0, 1, 2)), None,
        **attrs, activation="NONE",
    ))  # fmt: skip


def ungrouped(translator: Translator, node: Node, weights: np.ndarray, channels: int) -> np.ndarray:
    """HWIO weights of a grouped convolution as those of a full one, which every DPU has: zeros elsewhere."""
    each, outputs = weights.shape[2:]
    groups = channels // each
    if channels % each or outputs % groups:
        translator.fail(
            node,
            f"weights for {each} channels, {outputs} outputs, do not divide an input of {channels} channels",
        )
    translator.spend(node, weights.size * groups)
    return dense_kernel(weights, channels)


def _depthwise(translator, node, inputs):
    layer = map_of(translator, node, inputs[0])
    weights = _weights(translator, node, inputs[1], 4)  # HWCM
    kernel_h, kernel_w, channels, multiplier = weights.shape
    if channels != layer.shape[-1]:
        translator.fail(node, f"weights for {channels} channels, its input has {layer.shape[-1]}")
    (height, width), attrs = _convolved(translator, node, inputs[0], layer, (kernel_h, kernel_w))
    shape = (height, width, channels * multiplier)
    if attrs["dilation"] != (1, 1):
        weights, attrs = _spread(translator, node, weights, attrs)
        kernel_h, kernel_w = weights.shape[:2]
    if multiplier == 1:
        op, weights = "depthwise_conv", weights.transpose(3, 0, 1, 2)
    else:  # the same function as an ordinary convolution with zeros, which every DPU has
        translator.spend(node, weights.size * channels)
        op, dense = "conv", np.zeros((channels * multiplier, kernel_h, kernel_w, channels), np.float32)
        for c in range(channels):
            dense[c * multiplier : (c + 1) * multiplier, :, :, c] = weights[:, :, c].transpose(2, 0, 1)
        weights = dense
    return in_space(
        inputs[0],
        translator.emit(
            node, op, [layer.name], shape, np.ascontiguousarray(weights), None, **attrs, activation="NONE"
        ),
    )


def _transposed(op):
    """Handler of the gradient of a convolution, which is the transposed convolution."""

    def handler(translator: Translator, node: Node, inputs: Sequence[Any]) -> Tensor:
        asked = sizes(translator, node, inputs[0])
        layer = map_of(translator, node, inputs[2])
        if layer.name == inputs[2].layer:
            activation(translator, node, inputs[2])
        channels_last(translator, node)
        weights = _weights(translator, node, inputs[1], 4)  # HWOI; HWCM
        if spatial(translator, node, "dilations") != (1, 1):
            translator.fail(node, "a transposed convolution with dilation is not supported")
        kernel, strides, padding = (
            weights.shape[:2],
            spatial(translator, node, "strides"),
            text(node, "padding", ""),
        )
        if (
            len(asked) != 4
            or not all(isinstance(n, int) for n in asked[1:])
            or padding not in ("SAME", "VALID")
        ):
            translator.fail(node, f"an output of {asked} with padding {padding!r}; expected SAME or VALID")
        depthwise = op == "transposed_depthwise_conv"
        if weights.shape[3] != (1 if depthwise else layer.shape[-1]):
            translator.fail(node, f"weights {weights.shape} on an input {layer.shape}")
        wanted = [n for n in asked[1:3] if isinstance(n, int)]
        pads: list[int] = []
        size: list[int] = []
        for axis in (1, 0):
            cut = (layer.shape[axis] - 1) * strides[axis] + kernel[axis] - wanted[axis]
            if not 0 <= cut < 2 * kernel[axis] - 1:
                translator.fail(
                    node, f"an output of {asked[1:3]} of {layer.shape[:2]}: beyond what the windows reach"
                )
            pads += [cut // 2, cut - cut // 2]
            size.insert(0, wanted[axis])
        flipped = weights[::-1, ::-1]
        ours = flipped.transpose(3, 0, 1, 2) if depthwise else flipped.transpose(2, 0, 1, 3)
        attrs: dict[str, Any] = {"kernel": kernel[::-1], "stride": strides[::-1], "dilation": (1, 1)}
        shape, stored = (*size, weights.shape[2]), np.ascontiguousarray(ours)
        return translator.emit(
            node, op, [layer.name], shape, stored, None, pad=tuple(pads), activation="NONE", **attrs
        )

    return handler


def _spread(translator, node, weights, attrs):
    """A dilated kernel as a larger one with zeros: no DPU has a dilated depthwise convolution."""
    (dil_w, dil_h), (height, width) = attrs["dilation"], weights.shape[:2]
    translator.spend(node, height * dil_h * width * dil_w * weights.shape[2] * weights.shape[3])
    spread = spread_kernel(weights, attrs["dilation"], (0, 1))
    return spread, {**attrs, "kernel": spread.shape[1::-1], "dilation": (1, 1)}


def _matmul(translator, node, inputs):
    if node.attr["transpose_a"].b:
        translator.fail(node, "transpose_a is not supported")
    layer = each_value(translator, node, inputs[0])
    weights = _weights(translator, node, inputs[1], 2)
    weights = weights if node.attr["transpose_b"].b else weights.T  # [OC, IN]
    if inputs[0].view is not None and len(inputs[0].view) == 2 and layer.shape[-1] == weights.shape[1]:
        # a dense layer over the channels of each pixel: the pixels stand as rows here
        rows = channel_product(translator, node, layer, np.ascontiguousarray(weights))
        return Tensor(rows.layer, view=(inputs[0].view[0], len(weights)))
    activation(translator, node, inputs[0])
    if layer.shape != (weights.shape[1],):
        translator.fail(
            node, f"expects a vector of {weights.shape[1]}, its input has shape {layer.shape}; flatten first"
        )
    shape = (weights.shape[0],)
    return translator.emit(
        node, "dense", [layer.name], shape, np.ascontiguousarray(weights), None, activation="NONE"
    )


INPUTS = {
    **dict.fromkeys(("Conv2D", "DepthwiseConv2dNative", "MatMul"), (2, 2)),
    **dict.fromkeys(("Conv2DBackpropInput", "DepthwiseConv2dNativeBackpropInput"), (3, 3)),
}
"""op -> (fewest, most) inputs."""

HANDLERS = {
    "Conv2D": _conv2d,
    "Conv2DBackpropInput": _transposed("transposed_conv"),
    "DepthwiseConv2dNative": _depthwise,
    "DepthwiseConv2dNativeBackpropInput": _transposed("transposed_depthwise_conv"),
    "MatMul": _matmul,
}
