"""A network whose fix_points are moved; the search by the divergence of its ends; the logits' place.

Tensors between which the DPU only moves or compares bytes (max pooling, concatenation,
flatten) form a group with one fix_point (`alignment.fix_point_groups`).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX, quantize
from dpuflow.device.dpuczdx8g import RELU6_FIX_POINT, SHIFT_BIAS_RANGE, SHIFT_CUT_RANGE, is_exact_add
from dpuflow.network import WEIGHTED, Layer, Network, QuantizedNetwork
from dpuflow.ops.convolution import given as parameter
from dpuflow.ops.operator import NO_GRID
from dpuflow.quantize import blocks, engine
from dpuflow.quantize.alignment import fit_shifts, fix_point_groups
from dpuflow.quantize.answers import integer_values
from dpuflow.quantize.calibration import gridded_input, real_output
from dpuflow.quantize.distance import EndsDistance
from dpuflow.quantize.fix_points import (
    ANY_FIX_POINT,
    CANDIDATES,
    Change,
    choose_weights,
    non_overflow,
    squared_error,
)
from dpuflow.quantize.gate_positions import least_read

RESERVE = 1.15
"""How much larger than on the calibration images a runner-up may be and still fit."""


class Candidate:
    """A QuantizedNetwork in the making: fix_points are free, parameters follow.

    Biases take the fix_point that the method chooses, lowered where shift_bias would leave
    its range; weights and outputs are kept inside shift_cut's range by `allowed`.
    """

    def __init__(self, quantized: QuantizedNetwork, method: str) -> None:
        network = quantized.network
        self.quantized = QuantizedNetwork(
            network,
            dict(quantized.fix_points),
            dict(quantized.weights),
            dict(quantized.biases),
            quantized.input_scaling,
        )
        self.free_bias = {
            layer.name: choose_weights(layer.bias, method)
            for layer in network.layers
            if layer.op in WEIGHTED and layer.bias is not None
        }
        self.refresh()

    def refresh(self, names: Collection[str] | None = None) -> None:
        """Requantize the biases of layers whose unit (fix_in + fix_w) may have changed."""
        quantized = self.quantized
        for name, free in self.free_bias.items():
            if names is not None and name not in names:
                continue
            layer, unit = quantized.network[name], self.unit(name)
            low, high = unit - SHIFT_BIAS_RANGE[1], unit - SHIFT_BIAS_RANGE[0]
            fix_point = high if free == ANY_FIX_POINT else min(max(free, low), high)
            if name not in quantized.biases or quantized.biases[name][1] != fix_point:
                quantized.biases[name] = (quantize(parameter(layer.bias), fix_point, "STD_ROUND"), fix_point)

    def set_group(self, members: Sequence[str], fix_point: int) -> None:
        """Move a group of activations to `fix_point`."""
        for name in members:
            self.quantized.fix_points[name] = fix_point
        network = self.quantized.network
        self.refresh({layer.name for name in members for layer in network.consumers(name)})

    def set_weights(self, name: str, fix_point: int) -> None:
        """Requantize one layer's weights at `fix_point`."""
        layer = self.quantized.network[name]
        self.quantized.weights[name] = (quantize(parameter(layer.weights), fix_point, "STD_ROUND"), fix_point)
        self.refresh({name})

    def fits(self, name: str) -> bool:
        """Whether a layer's shift_cut is in range, its ReLU6 keeps its meaning and its addition is exact."""
        quantized, layer = self.quantized, self.quantized.network[name]
        if layer.op == "add":
            fixes = [quantized.fix_points[source] for source in layer.inputs]
            if not is_exact_add(fixes, quantized.fix_points[name]):
                return False
        relu6 = layer.attrs.get("activation") == "RELU6"
        if relu6 and quantized.fix_points[name] < RELU6_FIX_POINT:
            return False
        if not self._shifts_fit(layer):
            return False
        if name not in quantized.weights:
            return True
        unit, free = self.unit(name), self.free_bias.get(name, ANY_FIX_POINT)
        if free != ANY_FIX_POINT and unit - free > SHIFT_BIAS_RANGE[1]:
            return False  # the bias would have to saturate
        return SHIFT_CUT_RANGE[0] <= quantized.shift_cut(name) <= SHIFT_CUT_RANGE[1]

    def _shifts_fit(self, layer: Layer) -> bool:
        """Whether the shifts that the operator itself has are in their ranges."""
        if not layer.operator.quantized or not layer.inputs:
            return True
        fixes = [self.quantized.fix_points.get(source, NO_GRID) for source in layer.inputs]
        found = layer.operator.shifts(fixes, self.quantized.fix_points[layer.name])
        return all(least <= value <= greatest for value, (least, greatest) in found.values())

    def unit(self, name: str) -> int:
        """Position of a weighted layer's accumulator, fix_in + fix_w."""
        quantized = self.quantized
        return quantized.fix_points[quantized.network[name].inputs[0]] + quantized.weights[name][1]

    def adjust(self) -> list[Change]:
        """Bring what the moves left out of range into it (`alignment.fit_shifts`); returns the changes.

        Biases start from the fix_points that they would choose, and none of their moves is told.
        """
        quantized = self.quantized
        biases = {
            name: (quantize(parameter(quantized.network[name].bias), fix_point, "STD_ROUND"), fix_point)
            for name, fix_point in self.free_bias.items()
        }
        changes = fit_shifts(quantized.network, quantized.fix_points, quantized.weights, biases)
        self.refresh()
        return [change for change in changes if not change["tensor"].endswith("/bias")]

    def allowed(self) -> bool:
        """Whether every layer fits."""
        return all(self.fits(layer.name) for layer in self.quantized.network.layers)


class LogitSearch:
    """Coordinate descent over all fix_points on the divergence of the logits.

    images : float32 network input; distance : `distance.EndsDistance` of the float network's ends.
    Every layer's integers are kept (as int8), so that a move computes only what it changes.
    """

    def __init__(self, candidate: Candidate, images: blocks.Batch, distance: EndsDistance) -> None:
        self.candidate = candidate
        self.network = candidate.quantized.network
        self.images = blocks.batch(images)
        self.distance = distance
        self.ends = [layer.name for layer in self.network.last_quantized]
        self.values: dict[str, np.ndarray] = {}
        inputs = [layer.name for layer in self.network.inputs]
        # decided by the pixels alone: with few images the logits would trade its exactness for luck
        self.groups = [
            members for members in fix_point_groups(self.network) if not {*inputs, *self.ends} & set(members)
        ]
        for name in inputs:
            if [name] in fix_point_groups(self.network):
                candidate.set_group([name], best_input_fix_point(self.network, self.images, name))
        self.block = blocks.block_of_all(self.network)
        self.error = self._evaluate([layer.name for layer in self.network.layers], keep=True)

    def _evaluate(self, moved: Collection[str], keep: bool = False) -> float:
        """Divergence with what depends on the moved layers computed anew; stores the values if `keep`."""
        dirty: list[Layer] = []
        names: set[str] = set()
        for layer in blocks.needed(self.network):
            if layer.name in moved or names.intersection(layer.inputs):
                dirty.append(layer)
                names.add(layer.name)
        if keep:
            for layer in dirty:
                dtype = np.int8 if layer.operator.quantized else np.float32
                self.values[layer.name] = np.empty((len(self.images), *layer.shape), dtype)

        def one(which: slice) -> dict[str, np.ndarray]:
            return self._block(which, dirty, keep)

        parts = blocks.in_blocks(one, len(self.images), self.block)
        values = {name: np.concatenate([part[name] for part in parts]) for name in self.ends}
        return self.distance(real_ends(self.candidate.quantized, values))

    def _block(self, which: slice, dirty: Sequence[Layer], keep: bool) -> dict[str, np.ndarray]:
        """Some pictures' ends, with the dirty layers computed anew."""
        quantized = self.candidate.quantized
        values: dict[str, np.ndarray] = {}

        def value(name: str) -> np.ndarray:
            return values[name] if name in values else self.values[name][which].astype(np.float32)

        for layer in dirty:
            if layer.op == "input":
                fix_point = quantized.fix_points[layer.name]
                made = gridded_input(self.network, self.images, layer.name, fix_point, which)
            else:
                made = engine.integer_layer(quantized, layer, [value(name) for name in layer.inputs])
            values[layer.name] = made
            if keep:
                self.values[layer.name][which] = made
        return {name: value(name) for name in self.ends}

    def run(self, sweeps: int) -> list[Change]:
        """Walk every group and every layer's weights up to `sweeps` times; returns the moves made."""
        moves: list[Change] = []
        for _ in range(sweeps):
            before = len(moves)
            for members in self.groups:
                moves += self._walk(members[0], members)
            for name in self.candidate.quantized.weights:
                moves += self._walk(f"{name}/weights", name)
            if len(moves) == before:
                break
        return moves

    def _walk(self, label: str, target: str | list[str]) -> list[Change]:
        """Move one coordinate (a group's members or a layer's name) up or down while that helps."""
        quantized = self.candidate.quantized
        now = quantized.weights[target][1] if isinstance(target, str) else quantized.fix_points[target[0]]
        first, moved = now, [target] if isinstance(target, str) else target
        for direction in (1, -1):
            while True:
                self._move(target, now + direction)
                error = self._evaluate(moved) if self.candidate.allowed() else np.inf
                if error >= self.error:
                    self._move(target, now)
                    break
                self.error = error
                now += direction
            if now != first:
                break
        if now == first:
            return []
        self._evaluate(moved, keep=True)
        return [{"tensor": label, "from": first, "to": now, "why": "less divergence of the logits"}]

    def _move(self, target: str | list[str], fix_point: int) -> None:
        """Give a group's members, or a layer's weights, a fix_point."""
        if isinstance(target, str):
            self.candidate.set_weights(target, fix_point)
        else:
            self.candidate.set_group(target, fix_point)


def real_ends(quantized: QuantizedNetwork, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values of `Network.last_quantized` in real units: {layer's name: float32}."""
    return {
        layer.name: values[layer.name] * np.float32(2.0 ** -quantized.fix_points[layer.name])
        for layer in quantized.network.last_quantized
    }


def logits_name(network: Network) -> str:
    """Name of the only layer of `Network.last_quantized`: what the softmax reads, or the output.

    UserError when the outputs are made of several.
    """
    last = network.last_quantized
    if len(last) != 1:
        names = ", ".join(layer.name for layer in last)
        raise UserError(f"network {network.name!r}: one output is needed here, it has {len(last)}: {names}")
    return last[0].name


def place_logits(candidate: Candidate, images: blocks.Batch) -> list[Change]:
    """Give the logits the finest fix_point at which only first places saturate; returns the move made.

    The class is decided among the first two, and a saturated first stays first: so the runner-up's
    largest value over `images` must fit, with some reserve (nor may a first fall below the range),
    and the steps in between, where ties arise, are as small as they can be. Only for networks that
    end in softmax.
    """
    quantized, network = candidate.quantized, candidate.quantized.network
    outputs, last = list(network.outputs.values()), network.last_quantized
    if (
        len(outputs) != 1
        or outputs[0].op != "softmax"
        or len(last) != 1
        or outputs[0].inputs != [last[0].name]
    ):
        return []
    name = last[0].name
    if network.readers(name) != 1 or len(network[name].shape) != 1 or network[name].shape[0] < 2:
        return []
    layer = network[name]
    inputs = integer_values(quantized, images, layer.inputs)
    fixes = [quantized.fix_points.get(source, NO_GRID) for source in layer.inputs]
    parameters = quantized.weights.get(name), quantized.biases.get(name)
    real = real_output(layer, [inputs[source] for source in layer.inputs], fixes, *parameters)
    first_two = np.partition(real, -2, axis=1)[:, -2:]  # second, first
    needed = RESERVE * float(max(first_two[:, 0].max(), -first_two[:, 1].min()))
    if needed <= 0:
        return []
    before = quantized.fix_points[name]
    groups = next(members for members in fix_point_groups(network) if name in members)
    for fix_point in range(math.floor(math.log2(INT8_MAX / needed)), before - 1, -1):
        candidate.set_group(groups, fix_point)
        if candidate.fits(name):
            break
    else:
        candidate.set_group(groups, before)
    after = quantized.fix_points[name]
    why = "finest position that holds every runner-up"
    return [] if after == before else [{"tensor": name, "from": before, "to": after, "why": why}]


def input_values(network: Network, images: blocks.Batch, name: str, which: slice) -> np.ndarray:
    """One input of some pictures."""
    return engine.by_input(network, images[which])[name]


def best_input_fix_point(network: Network, images: blocks.Batch, name: str) -> int:
    """Position of a network input with the least squared error (ties: the smaller) that its readers read."""
    pixels = partial(input_values, network, images, name)
    parts = [slice(i, i + 1) for i in range(len(images))]
    ends = [(x.min(), x.max()) for x in map(pixels, parts)]
    base = non_overflow(np.min(ends, axis=0)[0], np.max(ends, axis=0)[1])
    base = max(base, least_read(network, [name]))
    candidates = range(base, base + CANDIDATES)

    def errors(which: slice) -> list[float]:
        return [squared_error(pixels(which), p) for p in candidates]

    return candidates[int(np.argmin(np.sum(blocks.in_turns(errors, parts), axis=0)))]
