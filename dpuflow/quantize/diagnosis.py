"""Where quantization costs: per layer, worst first, and ranges against what INT8 represents."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN, decibels, dequantize, short
from dpuflow.network import WEIGHTED, Layer, Network, QuantizedNetwork
from dpuflow.ops.arithmetic import activate, activation_named
from dpuflow.ops.convolution import given, weighted
from dpuflow.quantize import blocks, engine
from dpuflow.quantize.answers import effort, joined
from dpuflow.quantize.calibration import grids, to_grid
from dpuflow.quantize.distance import EndsDistance, is_logits, mean_agreement
from dpuflow.quantize.fix_points import pairwise_sum

QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)
SAMPLE = 1 << 20
"""Values per tensor that quantiles are taken from."""
EFFORT = 1 << 40
"""What a diagnosis may cost (`answers.effort`); a large network is diagnosed on fewer images."""
FEWEST = 4


class OutputJudge(Protocol):
    """How good the outputs of a network are that is no classification (`dpuflow.task.judging`)."""

    name: str
    """Of the figure."""

    def of(self, pictures: np.ndarray) -> Callable[[Mapping[str, np.ndarray]], float] | None:
        """Figure (0 to 1) of the ends {layer: values} for these pictures; None where ends are not outputs."""


def _range(
    tensor: str, kind: str, sample: np.ndarray, ends: tuple[float, float], fix_point: int
) -> dict[str, Any]:
    low, high = math.ldexp(INT8_MIN, -fix_point), math.ldexp(INT8_MAX, -fix_point)
    points = np.quantile(sample, QUANTILES)
    return {
        "tensor": tensor,
        "kind": kind,
        "fix_point": fix_point,
        "int8_low": low,
        "int8_high": high,
        "min": short(float(ends[0])),
        "max": short(float(ends[1])),
        **{f"p{100 * q:g}": short(float(v)) for q, v in zip(QUANTILES, points, strict=True)},
    }


def _range_of(tensor: str, kind: str, values: np.ndarray, fix_point: int) -> dict[str, Any]:
    every = max(1, -(-values.size // SAMPLE))
    return _range(tensor, kind, values.reshape(-1)[::every], (values.min(), values.max()), fix_point)


@dataclass(frozen=True)
class Seen:
    """What one block of pictures shows of one layer."""

    least: float
    greatest: float
    at_ends: int
    power: float
    noise: float
    sample: np.ndarray
    alone: dict[str, np.ndarray]


def affordable_images(network: Network, wanted: int) -> int:
    """How many images a diagnosis takes: each runs through half of the network for every layer."""
    layers = max(1, len(network.layers) // 2)
    return min(wanted, max(FEWEST, EFFORT // (layers * effort(network))))


def diagnose(
    quantized: QuantizedNetwork,
    x: blocks.Batch,
    labels: np.ndarray | None = None,
    judged: Callable[[Mapping[str, np.ndarray]], float] | None = None,
) -> dict[str, Any]:
    """Diagnose a QuantizedNetwork on float32 network input x (N, H, W, C), never test images.

    Returns {"images", "float_accuracy", "layers", "ranges"}.

    layers : worst first by the divergence that quantizing this layer alone causes. Each has
        layer, op, fix_point, weights_fix_point, bias_fix_point, shift_cut, shift_bias (where they
        exist), float_min, float_max, saturated (share of outputs at an end of the int8 range that
        the float network does not reach by itself through ReLU), sqnr_db (output against the float
        network, everything quantized), weights_sqnr_db, and alone: {"divergence", "agreement",
        "accuracy_change" in points (with labels, or as `judged` finds its figure changed)}.
    ranges : per tensor float range and quantiles against the ends of INT8, for a plot.
    """
    network = quantized.network
    x = blocks.batch(x)
    indices = [
        i for i, layer in enumerate(network.layers) if layer.operator.quantized and not layer.operator.renames
    ]
    last = [layer.name for layer in network.last_quantized]
    names = [layer.name for layer in blocks.needed(network)]

    def one(which: slice) -> tuple[dict[str, np.ndarray], list[Seen]]:
        given = engine.by_input(network, x[which])
        floats = engine.run_float(network, given, names)
        integers = engine.run_integer(quantized, grids(quantized.fix_points, given), names)
        seen = [_see(quantized, index, floats, integers, which.start, len(x)) for index in indices]
        return {name: floats[name] for name in last}, seen

    found = blocks.in_blocks(one, len(x), blocks.block_of_all(network))
    ends = joined([part for part, _ in found], last)
    distance, answers = EndsDistance(ends), _answers(ends)
    if answers is None:
        labels = None  # nothing that they could be compared with
    whole = None if judged is None else judged(ends)
    rows, ranges = [], []
    for number, index in enumerate(indices):
        layer, seen = network.layers[index], [parts[number] for _, parts in found]
        fix = quantized.fix_points[layer.name]
        row = {"layer": layer.name, "op": layer.op, "fix_point": fix, **_parameters(quantized, layer)}
        limits = min(s.least for s in seen), max(s.greatest for s in seen)
        row |= {
            "float_min": short(limits[0]),
            "float_max": short(limits[1]),
            "saturated": short(sum(s.at_ends for s in seen) / (len(x) * blocks.values_of(layer))),
            "sqnr_db": decibels(sum(s.power for s in seen), sum(s.noise for s in seen)),
        }
        alone = joined([s.alone for s in seen], last)
        row["alone"] = {
            "divergence": short(distance(alone)),
            "agreement": short(mean_agreement(alone, ends)),
        }
        if labels is not None and answers is not None:
            correct = [float((z[answers].argmax(axis=1) == labels).mean()) for z in (alone, ends)]
            row["alone"]["accuracy_change"] = short(100 * (correct[0] - correct[1]))
        if judged is not None and whole is not None:
            row["alone"]["accuracy_change"] = short(100 * (judged(alone) - whole))
        rows.append(row)
        ranges.append(_range(layer.name, "activation", np.concatenate([s.sample for s in seen]), limits, fix))
        if layer.op in WEIGHTED:
            fix = quantized.weights[layer.name][1]
            ranges.append(_range_of(layer.name, "weights", given(layer.weights), fix))
            if layer.name in quantized.biases:
                fix = quantized.biases[layer.name][1]
                ranges.append(_range_of(layer.name, "bias", given(layer.bias), fix))
    rows.sort(key=lambda row: -row["alone"]["divergence"])
    accuracy = None if whole is None else short(whole)
    if labels is not None and answers is not None:
        accuracy = short(float((ends[answers].argmax(axis=1) == labels).mean()))
    return {"images": len(x), "float_accuracy": accuracy, "layers": rows, "ranges": ranges}


def _answers(ends: Mapping[str, np.ndarray]) -> str | None:
    """Name of the end that says the class of an image: the only one, if it is a vector."""
    (name, *others) = ends
    return name if not others and is_logits(ends[name]) else None


def _see(
    quantized: QuantizedNetwork,
    index: int,
    floats: Mapping[str, np.ndarray],
    integers: Mapping[str, np.ndarray],
    start: int,
    count: int,
) -> Seen:
    """What a block of pictures, the first being number `start` of `count`, shows of a layer."""
    layer = quantized.network.layers[index]
    values, grid = floats[layer.name], integers[layer.name]
    clipped_at_zero = activation_named(layer.attrs.get("activation", "NONE")).lowest == 0
    ends = (grid == INT8_MAX) if clipped_at_zero else (grid == INT8_MAX) | (grid == INT8_MIN)
    real = grid * np.float32(2.0 ** -quantized.fix_points[layer.name])
    size = blocks.values_of(layer)
    every = max(1, -(-count * size // SAMPLE))
    return Seen(
        float(values.min()),
        float(values.max()),
        int(np.count_nonzero(ends)),
        float(np.square(values, dtype=np.float64).sum()),
        float(np.square(np.subtract(values, real, dtype=np.float64)).sum()),
        values.reshape(-1)[-start * size % every :: every].copy(),
        _alone(quantized, index, floats),
    )


def _parameters(quantized: QuantizedNetwork, layer: Layer) -> dict[str, Any]:
    if layer.op not in WEIGHTED:
        return {}
    name = layer.name
    values, fix = quantized.weights[name]
    row = {
        "weights_fix_point": fix,
        "shift_cut": quantized.shift_cut(name),
        "weights_sqnr_db": _weights_sqnr(given(layer.weights), values, fix),
    }
    if name in quantized.biases:
        row |= {"bias_fix_point": quantized.biases[name][1], "shift_bias": quantized.shift_bias(name)}
    return row


def _weights_sqnr(weights: np.ndarray, integers: np.ndarray, fix_point: int) -> float | None:
    """`sqnr_db` of weights, widened some at a time: a dense layer may have a hundred million."""
    flat, grid = weights.reshape(-1), integers.reshape(-1)

    def powers(which: slice) -> np.ndarray:
        real = flat[which]
        noise = np.subtract(real, dequantize(grid[which], fix_point), dtype=np.float64)
        return np.array([np.square(values, dtype=np.float64).sum() for values in (real, noise)])

    power, noise = pairwise_sum(powers, flat.size)
    return decibels(float(power), float(noise))


def _alone(
    quantized: QuantizedNetwork, index: int, floats: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The network's ends when only one layer's parameters and output are quantized and all else is float."""
    network = quantized.network
    layer = network.layers[index]
    fix = quantized.fix_points[layer.name]
    values = dict(floats)
    if layer.op in WEIGHTED:
        # the step of the weights is a power of two, so that it may as well be multiplied afterwards
        weights, fix_weights = quantized.weights[layer.name]
        value = weighted(layer.operator).linear(values[layer.inputs[0]], weights)
        value *= np.float32(2.0**-fix_weights)
        if layer.name in quantized.biases:
            value += dequantize(*quantized.biases[layer.name]).astype(np.float32)
        value = activate(value, layer.attrs["activation"])
    else:
        value = floats[layer.name]
    values[layer.name] = to_grid(value, fix) * np.float32(2.0**-fix)
    dirty = {layer.name}
    for later in network.layers[index + 1 :]:
        if later.name in floats and dirty & set(later.inputs):
            values[later.name] = engine.float_layer(later, [values[name] for name in later.inputs])
            dirty.add(later.name)
    return {layer.name: values[layer.name] for layer in network.last_quantized}
