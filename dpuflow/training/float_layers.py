"""Layers of the CPU in TensorFlow, for training with INT8 in the forward pass."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.base.totality import Total
from dpuflow.network import Layer
from dpuflow.ops import kinds

Compute = Callable[[Layer, Sequence[Any]], Any]
"""Function(layer, inputs) -> output, tensors with the batch first."""


def _slice(layer: Layer, inputs: Sequence[Any]) -> Any:
    bounds = zip(*(layer.attrs[name] for name in ("begin", "end", "strides")), strict=True)
    return inputs[0][(slice(None), *(slice(*each) for each in bounds))]


def _concat(layer: Layer, inputs: Sequence[Any]) -> Any:
    tf = tensorflow()
    images = tf.reduce_max([tf.shape(x)[0] for x in inputs])
    alike = [tf.repeat(x, images, axis=0) if x.shape[0] == 1 else x for x in inputs]  # constants
    return tf.concat(alike, layer.attrs["axis"])


def _matmul(layer: Layer, inputs: Sequence[Any]) -> Any:
    tf, (left, right) = tensorflow(), inputs
    # one matrix for all images without broadcasting: tfgraph.float_nodes says why
    return tf.tensordot(left, right[0], 1) if right.shape[0] == 1 else tf.matmul(left, right)


def _argmax(layer: Layer, inputs: Sequence[Any]) -> Any:
    tf = tensorflow()
    return tf.reshape(tf.cast(tf.argmax(inputs[0], layer.attrs["axis"]), tf.float32), (-1, *layer.shape))


COMPUTE = Total(
    "training.float_layers: a layer on the CPU",
    lambda: kinds(lambda operator: not operator.quantized),
    {
        "constant": lambda layer, inputs: tensorflow().constant(np.asarray(layer.weights, np.float32)[None]),
        "softmax": lambda layer, inputs: tensorflow().nn.softmax(inputs[0]),
        "float_sigmoid": lambda layer, inputs: tensorflow().sigmoid(inputs[0]),
        "exp": lambda layer, inputs: tensorflow().exp(inputs[0]),
        "tanh": lambda layer, inputs: tensorflow().tanh(inputs[0]),
        "float_reshape": lambda layer, inputs: tensorflow().reshape(inputs[0], (-1, *layer.shape)),
        "transpose": lambda layer, inputs: tensorflow().transpose(inputs[0], layer.attrs["order"]),
        "float_slice": _slice,
        "float_concat": _concat,
        "float_add": lambda layer, inputs: inputs[0] + inputs[1],
        "float_subtract": lambda layer, inputs: inputs[0] - inputs[1],
        "float_multiply": lambda layer, inputs: inputs[0] * inputs[1],
        "float_divide": lambda layer, inputs: inputs[0] / inputs[1],
        "float_matmul": _matmul,
        "argmax": _argmax,
    },
)
