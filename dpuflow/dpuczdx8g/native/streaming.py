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

from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH
from dpuflow.dpuczdx8g.native import timing
from dpuflow.dpuczdx8g.native.clock import Clock
from dpuflow.dpuczdx8g.native.flows import Flow, NoPlanError, Resident, State, Task, distinct, window
from dpuflow.dpuczdx8g.native.operations import KINDS, FeatureMap, Operation, Span
from dpuflow.dpuczdx8g.native.placement import Placement, ceil_div
from dpuflow.dpuczdx8g.native.tiling import CHANNEL_GROUPS, ROW_ENTRIES, STRIDE_OUT, sub_rows
from dpuflow.dpuczdx8g.native.units import Units
from dpuflow.dpuczdx8g.native.weight_loads import channel_entries, chunks
from dpuflow.dpuczdx8g.native.writer import LENGTH

FIRST_GROUP = 1
"""Image group that maps are loaded into, as the vendor's compiler does."""


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
    rows, windows : of each operation, the [start, end) rows that it computes at a time, and the input's
        rows that it reads for them.
    stays : numbers of the operations whose weights stay.
    after : State behind it.
    tight : whether no ring has room for more than must be there at a time, so that little overlaps.

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
        self.index: dict[int, int] = {}
        self._collect(keep)
        self.stays = self._staying()
        self.rows = [self._tasks_of(number) for number in range(len(self.ops))]
        self.windows = [
            [window(op, 0, rows) for rows in cut] for op, cut in zip(self.ops, self.rows, strict=True)
        ]
        self._cut_columns()
        self._size_rings()
        self._allocate()
        self.tasks: list[Task] = []
        Clock(self).run()
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
                cycles = timing.transfer(*feature_map.shape[:2], feature_map)
                state.free[timing.SAVE] = max(state.free[timing.SAVE], *resident.rows) + cycles
                state.busy += cycles
                state.saved[name] = state.free[timing.SAVE]

    def _collect(self, keep):
        units, state = self.units, self.after
        computed = {id(m) for op in self.ops for m in units.written_with(op.output)}
        for number, op in enumerate(self.ops):
            if op.factors is not None and id(units.parent(op.factors)) in computed:
                raise NoPlanError
            for feature_map in distinct(op.inputs):
                if id(feature_map) not in self.index:
                    sources = units.sources(feature_map)
                    if any(id(source) in computed for source in sources):
                        raise NoPlanError
                    resident = state.residents.get(id(feature_map))
                    there = all(units.given(source) or id(source) in state.saved for source in sources)
                    if resident is None and not there:
                        raise NoPlanError
                    self._flow(Flow(feature_map, resident=resident))
                self.flows[self.index[id(feature_map)]].consumers.append(number)
            self._flow(Flow(op.output, producer=number))
        for flow in self.flows:
            self._settle(flow, keep)

    def _flow(self, flow):
        self.index[id(flow.feature_map)] = len(self.flows)
        self.flows.append(flow)

    def flow(self, feature_map: FeatureMap) -> Flow:
        """The Flow of a map."""
        return self.flows[self.index[id(feature_map)]]

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
            return channel_entries(op, self.machine) * self.machine.groups(op.output.shape[2])
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
                chunk = max(end - start for start, end in chunks(op, self.machine))
                # of several operations, room to load the next while one is in use
                chunk *= 1 if len(self.ops) == 1 else 2
                most = max(most, chunk * channel_entries(op, self.machine))
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
                columns = self._gapless(self.flow(op.output), strip, spans[id(op.output)])
                spans[id(op.output)] = columns
                for feature_map in op.inputs:
                    needed = window(op, 1, columns)
                    have = spans[id(feature_map)] or needed
                    spans[id(feature_map)] = (min(have[0], needed[0]), max(have[1], needed[1]))
            for flow in self.flows:
                span = spans[id(flow.feature_map)]
                if span is None:
                    raise NoPlanError
                flow.columns.append(span)
        for flow in self.flows:
            width, entries = self._width(flow), machine.groups(flow.feature_map.shape[2])
            beyond = width > LENGTH or width * entries > ROW_ENTRIES or entries > CHANNEL_GROUPS
            if beyond and flow.resident is None and not self._alone(flow):
                raise NoPlanError

    def _gapless(self, flow, strip, span):
        """Columns of a computed map in a strip: those that nobody reads are computed, too."""
        if span is None:
            raise NoPlanError
        width, done = flow.feature_map.shape[1], flow.columns[-1][1] if strip else 0
        return min(span[0], done), width if strip == self.pieces - 1 else span[1]

    def _alone(self, flow):
        """Channels beyond one instruction's counters are the business of an operation by itself."""
        width, entries = self._width(flow), self.machine.groups(flow.feature_map.shape[2])
        return len(self.ops) == 1 and width <= LENGTH and width * entries <= ROW_ENTRIES

    def _width(self, flow):
        if not flow.width:
            strips = [end - start for start, end in flow.columns]
            flow.width = flow.feature_map.shape[1] if flow.keep else max(strips)
        return flow.width

    # rings

    def total(self, flow: Flow) -> int:
        return ceil_div(flow.height, flow.sub * self.machine.pixels)

    def _size_rings(self):
        """Least blocks of every ring: computing each band only when it is needed."""
        self.least = [1] * len(self.flows)
        self._done = [0] * len(self.ops)
        self._there = [flow.height if flow.resident else 0 for flow in self.flows]
        sinks = [f.producer for f in self.flows if f.producer is not None and not f.consumers]
        while waiting := [n for n in sinks if self._done[n] < len(self.rows[n])]:
            self._step(min(waiting, key=lambda n: (self._done[n] / len(self.rows[n]), n)))
        for number in range(len(self.ops)):
            while self._done[number] < len(self.rows[number]):
                self._step(number)

    def _step(self, number):
        """The next band of an operation, and before it what it reads."""
        rows = self.rows[number][self._done[number]]
        sources = [self.index[id(feature_map)] for feature_map in distinct(self.ops[number].inputs)]
        for source in sources:
            flow, row_end = self.flows[source], self.windows[number][self._done[number]][1]
            if flow.producer is None:
                self._there[source] = max(self._there[source], row_end)
            while self._there[source] < row_end:
                self._step(flow.producer)
        for source in sources:
            self._measure(source, self.lowest(self.flows[source], self._done))
        target = self.index[id(self.ops[number].output)]
        self._there[target] = rows[1]
        self._measure(target, min(rows[0], self.lowest(self.flows[target], self._done)))
        self._done[number] += 1

    def _measure(self, number, low):
        """A ring must hold the rows from `low` to the last that is there."""
        block, there = self.flows[number].sub * self.machine.pixels, self._there[number]
        if low < there:
            self.least[number] = max(self.least[number], (there - 1) // block - low // block + 1)

    def lowest(self, flow: Flow, done: Sequence[int]) -> int:
        """The first row that an operation of the segment still reads, the height if none does."""
        low = flow.height
        for number in flow.consumers:
            if done[number] < len(self.windows[number]):
                low = min(low, self.windows[number][done[number]][0])
        return low

    def _allocate(self):
        for extra in (2, 1, 0):
            for by_size in (False, True):
                rings = self.after.rings[0].copy(), self.after.rings[1].copy()
                places = self._try_allocate(rings, extra, by_size)
                if places is not None:
                    self._settle_places(places)
                    self.after.rings, self.tight = rings, not extra
                    return
        raise NoPlanError

    def _try_allocate(self, rings, extra, by_size):
        wanted = []
        for number, flow in enumerate(self.flows):
            if flow.resident is None:
                total = self.total(flow)
                blocks = total if flow.keep else min(total, self.least[number] + extra)
                entries = self.machine.groups(flow.feature_map.shape[2]) * flow.sub * self._width(flow)
                # of several strips the next one follows in the ring
                ring = blocks if blocks < total or (self.pieces > 1 and not flow.keep) else 0
                wanted.append((blocks * entries, number, ring))
        if by_size:
            wanted.sort(key=lambda item: (-item[0], item[1]))
        groups: dict[int, int] = {}
        places: dict[int, tuple[int, int, int]] = {}
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
                return None
            rings[candidate].hold(base, size)
            groups[number] = candidate
            places[number] = (candidate, base, blocks)
        return places

    def _settle_places(self, places):
        for number, flow in enumerate(self.flows):
            if flow.resident is not None:
                flow.placements = [flow.resident.placement] * self.pieces
                continue
            group, base, flow.blocks = places[number]
            flow.placements = [self._placement(flow, group, base, s) for s in range(self.pieces)]

    def _preferred(self, flow, groups):
        """The group opposite to where the producer reads."""
        if flow.producer is None:
            return FIRST_GROUP
        source = self.flow(self.ops[flow.producer].inputs[0])
        if source.resident is not None:
            return 1 - source.resident.placement.group
        return 1 - groups.get(self.index[id(source.feature_map)], FIRST_GROUP)

    def _placement(self, flow, group, base, strip):
        height, width, channels = flow.feature_map.shape
        start, end = (0, width) if flow.keep else flow.columns[strip]
        entries = self.machine.groups(channels)
        ring = (flow.blocks, strip * self.total(flow), flow.sub * self._width(flow) * entries)
        return Placement(self.machine, group, base, 0, height, start, end - start, entries, flow.sub, *ring)

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
