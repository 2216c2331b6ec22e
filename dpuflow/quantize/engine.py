"""Running whole networks on NumPy: in float32, and in the DPU's integers.

What a layer computes is its operator's (`dpuflow.ops`); this module walks the graph. Integers
travel as float32 arrays of whole numbers (`ops.arithmetic` says why that is exact).
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

import numpy as np
from threadpoolctl import threadpool_limits

from dpuflow.network import Layer, Network, QuantizedNetwork

Compute = Callable[[Layer, Sequence[np.ndarray]], np.ndarray]
"""Function(layer, inputs) -> output, arrays (N, ...)."""


def single_threaded_blas() -> AbstractContextManager:
    """Context: one BLAS thread. The patch matrices are small; on a shared machine OpenBLAS's
    threads spend five times as long waiting for each other as one thread needs alone (measured)."""
    return threadpool_limits(limits=1, user_api="blas")


def float_layer(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """One layer in float32. inputs: arrays (N, ...). Average pooling divides exactly; a fused
    LEAKYRELU has the DPU's slope."""
    return layer.operator.real(inputs, layer.weights, layer.bias)


def integer_layer(quantized: QuantizedNetwork, layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """One layer of a QuantizedNetwork on int8-valued float32 arrays; softmax gets real numbers."""
    name = layer.name
    fixes = [quantized.fix_points[source] for source in layer.inputs]
    # what ends on the CPU has no grid and looks at none
    fix_out = quantized.fix_points[name] if layer.operator.quantized else 0
    return layer.operator.integer(
        inputs, fixes, fix_out, quantized.weights.get(name), quantized.biases.get(name)
    )


def run_float(network: Network, x: np.ndarray, keep: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Run `network` in float32 on x (N, H, W, C).

    keep : names of layers whose outputs to return (None: the output layer's only).
    Returns dict layer name -> array (N, ...).
    """
    wanted = {network.output.name} if keep is None else set(keep)
    return run_layers(network, np.asarray(x, np.float32), wanted, float_layer)


def run_layers(
    network: Network, x: np.ndarray, wanted: Collection[str], compute: Compute
) -> dict[str, np.ndarray]:
    """Evaluate layers in order with `compute(layer, inputs)`, freeing what nobody needs any more."""
    last_use = {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}
    values: dict[str, np.ndarray] = {}
    kept: dict[str, np.ndarray] = {}
    for i, layer in enumerate(network.layers):
        value = x if layer.op == "input" else compute(layer, [values[name] for name in layer.inputs])
        values[layer.name] = value
        if layer.name in wanted:
            kept[layer.name] = value
        for name in {*layer.inputs, layer.name}:
            if last_use.get(name, -1) <= i:
                values.pop(name, None)
        if len(kept) == len(wanted):
            break
    return kept


def run_integer(
    quantized: QuantizedNetwork, q: np.ndarray, keep: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Run a QuantizedNetwork on its int8 input q (N, H, W, C), given as any numeric dtype.

    Returns dict layer name -> float32 array of int8 values (softmax: probabilities).
    """
    network = quantized.network
    wanted = {network.output.name} if keep is None else set(keep)
    return run_layers(
        network,
        np.asarray(q, np.float32),
        wanted,
        lambda layer, inputs: integer_layer(quantized, layer, inputs),
    )
