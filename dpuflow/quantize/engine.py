"""Running whole networks on NumPy: in float32, and in the DPU's integers.

What a layer computes is its operator's (`dpuflow.ops`); this module walks the graph. Integers
travel as float32 arrays of whole numbers (`ops.arithmetic` says why that is exact).
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.ops.operator import NO_GRID

Batch = np.ndarray | Mapping[str, np.ndarray]
"""Images (N, ...) of the only input, or of each input by its name."""
Compute = Callable[[Layer, Sequence[np.ndarray]], np.ndarray]
"""Function(layer, inputs) -> output, arrays (N, ...)."""


def float_layer(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """One layer in float32. inputs: arrays (N, ...). Average pooling divides exactly; a fused
    LEAKYRELU has the DPU's slope."""
    return layer.operator.real(inputs, layer.weights, layer.bias)


def integer_layer(quantized: QuantizedNetwork, layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """One layer of a QuantizedNetwork on int8-valued float32 arrays; softmax gets real numbers."""
    name = layer.name
    fixes = [quantized.fix_points.get(source, NO_GRID) for source in layer.inputs]
    if not layer.operator.quantized:
        return cpu_layer(layer, inputs, fixes)
    return layer.operator.integer(
        inputs, fixes, quantized.fix_points[name], quantized.weights.get(name), quantized.biases.get(name)
    )


def cpu_layer(layer: Layer, inputs: Sequence[np.ndarray], fixes: Sequence[int]) -> np.ndarray:
    """A layer on the CPU, in float32. fixes : of the inputs, NO_GRID for what is real already."""
    reals = [x * np.float32(2.0**-fix) for x, fix in zip(inputs, fixes, strict=True)]
    return layer.operator.real(reals, layer.weights, layer.bias)


def by_input(network: Network, x: Batch) -> dict[str, np.ndarray]:
    """{input layer's name: float32 array (N, ...)}; UserError when an input is not given."""
    given = x if isinstance(x, Mapping) else {network.input.name: x}
    missing = [layer.name for layer in network.inputs if layer.name not in given]
    if missing:
        raise UserError(f"network {network.name!r}: nothing is given for its input {', '.join(missing)}")
    return {layer.name: np.asarray(given[layer.name], np.float32) for layer in network.inputs}


def part(x: Batch, which: slice) -> Batch:
    """Some of the images."""
    return {name: array[which] for name, array in x.items()} if isinstance(x, Mapping) else x[which]


def count(x: Batch) -> int:
    """Number of images."""
    return len(next(iter(x.values())) if isinstance(x, Mapping) else x)


def run_float(network: Network, x: Batch, keep: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Run `network` in float32 on x (N, H, W, C), or {input's name: array}.

    keep : names of layers whose outputs to return (None: those that give the network's outputs).
    Returns dict layer name -> array (N, ...).
    """
    return run_layers(network, x, network.output_layers if keep is None else set(keep), float_layer)


def run_layers(
    network: Network, x: Batch, wanted: Collection[str], compute: Compute
) -> dict[str, np.ndarray]:
    """Evaluate layers in order with `compute(layer, inputs)`, freeing what nobody needs any more."""
    given = by_input(network, x)
    last_use = {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}
    values: dict[str, np.ndarray] = {}
    kept: dict[str, np.ndarray] = {}
    for i, layer in enumerate(network.layers):
        inputs = [values[name] for name in layer.inputs]
        value = given[layer.name] if layer.op == "input" else compute(layer, inputs)
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
    quantized: QuantizedNetwork, q: Batch, keep: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Run a QuantizedNetwork on its int8 input q (N, H, W, C), given as any numeric dtype.

    Returns dict layer name -> float32 array of int8 values (of a layer on the CPU: real numbers).
    """
    network = quantized.network
    wanted = network.output_layers if keep is None else set(keep)
    return run_layers(network, q, wanted, lambda layer, inputs: integer_layer(quantized, layer, inputs))
