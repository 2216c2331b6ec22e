"""TensorFlow's per-channel arithmetic and sums: one handler per op (see `values`).

What is affine per channel becomes a `batch_norm` layer, y = x * weights + bias, and merges later.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.tfgraph.gates import multiply
from dpuflow.tfgraph.pairs import add, subtract
from dpuflow.tfgraph.values import (
    ANY,
    Batch,
    Constant,
    Dims,
    Node,
    Random,
    Tensor,
    Translator,
    Value,
    channels_last,
    constant,
    each_value,
    known,
    product,
    pseudo_node,
    tensor,
)


def affine(translator: Translator, node: Node, value: Value, scale: ArrayLike, offset: ArrayLike) -> Tensor:
    """y = x * scale + offset with constants that are scalar or one per channel."""
    value = tensor(translator, node, value)
    layer = each_value(translator, node, value)
    channels = layer.shape[-1]
    rank = len(value.view or (Batch(), *layer.shape))

    def per_channel(array: ArrayLike) -> np.ndarray:
        array = np.asarray(array, np.float32)
        if (
            array.ndim > rank
            or array.size not in (1, channels)
            or (array.size == channels and array.shape[-1:] not in ((channels,), ()))
        ):
            translator.fail(node, f"constant of shape {array.shape} is neither a scalar nor one per channel")
        return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)

    return value.through(
        translator.emit(
            node, "batch_norm", [layer.name], layer.shape, per_channel(scale), per_channel(offset)
        )
    )


def _vector(translator, node, value, parameter, what):
    """A constant with one entry per channel of the activation `value`."""
    array = constant(translator, node, parameter, what)
    channels = each_value(translator, node, value).shape[-1]
    if array.shape != (channels,):
        translator.fail(
            node, f"{what} has the shape {array.shape}; expected one number for each of {channels} channels"
        )
    return array


def _of_dims(translator, node, function, a, b):
    """Arithmetic on sizes that depend on the batch: a product."""
    sizes = [v.sizes if isinstance(v, Dims) else tuple(np.atleast_1d(v.array).tolist()) for v in (a, b)]
    result = product((*sizes[0], *sizes[1])) if len(sizes[0]) == len(sizes[1]) == 1 else None
    if function is not np.multiply or result is None:
        translator.fail(node, "calculates with the batch size; only products with other sizes are supported")
    return known((result,), scalar=True)


def _of_random(translator, node, function, a, b):
    """Shifted or scaled random numbers, as tf.random.uniform(minval, maxval) makes them."""
    number, other = (a, b) if isinstance(a, Random) else (b, a)
    if not isinstance(other, Constant) or other.array.size != 1:
        translator.fail(node, "random numbers in inference; freeze the graph for inference (dropout off)")
    ends = sorted(float(function(end, other.array.reshape(()))) for end in (number.low, number.high))
    return Random(*ends)


def _elementwise(function, scale_offset):
    """Handler of a binary op: constants are computed, a tensor with a constant is affine, two tensors add."""

    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Value:
        a, b = inputs
        if isinstance(a, Random) or isinstance(b, Random):
            return _of_random(translator, node, function, a, b)
        if isinstance(a, Constant) and isinstance(b, Constant):
            translator.spend(node, math.prod(np.broadcast_shapes(a.array.shape, b.array.shape)))
            return Constant(function(a.array, b.array))
        if isinstance(a, Dims) or isinstance(b, Dims):
            return _of_dims(translator, node, function, a, b)
        if isinstance(b, Constant):
            return affine(translator, node, a, *scale_offset(b.array.astype(np.float32), True))
        if isinstance(a, Constant):
            pair = scale_offset(a.array.astype(np.float32), False)
            if pair is None:
                translator.fail(node, "constant divided by an activation is not supported")
            return affine(translator, node, b, *pair)
        if function not in _OF_TWO_ACTIVATIONS:
            translator.fail(node, "divides one activation by another; the DPU cannot divide")
        return _OF_TWO_ACTIVATIONS[function](translator, node, inputs)

    return handler


_OF_TWO_ACTIVATIONS = {np.add: add, np.multiply: multiply, np.subtract: subtract}
_ELEMENTWISE = {
    "Add": (np.add, lambda c, first: (1, c)),
    "Sub": (np.subtract, lambda c, first: (1, -c) if first else (-1, c)),
    "Mul": (np.multiply, lambda c, first: (c, 0)),
    "RealDiv": (np.divide, lambda c, first: (1 / c, 0) if first else None),
}


def _add_n(translator, node, inputs):
    """A sum of any number of activations, one after the other."""
    total = inputs[0]
    for k, value in enumerate(inputs[1:], 1):
        last = k == len(inputs) - 1
        here = node if last else pseudo_node(node, "Add", f"{k}/Add")
        total = _HANDLE_ADD(translator, here, [total, value])
    return total


_HANDLE_ADD = _elementwise(*_ELEMENTWISE["Add"])


def _computed(function):
    """Handler of an op on constants only."""

    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Value:
        arrays = [constant(translator, node, value, "the argument") for value in inputs]
        translator.spend(node, math.prod(np.broadcast_shapes(*(array.shape for array in arrays))))
        return Constant(np.asarray(function(*arrays)))

    return handler


def _rsqrt(x):
    return (1 / np.sqrt(x)).astype(np.float32)


def _bias_add(translator, node, inputs):
    channels_last(translator, node)
    return affine(translator, node, inputs[0], 1, _vector(translator, node, *inputs, "the bias"))


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
    return [affine(translator, node, inputs[0], scale, beta - mean * scale), *[None] * 5]


def _negative(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        return Constant(-inputs[0].array)
    if not isinstance(inputs[0], Tensor):
        translator.fail(node, "the negative of a shape")
    return affine(translator, node, inputs[0], -1, 0)


INPUTS = {
    **dict.fromkeys(("Add", "AddV2", "BiasAdd", "FloorMod", "Mul", "Pow", "RealDiv", "Sub"), (2, 2)),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), (5, 5)),
    "AddN": (1, ANY),
}
"""op -> (fewest, most) inputs; an op that is not here has one."""

HANDLERS = {
    **{op: _elementwise(*how) for op, how in _ELEMENTWISE.items()},
    "AddN": _add_n,
    "AddV2": _HANDLE_ADD,
    "BiasAdd": _bias_add,
    "FloorMod": _computed(np.mod),
    "FusedBatchNorm": _fused_batch_norm,
    "FusedBatchNormV2": _fused_batch_norm,
    "FusedBatchNormV3": _fused_batch_norm,
    "Neg": _negative,
    "Pow": _computed(np.power),
    "Rsqrt": _computed(_rsqrt),
    "Sqrt": _computed(np.sqrt),
    "Square": _computed(np.square),
}
