"""Inputs of a concatenation on grids of their own, requantized in front of it.

A concatenation has one fix_point, so its inputs take the coarsest of theirs; what else reads them then reads
coarser values than it could. Instead a 1x1 depthwise convolution of ones may stand between an input and the
concatenation: its shift is the requantization, rounded and saturated as the DPU does it.
"""

import copy
from collections.abc import Mapping

import numpy as np

from dpuflow.network import Layer, Network
from dpuflow.quantize.alignment import fix_point_groups
from dpuflow.quantize.fix_points import ANY_FIX_POINT

WORTH = 0.98
"""Share of the divergence that must at most be left: each copy costs the DPU a pass over its map."""


def worthwhile(
    network: Network, wanted: Mapping[str, int], shared: Mapping[str, int]
) -> list[tuple[str, str]]:
    """(input, concatenation) where the input would be finer and somebody else reads it, too.

    wanted : the fix_points that the tensors chose alone; shared : those that they have in their groups.
    """
    groups = {name: id(members) for members in fix_point_groups(network) for name in members}
    found = []
    for layer in network.layers:
        if layer.op != "concat" or len(layer.shape) != 3:
            continue
        for name in dict.fromkeys(layer.inputs):
            finer = wanted.get(name, ANY_FIX_POINT) != ANY_FIX_POINT and wanted[name] > shared[name]
            others = [r for r in network.consumers(name) if groups.get(r.name) != groups[layer.name]]
            if finer and others and network[name].op != "input":
                found.append((name, layer.name))
    return found


def requantised(network: Network, pairs: list[tuple[str, str]]) -> Network:
    """A copy of the network with a depthwise convolution of ones for each (input, concatenation)."""
    network = copy.deepcopy(network)
    for name, concat in pairs:
        source, reader = network[name], network[concat]
        window = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}
        ones = np.ones((1, 1, 1, source.shape[-1]), np.float32)
        copied = Layer(
            f"{concat}/{name}", "depthwise_conv", [name], source.shape, {**window, "activation": "NONE"}, ones
        )
        reader.inputs = [copied.name if n == name else n for n in reader.inputs]
        network.layers.insert(network.layers.index(reader), copied)
    return network
