"""Where the time of a program goes: each cycle of its schedule belongs to one layer and one reason.

While the array or the ALU computes, the time is the layer's whose computation began first; while both stand
still, it is the layer's that goes on next, and the reason is the engine it waits for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dpuflow.compiler.workload import ALU, CONVOLUTION
from dpuflow.dpuczdx8g.bounds import COMPUTE, INSTRUCTIONS, MEMORY, limit
from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.cycles import COMPUTING, Schedule, transfer_bytes
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.timing import TIMING, Timing

LOAD, SAVE, CONV, MISC = range(len(ENGINES))


@dataclass
class LayerTime:
    """What one layer takes; all in cycles but `bytes` and `transfers`.

    Attributes
    ----------
    start, end : from its first instruction to its last.
    busy : of each engine.
    computing, waiting : the time that is its own: computing, and standing still for LOAD or SAVE.
    bytes, transfers : moved from and to DDR, and by how many instructions.
    issued : instructions that compute.
    """

    name: str
    start: float = float("inf")
    end: float = 0.0
    busy: list[float] = field(default_factory=lambda: [0.0] * len(ENGINES))
    computing: float = 0.0
    waiting: dict[int, float] = field(default_factory=lambda: {LOAD: 0.0, SAVE: 0.0})
    bytes: int = 0
    transfers: int = 0
    issued: int = 0

    @property
    def time(self) -> float:
        """Its share of the program's time; those of all layers add up to it."""
        return self.computing + sum(self.waiting.values())

    @property
    def engine(self) -> str:
        """The engine that computes it: the one that works longer."""
        return CONVOLUTION if self.busy[CONV] >= self.busy[MISC] else ALU

    def bound(self, timing: Timing = TIMING) -> str:
        """What limits it: COMPUTE, MEMORY or INSTRUCTIONS."""
        if self.computing >= sum(self.waiting.values()):
            working = self.busy[CONV] + self.busy[MISC]
            return INSTRUCTIONS if self.issued * timing.issue_cycles > working / 2 else COMPUTE
        moving = self.busy[LOAD] + self.busy[SAVE]
        return INSTRUCTIONS if self.transfers * timing.transfer_cycles > moving / 2 else MEMORY

    @property
    def limit(self) -> str:
        """The same in words, one of `bounds.LIMITS`."""
        return limit(self.bound(), self.engine)

    def summary(self) -> dict[str, Any]:
        """As a dict for reports; cycles are whole."""
        return {
            "name": self.name,
            "engine": self.engine,
            "cycles": round(self.time),
            "computing": round(self.computing),
            "ddr_bytes": self.bytes,
            "transfers": self.transfers,
            "bound": self.bound(),
        }


def breakdown(
    instructions: Sequence[Instruction], made: Schedule, names: Sequence[str], layers: Sequence[int]
) -> list[LayerTime]:
    """Times of the layers in their order; a last one named "" for what no layer was found for, if any.

    names, layers : as `attribution.layers_of` gives them.
    """
    times = [LayerTime(name) for name in (*names, "")]
    for number, (op, layer) in enumerate(zip(instructions, layers, strict=True)):
        row, start, end = times[layer], made.start[number], made.end[number]
        if end > start:
            row.start, row.end = min(row.start, start), max(row.end, end)
        row.busy[made.engine[number]] += end - start
        if op.name in ("LOAD", "SAVE"):
            row.transfers += 1
            if not (op.name == "LOAD" and op["broadcast"]):
                row.bytes += transfer_bytes(op, 1)
        row.issued += op.name in COMPUTING
    computing = [i for i, op in enumerate(instructions) if op.name in COMPUTING]
    now, last = 0.0, -1
    for number in sorted(computing, key=lambda i: made.start[i]):
        row, last = times[layers[number]], layers[number]
        if made.start[number] > now:
            row.waiting[SAVE if made.waits_for[number] == SAVE else LOAD] += made.start[number] - now
        row.computing += max(0.0, made.end[number] - max(now, made.start[number]))
        now = max(now, made.end[number])
    times[last].waiting[SAVE] += made.cycles - now
    return [row for row in times if row.name or row.end > 0]


def engines_at_work(made: Schedule, layers: Sequence[int], bins: int) -> list[list[dict[int, float]]]:
    """How much of each of `bins` equal stretches of time each engine works, by layer: [engine][bin]."""
    width = made.cycles / bins if made.cycles else 1.0
    parts: list[list[dict[int, float]]] = [[{} for _ in range(bins)] for _ in ENGINES]
    for engine, layer, start, end in zip(made.engine, layers, made.start, made.end, strict=True):
        for number in range(int(start / width), min(bins, int(end / width) + 1)):
            inside = min(end, (number + 1) * width) - max(start, number * width)
            if inside > 0:
                stretch = parts[engine][number]
                stretch[layer] = stretch.get(layer, 0.0) + inside / width
    return parts
