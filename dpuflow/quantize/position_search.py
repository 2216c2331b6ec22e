"""Position searches beyond the vendor's: by the error of each layer's output, or of the network's logits.

Tensors between which the DPU only moves or compares bytes (max pooling, concatenation,
flatten) form a group with one fix_point (`alignment.fix_point_groups`).
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX, quantize
from dpuflow.device.dpuczdx8g import RELU6_FIX_POINT, SHIFT_BIAS_RANGE, SHIFT_CUT_RANGE, is_exact_add
from dpuflow.network import WEIGHTED, Layer, Network, QuantizedNetwork
from dpuflow.ops.convolution import given as parameter
from dpuflow.ops.operator import NO_GRID
from dpuflow.quantize import engine
from dpuflow.quantize.alignment import fit_shifts, fix_point_groups
from dpuflow.quantize.calibration import grids, real_output, to_grid
from dpuflow.quantize.distance import EndsDistance
from dpuflow.quantize.fix_points import (
    ANY_FIX_POINT,
    CANDIDATES,
    Change,
    choose_weights,
    non_overflow,
    squared_error,
)

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
        if name not in quantized.weights:
            return True
        unit, free = self.unit(name), self.free_bias.get(name, ANY_FIX_POINT)
        if free != ANY_FIX_POINT and unit - free > SHIFT_BIAS_RANGE[1]:
            return False  # the bias would have to saturate
        return SHIFT_CUT_RANGE[0] <= quantized.shift_cut(name) <= SHIFT_CUT_RANGE[1]

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
    """

    def __init__(self, candidate: Candidate, images: engine.Batch, distance: EndsDistance) -> None:
        self.candidate = candidate
        self.network = candidate.quantized.network
        self.images = engine.by_input(self.network, images)
        self.distance = distance
        self.ends = [layer.name for layer in self.network.last_quantized]
        self.order = {layer.name: i for i, layer in enumerate(self.network.layers)}
        self.values: dict[str, np.ndarray] = {}
        # decided by the pixels alone: with few images the logits would trade its exactness for luck
        self.groups = [
            members
            for members in fix_point_groups(self.network)
            if not {*self.images, *self.ends} & set(members)
        ]
        for name, pixels in self.images.items():
            if [name] in fix_point_groups(self.network):
                candidate.set_group([name], best_input_fix_point(pixels))
        self.error = self._evaluate(0, keep=True)

    def _evaluate(self, start: int, keep: bool = False) -> float:
        """Divergence with layers from index `start` on computed anew; stores the values if `keep`."""
        quantized = self.candidate.quantized
        values = dict(self.values)
        for layer in self.network.layers[start:]:
            if layer.op == "input":
                values[layer.name] = to_grid(self.images[layer.name], quantized.fix_points[layer.name])
            else:
                values[layer.name] = engine.integer_layer(quantized, layer, [values[n] for n in layer.inputs])
        if keep:
            self.values = values
        return self.distance(real_ends(quantized, values))

    def run(self, sweeps: int) -> list[Change]:
        """Walk every group and every layer's weights up to `sweeps` times; returns the moves made."""
        moves: list[Change] = []
        for _ in range(sweeps):
            before = len(moves)
            for members in self.groups:
                moves += self._walk(members[0], self.order[members[0]], members)
            for name in self.candidate.quantized.weights:
                moves += self._walk(f"{name}/weights", self.order[name], name)
            if len(moves) == before:
                break
        return moves

    def _walk(self, label: str, start: int, target: str | list[str]) -> list[Change]:
        """Move one coordinate (a group's members or a layer's name) up or down while that helps."""
        quantized = self.candidate.quantized
        now = quantized.weights[target][1] if isinstance(target, str) else quantized.fix_points[target[0]]
        first = now
        for direction in (1, -1):
            while True:
                self._move(target, now + direction)
                error = self._evaluate(start) if self.candidate.allowed() else np.inf
                if error >= self.error:
                    self._move(target, now)
                    break
                self.error = error
                now += direction
            if now != first:
                break
        if now == first:
            return []
        self._evaluate(start, keep=True)
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


def place_logits(candidate: Candidate, images: engine.Batch) -> list[Change]:
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
    inputs = engine.run_integer(
        quantized, grids(quantized.fix_points, engine.by_input(network, images)), layer.inputs
    )
    real = _real(candidate, layer, [inputs[source] for source in layer.inputs])
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


def best_input_fix_point(x: np.ndarray) -> int:
    """Position of the network input with the least squared error (ties: the smaller)."""
    base = non_overflow(x.min(), x.max())
    return min(range(base, base + CANDIDATES), key=lambda p: squared_error(x, p))


def float_outputs(network: Network, images: engine.Batch) -> dict[str, np.ndarray]:
    """Outputs of all layers that have a grid, in float: layer name -> array (N, ...)."""
    return engine.run_float(
        network, images, [layer.name for layer in network.layers if layer.operator.quantized]
    )


def search_by_output_error(
    candidate: Candidate, images: engine.Batch, reference: Mapping[str, np.ndarray] | None = None
) -> list[Change]:
    """Choose each layer's weight and output fix_point by the error of its output, front to back.

    The error is taken against the float network, on the quantized network's own inputs,
    where the next layer reads it: behind pooling if pooling follows. Returns the moves made.
    reference : `float_outputs` of the network on these images, if they are known.
    """
    quantized, network = candidate.quantized, candidate.quantized.network
    groups = {name: members for members in fix_point_groups(network) for name in members}
    reference = reference or float_outputs(network, images)
    values: dict[str, np.ndarray] = {}
    moves: list[Change] = []
    before = dict(quantized.fix_points), {name: fix for name, (_, fix) in quantized.weights.items()}
    decided = set()
    given = engine.by_input(network, images)
    for layer in network.layers:
        if layer.op == "input":
            decided.add(id(groups[layer.name]))
            if len(groups[layer.name]) == 1:
                candidate.set_group([layer.name], best_input_fix_point(given[layer.name]))
            values[layer.name] = to_grid(given[layer.name], quantized.fix_points[layer.name])
            continue
        inputs = [values[name] for name in layer.inputs]
        if not layer.operator.quantized:
            values[layer.name] = engine.integer_layer(quantized, layer, inputs)
            continue
        if layer.op in WEIGHTED:
            _choose_weight_fix_point(candidate, layer, inputs, reference[layer.name])
        key = id(groups[layer.name])
        if key not in decided:
            decided.add(key)
            _choose_output_fix_point(candidate, layer, inputs, groups[layer.name], reference)
        values[layer.name] = engine.integer_layer(quantized, layer, inputs)
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


def _real(candidate: Candidate, layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
    quantized = candidate.quantized
    fixes = [quantized.fix_points.get(name, NO_GRID) for name in layer.inputs]
    return real_output(
        layer, inputs, fixes, quantized.weights.get(layer.name), quantized.biases.get(layer.name)
    )


def _choose_weight_fix_point(
    candidate: Candidate, layer: Layer, inputs: Sequence[np.ndarray], reference: np.ndarray
) -> None:
    """Of non-overflow and the finer fix_points, the one whose real-valued output errs least."""
    weights = parameter(layer.weights)
    base = non_overflow(weights.min(), weights.max())
    if base == ANY_FIX_POINT:
        return
    errors = {}
    for fix_point in range(base, base + 3):
        candidate.set_weights(layer.name, fix_point)
        errors[fix_point] = float(
            np.square(_real(candidate, layer, inputs) - reference).sum(dtype=np.float64)
        )
    best = min(errors, key=errors.__getitem__)
    fix_in, fix_out = (candidate.quantized.fix_points[name] for name in (layer.inputs[0], layer.name))
    low, high = (limit + fix_out - fix_in for limit in SHIFT_CUT_RANGE)
    free = candidate.free_bias.get(layer.name, ANY_FIX_POINT)
    if free != ANY_FIX_POINT:
        high = min(high, free + SHIFT_BIAS_RANGE[1] - fix_in)
    candidate.set_weights(layer.name, min(max(best, low), high))


def _choose_output_fix_point(
    candidate: Candidate,
    layer: Layer,
    inputs: Sequence[np.ndarray],
    members: Sequence[str],
    reference: Mapping[str, np.ndarray],
) -> None:
    """Position of a group from the output of its first layer, judged behind the group's pooling."""
    network = candidate.quantized.network
    real, last = _real(candidate, layer, inputs), layer
    while True:
        readers = [reader for reader in network.consumers(last.name) if reader.name in members]
        if len(readers) != 1 or readers[0].op != "max_pool" or len(network.consumers(last.name)) != 1:
            break
        last = readers[0]
        real = last.operator.real([real])
    wanted = reference[last.name]
    base = non_overflow(wanted.min(), wanted.max())
    if base == ANY_FIX_POINT:
        return
    start = candidate.quantized.fix_points[layer.name]
    errors = {}
    for fix_point in range(base, base + CANDIDATES):
        candidate.set_group(members, fix_point)
        if candidate.fits(layer.name):
            errors[fix_point] = float(
                np.square(to_grid(real, fix_point) * np.float32(2.0**-fix_point) - wanted).sum(
                    dtype=np.float64
                )
            )
    candidate.set_group(members, min(errors, key=errors.__getitem__) if errors else start)
