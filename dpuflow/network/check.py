"""Whether a network is whole: its layers, shapes, parameters and fix_points fit each other.

What reads one from a file asks here, because the arithmetic behind it (`quantize.engine`) steps
through memory by these shapes and checks nothing.
"""

import math

import numpy as np

from dpuflow.base.pixels import problem
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.ops import OPERATORS, make

MAX_FIX_POINT, MAX_ELEMENTS = 64, 2**31
"""Far beyond what a quantizer chooses; they bound memory and shifts."""


def check(quantized: QuantizedNetwork) -> None:
    """ValueError that names the first layer that does not fit."""

    def parameters(layer: Layer) -> np.ndarray | None:
        if not layer.operator.survives_folding:
            raise ValueError("unknown op")
        floats = [source for source in layer.inputs if source not in quantized.fix_points]
        if layer.operator.quantized and floats and layer.op != "to_grid":
            raise ValueError(f"it reads real numbers of {', '.join(floats)} without a to_grid between them")
        _check_parameters(layer, quantized)
        return quantized.weights.get(layer.name, (None,))[0]

    _check_layers(quantized.network, parameters)
    for layer in quantized.network.inputs:
        _check_scaling(quantized.input_scaling, layer.shape)


def check_network(network: Network) -> None:
    """ValueError that names the first layer of a float network, folded or not, that does not fit."""
    _check_layers(network, _real_parameters)


def _check_layers(network, parameters):
    """parameters(layer) : its weights or None, after a look at them and at the bias."""
    layers: dict[str, Layer] = {}
    for layer in network.layers:
        try:
            _check_form(layer, layers)
            weights = parameters(layer)
            shape = _shape(layer, [layers[name].shape for name in layer.inputs], weights)
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer {layer.name!r} ({layer.op}): {error}") from None
        if tuple(shape) != layer.shape:
            raise ValueError(
                f"layer {layer.name!r} ({layer.op}): shape {layer.shape}, must be {tuple(shape)}"
            )
        layers[layer.name] = layer
    _check_ends(network, layers)


def _real_parameters(layer):
    """The float weights, or None."""
    has = layer.operator.weighted or layer.operator.holds_value or layer.op == "batch_norm"
    if has != (layer.weights is not None):
        raise ValueError("no weights, or weights on a layer that has none")
    if layer.operator.holds_value and layer.weights.shape != layer.shape:
        raise ValueError(f"a value of the shape {layer.weights.shape}")
    for kind, values in (("weights", layer.weights), ("bias", layer.bias)):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{kind} that are not finite")
    channels = layer.shape[-1:]
    if layer.op == "batch_norm":
        if any(values is None or values.shape != channels for values in (layer.weights, layer.bias)):
            raise ValueError(f"it does not have two numbers for each of {channels[0]} channels")
    elif layer.bias is not None and (not layer.operator.weighted or layer.bias.shape != channels):
        raise ValueError(f"the bias does not have one number for each of {channels[0]} channels")
    return layer.weights


def _check_ends(network, layers):
    if not network.inputs or not network.outputs:
        raise ValueError(f"no input, or no output: {sorted(layers)}")
    read = {name for layer in layers.values() for name in layer.inputs} | network.output_layers
    useless = [name for name in layers if name not in read]
    if useless:
        raise ValueError(f"layers that no output needs: {useless}")


def _check_scaling(scaling, shape):
    found = problem(scaling, shape[-1])
    if not found and scaling.keys() - {"subtract", "divide", "order", "gain"}:
        found = f"{scaling!r}: only subtract, divide, order and gain belong there"
    if found:
        raise ValueError(f"input_scaling: {found}")


def _check_form(layer, before):
    if layer.op not in OPERATORS:
        raise ValueError("unknown op")
    if not layer.name or not isinstance(layer.inputs, list):
        raise ValueError("no name, or inputs that are no list")
    for name in layer.inputs:
        if name not in before:
            raise ValueError(f"it reads {name!r}, which is not defined before it")
    operator = make(layer.op, layer.attrs)
    operator.check()
    least, most = operator.arity
    if not least <= len(layer.inputs) <= most:
        raise ValueError(f"it has {len(layer.inputs)} inputs")
    if not layer.shape or min(layer.shape) < 1 or math.prod(layer.shape) >= MAX_ELEMENTS:
        raise ValueError(f"impossible shape {layer.shape}")


def _check_parameters(layer, quantized):
    name, operator = layer.name, layer.operator
    fix_points = [quantized.fix_points.get(name)]
    if (fix_points[0] is None) != (not operator.quantized):
        raise ValueError("a fix_point is missing, or one too many")
    for kind, table, real in (
        ("weights", quantized.weights, layer.weights),
        ("bias", quantized.biases, layer.bias),
    ):
        if name not in table:
            _check_absence(layer, kind, real)
            continue
        if not operator.weighted:
            raise ValueError(f"{kind} on a layer that has none")
        data, fix_point = table[name]
        fix_points.append(fix_point)
        if real is not None and (real.shape != data.shape or not np.isfinite(real).all()):
            raise ValueError(f"float {kind} that do not fit the int8 ones")
    if any(abs(n) > MAX_FIX_POINT for n in fix_points if n is not None):
        raise ValueError(f"fix_points {fix_points} beyond {MAX_FIX_POINT}")
    if name in quantized.biases:
        outputs = operator.output_channels(quantized.weights[name][0].shape)
        if quantized.biases[name][0].shape != (outputs,):
            raise ValueError("the bias does not have one number for each output channel")


def _check_absence(layer, kind, real):
    """Of int8 parameters: right where there are none, or where a constant has its value in float."""
    if kind == "weights" and layer.operator.holds_value:
        if real is None or real.shape != layer.shape or not np.isfinite(real).all():
            raise ValueError("no value, or one of another shape")
    elif real is not None or (kind == "weights" and layer.operator.weighted):
        raise ValueError(f"no int8 {kind}")


def _shape(layer, inputs, weights):
    """Output shape from the inputs' shapes; ValueError when they do not fit."""
    if not layer.inputs:
        return layer.shape
    return layer.operator.output_shape(inputs, None if weights is None else weights.shape)
