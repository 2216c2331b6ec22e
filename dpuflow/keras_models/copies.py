"""Layers whose copy takes more than to call them again: weights that absorb an order, padding, shapes.

Handlers of `rebuild.Rebuilder`: `handler(builder, layer, value, ...)` returns the `Tracked` result.
"""

from typing import Any

import numpy as np

from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.stored_weights import values_of
from dpuflow.keras_models.tracked import Tracked, unorder

FLIPPED = ("Conv2D", "Conv2DTranspose")
"""Layer classes whose kernels Keras stored as Theano's true convolution has them."""


def _conv2d(builder, layer, value):
    value = builder.settle(value)
    kernel, *bias = values_of(layer)
    kernel = unorder(value.order, kernel, axis=2)
    if value.order is not None and layer.groups != 1:
        builder.fail(layer, "a grouped convolution behind a change of the channels' order")
    tensor, change = _theano_padding(builder, layer, value.tensor)
    return Tracked(builder.apply(layer, tensor, change, [kernel, *bias], value.order))


def _depthwise(builder, layer, value):
    value = builder.settle(value)
    kernel, *bias = values_of(layer)
    order = value.order
    if order is not None:
        times = kernel.shape[3]
        kernel = unorder(order, kernel, axis=2)
        order = (order[:, None] * times + np.arange(times)).reshape(-1)
        bias = [unorder(order, values) for values in bias]
    tensor, change = _theano_padding(builder, layer, value.tensor)
    return Tracked(builder.apply(layer, tensor, change, [kernel, *bias], value.order), order)


def _separable(builder, layer, value):
    value = builder.settle(value)
    depthwise, pointwise, *bias = values_of(layer)
    if value.order is not None:
        times = depthwise.shape[3]
        depthwise = unorder(value.order, depthwise, axis=2)
        order = (value.order[:, None] * times + np.arange(times)).reshape(-1)
        pointwise = unorder(order, pointwise, axis=2)
    if builder.theano and _theano_pads(layer, value.shape) is not None:
        builder.fail(layer, "padding 'same' with strides or even kernels under Theano; use 'valid'")
    return Tracked(builder.apply(layer, value.tensor, None, [depthwise, pointwise, *bias], value.order))


def _theano_padding(builder, layer, tensor):
    """(tensor, changed config): with Theano's zeros in front where TensorFlow would put others."""
    if not builder.theano:
        return tensor, None
    pads = _theano_pads(layer, tuple(tensor.shape[1:]))
    if pads is None:
        return tensor, None
    name = builder.unique(f"{layer.name}_padding")
    return keras().layers.ZeroPadding2D(pads, name=name)(tensor), {"padding": "valid"}


def _theano_pads(layer, shape):
    """((top, bottom), (left, right)) of Theano's 'same', or None where TensorFlow's is equal.

    Theano pads half of the (dilated) kernel on both sides and Keras cuts what is more than
    ceil(size / stride) outputs; TensorFlow pads only what those outputs need, the odd one behind.
    """
    if layer.padding != "same":
        return None
    pads, equal = [], True
    for size, kernel, stride, dilation in zip(
        shape, layer.kernel_size, layer.strides, layer.dilation_rate, strict=False
    ):
        reach = (kernel - 1) * dilation + 1
        needed = (-(-size // stride) - 1) * stride + reach - size
        before = reach // 2
        pads.append((before, max(0, needed - before)))
        equal &= max(0, needed) // 2 == before
    return None if equal else tuple(pads)


def _dense(builder, layer, value):
    value = builder.settle(value)
    kernel, *bias = values_of(layer)
    kernel = unorder(value.order, kernel, axis=0)
    if layer not in builder.binary:
        make = None
        if len(value.shape) == 3:  # along the channels of a map it is a 1x1 convolution

            def make(name: str) -> Any:
                options = {"activation": layer.activation, "use_bias": layer.use_bias, "name": name}
                return keras().layers.Conv2D(layer.units, 1, **options)

            kernel = kernel[None, None]
        weights = [kernel, *bias]
        return Tracked(builder.apply(layer, value.tensor, None, weights, value.order, make))
    halves = np.array([-0.5, 0.5], np.float32)
    weights = [kernel * halves, *(b * halves for b in bias)]
    change = {"units": 2, "activation": "softmax"}
    return Tracked(builder.apply(layer, value.tensor, change, weights, value.order))


def _batch_norm(builder, layer, value):
    value = builder.settle(value)
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    if value.order is not None and axis % (len(value.shape) + 1) != len(value.shape):
        builder.fail(layer, "normalizes another axis than the channels'")
    weights = [unorder(value.order, w) for w in values_of(layer)]
    return Tracked(builder.apply(layer, value.tensor, None, weights, value.order), value.order)


def _normalization(builder, layer, value):
    mean, variance = (np.asarray(v, np.float64).reshape(-1) for v in (layer.mean, layer.variance))
    if mean.size not in (1, value.channels):
        builder.fail(
            layer, "normalizes each pixel by itself; only one mean for all, or one per channel, is read"
        )
    centre, spread = (v.reshape(()) if v.size == 1 else v for v in (mean, variance))
    deviation = np.maximum(np.sqrt(spread), keras().backend.epsilon())
    if getattr(layer, "invert", False):
        return value.affine(deviation, centre, layer.name)
    return value.affine(1 / deviation, -centre / deviation, layer.name)


def _rescaling(builder, layer, value):
    constants = [np.asarray(v, np.float64) for v in (layer.scale, layer.offset)]
    if any(c.size not in (1, value.channels) for c in constants):
        builder.fail(layer, "its scale or offset is neither one number nor one per channel")
    return value.affine(*(c.reshape(()) if c.size == 1 else c.reshape(-1) for c in constants), layer.name)


def _flatten(builder, layer, value):
    value = builder.settle(value)
    order = value.order
    if len(value.shape) == 3:
        height, width, channels = value.shape
        index = np.arange(height * width * channels).reshape(value.shape)
        if order is not None:
            index = index[..., order]
        if layer.name in builder.turned:
            index = index.transpose(2, 0, 1)
        index = index.reshape(-1)
        order = None if (index == np.arange(len(index))).all() else index
    source = next((form for form in value.forms if len(form.shape) == 4), value.tensor)
    result = builder.apply(layer, source)
    return Tracked(result, order, forms=(*value.forms, value.tensor))


def _reshape(builder, layer, value):
    return builder.reshape_to(layer, value, tuple(layer.target_shape))


def _resize(size):
    """Layers that cut or resize at inference: nothing to do where the image has that size already."""

    def handler(builder: Any, layer: Any, value: Tracked) -> Tracked:
        wanted = size(layer)
        height, width = value.shape[:2]
        if (height, width) == wanted:
            return value
        top, left = (height - wanted[0]) // 2, (width - wanted[1]) // 2
        if type(layer).__name__ != "CenterCrop" or top < 0 or left < 0:
            builder.fail(
                layer,
                f"resizes {height}x{width} images to {wanted[0]}x{wanted[1]}, which the DPU path cannot; "
                "make the data set of that size (datasets.NAME.image) or take the layer out",
            )
        value = builder.settle(value)
        cut = ((top, height - wanted[0] - top), (left, width - wanted[1] - left))
        new = keras().layers.Cropping2D(cut, name=builder.unique(layer.name))
        return Tracked(new(value.tensor), value.order)

    return handler


def _input_layer(builder, layer, value):
    return value


def _concatenate(builder, layer, *given):
    values = [builder.settle(value) for value in given]
    start, orders, moved = 0, [], False
    for value in values:
        moved |= value.order is not None
        orders.append(start + (np.arange(value.channels) if value.order is None else value.order))
        start += value.channels
    if moved and layer.axis % (len(values[0].shape) + 1) != len(values[0].shape):
        builder.fail(layer, "joins another axis than the channels'")
    result = builder.apply(layer, [value.tensor for value in values])
    return Tracked(result, np.concatenate(orders) if moved else None)


HANDLERS = {
    "BatchNormalization": _batch_norm,
    "CenterCrop": _resize(lambda layer: (layer.height, layer.width)),
    "Concatenate": _concatenate,
    "Conv2D": _conv2d,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Flatten": _flatten,
    "InputLayer": _input_layer,
    "Normalization": _normalization,
    "RandomCrop": _resize(lambda layer: (layer.height, layer.width)),
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Resizing": _resize(lambda layer: (layer.height, layer.width)),
    "SeparableConv2D": _separable,
}
"""Layer class -> its copy, where more is to be done than to call it again."""
