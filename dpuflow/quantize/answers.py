"""What a network answers to many pictures: in float32, and in integers on the fastest exact engine."""

from collections.abc import Mapping, Sequence

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import load_targets
from dpuflow.emulator import Emulator
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.quantize import blocks, engine
from dpuflow.quantize.calibration import grids

EXECUTED_FOR = "zcu104"
"""The emulator takes compiled graphs; the integers are the same for every DPU."""
WORTH_COMPILING = 1 << 32
"""Operations in all from which the emulator, which has to prepare the network first, is faster."""
OPERATIONS_PER_VALUE = 200
"""What a core computes while it writes one value of a layer and reads it again (measured, roughly)."""
AT_A_TIME = 32


def operations(network: Network) -> int:
    """Operations per picture."""
    shapes = {layer.name: layer.shape for layer in network.layers}
    return sum(
        layer.operator.operations([shapes[name] for name in layer.inputs], layer.shape)
        for layer in network.layers
    )


def effort(network: Network) -> int:
    """What one picture costs in float arithmetic, in operations: its layers', and moving their values."""
    return operations(network) + OPERATIONS_PER_VALUE * blocks.values_of(*network.layers)


def float_values(network: Network, x: blocks.Batch, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Outputs (N, ...) of the named layers for float32 pictures x, block by block."""
    x = blocks.batch(x)

    def one(which: slice) -> dict[str, np.ndarray]:
        return engine.run_float(network, x[which], names)

    return joined(blocks.in_blocks(one, len(x), blocks.block_of_all(network)), names)


def integer_values(
    quantized: QuantizedNetwork, x: blocks.Batch, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """int8 values (N, ...) of the named layers as float32, for float32 pictures x."""
    network, x = quantized.network, blocks.batch(x)
    if len(x) * operations(network) >= WORTH_COMPILING:
        values = _emulated(quantized, x, names)
        if values is not None:
            return values

    def one(which: slice) -> dict[str, np.ndarray]:
        given = grids(quantized.fix_points, engine.by_input(network, x[which]))
        return engine.run_integer(quantized, given, names)

    return joined(blocks.in_blocks(one, len(x), blocks.block_of_all(network)), names)


def joined(parts: Sequence[Mapping[str, np.ndarray]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of several blocks, one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _emulated(
    quantized: QuantizedNetwork, x: blocks.Batch, names: Sequence[str]
) -> dict[str, np.ndarray] | None:
    """The same in the emulator; None for a network without a compiled form (`compat: vai_q` makes such)."""
    network = quantized.network
    sources = {name: _unrenamed(network, name) for name in names}
    if len(network.inputs) > 1 or not all(network[source].operator.quantized for source in sources.values()):
        return None
    try:
        constants: dict[str, np.ndarray] = {}
        graph = lower(quantized, load_targets()[EXECUTED_FOR], apart=constants)
        emulator = Emulator(graph, threads=blocks.cores(), constants=constants)
    except UserError:
        return None
    parts = []
    with emulator:
        for start in range(0, len(x), AT_A_TIME):
            given = grids(quantized.fix_points, engine.by_input(network, x[start : start + AT_A_TIME]))
            grid = given[network.input.name].astype(np.int8)
            values = emulator.values(_as_map(grid), list(dict.fromkeys(sources.values())))
            parts.append(
                {
                    name: values[source].astype(np.float32).reshape(len(grid), *network[name].shape)
                    for name, source in sources.items()
                }
            )
    return joined(parts, names)


def _unrenamed(network: Network, name: str) -> str:
    """The layer that computes what a chain of flattens only renames."""
    layer = network[name]
    while layer.operator.renames and layer.inputs:
        layer = network[layer.inputs[0]]
    return layer.name


def _as_map(grid: np.ndarray) -> np.ndarray:
    """A vector is a 1 x 1 map to the DPU."""
    return grid if grid.ndim == 4 else grid.reshape(len(grid), 1, 1, -1)
