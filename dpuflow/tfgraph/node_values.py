"""TensorFlow ops on constants, shapes and per-channel arithmetic: one handler per op.

`handler(translator, node, inputs)` returns the node's value: a `Constant`, a `Tensor` (output of an emitted
layer), `Dims` (a shape vector, batch unknown), or a list with one of these per output.
Attributes that equal TensorFlow's default may be missing from a node; the defaults used
here are those of TensorFlow's op definitions.
"""

import math
from dataclasses import dataclass

import numpy as np

from dpuflow.tfgraph.graph_def import DT_FLOAT, DTYPES, tensor_to_array

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


ANY = 2**31
"""As many inputs as there are."""

DEAD = object()
"""The side of a Switch that is not taken."""


def ints(node, key, default):
    return list(node.attr[key].list.i) if key in node.attr else list(default)


def text(node, key, default):
    return node.attr[key].s.decode() if key in node.attr else default


def channels_last(translator, node):
    if text(node, "data_format", "NHWC") not in ("NHWC", ""):
        translator.fail(node, "only NHWC layout works; export with channels_last")


def activation(translator, node, value):
    """The layer behind `value`, which must be an activation without pending padding."""
    if not isinstance(value, Tensor):
        translator.fail(node, "expected an activation, found a constant; run constant folding when freezing")
    if value.pad != NO_PAD:
        translator.fail(node, "zero padding can only be absorbed by a convolution right behind it")
    return translator.layer(value)


def feature_map(translator, node, value):
    layer = translator.layer(value) if isinstance(value, Tensor) else None
    if layer is None or len(layer.shape) != 3:
        translator.fail(node, "expected a feature map (H, W, C) as input")
    return layer


def constant(translator, node, value, what):
    if not isinstance(value, Constant):
        translator.fail(node, f"{what} must be constant; freeze the graph first")
    return value.array


# -- constants, shapes, pass-through -------------------------------------------------------


def _const(translator, node, inputs):
    tensor = node.attr["value"].tensor
    if tensor.dtype == 7:  # strings serve assertions only
        return Constant(np.zeros(0))
    what = f"{translator.where}: node {node.name!r}"
    return Constant(tensor_to_array(tensor, what, lambda elements: translator.spend(node, elements)))


def _pass(translator, node, inputs):
    return inputs[0]


def _cast(translator, node, inputs):
    """A constant becomes the type; activations are float here, so another type would cut them off."""
    code = node.attr["DstT"].type if "DstT" in node.attr else DT_FLOAT
    if isinstance(inputs[0], Constant):
        if code not in DTYPES:
            translator.fail(node, f"data type {code} has no numeric value")
        return Constant(inputs[0].array.astype(DTYPES[code][0]))
    if isinstance(inputs[0], Tensor) and code != DT_FLOAT:
        translator.fail(node, "only a cast to float is supported")
    return inputs[0]


def _shape(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        return Constant(np.array(inputs[0].array.shape, np.int64))
    return Dims((None, *activation(translator, node, inputs[0]).shape))


def _strided_slice(translator, node, inputs):
    begin, end, step = (constant(translator, node, v, "slice bounds") for v in inputs[1:4])
    masks = {k: node.attr[k].i for k in ("begin_mask", "end_mask", "shrink_axis_mask") if k in node.attr}
    others = any(node.attr[k].i for k in ("ellipsis_mask", "new_axis_mask") if k in node.attr)
    if (begin.size, end.size, step.size) != (1, 1, 1) or others or isinstance(inputs[0], Tensor):
        translator.fail(node, "only slices of a shape vector are supported")
    first = None if masks.get("begin_mask") else int(begin[0])
    last = None if masks.get("end_mask") else int(end[0])
    if masks.get("shrink_axis_mask"):  # one element, whatever the end
        first = int(begin[0])
        if isinstance(inputs[0], Constant):
            return Constant(inputs[0].array[first])
        return Dims((inputs[0].sizes[first],))
    if isinstance(inputs[0], Constant):
        return Constant(inputs[0].array[first : last : int(step[0])])
    return Dims(inputs[0].sizes[first : last : int(step[0])])


def sizes(translator, node, value):
    if isinstance(value, Dims):
        return value.sizes
    return tuple(int(n) for n in np.atleast_1d(constant(translator, node, value, "a shape")))


def _pack(translator, node, inputs):
    if all(isinstance(value, Constant) for value in inputs):
        translator.spend(node, sum(value.array.size for value in inputs))
        return Constant(
            np.stack([value.array for value in inputs], node.attr["axis"].i if "axis" in node.attr else 0)
        )
    parts = [sizes(translator, node, value) for value in inputs]
    if any(len(part) != 1 for part in parts):
        translator.fail(node, "only single sizes can be packed into a shape")
    return Dims(tuple(size for (size,) in parts))


def _prod(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        if inputs[0].array.ndim > 1:
            translator.fail(node, "only the product of a whole vector is supported")
        return Constant(np.prod(inputs[0].array))
    sizes = inputs[0].sizes
    return Dims((None,)) if None in sizes else Constant(np.array(math.prod(sizes), np.int64))


def _reshape_to(translator, node, value, sizes):
    """Reshape to `sizes` (batch first): only flattening, its undoing, and no change are possible."""
    layer = activation(translator, node, value)
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
        return Constant(inputs[0].array.reshape(sizes(translator, node, inputs[1])))
    return _reshape_to(translator, node, inputs[0], sizes(translator, node, inputs[1]))


def _squeeze(translator, node, inputs):
    axes = ints(node, "squeeze_dims", []) or ints(node, "axis", [])
    if isinstance(inputs[0], Constant):
        return Constant(np.squeeze(inputs[0].array, tuple(axes) or None))
    shape = (None, *activation(translator, node, inputs[0]).shape)
    axes = {a % len(shape) for a in axes} or {i for i, n in enumerate(shape) if n == 1}
    return _reshape_to(translator, node, inputs[0], [n for i, n in enumerate(shape) if i not in axes])


def _expand_dims(translator, node, inputs):
    axis = int(constant(translator, node, inputs[1], "the axis"))
    if isinstance(inputs[0], Constant):
        return Constant(np.expand_dims(inputs[0].array, axis))
    shape = [None, *activation(translator, node, inputs[0]).shape]
    shape.insert(axis % (len(shape) + 1), 1)
    return _reshape_to(translator, node, inputs[0], shape)


def _switch(translator, node, inputs):
    """tf.cond of a training switch that was frozen to a constant: [false side, true side]."""
    taken = bool(constant(translator, node, inputs[1], "the condition of a Switch"))
    return [DEAD, inputs[0]] if taken else [inputs[0], DEAD]


def _merge(translator, node, inputs):
    alive = [value for value in inputs if value is not DEAD]
    if len(alive) != 1:
        translator.fail(node, "both sides of a condition are alive; freeze the training switch to a constant")
    return alive[0]


# -- arithmetic ----------------------------------------------------------------------------


def _affine(translator, node, value, scale, offset):
    """y = x * scale + offset with constants that are scalar or one per channel."""
    layer = activation(translator, node, value)
    channels = layer.shape[-1]

    def per_channel(array):
        array = np.asarray(array, np.float32)
        if (
            array.ndim > len(layer.shape) + 1
            or array.size not in (1, channels)
            or (array.size == channels and array.shape[-1:] not in ((channels,), ()))
        ):
            translator.fail(node, f"constant of shape {array.shape} is neither a scalar nor one per channel")
        return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)

    return translator.emit(
        node, "batch_norm", [layer.name], layer.shape, per_channel(scale), per_channel(offset)
    )


def _vector(translator, node, value, parameter, what):
    """A constant with one entry per channel of the activation `value`."""
    array, channels = (
        constant(translator, node, parameter, what),
        activation(translator, node, value).shape[-1],
    )
    if array.shape != (channels,):
        translator.fail(
            node, f"{what} has the shape {array.shape}; expected one number for each of {channels} channels"
        )
    return array


def _elementwise(function, scale_offset):
    """Handler of a binary op: constants are computed, a tensor with a constant is affine, two tensors add."""

    def handler(translator, node, inputs):
        a, b = inputs
        if any(value is DEAD for value in inputs):
            return DEAD
        if isinstance(a, Constant) and isinstance(b, Constant):
            translator.spend(node, math.prod(np.broadcast_shapes(a.array.shape, b.array.shape)))
            return Constant(function(a.array, b.array))
        if isinstance(a, Constant) or isinstance(b, Constant):
            first = isinstance(b, Constant)
            value = b.array if first else a.array
            pair = scale_offset(value.astype(np.float32), first)
            if pair is None:
                translator.fail(node, "constant divided by an activation is not supported")
            return _affine(translator, node, a if first else b, *pair)
        if function is not np.add or isinstance(a, Dims) or isinstance(b, Dims):
            translator.fail(node, "of two activations only the sum is supported")
        left, right = activation(translator, node, a), activation(translator, node, b)
        if left.shape != right.shape:
            translator.fail(node, f"adds activations of different shapes {left.shape} and {right.shape}")
        return translator.emit(node, "add", [left.name, right.name], left.shape, activation="NONE")

    return handler


_add = _elementwise(np.add, lambda c, first: (1, c))
_sub = _elementwise(np.subtract, lambda c, first: (1, -c) if first else (-1, c))
_mul = _elementwise(np.multiply, lambda c, first: (c, 0))
_div = _elementwise(np.divide, lambda c, first: (1 / c, 0) if first else None)


def _rsqrt(translator, node, inputs):
    return Constant((1 / np.sqrt(constant(translator, node, inputs[0], "the argument"))).astype(np.float32))


def _sqrt(translator, node, inputs):
    return Constant(np.sqrt(constant(translator, node, inputs[0], "the argument")))


def _bias_add(translator, node, inputs):
    channels_last(translator, node)
    return _affine(
        translator, node, inputs[0], 1, _vector(translator, node, inputs[0], inputs[1], "the bias")
    )


def _fused_batch_norm(translator, node, inputs):
    channels_last(translator, node)
    if node.attr["is_training"].b if "is_training" in node.attr else True:
        translator.fail(node, "batch normalisation in training mode; freeze the graph for inference")
    gamma, beta, mean, variance = (
        _vector(translator, node, inputs[0], v, "a batch normalisation parameter").astype(np.float64)
        for v in inputs[1:5]
    )
    epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4
    scale = gamma / np.sqrt(variance + epsilon)
    return [_affine(translator, node, inputs[0], scale, beta - mean * scale)] + [DEAD] * 5


INPUTS = {
    **dict.fromkeys(("Add", "AddV2", "BiasAdd", "ExpandDims", "Mul", "Prod", "RealDiv", "Reshape"), (2, 2)),
    **dict.fromkeys(("Sub", "Switch"), (2, 2)),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), (5, 5)),
    **dict.fromkeys(("Merge", "Pack"), (1, ANY)),
    "Const": (0, 0),
    "StridedSlice": (4, 4),
}
"""op -> (fewest, most) inputs; an op that is not here has one."""

HANDLERS = {
    "Add": _add,
    "AddV2": _add,
    "BiasAdd": _bias_add,
    "Cast": _cast,
    "CheckNumerics": _pass,
    "Const": _const,
    "ExpandDims": _expand_dims,
    "FusedBatchNorm": _fused_batch_norm,
    "FusedBatchNormV2": _fused_batch_norm,
    "FusedBatchNormV3": _fused_batch_norm,
    "Identity": _pass,
    "Merge": _merge,
    "Mul": _mul,
    "Pack": _pack,
    "PlaceholderWithDefault": _pass,
    "Prod": _prod,
    "RealDiv": _div,
    "Reshape": _reshape,
    "Rsqrt": _rsqrt,
    "Shape": _shape,
    "Snapshot": _pass,
    "Sqrt": _sqrt,
    "Squeeze": _squeeze,
    "StopGradient": _pass,
    "StridedSlice": _strided_slice,
    "Sub": _sub,
    "Switch": _switch,
}
