"""Parameters of Keras layers as TensorFlow values of their variables, laid out as a Network has them."""

from typing import Any

import numpy as np

from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.quantize.folding_arithmetic import Parameters


class Weights:
    """Kernel (with its axes in a Network's order) and bias of a layer."""

    def __init__(self, layer, axes, flipped=False):
        self.layer, self.axes, self.flipped = layer, axes, flipped

    def __call__(self):
        layer = self.layer
        kernel = depthwise(layer) if hasattr(layer, "depthwise_kernel") else layer.kernel
        if self.flipped:
            kernel = kernel[::-1, ::-1]
        if getattr(layer, "groups", 1) > 1:
            kernel = ungrouped(kernel, layer.groups)
        bias = tensorflow().identity(layer.bias) if layer.use_bias else None
        return Parameters(tensorflow().transpose(kernel, self.axes), bias)


def ungrouped(kernel: Any, groups: int) -> Any:
    """[H, W, IC / groups, OC] -> [H, W, IC, OC] with zeros between the groups."""
    tf, (*_, each, outputs) = tensorflow(), kernel.shape
    inside = np.kron(np.eye(groups), np.ones((each, outputs // groups))).astype(np.float32)
    return tf.tile(kernel, (1, 1, groups, 1)) * inside


def depthwise(layer: Any) -> Any:
    """Kernel [H, W, C, 1] with zeros where its dilation steps over pixels; of a multiplier [H, W, C, C M]."""
    tf, kernel = tensorflow(), layer.depthwise_kernel
    height, width, channels, multiplier = kernel.shape
    rows, columns = layer.dilation_rate
    if (rows, columns) != (1, 1):
        apart = tf.pad(
            kernel[:, None, :, None], [[0, 0], [0, rows - 1], [0, 0], [0, columns - 1], *[[0, 0]] * 2]
        )
        apart = tf.reshape(apart, (height * rows, width * columns, channels, multiplier))
        kernel = apart[: (height - 1) * rows + 1, : (width - 1) * columns + 1]
    if multiplier > 1:
        own = np.kron(np.eye(channels), np.ones((1, multiplier))).astype(np.float32)
        kernel = tf.reshape(kernel, (*kernel.shape[:2], 1, channels * multiplier)) * own
    return kernel


class Affine:
    """Scale and offset of a batch norm with its moving statistics, which training leaves alone."""

    def __init__(self, norm):
        self.norm = norm

    def __call__(self):
        tf, norm = tensorflow(), self.norm
        deviation = tf.sqrt(tf.stop_gradient(norm.moving_variance) + norm.epsilon)
        scale = (norm.gamma if norm.scale else 1.0) / deviation
        offset = (norm.beta if norm.center else 0.0) - tf.stop_gradient(norm.moving_mean) * scale
        return Parameters(scale, offset)
