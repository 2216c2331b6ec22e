"""Room for the maps that go through DDR: whose life is over gives its bytes to later ones.

The generator writes every map into a room of its own. Here, with the whole program at hand, rooms are moved
onto one another where their maps are not alive at the same time. That the engines, which run beside
each other, keep to this order is the business of the dependency masks: they are derived from the addresses
(`synchronise`), so a SAVE waits for the last LOAD of what it overwrites, and the checks prove it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.native.lowering import align
from dpuflow.dpuczdx8g.native.operations import OUTPUT, WORKSPACE, Job
from dpuflow.dpuczdx8g.native.writer import region_number


@dataclass
class Room:
    """Bytes [start, start + size) of a region that hold one map, and what is joined to it.

    first, last : numbers of the instructions that use it first and last; saved : of its last SAVE. -1: none.
    """

    start: int
    size: int
    first: int = -1
    last: int = -1
    saved: int = -1

    def holds(self, address: int) -> bool:
        """Whether a byte lies in it."""
        return self.start <= address < self.start + self.size

    def together(self, other: "Room") -> bool:
        """Whether both are in use at some time."""
        return self.first <= other.last and other.first <= self.last


def share_workspace(instructions: Sequence[Instruction], job: Job, rooms: Sequence[tuple[int, int]]) -> int:
    """Move the maps of the workspace onto one another, in place; returns the bytes that they take.

    Parameters
    ----------
    instructions : in program order, with every map in a room of its own.
    rooms : (start, size) of these in the workspace.

    Changes the addresses in instructions and maps, and fills `job.whole`.
    """
    shared = _used(instructions, WORKSPACE, rooms)
    outputs = _used(instructions, OUTPUT, [(m.address, m.size) for m in job.outputs])
    every = _maps(job)
    maps = [m for m in every if m.spilled]
    for region, found in ((WORKSPACE, shared), (OUTPUT, outputs)):
        for room in found:
            job.whole[room.saved] = [m for m in maps if m.region == region and room.holds(m.address)]
    for feature_map in every:
        read = {part.feature_map.address for part in feature_map.parts}
        saved = [room.saved for room in shared if any(room.holds(address) for address in read)]
        if saved:
            job.whole[max(saved)].append(feature_map)
    places = _places(shared)
    for room in shared:
        if any(room.last < other.first and _touch(room, other, places) for other in shared):
            for feature_map in job.whole[room.saved]:
                feature_map.overwritten = True
    starts = [room.start for room in shared]

    def moved(address: int) -> int:
        start = starts[bisect_right(starts, address) - 1]
        return address - start + places[start]

    for feature_map in maps:
        if feature_map.region == WORKSPACE:
            feature_map.address = moved(feature_map.address)
    for instruction in _transfers(instructions, WORKSPACE):
        instruction.fields["ddr_addr"] = moved(instruction["ddr_addr"])
    return max((places[room.start] + room.size for room in shared), default=0)


def _transfers(instructions, region):
    number = region_number(region)
    return (op for op in instructions if op.name in ("LOAD", "SAVE") and op["reg_id"] == number)


def _used(instructions, region, rooms):
    """The Rooms of a region, ascending, with who uses them when."""
    found = [Room(start, size) for start, size in sorted(rooms)]
    starts, number = [room.start for room in found], region_number(region)
    for index, op in enumerate(instructions):
        if op.name in ("LOAD", "SAVE") and op["reg_id"] == number:
            room = found[bisect_right(starts, op["ddr_addr"]) - 1]
            room.first = index if room.first < 0 else room.first
            room.last = index
            room.saved = index if op.name == "SAVE" else room.saved
    return found


def _places(rooms):
    """{start of a room: where it may lie instead}: the largest first, each at the lowest free address."""
    placed: list[tuple[int, Room]] = []
    for room in sorted(rooms, key=lambda room: (-room.size, room.start)):
        address = 0
        beside = ((place, other) for place, other in placed if room.together(other))
        for start, other in sorted(beside, key=itemgetter(0)):
            if address + room.size <= start:
                break
            address = max(address, align(start + other.size))
        placed.append((address, room))
    return {room.start: place for place, room in placed}


def _touch(one, other, places):
    a, b = places[one.start], places[other.start]
    return a < b + other.size and b < a + one.size


def _maps(job):
    """Every map and every view, each once."""
    read = [m for op in job.operations for m in (*op.inputs, op.output, op.factors) if m is not None]
    return list({id(m): m for m in (*read, *job.outputs, *(m for pair in job.views for m in pair))}.values())
