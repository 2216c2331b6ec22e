"""Instructions for pieces of work on placed feature maps, masks still empty.

Field rules: docs/reference/instruction-set.md. Everything here is arithmetic on positions; what
goes where and in which order is the generator's business.
"""

from collections.abc import Sequence

from dpuflow.dpuczdx8g.isa.addressing import PASSES
from dpuflow.dpuczdx8g.isa.code import Instruction, make
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.native import weight_loads
from dpuflow.dpuczdx8g.native.operations import KINDS, PARAMETERS, FeatureMap, Operation, Piece, Span
from dpuflow.dpuczdx8g.native.placement import Placement, ceil_div

ACTIVATIONS = {"NONE": 0, "RELU": 1, "LEAKYRELU": 3, "RELU6": 4}
LENGTH = 1024
"""Pixels (of parameters: taps) that one LOAD, SAVE or CONV can express."""
VALID_MAX = 15
"""Greatest pad_bottom and pad_right of CONV; a kernel has at most one row (column) more."""


def right_shift_code(shift: int, coded_right: int) -> int:
    """ALU and ELEW code of a shift to the right (to the left when negative)."""
    return coded_right + shift if shift > 0 else -shift


class Writer:
    """Appends instructions; remembers the engine state so that INITs come only when it changes.

    `pieces` tells what each computing instruction computes (`Job.pieces`).
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.instructions: list[Instruction] = []
        self.pieces: dict[int, Piece] = {}
        self._state: dict[str, dict[str, int]] = {}

    def add(self, name: str, **fields: int) -> None:
        """Append one instruction."""
        self.instructions.append(make(name, **fields))

    def _compute(self, name, op, rows, columns, groups, **fields):
        first = op.first_channel // self.machine.channels
        groups = (groups[0] + first, groups[1] + first)
        places = (op.phase.place, op.phase.apart) if op.phase else ()
        if isinstance(rows, range):
            places, rows = ((rows[0], 0), (rows.step, 1)), (0, len(rows))
        if not op.part:
            self.pieces[len(self.instructions)] = Piece(op.name, rows, columns, groups, *places)
        self.add(name, **fields)

    def _set(self, name, **fields):
        if self._state.get(name) != fields:
            self._state[name] = fields
            self.add(name, **fields)

    # DDR

    def load_row(self, feature_map: FeatureMap, placement: Placement, row: int) -> None:
        """DDR -> one row of a placement; beside the map the pixels of its edge, where it has one."""
        for part in feature_map.parts:
            self._load_part(part, placement, row)
        if feature_map.parts:
            return
        first, last = placement.column, placement.column + placement.columns
        edge, width = feature_map.edge, feature_map.shape[1]
        source_row = min(max(row - edge, 0), feature_map.shape[0] - 1 - 2 * edge)
        for start, end in ((first, edge), (max(first, edge), min(last, width - edge)), (width - edge, last)):
            if start < end and first <= start and end <= last:
                column = min(max(start - edge, 0), width - 1 - 2 * edge)
                self._load_pixels(feature_map, placement, (row, start, end - start), (source_row, column))

    def _load_part(self, part, placement, row):
        """One row of a part: where its pixels come several times, the first of each, then the second..."""
        source, (down, across) = part.feature_map, part.times
        first, last = placement.column, placement.column + placement.columns
        group = part.channel // self.machine.channels
        for start in range(first, min(first + across, last)):
            bank, address = placement.address(row, start)
            self.add(
                "LOAD",
                bank_id=bank,
                bank_addr=(address + group) % BANK_DEPTH,
                jump_write=across * placement.entries,
                jump_read=source.pixel_bytes,
                length=len(range(start, last, across)),
                channel=source.shape[2],
                reg_id=region_number(source.region),
                ddr_addr=source.address
                + row // down * source.row_bytes
                + start // across * source.pixel_bytes,
            )

    def _load_pixels(self, feature_map, placement, where, source):
        row, column, length = where
        bank, address = placement.address(row, column)
        start = source[0] * feature_map.row_bytes + source[1] * feature_map.pixel_bytes - feature_map.shift
        self.add(
            "LOAD",
            bank_id=bank,
            bank_addr=address,
            jump_write=placement.entries,
            jump_read=feature_map.pixel_bytes,
            length=length,
            channel=feature_map.shape[2],
            reg_id=region_number(feature_map.region),
            ddr_addr=feature_map.address + start,
            **feature_map.load_padding(self.machine, placement.column, placement.columns),
        )

    def save_row(
        self, placement: Placement, row: int, target: FeatureMap, columns: Span | None = None
    ) -> None:
        """One row of a placement, or some of its columns [start, end), -> `target` in DDR."""
        first, end = columns or (placement.column, placement.column + placement.columns)
        bank, address = placement.address(row, first)
        start = row * target.row_bytes + first * target.pixel_bytes
        self.add(
            "SAVE",
            bank_id=bank,
            bank_addr=address,
            jump_read=placement.entries,
            jump_write=target.pixel_bytes,
            length=end - first,
            channel=target.shape[2],
            reg_id=region_number(target.region),
            ddr_addr=target.address + start,
        )

    def load_parameters(
        self,
        bank: int,
        address: int,
        ddr: int,
        length: int,
        channels: int,
        jump_read: int | None = None,
        region: str = PARAMETERS,
    ) -> None:
        """DDR -> a weight or bias bank: `length` runs of `channels` bytes."""
        entries, jump = self.machine.groups(channels), jump_read or channels
        for first in range(0, length, LENGTH):
            self.add(
                "LOAD",
                bank_id=bank,
                bank_addr=(address + first * entries) % BANK_DEPTH,
                jump_write=entries,
                jump_read=jump,
                length=min(LENGTH, length - first),
                channel=channels,
                reg_id=region_number(region),
                ddr_addr=ddr + first * jump,
            )

    # computing

    def conv(
        self,
        op: Operation,
        source: Placement,
        target: Placement,
        rows: Span,
        columns: Span,
        group: int,
        weights: int,
        bias: int,
    ) -> None:
        """One CONV: output channel group `group` of output rows and columns [start, end)."""
        count, length = rows[1] - rows[0], columns[1] - columns[0]
        groups = weight_loads.read_groups(op, self.machine)
        skipped = op.reads[1][group] if op.reads else 0
        window, walk = self._window(op, source, rows, columns, count, skipped)
        bank_out, sub_out, address_out = self._output(target, rows[0], columns[0], group)
        channels = min(
            op.inputs[0].shape[2] - skipped * self.machine.channels, groups * self.machine.channels
        )
        self._set(
            "CONVINIT",
            **walk,
            shift_cut=op.shift_cut,
            shift_bias=op.shift_bias,
            act_type=ACTIVATIONS[op.activation],
            kernel_h=op.kernel[0],
            kernel_w=op.kernel[1],
            stride_w=op.stride[1],
            valid_pixel_parallel=count,
            stride_out=target.sub_rows,
            stride_offset_out=sub_out,
            jump_write=target.entries,
            jump_write_endl=_end_of_line(target, bank_out, sub_out + count),
        )
        self._compute(
            "CONV",
            op,
            rows,
            columns,
            (group, group + 1),
            **window,
            channel_group=groups,
            channel_offset=groups * self.machine.channels - channels,
            length=length,
            bank_id_out=bank_out,
            bank_addr_out=address_out,
            bank_addr_weights=weights % BANK_DEPTH,
            bank_addr_bias=bias % BANK_DEPTH,
        )

    def alu(
        self,
        op: Operation,
        source: Placement,
        target: Placement,
        rows: Span,
        columns: Span,
        chunk: Span,
        weights: int = 0,
        bias: int = 0,
        jump_weights: int = 0,
    ) -> None:
        """One ALU: channel groups `chunk` = [start, end) of output rows and columns [start, end)."""
        count, length = rows[1] - rows[0], columns[1] - columns[0]
        window, walk = self._window(op, source, rows, columns, count, chunk[0])
        bank_out, sub_out, address_out = self._output(target, rows[0], columns[0], chunk[0])
        channels = min(chunk[1] * self.machine.channels, op.inputs[0].shape[2])
        shift = op.shift_cut
        if op.kind == "avg_pool":
            shift += op.multiplier[1]
        if op.kind in ("max_pool", "avg_pool"):
            shift = right_shift_code(shift, 8)
        self._set(
            "ALUINIT",
            **walk,
            exec_mode=KINDS[op.kind].exec_mode,
            act_type=ACTIVATIONS[op.activation],
            kernel_h=op.kernel[0],
            kernel_w=op.kernel[1],
            stride_w=op.stride[1],
            length=length,
            channel_group=chunk[1] - chunk[0],
            channel_offset=chunk[1] * self.machine.channels - channels,
            shift_cut=shift,
            shift_bias=op.shift_bias,
            multi_factor=op.multiplier[0] if op.kind == "avg_pool" else 0,
            stride_out=target.sub_rows,
            stride_offset_out=sub_out,
            jump_write=target.entries,
            jump_write_endl=_end_of_line(target, bank_out, sub_out + count),
            jump_read_weights=jump_weights,
        )
        self._compute(
            "ALU",
            op,
            rows,
            columns,
            chunk,
            **window,
            valid_pixel_parallel=count,
            bank_id_out=bank_out,
            bank_addr_out=address_out,
            bank_addr_weights=weights % BANK_DEPTH,
            bank_addr_bias=bias % BANK_DEPTH,
        )

    def elementwise(
        self,
        op: Operation,
        sources: Sequence[Placement],
        target: Placement,
        rows: range,
        columns: Span,
    ) -> None:
        """ELEWINITs and the ELEW that joins `rows` and columns [start, end) of all sources.

        The rows must lie in consecutive banks of the target.
        """
        for number, (source, shift_read) in enumerate(zip(sources, op.shift_read, strict=True)):
            bank, address = source.address(rows[0], columns[0])
            self.add(
                "ELEWINIT",
                id=number,
                bank_id_in=bank,
                bank_addr_in=address,
                jump_read=source.entries,
                jump_read_endl=_next_block(source, rows),
                jump_bank=1 if len(rows) == 1 else rows.step // source.sub_rows,
                shift_read=shift_read,
            )
        bank, address = target.address(rows[0], columns[0])
        self._compute(
            "ELEW",
            op,
            rows,
            columns,
            (0, target.entries),
            num=len(sources),
            elew_type=KINDS[op.kind].elew_type,
            act_type=ACTIVATIONS[op.activation],
            length=columns[1] - columns[0],
            valid_pixel_parallel=len(rows),
            channel_group=target.entries,
            bank_id_out=bank,
            bank_addr_out=address,
            jump_write=target.entries,
            jump_write_endl=_next_block(target, rows),
            shift_write=right_shift_code(op.shift_cut, 16),
        )

    def _window(self, op, source, rows, columns, count, first_entry):
        """Input fields of CONV and ALU, and the walk fields of their INIT."""
        height, width, _ = op.inputs[0].shape
        (kernel_h, kernel_w), (stride_h, stride_w) = op.kernel, op.stride
        top, left = rows[0] * stride_h - op.pad[0], columns[0] * stride_w - op.pad[1]
        last_top, last_left = (rows[1] - 1) * stride_h - op.pad[0], (columns[1] - 1) * stride_w - op.pad[1]
        bank, sub, _ = source.locate(top)
        block, start = source.block_of(top), source.offset(left) + first_entry
        window_rows = (count - 1) * stride_h + kernel_h
        last_bank = bank % self.machine.pixels + (sub + window_rows - 1) // source.sub_rows
        bases = {
            "bank_addr_in" + ("" if number == 0 else f"_{number}"): (
                source.block_address(block + number) + start
            )
            % BANK_DEPTH
            for number in range(min(PASSES, last_bank // self.machine.pixels + 1))
        }
        window = {
            **bases,
            "bank_id_in": bank,
            "pad_top": max(0, -top),
            "pad_left": max(0, -left),
            # valid rows (columns) after the first one of the last window, not a padding count;
            # beyond the window any number does, CONV gets the one the vendor's compiler gives
            "pad_bottom": min(VALID_MAX if op.kind == "conv" else kernel_h - 1, height - 1 - last_top),
            "pad_right": min(VALID_MAX if op.kind == "conv" else kernel_w - 1, width - 1 - last_left),
        }
        walk = {
            "jump_read": source.entries,
            "jump_read_endl": source.row_entries if source.sub_rows > 1 else 1,
            "stride_offset_in": sub,
            # with one output row the stride only says how many rows share a bank
            "stride_h": stride_h if count > 1 else source.sub_rows,
        }
        return window, walk

    def _output(self, target, row, column, first_entry):
        bank, sub, block = target.locate(row)
        return bank, sub, (block + target.offset(column) + first_entry) % BANK_DEPTH


def _end_of_line(target, bank, rows):
    """jump_write_endl: entries between rows that share a bank, 1 (unused) where none do."""
    wraps = bank % target.machine.pixels * target.sub_rows + rows > target.machine.pixels * target.sub_rows
    return target.row_entries if target.sub_rows > 1 or wraps else 1


def _next_block(placement, rows):
    """jump_*_endl of an ELEW: entries to the block behind the first row's; row_entries where it is unused."""
    block = placement.block_of(rows[0])
    if placement.block_of(rows[-1]) == block:
        return placement.row_entries
    return (placement.block_address(block + 1) - placement.block_address(block)) % BANK_DEPTH or BANK_DEPTH


def region_number(region: str) -> int:
    """ "REG_2" -> 2."""
    return int(region.removeprefix("REG_"))


def band_rows(op: Operation, source: Placement, row: int, row_end: int, limit: int) -> int:
    """How many output rows from `row` on one instruction can compute, at most `limit`.

    0 when even one row needs more passes over the banks than an instruction has.
    """
    pixels = source.machine.pixels
    for count in range(min(limit, row_end - row), 0, -1):
        if count > 1 and source.sub_rows != op.stride[0]:
            continue
        bank, sub, _ = source.locate(row * op.stride[0] - op.pad[0])
        rows = (count - 1) * op.stride[0] + op.kernel[0]
        if bank % pixels + ceil_div(sub + rows, source.sub_rows) <= PASSES * pixels:
            return count
    return 0
