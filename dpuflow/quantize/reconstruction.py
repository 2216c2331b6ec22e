"""Passes over the whole network that change int8 parameters, not fix_points.

`fast_finetune` chooses the rounding of weights and biases layer by layer (`rounding`);
`correct_biases` shifts biases so that every channel's mean is the float network's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dpuflow.base.numerics import quantize
from dpuflow.device.dpuczdx8g import SHIFT_BIAS_RANGE, SHIFT_CUT_RANGE
from dpuflow.network import WEIGHTED, Layer, Network, QuantizedNetwork
from dpuflow.ops.arithmetic import activate
from dpuflow.ops.convolution import given, weighted
from dpuflow.ops.operator import Quantized
from dpuflow.quantize import blocks, engine, rounding
from dpuflow.quantize.calibration import gridded_input
from dpuflow.quantize.fix_points import ANY_FIX_POINT
from dpuflow.quantize.settings import Settings

FINER = 2
"""How many finer fix_points of a layer's weights are tried, while the error is less to begin with."""
Keep = Callable[[Layer, slice, np.ndarray], None]
"""Called with a weighted layer, some pictures and their pre-activations."""


def preactivations(network: Network, x: blocks.Batch, keep: Keep) -> None:
    """Show `keep` the outputs of the weighted layers before their activation, float32, block by block.

    Blocks come from several threads, each of them once.
    """
    last = {layer.name for layer in network.last_quantized}

    def one(which: slice) -> None:
        def compute(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
            if layer.op not in WEIGHTED:
                return engine.float_layer(layer, inputs)
            out = weighted(layer.operator).preactivation(inputs[0], given(layer.weights), layer.bias)
            keep(layer, which, out)
            return activate(out, layer.attrs["activation"])

        engine.run_layers(network, x[which], last, compute)

    blocks.in_blocks(one, len(x), blocks.block_of_all(network))


def sampled(network: Network, x: blocks.Batch, rows: int) -> dict[str, tuple[rounding.Rows, np.ndarray]]:
    """Layer name -> (rows of its patch matrix, their pre-activations float32 (rows, channels))."""
    x = blocks.batch(x)
    found = {}
    for index, layer in enumerate(network.layers):
        if layer.op in WEIGHTED:
            chosen = rounding.Rows(layer, len(x), rounding.rows_for(layer, rows), index)
            found[layer.name] = chosen, np.empty((len(chosen), layer.shape[-1]), np.float32)

    def keep(layer: Layer, which: slice, out: np.ndarray) -> None:
        chosen, values = found[layer.name]
        values[chosen.within(which)[0]] = chosen.of_outputs(out, which)

    preactivations(network, x, keep)
    return found


def channel_means(network: Network, x: blocks.Batch) -> dict[str, np.ndarray]:
    """Layer name -> mean pre-activation of each channel, float64."""
    x = blocks.batch(x)
    sums: dict[tuple[str, int], np.ndarray] = {}

    def keep(layer: Layer, which: slice, out: np.ndarray) -> None:
        sums[layer.name, which.start] = _sums(out)

    preactivations(network, x, keep)
    starts = sorted({start for _, start in sums})
    means = {}
    for layer in network.layers:
        if layer.op in WEIGHTED:
            total = np.sum([sums[layer.name, start] for start in starts], axis=0)
            means[layer.name] = total / (len(x) * blocks.values_of(layer) / layer.shape[-1])
    return means


def channel_peaks(network: Network, x: blocks.Batch, names: Collection[str]) -> dict[str, np.ndarray]:
    """Largest output (channels,) of each named layer."""
    x = blocks.batch(x)

    def one(which: slice) -> dict[str, np.ndarray]:
        found = engine.run_float(network, x[which], names)
        return {name: values.reshape(-1, values.shape[-1]).max(axis=0) for name, values in found.items()}

    parts = blocks.in_blocks(one, len(x), blocks.block_of_all(network))
    return {name: np.max([part[name] for part in parts], axis=0) for name in names}


def _sums(values: np.ndarray) -> np.ndarray:
    """Sum over all but the channels, float64."""
    return values.sum(axis=tuple(range(values.ndim - 1)), dtype=np.float64)


def _front_to_back(
    quantized: QuantizedNetwork, x: blocks.Batch, change: Callable[[Layer, blocks.Flow], None]
) -> None:
    """Run the integer network, letting `change(layer, flow)` alter each weighted layer first."""
    network = quantized.network
    flow = blocks.Flow(network, len(x), np.int8)

    def integers(layer: Layer, which: slice) -> np.ndarray:
        return engine.integer_layer(quantized, layer, flow.inputs(layer, which))

    for layer in blocks.needed(network):
        if layer.op == "input":
            fix_point = quantized.fix_points[layer.name]
            flow.compute(layer, partial(gridded_input, network, x, layer.name, fix_point))
            continue
        if layer.op in WEIGHTED:
            change(layer, flow)
        flow.compute(layer, partial(integers, layer))
    flow.close()


def fast_finetune(
    quantized: QuantizedNetwork,
    x: blocks.Batch,
    settings: Settings,
    targets: Mapping[str, tuple[rounding.Rows, np.ndarray]] | None = None,
) -> list[dict[str, Any]]:
    """Refine weight rounding and biases of every weighted layer, in place.

    x : float32 (N, H, W, C) network input. settings : {"rows", "sweeps", "reach", "ridge"}.
    targets : `sampled` of the network on x, if it is known.
    Weights get a finer fix_point where that, after rounding, gives less error: one that is much larger than
    the others then saturates.

    Returns [{"layer", "loss_before", "loss_after", "weights_moved", "finer"}]: mean squared error of
    the layer's output in output steps squared, the share of weights not rounded to nearest, and by how
    much their fix_point went up if it did.
    """
    x = blocks.batch(x)
    targets = targets or sampled(quantized.network, x, settings["rows"])
    record: list[dict[str, Any]] = []

    def change(layer: Layer, flow: blocks.Flow) -> None:
        name = layer.name
        chosen, target = targets[name]
        parts = blocks.in_blocks(
            lambda which: chosen.of_inputs(flow.inputs(layer, which)[0], which).astype(np.int8),
            len(x),
            blocks.block_of(quantized.network, layer),
        )
        rows = np.concatenate(parts)
        fix_in, fix_out = quantized.fix_points[layer.inputs[0]], quantized.fix_points[name]
        bias = quantized.biases.get(name)

        def refine(weights: Quantized, sweeps: int) -> rounding.Refined:
            limited = {**settings, "sweeps": sweeps, "news": chosen.news}
            return rounding.refine_layer(layer, rows, fix_in, weights, bias, fix_out, target, limited)

        start = quantized.weights[name]
        best, nearest = refine(start, settings["sweeps"]), start
        before = unrefined = best[2]
        for fix_point in _finer(start[1], fix_in, fix_out, bias):
            finer = quantize(given(layer.weights), fix_point, "STD_ROUND"), fix_point
            least, unrefined = unrefined, refine(finer, 0)[2]
            other = refine(finer, settings["sweeps"]) if unrefined < least else best
            if other[3] >= best[3]:
                break
            best, nearest = other, finer
        (values, fix_point), shifted, _, after = best
        quantized.weights[name] = values, fix_point
        if shifted is not None:
            quantized.biases[name] = shifted
        found = {"layer": name, "loss_before": before, "loss_after": after}
        found["weights_moved"] = float(np.mean(values != nearest[0]))
        record.append(found | ({"finer": fix_point - start[1]} if fix_point > start[1] else {}))

    _front_to_back(quantized, x, change)
    return record


def _finer(fix_weights: int, fix_in: int, fix_out: int, bias: Quantized | None) -> range:
    """The finer fix_points of a layer's weights at which its shifts stay in their ranges."""
    most = SHIFT_CUT_RANGE[1] + fix_out
    if bias is not None and bias[1] != ANY_FIX_POINT:
        most = min(most, SHIFT_BIAS_RANGE[1] + bias[1])
    return range(fix_weights + 1, min(fix_weights + FINER, most - fix_in) + 1)


def correct_biases(
    quantized: QuantizedNetwork, x: blocks.Batch, means: Mapping[str, np.ndarray] | None = None
) -> list[dict[str, Any]]:
    """Shift biases by the mean difference of pre-activations to the float network, in place.

    After Nagel et al. 2019 (arXiv:1906.04721), measured on calibration images x instead of
    derived from batch normalisation. Returns [{"layer", "largest_shift"}] in real units.
    means : `channel_means` of the network on x, if they are known.
    """
    network, x = quantized.network, blocks.batch(x)
    means = means or channel_means(network, x)
    record: list[dict[str, Any]] = []

    def change(layer: Layer, flow: blocks.Flow) -> None:
        name = layer.name
        if name not in quantized.biases:
            return
        values, fix_bias = quantized.biases[name]
        weights, fix_weights = quantized.weights[name]
        unit = quantized.fix_points[layer.inputs[0]] + fix_weights

        def sums(which: slice) -> np.ndarray:
            inputs = flow.inputs(layer, which)[0]
            return _sums(weighted(layer.operator).accumulate(inputs, weights, values, unit - fix_bias))

        size = blocks.block_of(network, layer)
        count = len(x) * blocks.values_of(layer) / layer.shape[-1]
        mean = np.sum(blocks.in_blocks(sums, len(x), size), axis=0) / count
        shift = means[name] - np.ldexp(mean, -unit)
        real = np.ldexp(values.astype(np.float64), -fix_bias) + shift
        quantized.biases[name] = (quantize(real, fix_bias, "STD_ROUND"), fix_bias)
        record.append({"layer": name, "largest_shift": float(np.abs(shift).max())})

    _front_to_back(quantized, x, change)
    return record
