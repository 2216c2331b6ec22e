"""Operations -> instructions in program order.

Which operations run together and where their maps lie is the business of `search` and `streaming`; here
their tasks become instructions. What fits no segment goes tile by tile from DDR to DDR. `synchronise` finds
out who must wait for whom.
"""

from dataclasses import dataclass, field

from dpuflow.base.errors import UserError
from dpuflow.base.totality import Total
from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.native import weight_loads
from dpuflow.dpuczdx8g.native.averaging import regions
from dpuflow.dpuczdx8g.native.operations import (
    ENGINES,
    KINDS,
    OUTPUT,
    PARAMETERS,
    WORKSPACE,
    Job,
    Operation,
)
from dpuflow.dpuczdx8g.native.placement import Placement, Ring, ceil_div
from dpuflow.dpuczdx8g.native.search import plans
from dpuflow.dpuczdx8g.native.streaming import FIRST_GROUP, Segment
from dpuflow.dpuczdx8g.native.tiling import CHANNEL_GROUPS, Tile, input_tile, map_size, sub_rows, tiles, whole
from dpuflow.dpuczdx8g.native.transposed import tap_rows
from dpuflow.dpuczdx8g.native.units import Units
from dpuflow.dpuczdx8g.native.writer import Writer, band_rows


@dataclass
class Weights:
    """Bank addresses of an operation's weights and bias.

    Attributes
    ----------
    base : of weights that stay, None where they come and go.
    addresses : of what is loaded: by output channel group (CONV), by chunk of channel groups (ALU).
    """

    base: int | None
    bias: int | None = None
    addresses: dict[object, int] = field(default_factory=dict)


class Generator:
    """Generates the program of one Job."""

    def __init__(self, machine: Machine, job: Job) -> None:
        self.machine = machine
        self.job = job
        self.writer = Writer(machine)
        self.weights, self.depthwise, self.bias = Ring(), Ring(), Ring()
        self.workspace = 0
        self.rooms: list[tuple[int, int]] = []

    def generate(self) -> list[Instruction]:
        """The list of instructions, masks still empty."""
        for plan in plans(Units(self.machine, self.job, self._spill)):
            if isinstance(plan, Segment):
                self._segment(plan)
            else:
                self._alone(plan)
        self.writer.add("END")
        return self.writer.instructions

    def _spill(self, feature_map):
        """The map goes through DDR: give it a place in the workspace unless it has one elsewhere."""
        if feature_map.spilled or feature_map.region not in (WORKSPACE, OUTPUT):
            return
        feature_map.spilled = True
        if feature_map.region == WORKSPACE:
            feature_map.address = self.workspace
            self.rooms.append((self.workspace, feature_map.size))
            self.workspace += ceil_div(feature_map.size, 16) * 16
        for view in self.job.views_of(feature_map):
            view.spilled, view.address = True, feature_map.address

    def _evict(self, residents):
        for resident in residents:
            self._spill(resident.feature_map)
            self._save_rows(resident.placement, resident.feature_map, (0, resident.feature_map.shape[0]))

    def _save_rows(self, placement, feature_map, rows, columns=None):
        for row in range(*rows):
            self.writer.save_row(placement, row, feature_map, columns)

    # segments

    def _segment(self, segment):
        self._evict(segment.evicted)
        for flow in segment.flows:
            if flow.save and segment.units.parent(flow.feature_map) is flow.feature_map:
                self._spill(flow.feature_map)
        held, parameters = self._reserve(segment)
        for task in segment.tasks:
            if task.kind == "compute":
                op = segment.ops[task.number]
                sources = [segment.flow(m).placements[task.strip] for m in op.inputs]
                target = segment.flow(op.output)
                if parameters[task.number].base is None and len(segment.ops) > 1:
                    parameters[task.number].addresses.clear()  # another operation's took their place
                tile = Tile(*task.rows, *target.columns[task.strip])
                self._compute(op, tile, sources, target.placements[task.strip], parameters[task.number])
                continue
            flow = segment.flows[task.number]
            placement = flow.placements[task.strip]
            if task.kind == "load":
                for row in range(*task.rows):
                    self.writer.load_row(flow.feature_map, placement, row)
            else:
                self._save_rows(placement, flow.feature_map, task.rows, flow.share[task.strip])
        for ring, base in held:
            ring.release(base)

    def _reserve(self, segment):
        """([(ring, base)] of weights that stay for the segment, [Weights of each operation])."""
        held, parameters = [], [Weights(None) for _ in segment.ops]
        for ring, engine in ((self.weights, "convolution"), (self.depthwise, "alu")):
            mine = [n for n, op in enumerate(segment.ops) if KINDS[op.kind].engine == engine]
            mine = [n for n in mine if n in segment.stays and segment.weight_entries(segment.ops[n])]
            if not mine:
                continue
            base = ring.take(sum(segment.weight_entries(segment.ops[n]) for n in mine))
            ring.hold(base, sum(segment.weight_entries(segment.ops[n]) for n in mine))
            held.append((ring, base))
            for number in mine:
                parameters[number].base = base
                base += segment.weight_entries(segment.ops[number])
        return held, parameters

    # one operation alone

    def _alone(self, plan):
        self._evict(plan.evicted)
        if KINDS[plan.op.kind].engine == "none":
            self._move(plan.op, plan.residents, plan.after.rings)
        else:
            self._tilewise(plan.op)

    def _tilewise(self, op):
        """An operation tile by tile from DDR to DDR."""
        self._spill(op.output)
        images, parameters = (Ring(), Ring()), Weights(None)
        for tile in tiles(op, self.machine, BANK_DEPTH, BANK_DEPTH, 1):
            placements = {}
            for feature_map in _distinct(op.inputs):
                placements[id(feature_map)] = self._tile(
                    images[FIRST_GROUP],
                    FIRST_GROUP,
                    feature_map,
                    input_tile(op, tile),
                    sub_rows(op, self.machine),
                )
                self._load(feature_map, placements[id(feature_map)])
            area = (tile.row, tile.row_end, tile.column, tile.column_end)
            target = self._tile(images[1 - FIRST_GROUP], 1 - FIRST_GROUP, op.output, area, 1)
            sources = [placements[id(feature_map)] for feature_map in op.inputs]
            self._compute(op, tile, sources, target, parameters)
            self._save_rows(target, op.output, (tile.row, tile.row_end))

    def _tile(self, ring, group, feature_map, area, sub):
        row, row_end, column, column_end = area
        rows, columns, channels = row_end - row, column_end - column, feature_map.shape[2]
        base = ring.take(map_size(self.machine, rows, columns, channels, sub))
        entries = self.machine.groups(channels)
        return Placement(self.machine, group, base, row, rows, column, columns, entries, sub)

    def _load(self, feature_map, placement):
        for row in range(placement.row, placement.row + placement.rows):
            self.writer.load_row(feature_map, placement, row)

    def _move(self, op, residents, rings):
        """Every input goes to its place in the output in DDR: through the banks, computing nothing."""
        self._spill(op.output)
        group = max((1, 0), key=lambda number: rings[number].free)
        ring = rings[group].copy()
        for feature_map, targets in _MOVED[op.kind](op):
            part = Operation(op.name, op.kind, [feature_map], feature_map)  # for tiling
            placement = residents.get(id(feature_map))
            for tile in [whole(part)] if placement else tiles(part, self.machine, ring.free, None, 1):
                area = (tile.row, tile.row_end, tile.column, tile.column_end)
                source = placement or self._tile(ring, group, feature_map, area, 1)
                if not placement:
                    self._load(feature_map, source)
                for target in targets:
                    self._save_rows(source, target, (tile.row, tile.row_end))

    # computing

    def _compute(self, op, tile, sources, target, parameters):
        _COMPUTE[KINDS[op.kind].engine](self, op, tile, sources, target, parameters)

    def _bands(self, op, tile, source, limit):
        """[(row, row_end)] of the output rows that one instruction each computes."""
        row, found = tile.row, []
        while row < tile.row_end:
            count = band_rows(op, source, row, tile.row_end, limit)
            if count == 0:
                raise UserError(
                    f"{op.name}: a kernel of {op.kernel[0]} rows needs more passes over the"
                    f" {self.machine.pixels} banks of {self.machine.name} than an instruction has"
                )
            found.append((row, row + count))
            row += count
        return found

    def _load_bias(self, op, parameters):
        """Bias of all channels, before the first weights."""
        if parameters.bias is None:
            channels = op.output.shape[2]
            parameters.bias = self.bias.take(self.machine.groups(channels))
            self.writer.load_parameters(self.machine.bias_bank, parameters.bias, op.bias, 1, channels)

    def _conv(self, op, tile, sources, target, parameters):
        (source,), entries = sources, weight_loads.channel_entries(op, self.machine)
        if entries > BANK_DEPTH:
            raise UserError(
                f"{op.name}: {op.kernel[1]}x{op.kernel[0]} kernel on {op.inputs[0].shape[2]} channels needs"
                f" {entries} entries per weight bank, {self.machine.name} has {BANK_DEPTH}"
            )
        groups = self.machine.groups(op.output.shape[2])
        bands = self._bands(op, tile, source, self.machine.pixels)
        stay = parameters.base is not None
        if stay:
            order = [(band, group) for band in bands for group in range(groups)]
        else:
            order = [(band, group) for group in range(groups) for band in bands]
        columns, loaded = (tile.column, tile.column_end), parameters.addresses
        self._load_bias(op, parameters)
        chunks = {start: (start, end) for start, end in weight_loads.chunks(op, self.machine)}
        for band, group in order:
            if group not in loaded:
                chunk = chunks[group]
                if not stay:
                    loaded.clear()
                size = (chunk[1] - chunk[0]) * entries
                base = parameters.base + group * entries if stay else self.weights.take(size)
                loaded.update((g, (base + (g - group) * entries) % BANK_DEPTH) for g in range(*chunk))
                self._load_weights(op, chunk, loaded[group])
            self.writer.conv(op, source, target, band, columns, group, loaded[group], parameters.bias + group)

    def _load_weights(self, op, chunk, address):
        """Load the weights of some groups of output channels."""
        if not op.picks_taps:
            for bank, start, *shape in weight_loads.bank_loads(op, self.machine, chunk):
                self.writer.load_parameters(
                    self.machine.weight_bank + bank, address, op.weights + start, *shape
                )
            return
        channels = op.inputs[0].shape[2]
        first = chunk[0] * self.machine.channels
        for channel in range(first, min(first + self.machine.channels, op.output.shape[2])):
            bank = self.machine.weight_bank + channel - first
            for tap, start in tap_rows(op, channels):
                start += op.weights + channel * op.phase.kernel[0] * op.phase.kernel[1] * channels
                at = address + tap * self.machine.groups(channels)
                jump = op.phase.step[1] * channels
                self.writer.load_parameters(bank, at % BANK_DEPTH, start, op.kernel[1], channels, jump)

    def _alu(self, op, tile, sources, target, parameters):
        (source,), factors = sources, KINDS[op.kind].factors
        if op.kind == "depthwise":
            self._load_bias(op, parameters)
        for chunk in self._chunks(op):
            weights = bias = jump = 0
            if op.kind == "depthwise" or factors:
                weights, jump = self._depthwise_weights(op, chunk, parameters), chunk[1] - chunk[0]
                bias = 0 if factors else parameters.bias + chunk[0]
            for part, rows, columns in regions(op, tile):
                for band in self._bands(op, Tile(*rows, *columns), source, self.machine.alu_pixels):
                    self.writer.alu(part, source, target, band, columns, chunk, weights, bias, jump)

    def _chunks(self, op):
        """[start, end) channel groups that one ALU instruction handles."""
        groups = self.machine.groups(op.inputs[0].shape[2])
        limit = min(groups, CHANNEL_GROUPS)
        if op.kind == "depthwise" or KINDS[op.kind].factors:
            limit = max(1, min(limit, BANK_DEPTH // (op.kernel[0] * op.kernel[1])))
            if op.kernel[0] * op.kernel[1] > BANK_DEPTH:
                raise UserError(
                    f"{op.name}: a depthwise kernel of {op.kernel[1]}x{op.kernel[0]} is too large"
                )
        return [(start, min(start + limit, groups)) for start in range(0, groups, limit)]

    def _depthwise_weights(self, op, chunk, parameters):
        """Bank address of the weights of a chunk of channel groups, loaded unless they still are."""
        loaded = parameters.addresses
        if chunk not in loaded:
            taps, all_channels = op.kernel[0] * op.kernel[1], op.weight_channels or op.output.shape[2]
            first = chunk[0] * self.machine.channels
            channels = min(chunk[1] * self.machine.channels, op.output.shape[2]) - first
            if parameters.base is None:
                loaded.clear()
                loaded[chunk] = self.depthwise.take(taps * (chunk[1] - chunk[0]))
            else:
                loaded[chunk] = (parameters.base + taps * chunk[0]) % BANK_DEPTH
            bank, region, start = self.machine.depthwise_bank, PARAMETERS, op.weights + first
            if op.factors is not None:
                region, start = op.factors.region, op.factors.address + first
            if op.phase is None:
                self.writer.load_parameters(bank, loaded[chunk], start, taps, channels, all_channels, region)
                return loaded[chunk]
            for tap, row in tap_rows(op, all_channels):
                at = (loaded[chunk] + tap * (chunk[1] - chunk[0])) % BANK_DEPTH
                jump = op.phase.step[1] * all_channels
                self.writer.load_parameters(bank, at, start + row, op.kernel[1], channels, jump)
        return loaded[chunk]

    def _add(self, op, tile, sources, target, parameters):
        step, limit = target.sub_rows, self.machine.alu_pixels
        if any(source.sub_rows not in (1, step) for source in sources):
            limit = 1
        for first in range(tile.row, tile.row_end, limit * step):
            for start in range(first, min(first + step, tile.row_end)):
                rows = range(start, min(first + limit * step, tile.row_end), step)
                self.writer.elementwise(op, sources, target, rows, (tile.column, tile.column_end))

    def _nothing(self, op, tile, sources, target, parameters):
        """What only moves saves (`_move`)."""
        raise ValueError(f"{op.name}: a {op.kind} computes nothing")


def _side_by_side(op):
    """(input, [its channels of the output]) of a concat."""
    channel = 0
    for feature_map in op.inputs:
        yield feature_map, [op.output.channels(channel, feature_map.shape[2])]
        channel += feature_map.shape[2]


def _repeated(op):
    """(input, all the places of its pixels in the output) of an upsample."""
    (feature_map,), step = op.inputs, op.stride
    places = [(row, column) for row in range(step[0]) for column in range(step[1])]
    yield feature_map, [op.output.every(step, place, feature_map.shape[:2]) for place in places]


_MOVED = Total(
    "dpuczdx8g.native.generator: where the inputs of what only moves go",
    [kind for kind, facts in KINDS.items() if facts.engine == "none"],
    {"concat": _side_by_side, "upsample": _repeated},
)
_COMPUTE = Total(
    "dpuczdx8g.native.generator: instructions of an engine",
    ENGINES,
    {
        "convolution": Generator._conv,
        "alu": Generator._alu,
        "elementwise": Generator._add,
        "none": Generator._nothing,
    },
)


def _distinct(maps):
    return list({id(m): m for m in maps}.values())
