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
        self.rows = [list(f.resident.rows) if f.resident else [0.0] * f.height for f in flows]
        self.block = [f.sub * self.machine.pixels for f in flows]
        self.used = [[0.0] * segment.total(f) for f in flows]
        self.loaded: set[int] = set()
        self.saved = [0.0] * len(flows)

    def run(self) -> None:
        segment = self.segment
        for strip in range(segment.pieces):
            self._strip(strip)
        state = self.state
        for number, flow in enumerate(segment.flows):
            if flow.save:
                for name in map(id, segment.units.written_with(flow.feature_map)):
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
        last = {
            n: max((segment.windows[c][-1][1] for c in segment.flows[n].consumers), default=0) for n in loads
        }
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
        cycles = timing.transfer(1, columns[1] - columns[0], flow.feature_map)
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
        low, high = segment.windows[number][self.done[number]]
        start = self.state.free[timing.engine_of(op)]
        for feature_map in op.inputs:
            source = segment.index[id(feature_map)]
            if self.there[source] < high:
                return None
            if high > low:
                start = max(start, self.rows[source][high - 1])
        room = self._room(segment.index[id(op.output)], rows[1])
        return None if room is None else max(start, room)

    def _compute(self, number, start, strip):
        segment, op, state = self.segment, self.segment.ops[number], self.state
        rows = segment.rows[number][self.done[number]]
        target = segment.index[id(op.output)]
        flow = segment.flows[target]
        columns = flow.columns[strip][1] - flow.columns[strip][0]
        end = self._time(number, start, rows[1] - rows[0], columns)
        state.free[timing.engine_of(op)] = end
        for row in range(*rows):
            self.rows[target][row] = end
        self.there[target] = rows[1]
        low, high = segment.windows[number][self.done[number]]
        for feature_map in op.inputs:
            source = segment.index[id(feature_map)]
            for block in range(low // self.block[source], (max(high, low + 1) - 1) // self.block[source] + 1):
                if block < len(self.used[source]):
                    self.used[source][block] = max(self.used[source][block], end)
        self.done[number] += 1
        segment.tasks.append(Task("compute", number, rows, strip))
        if flow.save:
            share = flow.share[strip]
            cycles = timing.transfer(rows[1] - rows[0], share[1] - share[0], flow.feature_map)
            state.free[timing.SAVE] = max(end, state.free[timing.SAVE]) + cycles
            state.busy += cycles
            self.saved[target] = state.free[timing.SAVE]
            for block in range(rows[0] // self.block[target], (rows[1] - 1) // self.block[target] + 1):
                self.used[target][block] = max(self.used[target][block], state.free[timing.SAVE])
            segment.tasks.append(Task("save", target, rows, strip))

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
