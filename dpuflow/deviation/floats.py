"""The float network before and behind folding, and the quantized one against it, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.deviation.difference import Difference, Likeness
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.quantize import engine
from dpuflow.quantize.calibration import grids

FOLDED_DB = 40.0
"""A folded layer computes what the layers computed that it was made of: rounding in float32 leaves 100 dB
and more; an equalization that a ReLU6 cuts here and there is below that."""

ROUNDING = 6.0
"""Steps between a float weight and its integer: rounding by reconstruction goes beyond the neighbours
(`fast_finetune.reach`), but no further than this."""


def compared_layers(network: Network) -> list[Layer]:
    """The layers of a folded network that compute something on the grid of integers."""
    return [layer for layer in network.layers if layer.operator.quantized and not layer.operator.renames]


def counterparts(frozen: Network, folded: Network) -> dict[str, list[str]]:
    """{layer of the folded network: layers of the frozen one whose values it may have, the likeliest last}.

    Folding keeps the name of the layer that the others were folded into. These are the only readers of each
    other; whether the last of them was folded in or moved elsewhere is seen from the values.
    """
    names = {layer.name for layer in folded.layers}
    readers: dict[str, list[str]] = {layer.name: [] for layer in frozen.layers}
    for layer in frozen.layers:
        for name in layer.inputs:
            readers[name].append(layer.name)
    found = {}
    for layer in compared_layers(folded):
        chain = [layer.name] if layer.name in readers else []
        while chain and len(readers[chain[-1]]) == 1 and readers[chain[-1]][0] not in names:
            chain += readers[chain[-1]]
        shapes = {name: frozen[name].shape for name in chain}
        fitting = [
            n for n in chain if shapes[n][:-1] == layer.shape[:-1] and shapes[n][-1] <= layer.shape[-1]
        ]
        if fitting:
            found[layer.name] = fitting
    return found


class FoldedStage:
    """The folded float network against the frozen one."""

    def __init__(self, frozen: Network, folded: Network) -> None:
        self.network, self.folded = frozen, folded
        self.pairs = counterparts(frozen, folded)
        self.likeness = {(a, b): Likeness() for a, names in self.pairs.items() for b in names}

    def add(self, x: np.ndarray, floats: Mapping[str, np.ndarray]) -> None:
        """One image. x : (1, H, W, C) as the frozen network takes it; floats : of the folded layers."""
        wanted = {name for names in self.pairs.values() for name in names}
        values = engine.run_float(self.network, x, wanted)
        for (folded, frozen), likeness in self.likeness.items():
            if folded in floats:
                likeness.add(values[frozen], floats[folded])

    def cells(self) -> dict[str, dict[str, Any]]:
        """{layer: its cell}.

        A layer that is like none of its counterparts is within the tolerance all the same when a layer that
        depends on it is like one again: then only a border was moved.
        """
        best: dict[str, float] = {}
        for (folded, _), likeness in self.likeness.items():
            decibels = likeness.sqnr_db
            best[folded] = max(best.get(folded, -np.inf), np.inf if decibels is None else decibels)
        alike = {name for name, decibels in best.items() if decibels >= FOLDED_DB}
        leading = set(alike)
        for layer in reversed(self.folded.layers):
            if layer.name in leading:
                leading.update(layer.inputs)
        return {
            name: {"within": name in leading, "sqnr_db": None if np.isinf(decibels) else round(decibels, 2)}
            for name, decibels in best.items()
        }


class QuantizedStage:
    """The quantized network's integers against the folded network's floats.

    Attributes
    ----------
    integers : layer -> int8 (1, ...) of the image that was added last.
    """

    def __init__(self, quantized: QuantizedNetwork, least_db: float) -> None:
        self.quantized, self.least_db = quantized, least_db
        self.names = [layer.name for layer in compared_layers(quantized.network)]
        steps = {name: 2.0 ** -quantized.fix_points[name] for name in self.names}
        self.whole = {name: Difference(step) for name, step in steps.items()}
        self.alone = {name: Difference(step) for name, step in steps.items()}
        self.integers: dict[str, np.ndarray] = {}

    def add(self, image: int, x: np.ndarray) -> dict[str, np.ndarray]:
        """One image, x : (1, H, W, C) as the folded network takes it. Returns the folded layers' floats."""
        network, fixes = self.quantized.network, self.quantized.fix_points
        given = engine.by_input(network, x)
        floats = engine.run_float(network, given, self.names)
        self.integers = {}

        def compute(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
            grid = engine.integer_layer(self.quantized, layer, inputs)
            if layer.name in self.whole:
                real = grid * np.float32(2.0 ** -fixes[layer.name])
                self.whole[layer.name].add(image, floats[layer.name][0], real[0])
                reals = [
                    array * np.float32(2.0 ** -fixes[name]) if name in fixes else array
                    for name, array in zip(layer.inputs, inputs, strict=True)
                ]
                self.alone[layer.name].add(image, engine.float_layer(layer, reals)[0], real[0])
                self.integers[layer.name] = grid.astype(np.int8)
            return grid

        wanted = {*network.output_layers, *self.names}
        begin = grids(fixes, given)
        for layer in network.inputs:
            grid = begin[layer.name]
            self.integers[layer.name] = np.asarray(grid, np.int8)
            real = grid * np.float32(2.0 ** -fixes[layer.name])
            for difference in (self.whole[layer.name], self.alone[layer.name]):
                difference.add(image, floats[layer.name][0], real[0])
        engine.run_layers(network, begin, wanted, compute)
        return floats

    def cells(self) -> dict[str, dict[str, Any]]:
        """{layer: its cell}; `alone_db` is the SQNR of what the layer adds, from the integers it is given."""
        found = {}
        for name in self.names:
            decibels = self.whole[name].sqnr_db
            wrong = self._not_rounded(name)
            within = (decibels is None or decibels >= self.least_db) and not wrong
            cell = self.whole[name].cell(within) | {"alone_db": self.alone[name].sqnr_db}
            del cell["first"]
            if wrong:
                cell["weights"] = wrong
            found[name] = cell
        return found

    def _not_rounded(self, name):
        """How many int8 weights are no rounding of the layer's float weights, as words; None: none."""
        layer = self.quantized.network[name]
        if name not in self.quantized.weights or layer.weights is None:
            return None
        values, fix_point = self.quantized.weights[name]
        exact = np.clip(np.asarray(layer.weights, np.float64) * 2.0**fix_point, -128, 127)
        wrong = np.argwhere(np.abs(exact - values) > ROUNDING)
        if not len(wrong):
            return None
        place = tuple(int(n) for n in wrong[0])
        return (
            f"{len(wrong)} of {values.size} int8 weights are no rounding of the float weight; the first, "
            f"{list(place)}, is {int(values[place])}, the float weight {exact[place]:.4g} steps"
        )
