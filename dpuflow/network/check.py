"""Whether a QuantizedNetwork is whole: its layers, shapes, parameters and positions fit each other.

What reads one from a file asks here, because the arithmetic behind it (`quantize.engine`) steps
through memory by these shapes and checks nothing.
"""

import math

import numpy as np

from dpuflow.base.totality import Total
from dpuflow.network import ACTIVATIONS, OPS, OUTPUT, WEIGHTED, folded_ops, output_axis

INPUTS = Total(
    "network.check: (fewest, most) inputs",
    folded_ops,
    {
        **{"input": (0, 0), "add": (2, 2), "concat": (1, 2**31)},
        **dict.fromkeys((*WEIGHTED, "max_pool", "avg_pool", "flatten", "softmax"), (1, 1)),
    },
)
MAX_PAD, MAX_FIX_POINT, MAX_ELEMENTS = 255, 64, 2**31
"""Far beyond what a quantizer chooses; they bound memory and shifts."""


def check(quantized):
    """ValueError that names the first layer that does not fit."""
    layers = {}
    for layer in quantized.network.layers:
        try:
            _check_form(layer, layers)
            _check_parameters(layer, quantized)
            shape = _shape(layer, [layers[name].shape for name in layer.inputs], quantized.weights)
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer {layer.name!r} ({layer.op}): {error}") from None
        if tuple(shape) != layer.shape:
            raise ValueError(
                f"layer {layer.name!r} ({layer.op}): shape {layer.shape}, must be {tuple(shape)}"
            )
        layers[layer.name] = layer
    _check_ends(layers)
    _check_scaling(quantized.input_scaling)


def _check_ends(layers):
    inputs = [name for name, layer in layers.items() if layer.op == "input"]
    read = {name for layer in layers.values() for name in layer.inputs}
    outputs = [name for name in layers if name not in read]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"expected one input and one output, found {inputs} and {outputs}")


def _check_scaling(scaling):
    good = isinstance(scaling, dict) and scaling.keys() == {"subtract", "divide"}
    numbers = list(scaling.values()) if good else []
    if (
        not good
        or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers)
        or not scaling["divide"]
    ):
        raise ValueError(f"input_scaling {scaling!r}: expected finite numbers subtract and divide")


def _check_form(layer, before):
    if layer.op not in folded_ops():
        raise ValueError("unknown op")
    if not layer.name or not isinstance(layer.inputs, list):
        raise ValueError("no name, or inputs that are no list")
    for name in layer.inputs:
        if name not in before:
            raise ValueError(f"it reads {name!r}, which is not defined before it")
    least, most = INPUTS[layer.op]
    if not least <= len(layer.inputs) <= most:
        raise ValueError(f"it has {len(layer.inputs)} inputs")
    if layer.attrs.keys() != set(OPS[layer.op]):
        raise ValueError(f"settings {sorted(layer.attrs)}, expected {sorted(OPS[layer.op])}")
    for key, (length, low, high) in {
        "kernel": (2, 1, MAX_ELEMENTS),
        "stride": (2, 1, MAX_ELEMENTS),
        "dilation": (2, 1, MAX_ELEMENTS),
        "pad": (4, 0, MAX_PAD),
    }.items():
        value = layer.attrs.get(key, (low,) * length)
        if not isinstance(value, tuple) or len(value) != length:
            raise ValueError(f"{key} {value!r}: expected {length} numbers")
        if not all(type(n) is int and low <= n <= high for n in value):
            raise ValueError(f"{key} {value!r}: expected whole numbers of {low} to {high}")
    if layer.attrs.get("activation", "NONE") not in ACTIVATIONS:
        raise ValueError(f"activation {layer.attrs['activation']!r}")
    if not layer.shape or min(layer.shape) < 1 or math.prod(layer.shape) >= MAX_ELEMENTS:
        raise ValueError(f"impossible shape {layer.shape}")


def _check_parameters(layer, quantized):
    name, weighted = layer.name, layer.op in WEIGHTED
    positions = [quantized.fix_points.get(name)]
    if (positions[0] is None) != (OUTPUT[layer.op] == "reals"):
        raise ValueError("a fix_point is missing, or one too many")
    for kind, table, real in (
        ("weights", quantized.weights, layer.weights),
        ("bias", quantized.biases, layer.bias),
    ):
        if name not in table:
            if real is not None or (kind == "weights" and weighted):
                raise ValueError(f"no int8 {kind}")
            continue
        if not weighted:
            raise ValueError(f"{kind} on a layer that has none")
        data, position = table[name]
        positions.append(position)
        if real is not None and (real.shape != data.shape or not np.isfinite(real).all()):
            raise ValueError(f"float {kind} that do not fit the int8 ones")
    if any(abs(n) > MAX_FIX_POINT for n in positions if n is not None):
        raise ValueError(f"fix_points {positions} beyond {MAX_FIX_POINT}")
    if name in quantized.biases:
        outputs = quantized.weights[name][0].shape[output_axis(layer)]
        if quantized.biases[name][0].shape != (outputs,):
            raise ValueError("the bias does not have one number for each output channel")


def _shape(layer, inputs, weights):
    """Output shape from the inputs' shapes; ValueError when they do not fit."""
    return _SHAPES[layer.op](layer, inputs, weights.get(layer.name, (None,))[0])


def _dense_shape(layer, inputs, data):
    if data.ndim != 2 or inputs[0] != data.shape[1:]:
        raise ValueError(f"weights {data.shape} on an input {inputs[0]}")
    return data.shape[:1]


def _concat_shape(layer, inputs, data):
    first = inputs[0]
    if layer.attrs["axis"] != len(first) or len({shape[:-1] for shape in inputs}) != 1:
        raise ValueError(f"inputs {inputs} along axis {layer.attrs['axis']!r}")
    return (*first[:-1], sum(shape[-1] for shape in inputs))


def _add_shape(layer, inputs, data):
    if any(shape != inputs[0] for shape in inputs):
        raise ValueError(f"of different inputs {inputs}")
    return inputs[0]


def _softmax_shape(layer, inputs, data):
    if len(inputs[0]) != 1:
        raise ValueError(f"over an input {inputs[0]}")
    return inputs[0]


def _window_shape(layer, inputs, data):
    shape = inputs[0]
    if len(shape) != 3:
        raise ValueError(f"on an input {shape}")
    (kernel_w, kernel_h), (stride_w, stride_h) = layer.attrs["kernel"], layer.attrs["stride"]
    dilation_w, dilation_h = layer.attrs.get("dilation", (1, 1))
    left, right, top, bottom = layer.attrs["pad"]
    channels = shape[2]
    if layer.op in WEIGHTED:
        expected = (1, kernel_h, kernel_w, channels)
        if layer.op == "conv":
            expected = (data.shape[0] if data.ndim else 0, *expected[1:])
            channels = expected[0]
        if data.shape != expected:
            raise ValueError(f"weights {data.shape}, expected {expected}")
    height = (shape[0] + top + bottom - (kernel_h - 1) * dilation_h - 1) // stride_h + 1
    width = (shape[1] + left + right - (kernel_w - 1) * dilation_w - 1) // stride_w + 1
    return height, width, channels


_SHAPES = Total(
    "network.check: output shape",
    folded_ops,
    {
        "input": lambda layer, inputs, data: layer.shape,
        **dict.fromkeys(("conv", "depthwise_conv", "max_pool", "avg_pool"), _window_shape),
        "dense": _dense_shape,
        "add": _add_shape,
        "concat": _concat_shape,
        "flatten": lambda layer, inputs, data: (math.prod(inputs[0]),),
        "softmax": _softmax_shape,
    },
)
