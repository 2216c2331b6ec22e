"""Which operations run together as segments, and which maps stay in the banks: a search over the program.

From every point that earlier segments reach, segments of up to LONGEST operations are planned; of all ways to
reach a point those that the clock likes best are followed (WAYS, with different maps in the banks).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.native import timing
from dpuflow.dpuczdx8g.native.flows import NoPlanError, State
from dpuflow.dpuczdx8g.native.operations import KINDS, Operation
from dpuflow.dpuczdx8g.native.placement import ceil_div
from dpuflow.dpuczdx8g.native.streaming import Segment
from dpuflow.dpuczdx8g.native.units import Units

LONGEST = 6
"""Operations in one segment at most."""
WAYS = 2
"""States followed from every point."""
FEW_STRIPS = (1, 2, 3, 4, 6, 8)
"""Strips of columns of a segment of several operations; a single one is cut into as many as it needs."""


class Alone:
    """One operation without a segment: what only moves, or what fits tile by tile only, from DDR to DDR.

    pieces : strips of columns in which an input is moved, one number for each input.
    """

    def __init__(self, units: Units, state: State, first: int) -> None:
        self.op = units.operations[first]
        self.machine: Machine = units.machine
        self.after = after = state.copy()
        moves = KINDS[self.op.kind].engine == "none"
        read = {id(m) for m in self.op.inputs} if moves else set()
        self.evicted = []
        self.residents = {}
        for name, resident in list(after.residents.items()):
            if name in read:
                self.residents[name] = resident.placement
            else:
                del after.residents[name]
                after.rings[resident.placement.group].release(resident.placement.base)
                if name not in after.saved:
                    self.evicted.append(resident)
        self._judge(units, after)
        if any(n > first for n in units.readers(self.op.output)) or units.goes_to_ddr(self.op.output):
            after.saved.update((id(m), max(after.free)) for m in units.written_with(self.op.output))
        for name, resident in list(after.residents.items()):
            if not any(n > first for n in units.readers(resident.feature_map)):
                del after.residents[name]
                after.rings[resident.placement.group].release(resident.placement.base)

    def _judge(self, units, after):
        free, load, save = after.free, 0.0, 0.0
        for resident in self.evicted:
            save += timing.transfer(*resident.feature_map.shape[:2], resident.feature_map)
            after.saved[id(resident.feature_map)] = max(free)
        for feature_map in self.op.inputs:
            if id(feature_map) not in self.residents:
                load += timing.transfer(*feature_map.shape[:2], feature_map)
        save += timing.transfer(*self.op.output.shape[:2], self.op.output)
        after.floor = max(free)
        begin = max(free[timing.LOAD], max(after.saved.values(), default=0.0))
        free[timing.LOAD] = begin + load
        end = max(free[timing.LOAD], free[timing.SAVE] + save)
        if KINDS[self.op.kind].engine != "none":
            height, width, _ = self.op.output.shape
            limit = self.machine.pixels
            groups = self.machine.groups(self.op.output.shape[2]) if self.op.kind == "conv" else 1
            # tile after tile, with little overlap
            end += groups * timing.band(self.op, self.machine, height, limit, width)
        free[timing.SAVE] = end
        after.busy += load + save


Plan = Segment | Alone


@dataclass
class _Way:
    """A way to have done the first operations: its State and how it came about."""

    state: State
    plan: Plan | None = None
    before: "_Way | None" = None


def plans(units: Units) -> list[Plan]:
    """The segments of a Job in program order."""
    count = len(units.operations)
    ways: list[list[_Way]] = [[] for _ in range(count + 1)]
    ways[0] = [_Way(State())]
    for first in range(count):
        for way in _best(ways[first]):
            for last, plan in _from(units, way.state, first):
                ways[last].append(_Way(plan.after, plan, way))
        ways[first] = []
    found: list[Plan] = []
    best: _Way | None = _best(ways[count])[0]
    while best is not None and best.plan is not None:
        found.append(best.plan)
        best = best.before
    return found[::-1]


def _best(ways: list[_Way]) -> list[_Way]:
    """The cheapest ways, each with other maps in the banks."""
    found: dict[frozenset[int], _Way] = {}
    for way in sorted(ways, key=lambda way: way.state.cost):
        found.setdefault(frozenset(way.state.residents), way)
    return list(found.values())[:WAYS]


def _from(units: Units, state: State, first: int) -> Iterator[tuple[int, Plan]]:
    """(first unit behind it, plan) of the plans that begin at a unit."""
    if KINDS[units.operations[first].kind].engine == "none":
        yield first + 1, Alone(units, state, first)
        return
    found = False
    for last in range(first + 1, min(first + LONGEST, len(units.operations)) + 1):
        if KINDS[units.operations[last - 1].kind].engine == "none":
            break
        for keep in (True, False):
            for plan in _segments(units, state, first, last, keep):
                found = True
                yield last, plan
    if not found:
        yield first + 1, Alone(units, state, first)


def _segments(units: Units, state: State, first: int, last: int, keep: bool) -> Iterator[Segment]:
    """Segments of the fewest strips, evictions and passes over their weights.

    Where that leaves no room for anything to overlap, also one of more strips.
    """
    ops = units.operations[first:last]
    single = last == first + 1
    if keep and not any(any(n >= last for n in units.readers(op.output)) for op in ops):
        return
    heights = _heights(ops[0], units.machine) if single else [None]
    for pieces in _strip_counts(ops) if single else FEW_STRIPS:
        plan = _of_strips(units, state, first, last, pieces, keep, heights)
        if plan is not None:
            yield plan
            if not plan.tight:
                return


def _of_strips(units, state, first, last, pieces, keep, heights):
    for evicted in _evictions(units, state, first, last):
        for height in heights:
            try:
                return Segment(units, state, first, last, pieces, keep, evicted, height)
            except NoPlanError:
                continue
    return None


def _heights(op: Operation, machine: Machine) -> list[int | None]:
    """Rows computed at once where an operation's weights do not stay: all, then fewer and fewer."""
    found: list[int | None] = [None]
    rows = ceil_div(op.output.shape[0], machine.pixels * 2) * machine.pixels
    while rows < op.output.shape[0] and rows >= machine.pixels:
        found.append(rows)
        if rows == machine.pixels:
            break
        rows = ceil_div(rows, machine.pixels * 2) * machine.pixels
    return found


def _strip_counts(ops: Sequence[Operation]) -> list[int]:
    width = max(op.output.shape[1] for op in ops)
    counts = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    return [n for n in counts if n < width or n == 1] + ([width] if width > 1 else [])


def _evictions(units: Units, state: State, first: int, last: int) -> list[tuple[int, ...]]:
    """Sets of resident maps to give up: none, those that the segment does not read one by one, all."""
    read = {id(m) for op in units.operations[first:last] for m in op.inputs}

    def following(name: int) -> int:
        later = [n for n in units.readers(state.residents[name].feature_map) if n >= last]
        return -min(later, default=last)

    unused = sorted((name for name in state.residents if name not in read), key=following)
    found = [tuple(unused[:count]) for count in range(len(unused) + 1)]
    if len(unused) < len(state.residents):
        found.append(tuple(state.residents))
    return found
