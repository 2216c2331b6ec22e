"""Which ways through its arithmetic a layer can take, and which ones given inputs do take.

A way is a place where a wrong lowering shows: a clamp, ReLU's cut at zero, a half that is
rounded, padding beside negative values. Sums come from the quantizer's integer engine, so
they are known before they are rounded.
"""

from collections.abc import Sequence

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN, row_sums
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE, RELU6_FIX_POINT, RELU6_LIMIT
from dpuflow.network import Layer, QuantizedNetwork
from dpuflow.ops.convolution import weighted
from dpuflow.ops.pooling import AveragePool

HIGH, SIX, LOW, ZERO = "saturates high", "clamps at 6", "saturates low", "cuts below zero"
HALF, LEAK, PADDING = "rounds a half", "leaks below zero", "has negative values beside padding"


def possible(quantized: QuantizedNetwork, layer: Layer) -> set[str]:
    """Names of the branches that int8 inputs can take at all, by the layer's parameters."""
    if layer.operator.moves_bytes:
        return {PADDING} if any(layer.attrs.get("pad", ())) else set()
    bounds = _bounds(quantized, layer)
    if bounds is None:
        return set()
    least, greatest = bounds
    ways = _ways(quantized, layer, np.array([least, greatest], np.float64))
    return ways | {HALF} if _halves(quantized, layer) else ways - {HALF}


def reached(quantized: QuantizedNetwork, layer: Layer, inputs: Sequence[np.ndarray]) -> set[str]:
    """Names of the branches that these inputs take.

    inputs : int8 arrays (N, ...), one per input of the layer.
    """
    if layer.operator.moves_bytes:
        if not any(layer.attrs.get("pad", ())):
            return set()
        most = layer.operator.real([inputs[0].astype(np.float32)])
        edges = [most[:, 0], most[:, -1], most[:, :, 0], most[:, :, -1]]
        return {PADDING} if any((e < 0).any() for e in edges) else set()
    real = unrounded(quantized, layer, inputs)
    return set() if real is None else _ways(quantized, layer, real)


def unrounded(quantized: QuantizedNetwork, layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """Results in units of the output's step before activation, rounding, saturation; None for moves."""
    inputs = [
        np.asarray(x, np.float32).reshape(len(x), *quantized.network[name].shape)
        for x, name in zip(inputs, layer.inputs, strict=True)
    ]
    if not layer.operator.quantized:
        return None
    name = layer.name
    if layer.op == "dense":
        inputs = [inputs[0].reshape(len(inputs[0]), -1)]
    fixes = _fix_points(quantized, layer)
    parameters = quantized.weights.get(name), quantized.biases.get(name)
    return layer.operator.unrounded(inputs, fixes, quantized.fix_points[name], *parameters)


def halves(quantized: QuantizedNetwork, layer: Layer, real: np.ndarray) -> np.ndarray:
    """Where a half inside the range is rounded: boolean array like `real` (see `unrounded`)."""
    activation = layer.attrs.get("activation", "NONE")
    if activation == "LEAKYRELU":
        real = np.where(real < 0, real * (LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]), real)
    low = -0.5 if activation in ("RELU", "RELU6") else INT8_MIN
    return (real - np.floor(real) == 0.5) & (real >= low) & (real < INT8_MAX)


def average_halves(quantized: QuantizedNetwork, layer: Layer) -> np.ndarray:
    """Sums of one window of an avg_pool that are rounded at a half inside the range."""
    operator = layer.operator
    if not isinstance(operator, AveragePool):
        raise ValueError(f"layer {layer.name!r} ({layer.op}) averages nothing")
    return operator.half_sums(_fix_points(quantized, layer), quantized.fix_points[layer.name])


def _fix_points(quantized, layer):
    return [quantized.fix_points[name] for name in layer.inputs]


def _ways(quantized, layer, real):
    activation = layer.attrs.get("activation", "NONE")
    found = {HALF: halves(quantized, layer, real)}
    if activation == "RELU6" and quantized.fix_points[layer.name] == RELU6_FIX_POINT:
        found[SIX] = real > RELU6_LIMIT
    else:
        found[HIGH] = real >= INT8_MAX + 0.5
    if activation in ("RELU", "RELU6"):
        found[ZERO] = real < -0.5
    elif activation == "LEAKYRELU":
        found[LEAK] = real < -0.5
        found[LOW] = real * (LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]) < INT8_MIN - 0.5
    else:
        found[LOW] = real < INT8_MIN - 0.5
    return {name for name, where in found.items() if where.any()}


def _bounds(quantized, layer):
    """Least and greatest `unrounded` result of any int8 inputs; None for moves."""
    name, fix = layer.name, quantized.fix_points.get(layer.name)
    if layer.operator.weighted:
        sizes, sums = row_sums(weighted(layer.operator).rows(quantized.weights[name][0]))
        bias = 0.0
        if name in quantized.biases:
            shift_bias = quantized.shift_bias(name)
            bias = np.ldexp(quantized.biases[name][0].astype(np.float64), shift_bias)
        step = 2.0 ** -quantized.shift_cut(name)
        positive, negative = (sums + sizes) / 2, (sums - sizes) / 2  # sums of the weights of either sign
        least = INT8_MIN * positive + INT8_MAX * negative + bias
        greatest = INT8_MAX * positive + INT8_MIN * negative + bias
        return least.min() * step, greatest.max() * step
    return layer.operator.result_range(_fix_points(quantized, layer), fix)


def _halves(quantized, layer):
    """Whether results lie on a finer grid than the output's, so that there is something to round."""
    name = layer.name
    if layer.operator.weighted:
        finer_bias = name in quantized.biases and quantized.shift_bias(name) < 0
        return quantized.shift_cut(name) > 0 or finer_bias or layer.attrs["activation"] == "LEAKYRELU"
    return layer.operator.rounds_halves(_fix_points(quantized, layer), quantized.fix_points[name])
