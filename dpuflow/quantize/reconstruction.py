"""Passes over the whole network that change int8 parameters, not fix_points.

`fast_finetune` chooses the rounding of weights and biases layer by layer (`rounding`);
`correct_biases` shifts biases so that every channel's mean is the float network's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dpuflow.base.numerics import quantize
from dpuflow.network import WEIGHTED, Layer, Network, QuantizedNetwork
from dpuflow.ops.arithmetic import activate
from dpuflow.ops.convolution import given, weighted
from dpuflow.quantize import blocks, engine, rounding
from dpuflow.quantize.calibration import gridded_input
from dpuflow.quantize.settings import Settings

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
    Returns [{"layer", "loss_before", "loss_after", "weights_moved"}]: mean squared error of
    the layer's output in output steps squared, and the share of weights not rounded to nearest.
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
        old = quantized.weights[name]
        weights, bias, before, after = rounding.refine_layer(
            layer,
            np.concatenate(parts),
            quantized.fix_points[layer.inputs[0]],
            old,
            quantized.biases.get(name),
            quantized.fix_points[name],
            target,
            settings,
        )
        moved = float(np.mean(weights[0] != old[0]))
        quantized.weights[name] = weights
        if bias is not None:
            quantized.biases[name] = bias
        record.append({"layer": name, "loss_before": before, "loss_after": after, "weights_moved": moved})

    _front_to_back(quantized, x, change)
    return record


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
