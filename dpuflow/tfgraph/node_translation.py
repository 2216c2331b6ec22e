"""TensorFlow ops that become layers: one handler per op, see `node_values` for what a handler is."""

import numpy as np

from dpuflow.tfgraph import node_values
from dpuflow.tfgraph.node_values import (
    ANY,
    NO_PAD,
    Constant,
    Dims,
    Tensor,
    activation,
    channels_last,
    constant,
    feature_map,
    ints,
    sizes,
    text,
)

# -- weighted layers -----------------------------------------------------------------------


def window(size, kernel, stride, dilation, padding):
    """Output length and (before, after) padding of one axis; TensorFlow's SAME / VALID rule."""
    reach = (kernel - 1) * dilation + 1
    if padding == "SAME":
        length = -(-size // stride)
        total = max((length - 1) * stride + reach - size, 0)
        return length, total // 2, total - total // 2
    return (size - reach) // stride + 1, 0, 0


def _spatial(translator, node, key):
    """(height, width) of a list attribute with one entry per axis of NHWC; the others must be 1."""
    values = ints(node, key, [1, 1, 1, 1])
    if len(values) != 4 or values[0] != 1 or values[3] != 1 or not 1 <= min(values) <= max(values) < 2**31:
        translator.fail(node, f"{key} {values}: expected [1, height, width, 1]")
    return values[1], values[2]


def _weights(translator, node, value, axes):
    """Constant float32 weights with so many axes."""
    array = constant(translator, node, value, "the weights").astype(np.float32)
    if array.ndim != axes or not array.size:
        translator.fail(node, f"weights of shape {array.shape}; expected {axes} axes")
    return array


def _sliding(translator, node, layer, kernel, pending, allow_pending=True):
    """(output H, W) and attributes kernel, stride, dilation, pad of a convolution or pooling node."""
    channels_last(translator, node)
    strides = _spatial(translator, node, "strides")
    dilations = _spatial(translator, node, "dilations")
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
    if padding == "SAME" and pending != NO_PAD:
        translator.fail(node, "explicit padding followed by SAME padding is not supported")
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


def _conv2d(translator, node, inputs):
    layer = feature_map(translator, node, inputs[0])
    weights = _weights(translator, node, inputs[1], 4)  # HWIO
    if weights.shape[2] != layer.shape[-1]:
        translator.fail(
            node, f"grouped convolution ({weights.shape[2]} of {layer.shape[-1]} channels) is not supported"
        )
    (height, width), attrs = _sliding(translator, node, layer, weights.shape[:2], inputs[0].pad)
    shape = (height, width, weights.shape[3])
    return translator.emit(
        node, "conv", [layer.name], shape, np.ascontiguousarray(weights.transpose(3, 0, 1, 2)), None,
        **attrs, activation="NONE",
    )  # fmt: skip


def _depthwise(translator, node, inputs):
    layer = feature_map(translator, node, inputs[0])
    weights = _weights(translator, node, inputs[1], 4)  # HWCM
    kernel_h, kernel_w, channels, multiplier = weights.shape
    if channels != layer.shape[-1]:
        translator.fail(node, f"weights for {channels} channels, its input has {layer.shape[-1]}")
    (height, width), attrs = _sliding(translator, node, layer, (kernel_h, kernel_w), inputs[0].pad)
    shape = (height, width, channels * multiplier)
    if multiplier == 1:
        op, weights = "depthwise_conv", weights.transpose(3, 0, 1, 2)
    else:  # the same function as an ordinary convolution with zeros, which every DPU has
        translator.spend(node, weights.size * channels)
        op, dense = "conv", np.zeros((channels * multiplier, kernel_h, kernel_w, channels), np.float32)
        for c in range(channels):
            dense[c * multiplier : (c + 1) * multiplier, :, :, c] = weights[:, :, c].transpose(2, 0, 1)
        weights = dense
    return translator.emit(
        node, op, [layer.name], shape, np.ascontiguousarray(weights), None, **attrs, activation="NONE"
    )


def _matmul(translator, node, inputs):
    if node.attr["transpose_a"].b:
        translator.fail(node, "transpose_a is not supported")
    layer = activation(translator, node, inputs[0])
    weights = _weights(translator, node, inputs[1], 2)
    weights = weights if node.attr["transpose_b"].b else weights.T  # [OC, IN]
    if layer.shape != (weights.shape[1],):
        translator.fail(
            node, f"expects a vector of {weights.shape[1]}, its input has shape {layer.shape}; flatten first"
        )
    shape = (weights.shape[0],)
    return translator.emit(
        node, "dense", [layer.name], shape, np.ascontiguousarray(weights), None, activation="NONE"
    )


# -- activations, pooling, joining -----------------------------------------------------------


def _unary(op):
    def handler(translator, node, inputs):
        layer = activation(translator, node, inputs[0])
        return translator.emit(node, op, [layer.name], layer.shape)

    return handler


def _leaky_relu(translator, node, inputs):
    layer = activation(translator, node, inputs[0])
    alpha = node.attr["alpha"].f if "alpha" in node.attr else 0.2
    return translator.emit(node, "leaky_relu", [layer.name], layer.shape, alpha=round(float(alpha), 7))


def _maximum(translator, node, inputs):
    """max(x, 0) is ReLU; max(x, alpha x) is leaky ReLU."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    constants = [value.array for value in inputs if isinstance(value, Constant)]
    if not tensors:
        return Constant(np.maximum(*constants))
    if len(tensors) == 1 and np.all(constants[0] == 0):
        return _unary("relu")(translator, node, tensors)
    for plain, scaled in (inputs, inputs[::-1]):
        layer = translator.layer(scaled) if len(tensors) == 2 else None
        if layer is not None and layer.op == "batch_norm" and layer.inputs == [plain.layer]:
            alpha = float(layer.weights[0])
            if np.all(layer.weights == layer.weights[0]) and not layer.bias.any() and 0 < alpha < 1:
                source = translator.layer(plain)
                return translator.emit(node, "leaky_relu", [source.name], source.shape, alpha=round(alpha, 7))
    translator.fail(node, "only max(x, 0) and max(x, alpha * x) are supported")


def _minimum(translator, node, inputs):
    """min(relu(x), 6) is ReLU6."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    constants = [value.array for value in inputs if isinstance(value, Constant)]
    if not tensors:
        return Constant(np.minimum(*constants))
    layer = activation(translator, node, tensors[0])
    if len(tensors) == 1 and np.all(constants[0] == 6) and layer.op == "relu":
        return translator.emit(node, "relu6", list(layer.inputs), layer.shape)
    translator.fail(node, "only min(relu(x), 6) is supported")


def _pool(op):
    def handler(translator, node, inputs):
        layer = feature_map(translator, node, inputs[0])
        pending = inputs[0].pad
        if pending != NO_PAD and not (op == "max_pool" and layer.op in ("relu", "relu6")):
            translator.fail(node, "zero padding before pooling is only supported for max pooling behind ReLU")
        ksize = _spatial(translator, node, "ksize")
        (height, width), attrs = _sliding(translator, node, layer, ksize, pending)
        if attrs.pop("dilation") != (1, 1):
            translator.fail(node, "pooling with dilation is not supported")
        if op == "avg_pool" and any(attrs["pad"]):
            translator.fail(
                node, "average pooling with padding (SAME on a size that does not divide) is not supported"
            )
        return translator.emit(node, op, [layer.name], (height, width, layer.shape[-1]), **attrs)

    return handler


def _mean(translator, node, inputs):
    axes = constant(translator, node, inputs[1], "the axes")
    layer = feature_map(translator, node, inputs[0])
    activation(translator, node, inputs[0])
    if sorted(int(a) % 4 for a in np.atleast_1d(axes)) != [1, 2]:
        translator.fail(
            node, f"mean over axes {axes}; only global average pooling (axes 1 and 2) is supported"
        )
    height, width, channels = layer.shape
    pooled = translator.emit(
        node, "avg_pool", [layer.name], (1, 1, channels), kernel=(width, height), stride=(1, 1), pad=NO_PAD
    )
    if node.attr["keep_dims"].b:
        return pooled
    flat = type(node)(name=f"{node.name}/flatten/Reshape", op="Reshape")
    return translator.emit(flat, "flatten", [node.name], (channels,))


def _pad(translator, node, inputs):
    amounts = constant(translator, node, inputs[1], "the padding")
    value = float(constant(translator, node, inputs[2], "the padding value")) if len(inputs) > 2 else 0.0
    feature_map(translator, node, inputs[0])
    if amounts.shape != (4, 2) or amounts[[0, 3]].any() or amounts.min() < 0 or value != 0:
        translator.fail(node, "only zero padding of height and width is supported")
    (top, bottom), (left, right) = amounts[1], amounts[2]
    before = inputs[0].pad
    pad = tuple(int(a + b) for a, b in zip(before, (left, right, top, bottom), strict=True))
    return Tensor(inputs[0].layer, pad)


def _concat(translator, node, inputs):
    *values, axis = inputs
    axis = int(constant(translator, node, axis, "the axis"))
    if all(isinstance(value, Constant) for value in values):
        translator.spend(node, sum(value.array.size for value in values))
        return Constant(np.concatenate([np.atleast_1d(value.array) for value in values], axis))
    if not any(isinstance(value, Tensor) for value in values):
        return Dims(tuple(size for value in values for size in sizes(translator, node, value)))
    layers = [activation(translator, node, value) for value in values]
    rank = len(layers[0].shape) + 1
    axis %= rank
    if axis != rank - 1 or len({layer.shape[:-1] for layer in layers}) != 1:
        translator.fail(node, "only concatenation along the channels of equally sized maps is supported")
    shape = (*layers[0].shape[:-1], sum(layer.shape[-1] for layer in layers))
    return translator.emit(node, "concat", [layer.name for layer in layers], shape, axis=axis)


def _softmax(translator, node, inputs):
    layer = activation(translator, node, inputs[0])
    if len(layer.shape) != 1:
        translator.fail(node, f"softmax over shape {layer.shape}; only over a vector is supported")
    return translator.emit(node, "softmax", [layer.name], layer.shape)


INPUTS = node_values.INPUTS | {
    **dict.fromkeys(
        ("Conv2D", "DepthwiseConv2dNative", "MatMul", "Maximum", "Mean", "Minimum", "Pad"), (2, 2)
    ),
    "ConcatV2": (2, ANY),
    "PadV2": (3, 3),
}
"""op -> (fewest, most) inputs; an op that is not here has one."""

HANDLERS = node_values.HANDLERS | {
    "AvgPool": _pool("avg_pool"),
    "ConcatV2": _concat,
    "Conv2D": _conv2d,
    "DepthwiseConv2dNative": _depthwise,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "MaxPool": _pool("max_pool"),
    "Maximum": _maximum,
    "Mean": _mean,
    "Minimum": _minimum,
    "Pad": _pad,
    "PadV2": _pad,
    "Relu": _unary("relu"),
    "Relu6": _unary("relu6"),
    "Softmax": _softmax,
}
"""Every supported op -> its handler."""
