"""Running whole networks on NumPy: in float32, and in the DPU's integers.

What a layer computes is its operator's (`dpuflow.ops`); this module walks the graph. Integers
travel as float32 arrays of whole numbers (`ops.arithmetic` says why that is exact).
"""

import numpy as np
from threadpoolctl import threadpool_limits


def single_threaded_blas():
    """Context: one BLAS thread. The patch matrices are small; on a shared machine OpenBLAS's
    threads spend five times as long waiting for each other as one thread needs alone (measured)."""
    return threadpool_limits(limits=1, user_api="blas")


def float_layer(layer, inputs):
    """One layer in float32. inputs: arrays (N, ...). Average pooling divides exactly; a fused
    LEAKYRELU has the DPU's slope."""
    return layer.operator.real(inputs, layer.weights, layer.bias)


def integer_layer(quantized, layer, inputs):
    """One layer of a QuantizedNetwork on int8-valued float32 arrays; softmax gets real numbers."""
    name = layer.name
    fixes = [quantized.fix_points[source] for source in layer.inputs]
    return layer.operator.integer(
        inputs, fixes, quantized.fix_points.get(name), quantized.weights.get(name), quantized.biases.get(name)
    )


def run_float(network, x, keep=None):
    """Run `network` in float32 on x (N, H, W, C).

    keep : names of layers whose outputs to return (None: the output layer's only).
    Returns dict layer name -> array (N, ...).
    """
    wanted = {network.output.name} if keep is None else set(keep)
    return run_layers(network, np.asarray(x, np.float32), wanted, float_layer)


def run_layers(network, x, wanted, compute):
    """Evaluate layers in order with `compute(layer, inputs)`, freeing what nobody needs any more."""
    last_use = {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}
    values, kept = {}, {}
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


def run_integer(quantized, q, keep=None):
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
