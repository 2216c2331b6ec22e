"""What each TensorFlow op becomes: one handler per op, `handler(translator, node, inputs)`.

A handler returns the node's value: a `Constant`, a `Tensor` (output of an emitted
layer), `Dims` (a shape vector, batch unknown), or a list with one of these per output.
Attributes that equal TensorFlow's default may be missing from a node; the defaults used
here are those of TensorFlow's op definitions.
"""

import math
from dataclasses import dataclass

import numpy as np

from dpuflow.tfgraph.graph_def import tensor_to_array

NO_PAD = (0, 0, 0, 0)


@dataclass(frozen=True)
class Constant:
    """A value known while reading."""

    array: np.ndarray


@dataclass(frozen=True)
class Tensor:
    """Output of a layer; `pad` (l, r, t, b) zeros still to be given to the layer that reads it."""

    layer: str
    pad: tuple[int, int, int, int] = NO_PAD


@dataclass(frozen=True)
class Dims:
    """A shape vector or a piece of it; None stands for the batch size."""

    sizes: tuple


DEAD = object()
"""The side of a Switch that is not taken."""


def _ints(node, key, default):
    return list(node.attr[key].list.i) if key in node.attr else list(default)


def _text(node, key, default):
    return node.attr[key].s.decode() if key in node.attr else default


def _channels_last(translator, node):
    if _text(node, "data_format", "NHWC") not in ("NHWC", ""):
        translator.fail(node, "only NHWC layout works; export with channels_last")


def _activation(translator, node, value):
    """The layer behind `value`, which must be an activation without pending padding."""
    if not isinstance(value, Tensor):
        translator.fail(node, "expected an activation, found a constant; run constant folding when freezing")
    if value.pad != NO_PAD:
        translator.fail(node, "zero padding can only be absorbed by a convolution right behind it")
    return translator.layer(value)


def _feature_map(translator, node, value):
    layer = translator.layer(value) if isinstance(value, Tensor) else None
    if layer is None or len(layer.shape) != 3:
        translator.fail(node, "expected a feature map (H, W, C) as input")
    return layer


def _constant(translator, node, value, what):
    if not isinstance(value, Constant):
        translator.fail(node, f"{what} must be constant; freeze the graph first")
    return value.array


# -- constants, shapes, pass-through -------------------------------------------------------


def _const(translator, node, inputs):
    tensor = node.attr["value"].tensor
    if tensor.dtype == 7:  # strings serve assertions only
        return Constant(np.zeros(0))
    return Constant(tensor_to_array(tensor, f"node {node.name!r}"))


def _pass(translator, node, inputs):
    return inputs[0]


def _shape(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        return Constant(np.array(inputs[0].array.shape, np.int64))
    return Dims((None, *_activation(translator, node, inputs[0]).shape))


def _strided_slice(translator, node, inputs):
    begin, end, step = (_constant(translator, node, v, "slice bounds") for v in inputs[1:4])
    masks = {k: node.attr[k].i for k in ("begin_mask", "end_mask", "shrink_axis_mask") if k in node.attr}
    if begin.size != 1 or isinstance(inputs[0], Tensor):
        translator.fail(node, "only slices of a shape vector are supported")
    first = None if masks.get("begin_mask") else int(begin[0])
    last = None if masks.get("end_mask") else int(end[0])
    if isinstance(inputs[0], Constant):
        piece = inputs[0].array[first : last : int(step[0])]
        return Constant(piece[0] if masks.get("shrink_axis_mask") else piece)
    return Dims(inputs[0].sizes[first : last : int(step[0])])


def _sizes(translator, node, value):
    if isinstance(value, Dims):
        return value.sizes
    return tuple(int(n) for n in np.atleast_1d(_constant(translator, node, value, "a shape")))


def _pack(translator, node, inputs):
    if all(isinstance(value, Constant) for value in inputs):
        return Constant(
            np.stack([value.array for value in inputs], node.attr["axis"].i if "axis" in node.attr else 0)
        )
    return Dims(tuple(size for value in inputs for size in _sizes(translator, node, value)))


def _prod(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        return Constant(np.prod(inputs[0].array))
    sizes = inputs[0].sizes
    return Dims((None,)) if None in sizes else Constant(np.array(math.prod(sizes), np.int64))


def _reshape_to(translator, node, value, sizes):
    """Reshape to `sizes` (batch first): only flattening, its undoing, and no change are possible."""
    layer = _activation(translator, node, value)
    count = math.prod(layer.shape)
    shape = list(sizes[1:])
    if len(shape) and shape.count(-1) == 1 and sizes[0] != -1:
        shape[shape.index(-1)] = count // max(1, -math.prod(shape))
    shape = tuple(shape)
    if shape == layer.shape:
        return value
    if shape == (count,):
        return translator.emit(node, "flatten", [layer.name], shape)
    if layer.op == "flatten" and translator.layers[layer.inputs[0]].shape == shape:
        return Tensor(layer.inputs[0])
    translator.fail(node, f"reshape from {layer.shape} to {shape}; only flattening to a vector is supported")


def _reshape(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        return Constant(inputs[0].array.reshape(_sizes(translator, node, inputs[1])))
    return _reshape_to(translator, node, inputs[0], _sizes(translator, node, inputs[1]))


def _squeeze(translator, node, inputs):
    axes = _ints(node, "squeeze_dims", []) or _ints(node, "axis", [])
    if isinstance(inputs[0], Constant):
        return Constant(np.squeeze(inputs[0].array, tuple(axes) or None))
    shape = (None, *_activation(translator, node, inputs[0]).shape)
    axes = {a % len(shape) for a in axes} or {i for i, n in enumerate(shape) if n == 1}
    return _reshape_to(translator, node, inputs[0], [n for i, n in enumerate(shape) if i not in axes])


def _expand_dims(translator, node, inputs):
    axis = int(_constant(translator, node, inputs[1], "the axis"))
    if isinstance(inputs[0], Constant):
        return Constant(np.expand_dims(inputs[0].array, axis))
    shape = [None, *_activation(translator, node, inputs[0]).shape]
    shape.insert(axis % (len(shape) + 1), 1)
    return _reshape_to(translator, node, inputs[0], shape)


def _switch(translator, node, inputs):
    """tf.cond of a training switch that was frozen to a constant: [false side, true side]."""
    taken = bool(_constant(translator, node, inputs[1], "the condition of a Switch"))
    return [DEAD, inputs[0]] if taken else [inputs[0], DEAD]


def _merge(translator, node, inputs):
    alive = [value for value in inputs if value is not DEAD]
    if len(alive) != 1:
        translator.fail(node, "both sides of a condition are alive; freeze the training switch to a constant")
    return alive[0]


# -- arithmetic ----------------------------------------------------------------------------


def _affine(translator, node, value, scale, offset):
    """y = x * scale + offset with constants that are scalar or one per channel."""
    layer = _activation(translator, node, value)
    channels = layer.shape[-1]

    def per_channel(array):
        array = np.asarray(array, np.float32)
        if array.size not in (1, channels) or (
            array.size == channels and array.shape[-1:] not in ((channels,), ())
        ):
            translator.fail(node, f"constant of shape {array.shape} is neither a scalar nor one per channel")
        return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)

    return translator.emit(
        node, "batch_norm", [layer.name], layer.shape, per_channel(scale), per_channel(offset)
    )


def _elementwise(function, scale_offset):
    """Handler of a binary op: constants are computed, tensor-with-constant is affine, two tensors only for add."""

    def handler(translator, node, inputs):
        a, b = inputs
        if any(value is DEAD for value in inputs):
            return DEAD
        if isinstance(a, Constant) and isinstance(b, Constant):
            return Constant(function(a.array, b.array))
        if isinstance(a, Constant) or isinstance(b, Constant):
            first = isinstance(b, Constant)
            constant = b.array if first else a.array
            pair = scale_offset(constant.astype(np.float32), first)
            if pair is None:
                translator.fail(node, "constant divided by an activation is not supported")
            return _affine(translator, node, a if first else b, *pair)
        if function is not np.add or isinstance(a, Dims) or isinstance(b, Dims):
            translator.fail(node, "of two activations only the sum is supported")
        left, right = _activation(translator, node, a), _activation(translator, node, b)
        if left.shape != right.shape:
            translator.fail(node, f"adds activations of different shapes {left.shape} and {right.shape}")
        return translator.emit(node, "add", [left.name, right.name], left.shape, activation="NONE")

    return handler


_add = _elementwise(np.add, lambda c, first: (1, c))
_sub = _elementwise(np.subtract, lambda c, first: (1, -c) if first else (-1, c))
_mul = _elementwise(np.multiply, lambda c, first: (c, 0))
_div = _elementwise(np.divide, lambda c, first: (1 / c, 0) if first else None)


def _rsqrt(translator, node, inputs):
    return Constant((1 / np.sqrt(_constant(translator, node, inputs[0], "the argument"))).astype(np.float32))


def _sqrt(translator, node, inputs):
    return Constant(np.sqrt(_constant(translator, node, inputs[0], "the argument")))


def _bias_add(translator, node, inputs):
    _channels_last(translator, node)
    return _affine(translator, node, inputs[0], 1, _constant(translator, node, inputs[1], "the bias"))


def _fused_batch_norm(translator, node, inputs):
    _channels_last(translator, node)
    if node.attr["is_training"].b if "is_training" in node.attr else True:
        translator.fail(node, "batch normalisation in training mode; freeze the graph for inference")
    gamma, beta, mean, variance = (
        _constant(translator, node, v, "a batch normalisation parameter").astype(np.float64)
        for v in inputs[1:5]
    )
    epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4
    scale = gamma / np.sqrt(variance + epsilon)
    return [_affine(translator, node, inputs[0], scale, beta - mean * scale)] + [DEAD] * 5


# -- weighted layers -----------------------------------------------------------------------


def window(size, kernel, stride, dilation, padding):
    """Output length and (before, after) padding of one axis; TensorFlow's SAME / VALID rule."""
    reach = (kernel - 1) * dilation + 1
    if padding == "SAME":
        length = -(-size // stride)
        total = max((length - 1) * stride + reach - size, 0)
        return length, total // 2, total - total // 2
    return (size - reach) // stride + 1, 0, 0


def _sliding(translator, node, layer, kernel, pending, allow_pending=True):
    """(output H, W) and attributes kernel, stride, dilation, pad of a convolution or pooling node."""
    _channels_last(translator, node)
    strides = _ints(node, "strides", [1, 1, 1, 1])
    dilations = _ints(node, "dilations", [1, 1, 1, 1])
    padding = _text(node, "padding", "VALID")
    left, right, top, bottom = pending
    if padding == "EXPLICIT":
        explicit = _ints(node, "explicit_paddings", [0] * 8)
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
    out_h, t, b = window(height + top + bottom, kernel[0], strides[1], dilations[1], padding)
    out_w, le, r = window(width + left + right, kernel[1], strides[2], dilations[2], padding)
    if out_h <= 0 or out_w <= 0:
        translator.fail(node, f"kernel {tuple(kernel)} is larger than its input {layer.shape}")
    attrs = {
        "kernel": (int(kernel[1]), int(kernel[0])),
        "stride": (strides[2], strides[1]),
        "dilation": (dilations[2], dilations[1]),
        "pad": (left + le, right + r, top + t, bottom + b),
    }
    return (out_h, out_w), attrs


def _conv2d(translator, node, inputs):
    layer = _feature_map(translator, node, inputs[0])
    weights = _constant(translator, node, inputs[1], "the weights").astype(np.float32)  # HWIO
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
    layer = _feature_map(translator, node, inputs[0])
    weights = _constant(translator, node, inputs[1], "the weights").astype(np.float32)  # HWCM
    kernel_h, kernel_w, channels, multiplier = weights.shape
    (height, width), attrs = _sliding(translator, node, layer, (kernel_h, kernel_w), inputs[0].pad)
    shape = (height, width, channels * multiplier)
    if multiplier == 1:
        op, weights = "depthwise_conv", weights.transpose(3, 0, 1, 2)
    else:  # the same function as an ordinary convolution with zeros, which every DPU has
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
    layer = _activation(translator, node, inputs[0])
    weights = _constant(translator, node, inputs[1], "the weights").astype(np.float32)
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
        layer = _activation(translator, node, inputs[0])
        return translator.emit(node, op, [layer.name], layer.shape)

    return handler


def _leaky_relu(translator, node, inputs):
    layer = _activation(translator, node, inputs[0])
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
    layer = _activation(translator, node, tensors[0])
    if len(tensors) == 1 and np.all(constants[0] == 6) and layer.op == "relu":
        return translator.emit(node, "relu6", list(layer.inputs), layer.shape)
    translator.fail(node, "only min(relu(x), 6) is supported")


def _pool(op):
    def handler(translator, node, inputs):
        layer = _feature_map(translator, node, inputs[0])
        pending = inputs[0].pad
        if pending != NO_PAD and not (op == "max_pool" and layer.op in ("relu", "relu6")):
            translator.fail(node, "zero padding before pooling is only supported for max pooling behind ReLU")
        ksize = _ints(node, "ksize", [1, 1, 1, 1])
        (height, width), attrs = _sliding(translator, node, layer, ksize[1:3], pending)
        del attrs["dilation"]
        if op == "avg_pool" and any(attrs["pad"]):
            translator.fail(
                node, "average pooling with padding (SAME on a size that does not divide) is not supported"
            )
        return translator.emit(node, op, [layer.name], (height, width, layer.shape[-1]), **attrs)

    return handler


def _mean(translator, node, inputs):
    axes = _constant(translator, node, inputs[1], "the axes")
    layer = _feature_map(translator, node, inputs[0])
    _activation(translator, node, inputs[0])
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
    amounts = _constant(translator, node, inputs[1], "the padding")
    value = float(_constant(translator, node, inputs[2], "the padding value")) if len(inputs) > 2 else 0.0
    _feature_map(translator, node, inputs[0])
    if amounts.shape != (4, 2) or amounts[[0, 3]].any() or value != 0:
        translator.fail(node, "only zero padding of height and width is supported")
    (top, bottom), (left, right) = amounts[1], amounts[2]
    before = inputs[0].pad
    pad = tuple(int(a + b) for a, b in zip(before, (left, right, top, bottom), strict=True))
    return Tensor(inputs[0].layer, pad)


def _concat(translator, node, inputs):
    *values, axis = inputs
    axis = int(_constant(translator, node, axis, "the axis"))
    if all(isinstance(value, Constant) for value in values):
        return Constant(np.concatenate([np.atleast_1d(value.array) for value in values], axis))
    if not any(isinstance(value, Tensor) for value in values):
        return Dims(tuple(size for value in values for size in _sizes(translator, node, value)))
    layers = [_activation(translator, node, value) for value in values]
    rank = len(layers[0].shape) + 1
    axis %= rank
    if axis != rank - 1 or len({layer.shape[:-1] for layer in layers}) != 1:
        translator.fail(node, "only concatenation along the channels of equally sized maps is supported")
    shape = (*layers[0].shape[:-1], sum(layer.shape[-1] for layer in layers))
    return translator.emit(node, "concat", [layer.name for layer in layers], shape, axis=axis)


def _softmax(translator, node, inputs):
    layer = _activation(translator, node, inputs[0])
    if len(layer.shape) != 1:
        translator.fail(node, f"softmax over shape {layer.shape}; only over a vector is supported")
    return translator.emit(node, "softmax", [layer.name], layer.shape)


HANDLERS = {
    "Add": _add,
    "AddV2": _add,
    "AvgPool": _pool("avg_pool"),
    "BiasAdd": _bias_add,
    "Cast": _pass,
    "CheckNumerics": _pass,
    "ConcatV2": _concat,
    "Const": _const,
    "Conv2D": _conv2d,
    "DepthwiseConv2dNative": _depthwise,
    "ExpandDims": _expand_dims,
    "FusedBatchNorm": _fused_batch_norm,
    "FusedBatchNormV2": _fused_batch_norm,
    "FusedBatchNormV3": _fused_batch_norm,
    "Identity": _pass,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "MaxPool": _pool("max_pool"),
    "Maximum": _maximum,
    "Mean": _mean,
    "Merge": _merge,
    "Minimum": _minimum,
    "Mul": _mul,
    "Pack": _pack,
    "Pad": _pad,
    "PadV2": _pad,
    "PlaceholderWithDefault": _pass,
    "Prod": _prod,
    "RealDiv": _div,
    "Relu": _unary("relu"),
    "Relu6": _unary("relu6"),
    "Reshape": _reshape,
    "Rsqrt": _rsqrt,
    "Shape": _shape,
    "Snapshot": _pass,
    "Softmax": _softmax,
    "Sqrt": _sqrt,
    "Squeeze": _squeeze,
    "StopGradient": _pass,
    "StridedSlice": _strided_slice,
    "Sub": _sub,
    "Switch": _switch,
}
