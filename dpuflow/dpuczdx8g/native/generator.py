"""Operations -> instructions in program order.

A map stays on chip for the next operation when that reads it and it fits an image group whole;
it goes to DDR when somebody else reads it too or it does not fit. An operation whose maps do
not fit runs tile by tile.
Banks are handed out in circles, so that loading the next piece seldom waits for the last
one to be used up; `synchronise` finds out where it must.
"""

from dataclasses import dataclass

from dpuflow.base.errors import UserError
from dpuflow.base.totality import Total
from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.native.averaging import regions
from dpuflow.dpuczdx8g.native.operations import (
    ENGINES,
    KINDS,
    OUTPUT,
    PARAMETERS,
    WORKSPACE,
    FeatureMap,
    Job,
    Operation,
)
from dpuflow.dpuczdx8g.native.placement import Placement, Ring, ceil_div
from dpuflow.dpuczdx8g.native.tiling import (
    CHANNEL_GROUPS,
    STRIDE_OUT,
    Tile,
    channel_slices,
    fits_whole,
    input_tile,
    map_size,
    sub_rows,
    tiles,
    whole,
)
from dpuflow.dpuczdx8g.native.transposed import phases, tap_rows
from dpuflow.dpuczdx8g.native.writer import Writer, band_rows

FIRST_GROUP = 1
"""Image group that maps are loaded into, as the vendor's compiler does."""


@dataclass
class Source:
    """An input map in the banks; rows still in DDR are loaded when first needed."""

    feature_map: FeatureMap
    placement: Placement
    next_row: int


class Generator:
    """Generates the program of one Job."""

    def __init__(self, machine: Machine, job: Job) -> None:
        self.machine = machine
        self.job = job
        self.writer = Writer(machine)
        self.images = [Ring(), Ring()]
        self.weights, self.depthwise, self.bias = Ring(), Ring(), Ring()
        self.resident: Source | None = None
        self.workspace = 0

    def generate(self) -> list[Instruction]:
        """The list of instructions, masks still empty."""
        for number, op in enumerate(self.job.operations):
            following = self.job.operations[number + 1 : number + 2]
            self._operation(op, following[0] if following else None)
        self.writer.add("END")
        return self.writer.instructions

    # one operation

    def _operation(self, op, following):
        resident, self.resident = self.resident, None
        if resident and not any(m is resident.feature_map for m in op.inputs):
            resident = None
        source_group = resident.placement.group if resident else FIRST_GROUP
        for ring in self.images:
            ring.release()
        if resident:
            self.images[source_group].hold(resident.placement.base, resident.placement.size)
        if KINDS[op.kind].engine == "none":
            self._move(op, resident, source_group)
        elif KINDS[op.kind].phases_as:
            self._piecewise(op, phases, resident, source_group)
        elif resident or len(channel_slices(op, self.machine)) == 1:
            self._whole(op, following, resident, source_group)
        else:
            self._piecewise(op, lambda op: [op], None, source_group)

    def _piecewise(self, op, cut, resident, source_group):
        """An operation as several to DDR: what `cut` makes of it, each in slices of its channels."""
        self._spill(op.output)
        for piece in cut(op):
            for part in [piece] if resident else channel_slices(piece, self.machine):
                self._tilewise(part, source_group, resident)

    def _whole(self, op, following, resident, source_group):
        """An operation tile by tile; its output stays on chip where the next one reads it."""
        keep = self._stays_on_chip(op, following)
        save = not keep or op.output.region == OUTPUT or self.job.consumers(op.output) != [following]
        save = save or bool(self.job.views_of(op.output))
        save = save or any(reader.factors is op.output for reader in self.job.consumers(op.output))
        if save:
            self._spill(op.output)
        output_sub = sub_rows(following, self.machine) if keep else 1
        target = self._place_whole(op.output, 1 - source_group, output_sub) if keep else None
        parameters = self._parameters(op)
        for tile in self._tiles(op, resident, source_group, target, output_sub):
            sources = self._sources(op, tile, resident, source_group)
            placement = target or self._place(
                op.output.shape[2], 1 - source_group, tile.row, tile.row_end, tile.column, tile.column_end, 1
            )
            self._compute(op, tile, sources, placement, parameters)
            if not keep:
                self._save_rows(placement, op.output)
        if keep:
            self.resident = Source(op.output, target, op.output.shape[0])
            if save:
                self._save_rows(target, op.output)

    def _tilewise(self, op, source_group, resident):
        """An operation from DDR, or what is resident, to DDR."""
        parameters = self._parameters(op)
        for tile in self._tiles(op, resident, source_group, None, 1):
            sources = self._sources(op, tile, resident, source_group)
            area = (tile.row, tile.row_end, tile.column, tile.column_end)
            placement = self._place(op.output.shape[2], 1 - source_group, *area, 1)
            self._compute(op, tile, sources, placement, parameters)
            self._save_rows(placement, op.output)

    def _spill(self, feature_map):
        """The map goes through DDR: give it a place in the workspace unless it has one elsewhere."""
        feature_map.spilled = True
        if feature_map.region == WORKSPACE:
            feature_map.address = self.workspace
            self.workspace += ceil_div(feature_map.size, 16) * 16
        for view in self.job.views_of(feature_map):
            view.spilled, view.address = True, feature_map.address

    def _save_rows(self, placement, feature_map):
        for row in range(placement.row, placement.row + placement.rows):
            self.writer.save_row(placement, row, feature_map)

    def _stays_on_chip(self, op, following):
        """Whether the next operation reads the output, and it fits a group whole."""
        if following is None or not any(m is op.output for m in following.inputs):
            return False
        sub = sub_rows(following, self.machine)
        if sub > STRIDE_OUT or (KINDS[op.kind].engine == "elementwise" and sub > 1):
            return False
        return fits_whole(self.machine, op.output, sub)

    def _tiles(self, op, resident, source_group, target, output_sub):
        """The tiles to run; the whole map at once when everything fits."""
        waiting = [m for m in _distinct(op.inputs) if not (resident and m is resident.feature_map)]
        free = self.images[source_group].free
        sub = sub_rows(op, self.machine)
        output_fits = target is not None or fits_whole(self.machine, op.output, output_sub)
        size = sum(map_size(self.machine, *m.shape, sub) for m in waiting)
        if output_fits and size <= free and all(fits_whole(self.machine, m, sub) for m in waiting):
            return [whole(op)]
        input_free = free if waiting else None
        output_free = None if target is not None else BANK_DEPTH
        return tiles(op, self.machine, input_free, output_free, output_sub)

    def _sources(self, op, tile, resident, group):
        sources = {}
        for feature_map in _distinct(op.inputs):
            if resident and feature_map is resident.feature_map:
                sources[id(feature_map)] = resident
            else:
                sub = sub_rows(op, self.machine)
                placement = self._place(feature_map.shape[2], group, *input_tile(op, tile), sub)
                sources[id(feature_map)] = Source(feature_map, placement, placement.row)
        return [sources[id(feature_map)] for feature_map in op.inputs]

    def _place_whole(self, feature_map, group, sub):
        height, width, channels = feature_map.shape
        return self._place(channels, group, 0, height, 0, width, sub)

    def _place(self, channels, group, row, row_end, column, column_end, sub):
        rows, columns = row_end - row, column_end - column
        size = map_size(self.machine, rows, columns, channels, sub)
        base = self.images[group].take(size)
        entries = self.machine.groups(channels)
        return Placement(self.machine, group, base, row, rows, column, columns, entries, sub)

    def _need_rows(self, source, row_end):
        """Load rows below `row_end` that are still in DDR."""
        while source.next_row < min(row_end, source.placement.row + source.placement.rows):
            self.writer.load_row(source.feature_map, source.placement, source.next_row)
            source.next_row += 1

    # computing

    def _compute(self, op, tile, sources, target, parameters):
        _COMPUTE[KINDS[op.kind].engine](self, op, tile, sources, target, parameters)

    def _bands(self, op, tile, source, limit):
        """(row, row_end) of the output rows that one instruction each computes."""
        row = tile.row
        while row < tile.row_end:
            count = band_rows(op, source.placement, row, tile.row_end, limit)
            if count == 0:
                raise UserError(
                    f"{op.name}: a kernel of {op.kernel[0]} rows needs more passes over the"
                    f" {self.machine.pixels} banks of {self.machine.name} than an instruction has"
                )
            yield row, row + count
            row += count

    def _need_band(self, op, source, row_end):
        self._need_rows(source, (row_end - 1) * op.stride[0] - op.pad[0] + op.kernel[0])

    def _parameters(self, op):
        """Bank addresses of an operation's weights and bias; the bias is loaded at once."""
        if KINDS[op.kind].factors:
            return 0, {}
        if op.kind not in ("conv", "depthwise"):
            return None
        groups = self.machine.groups(op.output.shape[2])
        bias = self.bias.take(groups)
        self.writer.load_parameters(self.machine.bias_bank, bias, op.bias, 1, op.output.shape[2])
        loaded, entries = {}, self._weight_entries(op)
        if op.kind == "conv" and entries > BANK_DEPTH:
            raise UserError(
                f"{op.name}: {op.kernel[1]}x{op.kernel[0]} kernel on {op.inputs[0].shape[2]} channels needs"
                f" {entries} entries per weight bank, {self.machine.name} has {BANK_DEPTH}"
            )
        return bias, loaded

    def _weight_entries(self, op):
        return op.kernel[0] * op.kernel[1] * self.machine.groups(op.inputs[0].shape[2])

    def _conv(self, op, tile, sources, target, parameters):
        (source,), (bias, loaded) = sources, parameters
        groups = self.machine.groups(op.output.shape[2])
        stay = groups * self._weight_entries(op) <= BANK_DEPTH
        bands = list(self._bands(op, tile, source, self.machine.pixels))
        if stay:
            order = [(band, group) for band in bands for group in range(groups)]
        else:
            order = [(band, group) for group in range(groups) for band in bands]
        columns = (tile.column, tile.column_end)
        for band, group in order:
            self._need_band(op, source, band[1])
            if group not in loaded:
                if not stay:
                    loaded.clear()
                loaded[group] = self._load_weights(op, group)
            weights = loaded[group]
            self.writer.conv(op, source.placement, target, band, columns, group, weights, bias + group)
        if not stay:
            loaded.clear()

    def _load_weights(self, op, group):
        """Load the weights of one group of output channels; returns their bank address."""
        address = self.weights.take(self._weight_entries(op))
        taps, channels = op.kernel[0] * op.kernel[1], op.inputs[0].shape[2]
        first = group * self.machine.channels
        for channel in range(first, min(first + self.machine.channels, op.output.shape[2])):
            bank = self.machine.weight_bank + channel - first
            if op.phase is None:
                start = op.weights + channel * taps * channels
                self.writer.load_parameters(bank, address, start, taps, channels)
                continue
            for tap, start in tap_rows(op, channels):
                start += op.weights + channel * op.phase.kernel[0] * op.phase.kernel[1] * channels
                at = address + tap * self.machine.groups(channels)
                jump = op.phase.step[1] * channels
                self.writer.load_parameters(bank, at % BANK_DEPTH, start, op.kernel[1], channels, jump)
        return address

    def _alu(self, op, tile, sources, target, parameters):
        (source,) = sources
        for chunk in self._chunks(op):
            weights = bias = jump = 0
            if parameters is not None:
                weights, jump = self._depthwise_weights(op, chunk, parameters[1]), chunk[1] - chunk[0]
                bias = parameters[0] + chunk[0]
            for part, rows, columns in regions(op, tile):
                piece = Tile(*rows, *columns)
                for band in self._bands(op, piece, source, self.machine.alu_pixels):
                    self._need_band(op, source, band[1])
                    self.writer.alu(part, source.placement, target, band, columns, chunk, weights, bias, jump)

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

    def _depthwise_weights(self, op, chunk, loaded):
        """Bank address of the weights of a chunk of channel groups, loaded unless they still are."""
        if chunk not in loaded:
            loaded.clear()
            taps, all_channels = op.kernel[0] * op.kernel[1], op.weight_channels or op.output.shape[2]
            first = chunk[0] * self.machine.channels
            channels = min(chunk[1] * self.machine.channels, op.output.shape[2]) - first
            loaded[chunk] = self.depthwise.take(taps * (chunk[1] - chunk[0]))
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
        limit = self.machine.alu_pixels if target.sub_rows == 1 else 1
        for row in range(tile.row, tile.row_end, limit):
            row_end = min(row + limit, tile.row_end)
            for source in sources:
                self._need_rows(source, row_end)
            self.writer.elementwise(
                op, [s.placement for s in sources], target, (row, row_end), (tile.column, tile.column_end)
            )

    def _nothing(self, op, tile, sources, target, parameters):
        """What only moves saves (`_move`)."""
        raise ValueError(f"{op.name}: a {op.kind} computes nothing")

    def _move(self, op, resident, group):
        """Every input goes to its place in the output in DDR: through the banks, computing nothing."""
        self._spill(op.output)
        for feature_map, targets in _MOVED[op.kind](op):
            part = Operation(op.name, op.kind, [feature_map], feature_map)  # for tiling
            here = resident and feature_map is resident.feature_map
            cuts = [whole(part)] if here else tiles(part, self.machine, self.images[group].free, None, 1)
            for tile in cuts:
                source = resident if here else self._sources(part, tile, None, group)[0]
                self._need_rows(source, tile.row_end)
                for row in range(tile.row, tile.row_end):
                    for target in targets:
                        self.writer.save_row(source.placement, row, target)


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
