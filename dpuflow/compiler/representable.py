"""Whether a QuantizedNetwork can be written as xmodel at all: ops, shifts, fix_points.

What a particular DPU can run is another question: `target_check`.
"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.compiler.workload import map_shape, unflattened
from dpuflow.device.dpuczdx8g import (
    HARDWARE_SHIFT_BIAS_MIN,
    RELU6_FIX_POINT,
    RELU6_LIMIT,
    SHIFT_BIAS_RANGE,
    SHIFT_CUT_RANGE,
    VENDOR_SHIFT_BIAS_MIN,
)
from dpuflow.network import QuantizedNetwork, folded_ops
from dpuflow.ops import ACTIVATIONS
from dpuflow.ops.operator import NO_GRID

REQUANTIZE = "quantize the network again (the quantizer aligns these; `compat: vai_q` may not)"


def require_representable(quantized: QuantizedNetwork) -> None:
    """UserError that names the first layer which has no exact form in XIR."""
    network = quantized.network
    if not network.inputs:
        raise UserError(f"network {network.name!r}: an input layer is needed")
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
        _inputs(quantized, layer)
        if layer.operator.weighted:
            _weighted(quantized, layer)
        if layer.operator.shares_fix_point([map_shape(network[name].shape) for name in layer.inputs]):
            _same_fix_point(quantized, layer)
        _no_floats(network, layer)
    unread = [layer.name for layer in network.layers if not network.readers(layer.name)]
    if unread:
        raise UserError(f"network {network.name!r}: no output needs its layers {', '.join(unread)}")


def _no_floats(network, layer):
    """The DPU reads integers only."""
    if layer.operator.quantized and layer.op != "to_grid":
        for name in layer.inputs:
            if not network[name].operator.quantized:
                problem = f"it reads real numbers of {name!r} without a to_grid between them"
                raise _error(layer, problem, "fold and quantize the network first")


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


def _weighted(quantized, layer):
    network = quantized.network
    if layer.name not in quantized.weights:
        raise _error(layer, "it has no int8 weights", REQUANTIZE)
    weights = quantized.weights[layer.name][0]
    channels = map_shape(layer.shape)[2]
    expected = layer.operator.weights_shape(unflattened(network, layer).shape, layer.shape)
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
    """Ops that move or compare values, and partial average pools, do not rescale them."""
    fix = quantized.fix_points[layer.name]
    for name in layer.inputs:
        if quantized.fix_points[name] != fix:
            problem = f"its fix_point is {fix} but that of its input {name!r} is {quantized.fix_points[name]}"
            raise _error(layer, problem, REQUANTIZE)


def _inputs(quantized, layer):
    """Number and shapes of the inputs, and the shifts between their fix_points and the output's."""
    operator = layer.operator
    if len(layer.inputs) < operator.arity[0]:
        raise _error(layer, f"it has {len(layer.inputs)} input(s)", f"it needs {operator.arity[0]}")
    if operator.quantized and not operator.weighted and operator.arity[0] > 1:
        shapes = [quantized.network[name].shape for name in layer.inputs]
        try:
            fit = operator.output_shape(shapes) == layer.shape
        except ValueError:
            fit = False
        if not fit:
            problem = f"inputs of shapes {sorted(set(shapes))} become {layer.shape}"
            raise _error(layer, problem, "make them equal")
    if operator.quantized:
        fixes = [quantized.fix_points.get(name, NO_GRID) for name in layer.inputs]
        for what, (value, limits) in operator.shifts(fixes, quantized.fix_points[layer.name]).items():
            _in_range(layer, what, value, limits)
