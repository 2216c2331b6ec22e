"""Passes over the whole network that change int8 parameters, not fix_points.

`fast_finetune` chooses the rounding of weights and biases layer by layer (`rounding`);
`correct_biases` shifts biases so that every channel's mean is the float network's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.numerics import quantize
from dpuflow.network import WEIGHTED, Layer, Network, QuantizedNetwork
from dpuflow.ops.arithmetic import activate
from dpuflow.ops.convolution import given, weighted
from dpuflow.quantize import engine, rounding
from dpuflow.quantize.calibration import grids
from dpuflow.quantize.settings import Settings


def preactivations(network: Network, x: engine.Batch) -> dict[str, np.ndarray]:
    """Outputs of the weighted layers before their activation, float32, for float input x."""
    found: dict[str, np.ndarray] = {}

    def compute(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
        if layer.op not in WEIGHTED:
            return engine.float_layer(layer, inputs)
        out = weighted(layer.operator).preactivation(inputs[0], given(layer.weights), layer.bias)
        found[layer.name] = out
        return activate(out.copy(), layer.attrs["activation"])

    engine.run_layers(network, x, network.output_layers, compute)
    return found


def _front_to_back(
    quantized: QuantizedNetwork, x: engine.Batch, change: Callable[[int, Layer, np.ndarray], None]
) -> None:
    """Run the integer network, letting `change(index, layer, input)` alter each weighted layer first."""
    network = quantized.network

    def compute(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
        if layer.op in WEIGHTED:
            change(network.layers.index(layer), layer, inputs[0])
        return engine.integer_layer(quantized, layer, inputs)

    pixels = grids(quantized.fix_points, engine.by_input(network, x))
    engine.run_layers(network, pixels, network.output_layers, compute)


def fast_finetune(
    quantized: QuantizedNetwork,
    x: engine.Batch,
    settings: Settings,
    targets: Mapping[str, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """Refine weight rounding and biases of every weighted layer, in place.

    x : float32 (N, H, W, C) network input. settings : {"rows", "sweeps", "reach", "ridge"}.
    targets : `preactivations` of the network on x, if they are known.
    Returns [{"layer", "loss_before", "loss_after", "weights_moved"}]: mean squared error of
    the layer's output in output steps squared, and the share of weights not rounded to nearest.
    """
    wanted = dict(targets or preactivations(quantized.network, x))
    record: list[dict[str, Any]] = []

    def change(index: int, layer: Layer, inputs: np.ndarray) -> None:
        name = layer.name
        old = quantized.weights[name]
        weights, bias, before, after = rounding.refine_layer(
            layer,
            inputs,
            quantized.fix_points[layer.inputs[0]],
            old,
            quantized.biases.get(name),
            quantized.fix_points[name],
            wanted.pop(name),
            settings,
            index,
        )
        moved = float(np.mean(weights[0] != old[0]))
        quantized.weights[name] = weights
        if bias is not None:
            quantized.biases[name] = bias
        record.append({"layer": name, "loss_before": before, "loss_after": after, "weights_moved": moved})

    _front_to_back(quantized, x, change)
    return record


def correct_biases(
    quantized: QuantizedNetwork, x: engine.Batch, targets: Mapping[str, np.ndarray] | None = None
) -> list[dict[str, Any]]:
    """Shift biases by the mean difference of pre-activations to the float network, in place.

    After Nagel et al. 2019 (arXiv:1906.04721), measured on calibration images x instead of
    derived from batch normalisation. Returns [{"layer", "largest_shift"}] in real units.
    targets : as for `fast_finetune`.
    """
    wanted = dict(targets or preactivations(quantized.network, x))
    record: list[dict[str, Any]] = []

    def change(_: int, layer: Layer, inputs: np.ndarray) -> None:
        name = layer.name
        if name not in quantized.biases:
            return
        values, fix_bias = quantized.biases[name]
        unit = quantized.fix_points[layer.inputs[0]] + quantized.weights[name][1]
        out = weighted(layer.operator).accumulate(inputs, quantized.weights[name][0], values, unit - fix_bias)
        axes = tuple(range(out.ndim - 1))
        shift = wanted.pop(name).mean(axis=axes, dtype=np.float64) - np.ldexp(
            out.mean(axis=axes, dtype=np.float64), -unit
        )
        real = np.ldexp(values.astype(np.float64), -fix_bias) + shift
        quantized.biases[name] = (quantize(real, fix_bias, "STD_ROUND"), fix_bias)
        record.append({"layer": name, "largest_shift": float(np.abs(shift).max())})

    _front_to_back(quantized, x, change)
    return record
