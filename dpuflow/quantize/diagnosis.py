"""Where quantization costs: per layer, worst first, and ranges against what INT8 represents."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN, dequantize, short, sqnr_db
from dpuflow.network import WEIGHTED, Layer, QuantizedNetwork
from dpuflow.ops.arithmetic import activation_named
from dpuflow.ops.convolution import given
from dpuflow.quantize import engine
from dpuflow.quantize.calibration import grids, to_grid
from dpuflow.quantize.distance import EndsDistance, is_logits, mean_agreement

QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)
SAMPLE = 1 << 20
"""Values per tensor that quantiles are taken from."""


def _range(tensor: str, kind: str, values: np.ndarray, fix_point: int) -> dict[str, Any]:
    flat = np.asarray(values).reshape(-1)
    flat = flat[:: max(1, -(-flat.size // SAMPLE))]
    low, high = math.ldexp(INT8_MIN, -fix_point), math.ldexp(INT8_MAX, -fix_point)
    points = np.quantile(flat, QUANTILES)
    return {
        "tensor": tensor,
        "kind": kind,
        "fix_point": fix_point,
        "int8_low": low,
        "int8_high": high,
        "min": short(float(np.min(values))),
        "max": short(float(np.max(values))),
        **{f"p{100 * q:g}": short(float(v)) for q, v in zip(QUANTILES, points, strict=True)},
    }


def diagnose(
    quantized: QuantizedNetwork, x: engine.Batch, labels: np.ndarray | None = None
) -> dict[str, Any]:
    """Diagnose a QuantizedNetwork on float32 network input x (N, H, W, C), never test images.

    Returns {"images", "float_accuracy", "layers", "ranges"}.

    layers : worst first by the divergence that quantizing this layer alone causes. Each has
        layer, op, fix_point, weights_fix_point, bias_fix_point, shift_cut, shift_bias (where they
        exist), float_min, float_max, saturated (share of outputs at an end of the int8 range that
        the float network does not reach by itself through ReLU), sqnr_db (output against the float
        network, everything quantized), weights_sqnr_db, and alone: {"divergence", "agreement",
        "accuracy_change" in points (with labels)}.
    ranges : per tensor float range and quantiles against the ends of INT8, for a plot.
    """
    network = quantized.network
    names = [layer.name for layer in network.layers]
    floats = engine.run_float(network, x, names)
    pixels = grids(quantized.fix_points, engine.by_input(network, x))
    integers = engine.run_integer(quantized, pixels, names)
    ends = {layer.name: floats[layer.name] for layer in network.last_quantized}
    distance = EndsDistance(ends)
    answers = _answers(quantized, ends)
    if answers is None:
        labels = None  # nothing that they could be compared with
    rows, ranges = [], []
    for index, layer in enumerate(network.layers):
        if layer.operator.renames or not layer.operator.quantized:
            continue
        fix = quantized.fix_points[layer.name]
        values, grid = floats[layer.name], integers[layer.name]
        row = {"layer": layer.name, "op": layer.op, "fix_point": fix, **_parameters(quantized, layer)}
        clipped_at_zero = activation_named(layer.attrs.get("activation", "NONE")).lowest == 0
        limits = (grid == INT8_MAX) if clipped_at_zero else (grid == INT8_MAX) | (grid == INT8_MIN)
        row |= {
            "float_min": short(float(values.min())),
            "float_max": short(float(values.max())),
            "saturated": short(float(limits.mean())),
            "sqnr_db": sqnr_db(values, grid * np.float32(2.0**-fix)),
        }
        alone = _alone(quantized, index, floats)
        row["alone"] = {
            "divergence": short(distance(alone)),
            "agreement": short(mean_agreement(alone, ends)),
        }
        if labels is not None and answers is not None:
            correct = [float((z[answers].argmax(axis=1) == labels).mean()) for z in (alone, ends)]
            row["alone"]["accuracy_change"] = short(100 * (correct[0] - correct[1]))
        rows.append(row)
        ranges.append(_range(layer.name, "activation", values, fix))
        if layer.op in WEIGHTED:
            ranges.append(
                _range(layer.name, "weights", given(layer.weights), quantized.weights[layer.name][1])
            )
            if layer.name in quantized.biases:
                ranges.append(_range(layer.name, "bias", given(layer.bias), quantized.biases[layer.name][1]))
    rows.sort(key=lambda row: -row["alone"]["divergence"])
    accuracy = None
    if labels is not None and answers is not None:
        accuracy = short(float((ends[answers].argmax(axis=1) == labels).mean()))
    return {"images": engine.count(x), "float_accuracy": accuracy, "layers": rows, "ranges": ranges}


def _answers(quantized: QuantizedNetwork, ends: Mapping[str, np.ndarray]) -> str | None:
    """Name of the end that says the class of an image: the only one, if it is a vector."""
    (name, *others) = ends
    return name if not others and is_logits(ends[name]) else None


def _parameters(quantized: QuantizedNetwork, layer: Layer) -> dict[str, Any]:
    if layer.op not in WEIGHTED:
        return {}
    name = layer.name
    values, fix = quantized.weights[name]
    row = {
        "weights_fix_point": fix,
        "shift_cut": quantized.shift_cut(name),
        "weights_sqnr_db": sqnr_db(given(layer.weights), dequantize(values, fix)),
    }
    if name in quantized.biases:
        row |= {"bias_fix_point": quantized.biases[name][1], "shift_bias": quantized.shift_bias(name)}
    return row


def _alone(
    quantized: QuantizedNetwork, index: int, floats: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The network's ends when only one layer's parameters and output are quantized and all else is float."""
    network = quantized.network
    layer = network.layers[index]
    fix = quantized.fix_points[layer.name]
    values = dict(floats)
    if layer.op in WEIGHTED:
        layer = copy.copy(layer)
        layer.weights = dequantize(*quantized.weights[layer.name]).astype(np.float32)
        if layer.name in quantized.biases:
            layer.bias = dequantize(*quantized.biases[layer.name]).astype(np.float32)
        value = engine.float_layer(layer, [values[name] for name in layer.inputs])
    else:
        value = floats[layer.name]
    values[layer.name] = to_grid(value, fix) * np.float32(2.0**-fix)
    dirty = {layer.name}
    for later in network.layers[index + 1 :]:
        if dirty & set(later.inputs):
            values[later.name] = engine.float_layer(later, [values[name] for name in later.inputs])
            dirty.add(later.name)
    return {layer.name: values[layer.name] for layer in network.last_quantized}
