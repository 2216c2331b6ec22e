"""Several operations at once, band of rows by band of rows, so that maps between them need not fit the banks.

A *segment* is a run of operations in program order. Of every map in it as many rows lie in the banks as are
needed at a time (a ring of blocks of rows), fewer columns where whole rows are too many (strips, one
after the other). Rows come from DDR, from a map that is in the banks already, or from an operation of the
segment; they go to the operations of the segment that read the map, to DDR, or stay whole for later ones.

In which order the bands are computed is found by running four engines against the clock (`timing`):
next comes what can start first. Which rows are where follows from that order alone; the dependency masks come
later (`synchronise`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.native import timing
from dpuflow.dpuczdx8g.native.operations import KINDS, FeatureMap, Operation, Span
from dpuflow.dpuczdx8g.native.placement import Placement, Ring, ceil_div
from dpuflow.dpuczdx8g.native.tiling import (
    CHANNEL_GROUPS,
    ROW_ENTRIES,
    STRIDE_OUT,
    sub_rows,
    window_range,
)
from dpuflow.dpuczdx8g.native.units import Units
from dpuflow.dpuczdx8g.native.writer import LENGTH

FIRST_GROUP = 1
"""Image group that maps are loaded into, as the vendor's compiler does."""


class NoPlanError(Exception):
    """These operations cannot run as one segment, so cut."""


@dataclass(frozen=True)
class Resident:
    """A map that lies whole in the banks; rows : when each is there, by the clock of the schedule."""

    feature_map: FeatureMap
    placement: Placement
    rows: tuple[float, ...]


@dataclass
class State:
    """What is where between two segments.

    Attributes
    ----------
    residents, saved : id of a map -> Resident; id of a map in DDR -> when it is there.
    rings : of both image groups; free : when each engine is done; floor : when loads may begin.
    busy : cycles of LOAD and SAVE so far.
    """

    residents: dict[int, Resident] = field(default_factory=dict)
    saved: dict[int, float] = field(default_factory=dict)
    rings: tuple[Ring, Ring] = field(default_factory=lambda: (Ring(), Ring()))
    free: list[float] = field(default_factory=lambda: [0.0] * 4)
    floor: float = 0.0
    busy: float = 0.0

    def copy(self) -> "State":
        """Another one, to go on from."""
        rings = self.rings[0].copy(), self.rings[1].copy()
        return State(dict(self.residents), dict(self.saved), rings, list(self.free), self.floor, self.busy)

    @property
    def cost(self) -> float:
        """What a schedule is judged by: cycles, and a tenth of what occupies the DDR."""
        return max(self.free) + 0.1 * self.busy


@dataclass
class Flow:
    """A map within a segment.

    Attributes
    ----------
    sub : rows per bank.
    producer : number of the operation that computes it, None if it is loaded or resident.
    consumers : numbers of the operations that read it.
    resident : where it lies already.
    save, keep : whether it goes to DDR, stays whole.
    columns : [start, end) of each strip; share : of these the ones that are saved.
    blocks : of the ring, 0 for all.
    placements : for each strip.
    """

    feature_map: FeatureMap
    producer: int | None = None
    consumers: list[int] = field(default_factory=list)
    resident: Resident | None = None
    save: bool = False
    keep: bool = False
    sub: int = 1
    columns: list[Span] = field(default_factory=list)
    share: list[Span] = field(default_factory=list)
    blocks: int = 0
    placements: list[Placement] = field(default_factory=list)

    @property
    def height(self) -> int:
        """Rows."""
        return self.feature_map.shape[0]


@dataclass(frozen=True)
class Task:
    """Load, compute or save rows [start, end) of a strip; `number` is of the flow or of the operation."""

    kind: str
    number: int
    rows: Span
    strip: int


class Segment:
    """Operations `first` to `last` (excluded) of the units, planned from a State.

    Parameters
    ----------
    pieces : strips of columns.
    keep : whether maps stay in the banks for later operations where they can.
    evicted : ids of resident maps to be saved and given up before.
    heights : rows that an operation computes at once where its weights do not stay, None for all.

    Attributes
    ----------
    tasks : in program order.
    stays : numbers of the operations whose weights stay.
    after : State behind it.

    NoPlanError where it does not fit.
    """

    def __init__(
        self,
        units: Units,
        state: State,
        first: int,
        last: int,
        pieces: int,
        keep: bool,
        evicted: Sequence[int] = (),
        height: int | None = None,
    ) -> None:
        self.units, self.machine, self.last = units, units.machine, last
        self.ops = units.operations[first:last]
        self.pieces, self.height = pieces, height
        self.after = state.copy()
        self.evicted: list[Resident] = []
        self._evict(evicted)
        self.flows: list[Flow] = []
        self._of: dict[int, int] = {}
        self._collect(keep)
        self.stays = self._staying()
        self.rows = [self._tasks_of(number) for number in range(len(self.ops))]
        self._cut_columns()
        self._size_rings()
        self._allocate()
        self.tasks: list[Task] = []
        _Clock(self).run()
        self._leave()

    # which maps there are

    def _evict(self, names):
        state = self.after
        for name in names:
            resident = state.residents.pop(name)
            rings = state.rings[resident.placement.group]
            rings.release(resident.placement.base)
            feature_map = resident.feature_map
            if name not in state.saved:
                self.evicted.append(resident)
                cycles = timing.transfer(*feature_map.shape)
                state.free[timing.SAVE] = max(state.free[timing.SAVE], *resident.rows) + cycles
                state.busy += cycles
                state.saved[name] = state.free[timing.SAVE]

    def _collect(self, keep):
        units, state = self.units, self.after
        computed = {id(units.parent(op.output)) for op in self.ops}
        for number, op in enumerate(self.ops):
            if op.factors is not None and id(units.parent(op.factors)) in computed:
                raise NoPlanError
            for feature_map in _distinct(op.inputs):
                if id(feature_map) not in self._of:
                    parent = units.parent(feature_map)
                    if parent is not feature_map and id(parent) in computed:
                        raise NoPlanError
                    resident = state.residents.get(id(feature_map))
                    if resident is None and not units.given(parent) and id(parent) not in state.saved:
                        raise NoPlanError
                    self._flow(Flow(feature_map, resident=resident))
                self.flows[self._of[id(feature_map)]].consumers.append(number)
            self._flow(Flow(op.output, producer=number))
        for flow in self.flows:
            self._settle(flow, keep)

    def _flow(self, flow):
        self._of[id(flow.feature_map)] = len(self.flows)
        self.flows.append(flow)

    def flow(self, feature_map: FeatureMap) -> Flow:
        """The Flow of a map."""
        return self.flows[self._of[id(feature_map)]]

    def _settle(self, flow, keep):
        """sub, save and keep of a flow."""
        here = {sub_rows(self.ops[n], self.machine) for n in flow.consumers if self.ops[n].windowed}
        if flow.resident is not None:
            flow.sub = flow.resident.placement.sub_rows
            if here - {flow.sub}:
                raise NoPlanError
            return
        if len(here) > 1:
            raise NoPlanError
        if flow.producer is None:
            flow.sub = max(here, default=1)
            return
        later = [n for n in self.units.readers(flow.feature_map) if n >= self.last]
        wanted = here | {sub_rows(self.units.operations[n], self.machine) for n in later
                         if self.units.operations[n].windowed}  # fmt: skip
        flow.save = self.units.goes_to_ddr(flow.feature_map)
        flow.keep = keep and bool(later) and len(wanted) <= 1 and max(wanted, default=1) <= STRIDE_OUT
        flow.sub = max((wanted if flow.keep else here), default=1)
        if later and not flow.keep:
            flow.save = True
        if flow.sub > STRIDE_OUT:
            raise NoPlanError

    # weights and bands

    def weight_entries(self, op: Operation) -> int:
        """Entries that all weights of an operation take in a bank."""
        taps = op.kernel[0] * op.kernel[1]
        if KINDS[op.kind].engine == "convolution":
            groups = self.machine.groups(op.output.shape[2])
            return taps * self.machine.groups(op.inputs[0].shape[2]) * groups
        if op.kind == "depthwise" or KINDS[op.kind].factors:
            return taps * self.machine.groups(op.output.shape[2])
        return 0

    def _staying(self):
        """Numbers of the operations whose weights stay in their bank for all of the segment."""
        if sum(self.machine.groups(op.output.shape[2]) for op in self.ops) > BANK_DEPTH and len(self.ops) > 1:
            raise NoPlanError
        stays = set(range(len(self.ops)))
        for engine in ("convolution", "alu"):
            mine = {n for n in stays if KINDS[self.ops[n].kind].engine == engine}
            entries = {n: self.weight_entries(self.ops[n]) for n in mine}
            inside = set(mine)
            while inside and sum(entries[n] for n in inside) + self._passing(mine - inside) > BANK_DEPTH:
                inside.remove(max(inside, key=lambda n: (entries[n], n)))
            if mine - inside and sum(entries[n] for n in inside) + self._passing(mine - inside) > BANK_DEPTH:
                raise NoPlanError
            stays -= mine - inside
        return stays

    def _passing(self, numbers):
        """Entries that weights which come and go need at a time."""
        most = 0
        for number in numbers:
            op = self.ops[number]
            entries = self.weight_entries(op)
            if KINDS[op.kind].engine == "convolution":
                entries //= self.machine.groups(op.output.shape[2])
                # of several operations, room to load the next while one is in use
                entries *= 1 if len(self.ops) == 1 else 2
                most = max(most, entries)
            else:
                most = max(most, min(entries, BANK_DEPTH))
        return most

    def _tasks_of(self, number):
        """[start, end) of the rows that an operation computes at a time."""
        op, height = self.ops[number], self.ops[number].output.shape[0]
        at_once = self.machine.pixels
        if number not in self.stays:
            at_once = self.height or height
        elif KINDS[op.kind].engine != "convolution":
            at_once = self.machine.alu_pixels
            if KINDS[op.kind].engine == "elementwise":
                at_once *= self.flow(op.output).sub
        return [(row, min(row + at_once, height)) for row in range(0, height, at_once)]

    def window(self, number: int, rows: Span) -> Span:
        """Input rows [start, end) that output rows of an operation read."""
        return _window(self.ops[number], 0, rows)

    # columns

    def _cut_columns(self):
        machine = self.machine
        for strip in range(self.pieces):
            spans: dict[int, Span | None] = {}
            for flow in self.flows:
                width = flow.feature_map.shape[1]
                sink = flow.producer is not None and (flow.save or flow.keep or not flow.consumers)
                share = (width * strip // self.pieces, width * (strip + 1) // self.pieces)
                flow.share.append(share)
                if sink and share[0] == share[1]:
                    raise NoPlanError
                spans[id(flow.feature_map)] = share if sink else None
            for op in reversed(self.ops):
                columns = spans[id(op.output)]
                if columns is None:
                    raise NoPlanError
                for feature_map in op.inputs:
                    needed = _window(op, 1, columns)
                    have = spans[id(feature_map)] or needed
                    spans[id(feature_map)] = (min(have[0], needed[0]), max(have[1], needed[1]))
            for flow in self.flows:
                span = spans[id(flow.feature_map)]
                if span is None:
                    raise NoPlanError
                flow.columns.append(span)
        for flow in self.flows:
            width, entries = self._width(flow), machine.groups(flow.feature_map.shape[2])
            if width > LENGTH or width * entries > ROW_ENTRIES or entries > CHANNEL_GROUPS:
                if flow.resident is None and not self._alone(flow):
                    raise NoPlanError

    def _alone(self, flow):
        """Channels beyond one instruction's counters are the business of the one operation that takes them."""
        width, entries = self._width(flow), self.machine.groups(flow.feature_map.shape[2])
        return len(self.ops) == 1 and width <= LENGTH and width * entries <= ROW_ENTRIES

    def _width(self, flow):
        if flow.keep:
            return flow.feature_map.shape[1]
        return max(end - start for start, end in flow.columns)

    # rings

    def _total(self, flow):
        return ceil_div(flow.height, flow.sub * self.machine.pixels)

    def _size_rings(self):
        """Least blocks of every ring: computing each band only when it is needed."""
        self.least = [1] * len(self.flows)
        done = [0] * len(self.ops)
        there = [flow.height if flow.resident else 0 for flow in self.flows]
        block = [flow.sub * self.machine.pixels for flow in self.flows]

        def measure(number):
            flow = self.flows[number]
            low = self.lowest(flow, done)
            if low < there[number]:
                span = (there[number] - 1) // block[number] - low // block[number] + 1
                self.least[number] = max(self.least[number], span)

        def need(number, row_end):
            flow = self.flows[number]
            if flow.producer is None:
                there[number] = max(there[number], row_end)
                measure(number)
                return
            while there[number] < row_end:
                step(flow.producer)

        def step(op_number):
            rows = self.rows[op_number][done[op_number]]
            for feature_map in _distinct(self.ops[op_number].inputs):
                need(self._of[id(feature_map)], self.window(op_number, rows)[1])
            for feature_map in _distinct(self.ops[op_number].inputs):
                measure(self._of[id(feature_map)])
            number = self._of[id(self.ops[op_number].output)]
            # until it is done, it holds its input
            there[number] = rows[1]
            measure(number)
            span = (rows[1] - 1) // block[number] - rows[0] // block[number] + 1
            self.least[number] = max(self.least[number], span)
            done[op_number] += 1

        sinks = [f.producer for f in self.flows if f.producer is not None and not f.consumers]
        while True:
            waiting = [n for n in sinks if done[n] < len(self.rows[n])]
            if not waiting:
                break
            step(min(waiting, key=lambda n: (done[n] / len(self.rows[n]), n)))
        for op_number in range(len(self.ops)):
            while done[op_number] < len(self.rows[op_number]):
                step(op_number)

    def lowest(self, flow: Flow, done: Sequence[int]) -> int:
        """The first row that an operation of the segment still reads, the height if none does."""
        low = flow.height
        for number in flow.consumers:
            if done[number] < len(self.rows[number]):
                low = min(low, self.window(number, self.rows[number][done[number]])[0])
        return low

    def _allocate(self):
        for extra in (1, 0):
            for by_size in (False, True):
                rings = self.after.rings[0].copy(), self.after.rings[1].copy()
                if self._try_allocate(rings, extra, by_size):
                    self.after.rings = rings
                    return
        raise NoPlanError

    def _try_allocate(self, rings, extra, by_size):
        wanted = []
        for number, flow in enumerate(self.flows):
            if flow.resident is None:
                total = self._total(flow)
                blocks = total if flow.keep else min(total, self.least[number] + extra)
                entries = self.machine.groups(flow.feature_map.shape[2]) * flow.sub * self._width(flow)
                wanted.append((blocks * entries, number, blocks if blocks < total else 0))
        if by_size:
            wanted.sort(key=lambda item: (-item[0], item[1]))
        groups: dict[int, int] = {}
        for size, number, blocks in wanted:
            flow = self.flows[number]
            group = self._preferred(flow, groups)
            if by_size:
                group = max((0, 1), key=lambda g: (rings[g].free, g == group))
            for candidate in (group, 1 - group):
                try:
                    base = rings[candidate].take(size)
                except ValueError:
                    continue
                break
            else:
                return False
            rings[candidate].hold(base, size)
            groups[number] = candidate
            flow.blocks = blocks
            flow.placements = [self._placement(flow, candidate, base, s) for s in range(self.pieces)]
        for flow in self.flows:
            if flow.resident is not None:
                flow.placements = [flow.resident.placement] * self.pieces
        return True

    def _preferred(self, flow, groups):
        """The group opposite to where the producer reads."""
        if flow.producer is None:
            return FIRST_GROUP
        source = self.flow(self.ops[flow.producer].inputs[0])
        if source.resident is not None:
            return 1 - source.resident.placement.group
        return 1 - groups.get(self._of[id(source.feature_map)], FIRST_GROUP)

    def _placement(self, flow, group, base, strip):
        height, width, channels = flow.feature_map.shape
        start, end = (0, width) if flow.keep else flow.columns[strip]
        entries = self.machine.groups(channels)
        return Placement(
            self.machine, group, base, 0, height, start, end - start, entries, flow.sub, flow.blocks
        )

    def _leave(self):
        """The State behind the segment: maps that somebody reads later, everything else free."""
        state = self.after
        for flow in self.flows:
            if flow.resident is None and not flow.keep:
                state.rings[flow.placements[0].group].release(flow.placements[0].base)
        for name, resident in list(state.residents.items()):
            if not any(n >= self.last for n in self.units.readers(resident.feature_map)):
                del state.residents[name]
                state.rings[resident.placement.group].release(resident.placement.base)


class _Clock:
    """Runs a segment's engines against the clock and puts its tasks into order."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.machine: Machine = segment.machine
        self.state = segment.after
        self.begin = max(segment.after.free)
        self.floor = segment.after.floor
        flows = segment.flows
        self.rows = [list(f.resident.rows) if f.resident else [0.0] * f.height for f in flows]
        self.block = [f.sub * self.machine.pixels for f in flows]
        self.used = [[0.0] * segment._total(f) for f in flows]
        self.loaded: set[int] = set()
        self.saved = [0.0] * len(flows)

    def run(self) -> None:
        segment = self.segment
        for strip in range(segment.pieces):
            self._strip(strip)
        state = self.state
        for number, flow in enumerate(segment.flows):
            if flow.save:
                name = id(segment.units.parent(flow.feature_map))
                state.saved[name] = max(state.saved.get(name, 0.0), self.saved[number])
            if flow.keep:
                rows = tuple(self.rows[number])
                state.residents[id(flow.feature_map)] = Resident(flow.feature_map, flow.placements[0], rows)
        state.floor = self.begin

    def _strip(self, strip):
        segment = self.segment
        self.done = [0] * len(segment.ops)
        self.there = [flow.height if flow.resident else 0 for flow in segment.flows]
        loads = [n for n, f in enumerate(segment.flows) if f.producer is None and f.resident is None]
        last = {n: max((segment.window(c, segment.rows[c][-1])[1] for c in segment.flows[n].consumers), default=0)
                for n in loads}  # fmt: skip
        while True:
            found = []
            for number in loads:
                if self.there[number] < last[number]:
                    start = self._load_start(number, last[number])
                    if start is not None:
                        found.append((start, 0, number))
            for number in range(len(segment.ops)):
                if self.done[number] < len(segment.rows[number]):
                    start = self._compute_start(number)
                    if start is not None:
                        found.append((start, -1 - number, number))
            if not found:
                break
            start, kind, number = min(found)
            if kind == 0:
                self._load(number, start, last[number], strip)
            else:
                self._compute(number, start, strip)
        if any(self.done[n] < len(segment.rows[n]) for n in range(len(segment.ops))):
            raise NoPlanError

    def _chunk(self, number, last):
        """[start, end) of the rows to be loaded next: to the end of a run of PP rows."""
        start, pixels = self.there[number], self.machine.pixels
        return start, min(last, (start // pixels + 1) * pixels)

    def _room(self, number, row_end):
        """When the block that rows up to row_end go to is free; None as long as it is in use."""
        flow, block = self.segment.flows[number], (row_end - 1) // self.block[number]
        if not flow.blocks or block < flow.blocks:
            return 0.0
        if self.segment.lowest(flow, self.done) // self.block[number] <= block - flow.blocks:
            return None
        return self.used[number][block - flow.blocks]

    def _load_start(self, number, last):
        room = self._room(number, self._chunk(number, last)[1])
        if room is None:
            return None
        name = id(self.segment.units.parent(self.segment.flows[number].feature_map))
        ready = self.state.saved.get(name, 0.0)
        return max(room, ready, self.floor, self.state.free[timing.LOAD])

    def _load(self, number, start, last, strip):
        segment, flow = self.segment, self.segment.flows[number]
        rows = self._chunk(number, last)
        columns = flow.columns[strip]
        cycles = timing.transfer(1, columns[1] - columns[0], flow.feature_map.shape[2])
        for row in range(*rows):
            start += cycles
            self.rows[number][row] = start
        self.state.free[timing.LOAD] = start
        self.state.busy += cycles * (rows[1] - rows[0])
        self.there[number] = rows[1]
        segment.tasks.append(Task("load", number, rows, strip))

    def _compute_start(self, number):
        segment, op = self.segment, self.segment.ops[number]
        rows = segment.rows[number][self.done[number]]
        low, high = segment.window(number, rows)
        start = self.state.free[timing.engine_of(op)]
        for feature_map in op.inputs:
            source = segment._of[id(feature_map)]
            if self.there[source] < high:
                return None
            if high > low:
                start = max(start, self.rows[source][high - 1])
        room = self._room(segment._of[id(op.output)], rows[1])
        return None if room is None else max(start, room)

    def _compute(self, number, start, strip):
        segment, op, state = self.segment, self.segment.ops[number], self.state
        rows = segment.rows[number][self.done[number]]
        target = segment._of[id(op.output)]
        flow = segment.flows[target]
        columns = flow.columns[strip][1] - flow.columns[strip][0]
        end = self._time(number, start, rows[1] - rows[0], columns)
        state.free[timing.engine_of(op)] = end
        for row in range(*rows):
            self.rows[target][row] = end
        self.there[target] = rows[1]
        low, high = segment.window(number, rows)
        for feature_map in op.inputs:
            source = segment._of[id(feature_map)]
            for block in range(low // self.block[source], (max(high, low + 1) - 1) // self.block[source] + 1):
                if block < len(self.used[source]):
                    self.used[source][block] = max(self.used[source][block], end)
        self.done[number] += 1
        segment.tasks.append(Task("compute", number, rows, strip))
        if flow.save:
            share = flow.share[strip]
            cycles = timing.transfer(rows[1] - rows[0], share[1] - share[0], flow.feature_map.shape[2])
            state.free[timing.SAVE] = max(end, state.free[timing.SAVE]) + cycles
            state.busy += cycles
            self.saved[target] = state.free[timing.SAVE]
            for block in range(rows[0] // self.block[target], (rows[1] - 1) // self.block[target] + 1):
                self.used[target][block] = max(self.used[target][block], state.free[timing.SAVE])
            segment.tasks.append(Task("save", target, rows, strip))

    def _time(self, number, start, rows, columns):
        """When a task is finished that starts at `start`, its weights loaded on the way where they must be."""
        segment, op, state = self.segment, self.segment.ops[number], self.state
        conv = KINDS[op.kind].engine == "convolution"
        limit = self.machine.pixels if conv else self.machine.alu_pixels
        if self._single_rows(op):
            limit = 1
        cycles = timing.band(op, self.machine, rows, limit, columns)
        groups = self.machine.groups(op.output.shape[2]) if conv else 1
        if number in self.loaded:
            return start + groups * cycles
        if number in segment.stays:
            self.loaded.add(number)
        load = timing.weights(op, self.machine)
        state.busy += load * groups
        if not load:
            return start + cycles
        entries = segment.weight_entries(op) // groups
        held = max(1, BANK_DEPTH // max(1, entries))
        ends: list[float] = []
        begin = max(self.floor, state.free[timing.LOAD])
        for group in range(groups):
            if group >= held:
                begin = max(begin, ends[group - held])
            begin += load
            start = max(start, begin) + cycles
            ends.append(start)
        state.free[timing.LOAD] = begin
        return start

    def _single_rows(self, op):
        """Whether rows are computed one by one, since they do not lie as the instruction wants them."""
        target = self.segment.flow(op.output)
        for feature_map in op.inputs:
            source = self.segment.flow(feature_map)
            if op.windowed:
                if source.sub != op.stride[0]:
                    return True
            elif source.sub not in (1, target.sub):
                return True
        return False


def _window(op, axis, span):
    """[start, end) along an axis of the input that outputs `span` read; at least one, to have a place."""
    if not op.windowed:
        return span
    size = op.inputs[0].shape[axis]
    first, end = window_range(*span, op.stride[axis], op.kernel[axis], op.pad[axis], size)
    if axis == 0:
        return min(first, size), max(0, end)
    first = min(first, size - 1)
    return first, max(end, first + 1)


def _distinct(maps):
    return list({id(m): m for m in maps}.values())
