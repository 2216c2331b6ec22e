"""One network through all its stages: where each first leaves the tolerance, as the record deviation.json.

frozen float network -> folded -> quantized -> emulator (the xmodel file) -> machine code, and a board's dump.
Each stage is compared with the one before, a board with the emulator. Image by image: memory holds the maps
of one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import scale_pixels
from dpuflow.base.progress import counted
from dpuflow.board.dump import dumped_tensors
from dpuflow.deviation.difference import Difference
from dpuflow.deviation.floats import FOLDED_DB, FoldedStage, QuantizedStage
from dpuflow.deviation.machine_code import Code, changes, computed_maps, read_code
from dpuflow.dpuczdx8g.isa.left_in_memory import not_left_in_memory
from dpuflow.emulator import Emulator
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.xir import Graph
from dpuflow.xir.parameters import CONSTANT_TYPES

LEAST_DB = 10.0
"""SQNR that the quantized network keeps in every layer, unless the configuration says another."""
MOVES = ("upload", "download", "reshape-fix", *CONSTANT_TYPES)
"""Types of ops that compute nothing."""
NO_DUMP = "the board dumped no tensors: give its runner options: {dump: 0}, the number of a test image"

LABELS = {
    "frozen": "Frozen network",
    "folded": "Folded",
    "quantized": "Quantized network",
    "emulator": "Emulator",
    "machine_code": "Machine code",
    "board": "Board",
}
"""Stage -> its name, in the order of the chain."""
BEFORE = {
    "frozen": "frozen network",
    "folded": "folded float network",
    "quantized": "quantized network",
    "emulator": "emulator",
}
"""Stage that another is compared with -> its name in a sentence."""

Cells = dict[str, dict[str, Any]]
"""Layer -> what a stage's record says of it."""


@dataclass
class Sources:
    """What there is of a run; what is None is a stage that it does not have.

    Attributes
    ----------
    xmodel : path of the file. frozen : network.h5, with the scaling of its input.
    quantized : of the reference quantizer. dump : folder of a board's dump, of the image `dumped`.
    told : what a board's record says of its layers (`board.compare.first_different_layer`), where the dump
        itself is gone. board : whether there is a board at all.
    """

    xmodel: Path | str
    frozen: Network | None = None
    scaling: Mapping[str, Any] | None = None
    quantized: QuantizedNetwork | None = None
    dump: Path | None = None
    dumped: int | None = None
    told: Mapping[str, Any] | None = None
    board: bool = False


@dataclass
class _Stage:
    """A stage against the one before: its cells, and where it is no longer equal."""

    name: str
    against: str | None
    tolerance: str
    cells: Cells = field(default_factory=dict)
    stopped: str | None = None
    at: str | None = None
    notes: list[str] = field(default_factory=list)


def diagnose(
    sources: Sources, images: Sequence[tuple[int, np.ndarray]], least_db: float = LEAST_DB
) -> dict[str, Any]:
    """Compare all stages.

    Parameters
    ----------
    sources : the network in its stages. images : (number, uint8 (H, W, C)), the dumped one among them.
    least_db : SQNR that every layer of the quantized network is to keep against the float one.

    Returns
    -------
    The record deviation.json. UserError when a file is unreadable or has several inputs.
    """
    walk = _Walk(sources, least_db)
    for number, pixels in counted(list(images), "images", len(images)):
        walk.add(number, pixels[None])
    return walk.record([number for number, _ in images])


def verdict(record: Mapping[str, Any]) -> str:
    """A sentence on a whole record deviation.json."""
    if record["first"] is None:
        return "every stage keeps to its tolerance in every layer"
    stage, layer = record["first"]["stage"], record["first"]["layer"]
    return f"{LABELS[stage].lower()}: the first deviating layer is {layer}"


class _Walk:
    def __init__(self, sources: Sources, least_db: float) -> None:
        self.sources, self.least_db = sources, least_db
        graph = Graph.load(sources.xmodel)
        self.emulator = Emulator(graph)
        self.codes: list[Code] = read_code(graph, str(sources.xmodel))
        quantized = sources.quantized
        self.quantized = QuantizedStage(quantized, least_db) if quantized else None
        self.folded = None
        if quantized and sources.frozen:
            self.folded = FoldedStage(sources.frozen, quantized.network)
        self.ops = {op.name: op for op in graph.ops if op.type not in MOVES}
        self.layer_of = self._layers()
        self.differences: dict[str, dict[str, Difference]] = {
            stage: {} for stage in ("emulator", "machine_code", "board")
        }

    def _layers(self):
        """{op of the xmodel: layer of the quantized network}; other compilers write other names."""
        if self.quantized is None:
            return {}
        known = set(self.quantized.names)
        found = {}
        for name, op in self.ops.items():
            names = (name, op.tensor.name)
            fitting = [n for given in names for n in (given, given.removesuffix("_fix")) if n in known]
            if fitting and fitting[0] not in found.values():
                found[name] = fitting[0]
        return found

    def add(self, number: int, pixels: np.ndarray) -> None:
        if self.quantized is not None:
            scaling = self.quantized.quantized.input_scaling
            floats = self.quantized.add(number, scale_pixels(pixels, scaling))
            if self.folded is not None:
                self.folded.add(scale_pixels(pixels, self.sources.scaling or scaling), floats)
        given = self.emulator.quantize_input(pixels)
        tensors = self.emulator.run(given, dump=True)
        maps = {name: tensors[name] for name in self.ops if tensors[name].dtype == np.int8}
        if self.quantized is not None:
            for name, layer in self.layer_of.items():
                if name in maps:
                    self._compare("emulator", layer, number, self.quantized.integers[layer], maps[name])
        if self.codes:
            found = computed_maps(self.emulator, self.codes, {self.emulator.input.name: given})
            for name, array in found.items():
                if name in maps:
                    self._compare("machine_code", self._name(name), number, maps[name], array)
        if self.sources.dump and number == self.sources.dumped:
            gone = not_left_in_memory(self.emulator.graph)
            for op, there in dumped_tensors(self.sources.dump, self.emulator, gone):
                if there is not None and op.name in maps:
                    self._compare("board", self._name(op.name), number, maps[op.name], there[None])

    def _name(self, op):
        return self.layer_of.get(op, op)

    def _compare(self, stage, layer, number, expected, found):
        if expected.size != found.size:
            raise UserError(
                f"{self.sources.xmodel}: {layer!r} has {found.size} values in the stage {stage}, "
                f"{expected.size} before; the files are of different networks"
            )
        difference = self.differences[stage].setdefault(layer, Difference())
        difference.add(number, expected[0], found.reshape(expected.shape)[0])

    # -- the record --------------------------------------------------------------------------

    def record(self, images: Sequence[int]) -> dict[str, Any]:
        stages = self._stages()
        rows = self._rows(stages)
        order = [row["layer"] for row in rows]
        told = [_judged(stage, order) for stage in stages]
        wrong = [entry for entry in told if entry["first"] is not None]
        first = {"stage": wrong[0]["stage"], "layer": wrong[0]["first"]} if wrong else None
        return {"images": list(images), "first": first, "stages": told, "layers": rows}

    def _stages(self):
        stages = []
        if self.folded is not None:
            stages.append(_Stage("frozen", None, ""))
            tolerance = f"equal to {FOLDED_DB:g} dB, up to a factor per channel"
            stages.append(_Stage("folded", "frozen", tolerance, self.folded.cells()))
        if self.quantized is not None:
            tolerance = f"SQNR of {self.least_db:g} dB, weights that are rounded float weights"
            before = "folded" if self.folded is not None else None
            stages.append(_Stage("quantized", before, tolerance, self.quantized.cells()))
        emulator = _Stage("emulator", "quantized" if self.quantized else None, "0 LSB")
        emulator.cells = self._exact("emulator")
        stages.append(emulator)
        if self.codes:
            stages.append(self._machine_code())
        if self.sources.dump is not None:
            stages.append(_Stage("board", "emulator", "0 LSB", self._exact("board")))
        elif self.sources.told is not None:
            stages.append(self._told(self.sources.told))
        elif self.sources.board:
            stages.append(_Stage("board", "emulator", "0 LSB", notes=[NO_DUMP]))
        return stages

    def _exact(self, stage):
        return {name: d.cell(d.different == 0) for name, d in self.differences[stage].items()}

    def _machine_code(self):
        stage = _Stage("machine_code", "emulator", "0 LSB", self._exact("machine_code"))
        for code in self.codes:
            if code.stopped and stage.stopped is None:
                stage.stopped = code.stopped
                number = re.search(r"instruction (\d+)", code.stopped)
                stage.at = number and code.layer_of(int(number[1]))
                stage.at = self._name(stage.at) if stage.at else code.program.name
        found = changes(self.codes)
        if found:
            words = ", ".join(f"{c['instruction']} ({c['name']}, of {c['layer']})" for c in found)
            stage.notes.append(f"instructions that the native compiler writes otherwise: {words}")
        if any(code.lowered is None for code in self.codes):
            stage.notes.append(
                "not the code that the native compiler writes today: only the maps that are in memory when "
                "it ends are seen"
            )
        return stage

    def _told(self, told):
        stage = _Stage("board", "emulator", "0 LSB")
        different = told["first_different"]
        for name in told["compared"]:
            wrong = different is not None and different["op"] == name
            cell: dict[str, Any] = {"within": not wrong}
            if wrong:
                cell |= {"different": different["different"], "elements": different["elements"]}
                cell["first"] = {
                    "image": told["image"],
                    "position": different["position"],
                    "expected": different["emulator"],
                    "found": different["board"],
                }
            stage.cells[self._name(name)] = cell
        stage.notes.append(f"of image {told['image']}, as the run recorded it; what follows was not compared")
        return stage

    def _rows(self, stages):
        """A row per layer in order of execution."""
        rows = []
        ops = {layer: self.ops[name] for name, layer in self.layer_of.items()}
        if self.quantized is not None:
            network = self.quantized.quantized.network
            for name in self.quantized.names:
                op = ops.get(name)
                row = {"layer": name, "op": network[name].op}
                rows.append(row | self._grid(op, self.quantized.quantized.fix_points[name]))
        known, at = {row["layer"] for row in rows}, 0
        for name, op in self.ops.items():
            layer = self._name(name)
            if layer in known:
                at = next(i for i, row in enumerate(rows) if row["layer"] == layer) + 1
            elif op.tensor.fix_point is not None and (
                self.quantized is None or any(layer in stage.cells for stage in stages)
            ):
                rows.insert(at, {"layer": layer, "op": op.type, **self._grid(op, op.tensor.fix_point)})
                at += 1
        for row in rows:
            row["cells"] = {s.name: s.cells[row["layer"]] for s in stages if row["layer"] in s.cells}
        return rows

    def _grid(self, op, fix_point):
        return {"fix_point": int(fix_point), "device": op.device if op is not None else None}


def _judged(stage, order):
    """What the record says of a stage as a whole."""
    wrong = [name for name in order if name in stage.cells and not stage.cells[name]["within"]]
    first = wrong[0] if wrong else None
    if first is None and stage.stopped:
        first = stage.at
    entry = {
        "stage": stage.name,
        "label": LABELS[stage.name],
        "against": stage.against,
        "tolerance": stage.tolerance,
        "compared": len(stage.cells),
        "deviating": len(wrong),
        "first": first,
        "notes": stage.notes,
        "stopped": stage.stopped,
    }
    return entry | {"words": _words(stage, entry)}


def _words(stage, entry):
    """A sentence on a stage."""
    if stage.against is None:
        return "what the others are compared with"
    before = BEFORE[stage.against]
    if not stage.cells and not stage.stopped:
        return "no layer could be compared"
    if entry["first"] is None:
        return f"against the {before}, in all {entry['compared']} layers"
    if entry["deviating"] == 0:
        return f"cannot run: {stage.stopped} (it belongs to {entry['first']})"

    cell, words = stage.cells[entry["first"]], f"leaves the tolerance first at {entry['first']}: "
    if "weights" in cell:
        return words + cell["weights"]
    if stage.name == "folded":
        return words + f"{cell['sqnr_db']} dB against the {before}"
    if stage.name == "quantized":
        own = cell["alone_db"]
        return words + f"SQNR {cell['sqnr_db']:.1f} dB" + ("" if own is None else f", {own:.1f} dB by itself")
    words += f"{cell['different']} of {cell['elements']} values differ from the {before}"
    first = cell["first"]
    return words + (
        f", the first at {first['position']} of image {first['image']}: {first['found']:g} instead of "
        f"{first['expected']:g}"
    )
