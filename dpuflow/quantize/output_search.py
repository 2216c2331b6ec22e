"""Search of fix_points by the error of each layer's output, front to back."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dpuflow.device.dpuczdx8g import SHIFT_BIAS_RANGE, SHIFT_CUT_RANGE
from dpuflow.network import WEIGHTED, Layer, Network
from dpuflow.ops.convolution import given as parameter
from dpuflow.ops.operator import NO_GRID
from dpuflow.quantize import blocks, engine
from dpuflow.quantize.alignment import fix_point_groups
from dpuflow.quantize.answers import effort
from dpuflow.quantize.calibration import gridded_input, real_output, to_grid
from dpuflow.quantize.fix_points import (
    ANY_FIX_POINT,
    CANDIDATES,
    Change,
    non_overflow,
)
from dpuflow.quantize.gate_positions import least_read
from dpuflow.quantize.position_search import Candidate, best_input_fix_point, input_values

SEARCH_VALUES = 1 << 26
"""Values of the largest set of tensors that a search holds at a time, for all of its pictures,"""
SEARCH_EFFORT = 1 << 38
"""and what the float network costs on all of them (`answers.effort`)."""
FEWEST = 16


def affordable_pictures(network: Network, wanted: int) -> int:
    """How many of the wanted pictures a search takes: all for small networks, some for large ones.

    Each picture of a large network has so many pixels that a few tell as much of a layer's error, and what
    they take is bounded: in memory, of the tensors in float32 and int8, and in arithmetic.
    """
    memory = SEARCH_VALUES // blocks.live_values(network)
    return min(wanted, max(FEWEST, min(memory, SEARCH_EFFORT // effort(network))))


def search_by_output_error(candidate: Candidate, images: blocks.Batch) -> list[Change]:
    """Choose each layer's weight and output fix_point by the error of its output, front to back.

    The error is taken against the float network, on the quantized network's own inputs,
    where the next layer reads it: behind pooling if pooling follows. Returns the moves made.
    """
    quantized, network = candidate.quantized, candidate.quantized.network
    groups = {name: members for members in fix_point_groups(network) for name in members}
    moves: list[Change] = []
    before = dict(quantized.fix_points), {name: fix for name, (_, fix) in quantized.weights.items()}
    # a hard sigmoid has but one, and so have the layers that share it (`gate_positions.hold_gates`)
    fixed = {layer.name for layer in network.layers if layer.operator.fixed_output is not None}
    decided = {id(members) for members in groups.values() if fixed & set(members)}
    images = blocks.batch(images)
    floats = blocks.Flow(network, len(images), np.float32)
    integers = blocks.Flow(network, len(images), np.int8)
    for layer in blocks.needed(network):
        search = LayerSearch(candidate, layer, integers, floats)
        if layer.op == "input":
            decided.add(id(groups[layer.name]))
            if len(groups[layer.name]) == 1:
                candidate.set_group([layer.name], best_input_fix_point(network, images, layer.name))
            fix_point = quantized.fix_points[layer.name]
            integers.compute(layer, partial(gridded_input, network, images, layer.name, fix_point))
            floats.compute(layer, partial(input_values, network, images, layer.name))
            continue
        floats.compute(layer, partial(floats.real, layer))
        if layer.op in WEIGHTED:
            search.choose_weights()
        if layer.operator.quantized and id(groups[layer.name]) not in decided:
            decided.add(id(groups[layer.name]))
            search.choose_output(groups[layer.name])
        integers.compute(layer, search.integer)
    for flow in (integers, floats):
        flow.close()
    for old, new, suffix in (
        (before[0], quantized.fix_points, ""),
        (before[1], {name: fix for name, (_, fix) in quantized.weights.items()}, "/weights"),
    ):
        moves += [
            {
                "tensor": name + suffix,
                "from": old[name],
                "to": new[name],
                "why": "less error of the layer's output",
            }
            for name in old
            if old[name] != new[name]
        ]
    return moves


class LayerSearch:
    """The fix_points of one layer, on the integers and reals that it reads."""

    def __init__(
        self, candidate: Candidate, layer: Layer, integers: blocks.Flow, floats: blocks.Flow
    ) -> None:
        self.candidate, self.layer, self.integers, self.floats = candidate, layer, integers, floats
        self.quantized = candidate.quantized
        self.fixes = [self.quantized.fix_points.get(name, NO_GRID) for name in layer.inputs]

    def wanted(self, which: slice) -> np.ndarray:
        """The float network's output."""
        return self.floats[self.layer.name][which]

    def integer(self, which: slice) -> np.ndarray:
        """The quantized network's output."""
        return engine.integer_layer(self.quantized, self.layer, self.integers.inputs(self.layer, which))

    def _in_blocks(self, function: Callable[[slice], Any]) -> list[Any]:
        network = self.quantized.network
        return blocks.in_blocks(function, self.floats.count, blocks.block_of(network, self.layer))

    def choose_weights(self) -> None:
        """Of non-overflow and the finer fix_points, the one whose real-valued output errs least."""
        candidate, layer = self.candidate, self.layer
        weights = parameter(layer.weights)
        base = non_overflow(weights.min(), weights.max())
        if base == ANY_FIX_POINT:
            return
        choices = []
        for fix_point in range(base, base + 3):
            candidate.set_weights(layer.name, fix_point)
            choices.append((self.quantized.weights[layer.name], self.quantized.biases.get(layer.name)))

        def errors(which: slice) -> list[float]:
            inputs, wanted = self.integers.inputs(layer, which), self.wanted(which)
            return [
                float(
                    np.square(real_output(layer, inputs, self.fixes, *choice) - wanted).sum(dtype=np.float64)
                )
                for choice in choices
            ]

        best = base + int(np.argmin(np.sum(self._in_blocks(errors), axis=0)))
        fix_in, fix_out = (self.quantized.fix_points[name] for name in (layer.inputs[0], layer.name))
        low, high = (limit + fix_out - fix_in for limit in SHIFT_CUT_RANGE)
        free = candidate.free_bias.get(layer.name, ANY_FIX_POINT)
        if free != ANY_FIX_POINT:
            high = min(high, free + SHIFT_BIAS_RANGE[1] - fix_in)
        candidate.set_weights(layer.name, min(max(best, low), high))

    def choose_output(self, members: Sequence[str]) -> None:
        """Position of a group from the output of its first layer, judged behind the group's pooling."""
        candidate, layer = self.candidate, self.layer
        pools = self._pools(members)

        def pooled(values: np.ndarray) -> np.ndarray:
            for pool in pools:
                values = pool.operator.real([values])
            return values

        def ends(which: slice) -> tuple[float, float]:
            wanted = pooled(self.wanted(which))
            return wanted.min(), wanted.max()

        ranges = self._in_blocks(ends)
        base = non_overflow(np.min(ranges, axis=0)[0], np.max(ranges, axis=0)[1])
        if base == ANY_FIX_POINT:
            return
        start, fitting = self.quantized.fix_points[layer.name], []
        for fix_point in range(base, base + CANDIDATES):
            candidate.set_group(members, fix_point)
            if candidate.fits(layer.name) and fix_point >= least_read(self.quantized.network, members):
                fitting.append(fix_point)
        candidate.set_group(members, start)
        parameters = self.quantized.weights.get(layer.name), self.quantized.biases.get(layer.name)

        def errors(which: slice) -> list[float]:
            wanted = pooled(self.wanted(which))
            inputs = self.integers.inputs(layer, which)
            real = pooled(real_output(layer, inputs, self.fixes, *parameters))
            return [
                float(np.square(to_grid(real, p) * np.float32(2.0**-p) - wanted).sum(dtype=np.float64))
                for p in fitting
            ]

        if fitting:
            totals = np.sum(self._in_blocks(errors), axis=0)
            candidate.set_group(members, fitting[int(np.argmin(totals))])

    def _pools(self, members: Sequence[str]) -> list[Layer]:
        """The pooling layers of the group that follow one another directly behind the layer."""
        network = self.quantized.network
        found: list[Layer] = []
        last = self.layer
        while True:
            readers = [reader for reader in network.consumers(last.name) if reader.name in members]
            if len(readers) != 1 or readers[0].op != "max_pool" or len(network.consumers(last.name)) != 1:
                return found
            last = readers[0]
            found.append(last)
