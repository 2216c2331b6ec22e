"""Estimate of how many cycles a program takes. Nothing here is measured.

Each instruction takes as long as `durations` says by the numbers of `dpuczdx8g.timing`; the four engines run
in parallel as far as the dependency masks let them. A program need not be checked for this, or even complete.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpuflow.base.totality import Total
from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.formats import ENGINES, FORMATS
from dpuflow.dpuczdx8g.timing import TIMING, Timing

COMPUTING = ("CONV", "ALU", "ELEW")
"""Instructions that compute."""
NOTHING = -1
"""`Schedule.waits_for` of an instruction that did not wait for another engine."""


def transfer_bytes(instruction: Instruction, burst: int) -> int:
    """Bytes that a LOAD or SAVE moves from or to DDR, in whole bursts of `burst` bytes at their addresses.

    Pixels that touch or overlap are one run of bytes; others are a run each.
    """
    fields = instruction.fields
    jump = fields["jump_read" if instruction.name == "LOAD" else "jump_write"]
    length, channel, address = fields["length"], fields["channel"], fields["ddr_addr"]
    if length == 1 or jump <= channel:
        last = address + (length - 1) * jump + channel - 1
        return (last // burst - address // burst + 1) * burst
    starts = address + jump * np.arange(length)
    return int(((starts + channel - 1) // burst - starts // burst + 1).sum()) * burst


def _transfer(op, init, timing):
    return timing.transfer_cycles + transfer_bytes(op, timing.burst_bytes) / timing.bytes_per_cycle


def _load(op, init, timing):
    if op["broadcast"]:
        return timing.transfer_cycles + op["length"]
    return _transfer(op, init, timing)


def _convolution(op, init, timing):
    return timing.issue_cycles + op["length"] * init["kernel_h"] * init["kernel_w"] * op["channel_group"]


def _alu(op, init, timing):
    steps = init["length"] * init["kernel_h"] * init["kernel_w"] * init["channel_group"]
    return timing.issue_cycles + steps * timing.alu_cycles


def _elementwise(op, init, timing):
    return timing.issue_cycles + op["length"] * op["channel_group"] * op["num"]


def _nothing(op, init, timing):
    return 0


_DURATIONS = Total(
    "dpuczdx8g.isa.cycles: duration of an instruction",
    tuple(FORMATS),
    {
        **dict.fromkeys(FORMATS, _nothing),
        **{"LOAD": _load, "SAVE": _transfer, "CONV": _convolution, "ALU": _alu, "ELEW": _elementwise},
    },
)
_INITS = {"CONV": "CONVINIT", "ALU": "ALUINIT"}


def durations(instructions: Iterable[Instruction], timing: Timing = TIMING) -> list[float]:
    """Estimated cycles of every instruction of a program, in order."""
    inits: dict[str, Instruction] = {}
    cycles = []
    for op in instructions:
        if op.name in ("CONVINIT", "ALUINIT"):
            inits[op.name] = op
        cycles.append(_DURATIONS[op.name](op, inits.get(_INITS.get(op.name, "")), timing))
    return cycles


@dataclass(frozen=True)
class Schedule:
    """When each instruction runs, in cycles from the start of the program; one entry per instruction.

    Attributes
    ----------
    start, end : of each.
    ready : when its engine had finished what came before it; it stood still from then to `start`.
    waits_for : index in ENGINES of the engine whose token came last in that time; NOTHING for none.
    """

    engine: list[int]
    start: list[float]
    end: list[float]
    ready: list[float]
    waits_for: list[int]

    @property
    def cycles(self) -> float:
        """From the program's start to the end of its last instruction."""
        return max(self.end, default=0.0)

    def busy(self) -> list[float]:
        """Cycles that each engine works."""
        total = [0.0] * len(ENGINES)
        for engine, start, end in zip(self.engine, self.start, self.end, strict=True):
            total[engine] += end - start
        return total


def schedule(
    instructions: Sequence[Instruction], timing: Timing = TIMING, cores: int = 1, cycles: Sequence[float] = ()
) -> Schedule:
    """Run the four queues against the clock.

    Parameters
    ----------
    instructions : of one program, with their dependency masks.
    cores : how many cores of the board are at work, sharing its DDR.
    cycles : the instructions' durations where they are known already (`durations`).

    A token that nobody gives holds nothing up: that is the checker's business (`ordering`).
    """
    count = len(ENGINES)
    tokens = [[deque([0.0] if p == c else []) for c in range(count)] for p in range(count)]
    free = [0.0] * count
    made = Schedule([], [], [], [], [])
    stretch = timing.stretch(cores)
    for op, taken in zip(instructions, cycles or durations(instructions, timing), strict=True):
        engine, name = op.engine, op.name
        ready = free[engine]
        start = ready if not op.dpdon >> engine & 1 else 0.0
        waits_for = NOTHING
        for producer in range(count):
            if op.dpdon >> producer & 1 and tokens[producer][engine]:
                given = tokens[producer][engine].popleft()
                if given > start:
                    start = given
                    waits_for = producer if producer != engine and given > ready else NOTHING
        end = start + (taken * stretch if name in ("LOAD", "SAVE") else taken)
        free[engine] = max(ready, end)
        for consumer in range(count):
            if op.dpdby >> consumer & 1:
                tokens[engine][consumer].append(free[engine])
        made.engine.append(engine)
        made.start.append(start)
        made.end.append(end)
        made.ready.append(ready)
        made.waits_for.append(waits_for)
    return made


def summary(made: Schedule) -> dict[str, Any]:
    """A schedule summed up for JSON: `kind` "estimate", `cycles`, `busy` cycles per engine, `sequential`
    cycles if nothing overlapped."""
    busy = made.busy()
    return {
        "kind": "estimate",
        "cycles": round(made.cycles),
        "sequential": round(sum(busy)),
        "busy": {name: round(value) for name, value in zip(ENGINES, busy, strict=True)},
    }


def estimate_cycles(
    instructions: Sequence[Instruction], timing: Timing = TIMING, cores: int = 1
) -> dict[str, Any]:
    """The schedule of a program summed up (`summary`)."""
    return summary(schedule(instructions, timing, cores))
