"""The order of a segment's tasks: four engines run against the clock, and next comes what can start first."""

from typing import Any

from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH
from dpuflow.dpuczdx8g.native import timing
from dpuflow.dpuczdx8g.native.flows import NoPlanError, Resident, Task
from dpuflow.dpuczdx8g.native.operations import KINDS


class Clock:
    """Runs the engines of a `streaming.Segment` against the clock and puts its tasks into order."""

    def __init__(self, segment: Any) -> None:
        self.segment = segment
        self.machine = segment.machine
        self.state = segment.after
        self.begin = max(segment.after.free)
        self.floor = segment.after.floor
        flows = segment.flows
        self.block = [f.sub * self.machine.pixels for f in flows]
        # the rows of one strip follow those of the last, each beginning with a block of its own
        self.height = [segment.total(f) * block for f, block in zip(flows, self.block, strict=True)]
        self.rows = [
            list(f.resident.rows) if f.resident else [0.0] * height * segment.pieces
            for f, height in zip(flows, self.height, strict=True)
        ]
        self.used = [[0.0] * segment.total(f) * segment.pieces for f in flows]
        self.done = [0] * len(segment.ops)
        self.there = [0] * len(flows)
        self.loaded: set[int] = set()
        self.saved = [0.0] * len(flows)

    def run(self) -> None:
        """Complete the segment's tasks and the State behind it; NoPlanError when they block each other."""
        segment, state = self.segment, self.state
        self._order()
        for number, flow in enumerate(segment.flows):
            if flow.save:
                for name in map(id, segment.units.written_with(flow.feature_map)):
                    state.saved[name] = max(state.saved.get(name, 0.0), self.saved[number])
            if flow.keep:
                rows = tuple(self.rows[number][-self.height[number] :][: flow.height])
                state.residents[id(flow.feature_map)] = Resident(flow.feature_map, flow.placements[0], rows)
        state.floor = self.begin

    def _order(self):
        segment = self.segment
        loads = [n for n, f in enumerate(segment.flows) if f.producer is None and f.resident is None]
        self.last = {
            n: max((segment.windows[c][-1][1] for c in segment.flows[n].consumers), default=0) for n in loads
        }
        while True:
            found = []
            for number in loads:
                chunk = self._chunk(number)
                start = self._load_start(number, chunk) if chunk else None
                if start is not None:
                    found.append((start, 0, number))
            for number in range(len(segment.ops)):
                if not self._finished(number):
                    start = self._compute_start(number)
                    if start is not None:
                        found.append((start, -1 - number, number))
            if not found:
                break
            start, kind, number = min(found)
            if kind == 0:
                self._load(number, start)
            else:
                self._compute(number, start)
        if not all(self._finished(number) for number in range(len(segment.ops))):
            raise NoPlanError

    def _finished(self, number):
        return self.done[number] == len(self.segment.rows[number]) * self.segment.pieces

    def _next(self, number):
        """(strip, number within it) of an operation's next task."""
        return divmod(self.done[number], len(self.segment.rows[number]))

    def _chunk(self, number):
        """(strip, start, end) of the rows to be loaded next, up to the end of PP rows; None for none."""
        strip, start = divmod(self.there[number], self.height[number])
        last, pixels = self.last[number], self.machine.pixels
        if start >= last:
            strip, start = strip + 1, 0
        if strip >= self.segment.pieces or not last:
            return None
        return strip, start, min(last, (start // pixels + 1) * pixels)

    def _room(self, number, row_end):
        """When the block that rows up to row_end go to is free; None as long as it is in use."""
        flow, block = self.segment.flows[number], (row_end - 1) // self.block[number]
        if not flow.blocks or block < flow.blocks:
            return 0.0
        if self._lowest(number) // self.block[number] <= block - flow.blocks:
            return None
        return self.used[number][block - flow.blocks]

    def _lowest(self, number):
        """The first row that an operation still reads."""
        low = self.height[number] * self.segment.pieces
        for consumer in self.segment.flows[number].consumers:
            if not self._finished(consumer):
                strip, task = self._next(consumer)
                low = min(low, strip * self.height[number] + self.segment.windows[consumer][task][0])
        return low

    def _load_start(self, number, chunk):
        room = self._room(number, chunk[0] * self.height[number] + chunk[2])
        if room is None:
            return None
        sources = self.segment.units.sources(self.segment.flows[number].feature_map)
        ready = max(self.state.saved.get(id(source), 0.0) for source in sources)
        return max(room, ready, self.floor, self.state.free[timing.LOAD])

    def _load(self, number, start):
        segment, flow = self.segment, self.segment.flows[number]
        strip, first, end = self._chunk(number)
        columns, above = flow.columns[strip], strip * self.height[number]
        cycles = timing.transfer(1, columns[1] - columns[0], flow.feature_map)
        for row in range(above + first, above + end):
            start += cycles
            self.rows[number][row] = start
        self.state.free[timing.LOAD] = start
        self.state.busy += cycles * (end - first)
        self.there[number] = above + end
        segment.tasks.append(Task("load", number, (first, end), strip))

    def _compute_start(self, number):
        segment, op = self.segment, self.segment.ops[number]
        strip, task = self._next(number)
        low, high = segment.windows[number][task]
        start = self.state.free[timing.engine_of(op)]
        for feature_map in op.inputs:
            source = segment.index[id(feature_map)]
            above = 0 if segment.flows[source].resident else strip * self.height[source]
            if high > low:
                if not segment.flows[source].resident and self.there[source] < above + high:
                    return None
                start = max(start, self.rows[source][above + high - 1])
        target = segment.index[id(op.output)]
        room = self._room(target, strip * self.height[target] + segment.rows[number][task][1])
        return None if room is None else max(start, room)

    def _compute(self, number, start):
        segment, op, state = self.segment, self.segment.ops[number], self.state
        strip, task = self._next(number)
        rows, target = segment.rows[number][task], segment.index[id(op.output)]
        flow = segment.flows[target]
        columns, above = flow.columns[strip][1] - flow.columns[strip][0], strip * self.height[target]
        end = self._time(number, start, rows[1] - rows[0], columns)
        state.free[timing.engine_of(op)] = end
        for row in range(above + rows[0], above + rows[1]):
            self.rows[target][row] = end
        self.there[target] = above + rows[1]
        low, high = segment.windows[number][task]
        for feature_map in op.inputs:
            source = segment.index[id(feature_map)]
            if high > low and not segment.flows[source].resident:
                self._use(source, strip, (low, high), end)
        self.done[number] += 1
        segment.tasks.append(Task("compute", number, rows, strip))
        if flow.save:
            share = flow.share[strip]
            cycles = timing.transfer(rows[1] - rows[0], share[1] - share[0], flow.feature_map)
            state.free[timing.SAVE] = max(end, state.free[timing.SAVE]) + cycles
            state.busy += cycles
            self.saved[target] = state.free[timing.SAVE]
            self._use(target, strip, rows, state.free[timing.SAVE])
            segment.tasks.append(Task("save", target, rows, strip))

    def _use(self, number, strip, rows, end):
        """The blocks of these rows are in use until `end`."""
        above, used = strip * self.height[number], self.used[number]
        first, last = (above + rows[0]) // self.block[number], (above + rows[1] - 1) // self.block[number]
        for block in range(first, last + 1):
            used[block] = max(used[block], end)

    def _time(self, number, start, rows, columns):
        """When a task is finished that starts at `start`, its weights loaded on the way if need be."""
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
        loads = timing.weights(op, self.machine)
        if not loads:
            return start + groups * cycles
        entries = segment.weight_entries(op) // groups
        held = max(1, BANK_DEPTH // max(1, entries))
        ends: list[float] = []
        begin = max(self.floor, state.free[timing.LOAD])
        for count, load in loads:
            if len(ends) + count > held:
                begin = max(begin, ends[max(0, len(ends) + count - held - 1)])
            begin += load
            state.busy += load
            for _ in range(count):
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
