"""Whether a QuantizedNetwork can be written as xmodel at all: ops, shifts, fix_points.

What a particular DPU can run is another question: `target_check`.
"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import (
    HARDWARE_SHIFT_BIAS_MIN,
    RELU6_FIX_POINT,
    RELU6_LIMIT,
    SHIFT_BIAS_RANGE,
    SHIFT_CUT_RANGE,
    SHIFT_READ_MAX,
    VENDOR_SHIFT_BIAS_MIN,
)
from dpuflow.base.totality import Total
from dpuflow.compiler.workload import dense_kernel, map_shape
from dpuflow.network import WEIGHTED, folded_ops
from dpuflow.ops import ACTIVATIONS

SHIFT_WRITE_RANGE = (-15, 15)
"""Of an addition: least input fix_point minus output's (docs/reference/numerics.md)."""

REQUANTIZE = "quantize the network again (the quantizer aligns these; `compat: vai_q` may not)"


def require_representable(quantized):
    """UserError that names the first layer which has no exact form in XIR."""
    network = quantized.network
    if not network.layers or [layer.op for layer in network.layers].count("input") != 1:
        raise UserError(f"network {network.name!r}: exactly one input layer is needed")
    known = set()
    for layer in network.layers:
        if layer.op not in folded_ops():
            raise _error(layer, "this op cannot be written as xmodel", "fold and quantize the network first")
        for name in layer.inputs:
            if name not in known:
                raise _error(layer, f"it reads {name!r}, which is not defined before it", "order the layers")
        known.add(layer.name)
        if layer.operator.quantized and layer.name not in quantized.fix_points:
            raise _error(layer, "it has no fix_point", REQUANTIZE)
        if layer.attrs.get("activation", "NONE") not in ACTIVATIONS:
            problem = f"activation {layer.attrs['activation']!r} is unknown"
            raise _error(layer, problem, f"write one of {', '.join(ACTIVATIONS)}")
        _relu6(quantized, layer)
        _RULES[layer.op](quantized, layer)
    unread = [layer.name for layer in network.layers if not network.consumers(layer.name)]
    if len(unread) != 1:
        raise UserError(f"network {network.name!r}: one output is needed, found {', '.join(unread)}")


def _error(layer, problem, remedy):
    return UserError(f"layer {layer.name!r} ({layer.op}): {problem}; {remedy}")


def _in_range(layer, what, value, limits):
    if not limits[0] <= value <= limits[1]:
        raise _error(layer, f"{what} is {value}, allowed {limits[0]} to {limits[1]}", REQUANTIZE)


def _relu6(quantized, layer):
    """Below its fix_point the DPU's clamp (integer 96) would lie above 6.0: another function."""
    fix_point = quantized.fix_points.get(layer.name)
    if layer.attrs.get("activation") == "RELU6" and fix_point < RELU6_FIX_POINT:
        clamp = RELU6_LIMIT / 2**fix_point
        problem = f"its ReLU6 has fix_point {fix_point}, where the DPU's clamp means {clamp:g}"
        raise _error(layer, problem, f"{REQUANTIZE}, or keep it out of a concatenation with larger values")


def _conv_weights(network, layer):
    width, height = layer.attrs["kernel"]
    return map_shape(layer.shape)[2], height, width, map_shape(network[layer.inputs[0]].shape)[2]


def _depthwise_weights(network, layer):
    return 1, *_conv_weights(network, layer)[1:]


def _dense_weights(network, layer):
    (width, height), in_channels = dense_kernel(network, layer)
    return map_shape(layer.shape)[2], width * height * in_channels


_WEIGHTS = Total(
    "compiler.representable: shape of the weights",
    WEIGHTED,
    {"conv": _conv_weights, "depthwise_conv": _depthwise_weights, "dense": _dense_weights},
)


def _weighted(quantized, layer):
    network = quantized.network
    if layer.name not in quantized.weights:
        raise _error(layer, "it has no int8 weights", REQUANTIZE)
    weights = quantized.weights[layer.name][0]
    channels = map_shape(layer.shape)[2]
    expected = _WEIGHTS[layer.op](network, layer)
    if weights.dtype != np.int8 or weights.shape != expected:
        found = f"{weights.dtype} {list(weights.shape)}"
        raise _error(layer, f"weights are {found}, expected int8 {list(expected)}", REQUANTIZE)
    _in_range(layer, "shift_cut", quantized.shift_cut(layer.name), SHIFT_CUT_RANGE)
    if layer.name in quantized.biases:
        bias = quantized.biases[layer.name][0]
        if bias.dtype != np.int8 or bias.shape != (channels,):
            found = f"{bias.dtype} {list(bias.shape)}"
            raise _error(layer, f"bias is {found}, expected int8 [{channels}]", REQUANTIZE)
        shift = quantized.shift_bias(layer.name)
        _in_range(layer, "shift_bias", shift, (VENDOR_SHIFT_BIAS_MIN, SHIFT_BIAS_RANGE[1]))
        exact = HARDWARE_SHIFT_BIAS_MIN
        lost = 2 ** max(0, exact - shift) - 1
        if layer.attrs["activation"] == "LEAKYRELU" and (bias.astype(int) & lost).any():
            problem = f"shift_bias is {shift}, in front of a leaky ReLU only {exact} or more is exact"
            raise _error(layer, problem, REQUANTIZE)


def _same_fix_point(quantized, layer):
    """Ops that move or compare values, and pools, do not rescale them."""
    fix = quantized.fix_points[layer.name]
    for name in layer.inputs:
        if quantized.fix_points[name] != fix:
            problem = f"its fix_point is {fix} but that of its input {name!r} is {quantized.fix_points[name]}"
            raise _error(layer, problem, REQUANTIZE)


def _average(quantized, layer):
    """Global average pooling rescales by its factor's shift (docs/reference/numerics.md, "Pooling"), and
    the vendor's TF2 tool leaves its two sides free; other average pools keep theirs."""
    height, width, _ = map_shape(quantized.network[layer.inputs[0]].shape)
    if tuple(layer.attrs["kernel"]) != (width, height):
        _same_fix_point(quantized, layer)


def _add(quantized, layer):
    if len(layer.inputs) < 2:
        raise _error(layer, f"it has {len(layer.inputs)} input(s)", "an addition needs two")
    shapes = {quantized.network[name].shape for name in layer.inputs}
    if shapes != {layer.shape}:
        raise _error(layer, f"inputs of shapes {sorted(shapes)} become {layer.shape}", "make them equal")
    fixes = [quantized.fix_points[name] for name in layer.inputs]
    _in_range(layer, "shift_read", max(fixes) - min(fixes), (0, SHIFT_READ_MAX))
    _in_range(layer, "shift_write", min(fixes) - quantized.fix_points[layer.name], SHIFT_WRITE_RANGE)


def _softmax(quantized, layer):
    if quantized.network.consumers(layer.name):
        raise _error(layer, "a softmax inside the network cannot be quantized", "keep it at the end only")


_RULES = Total(
    "compiler.representable: conditions of a layer",
    folded_ops,
    {
        "input": lambda quantized, layer: None,
        **dict.fromkeys(WEIGHTED, _weighted),
        **dict.fromkeys(("max_pool", "concat", "flatten"), _same_fix_point),
        "avg_pool": _average,
        "add": _add,
        "softmax": _softmax,
    },
)
