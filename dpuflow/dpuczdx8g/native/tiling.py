"""Cuts an operation's output into tiles whose input and output fit the image banks."""

from dataclasses import dataclass

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.addressing import PASSES
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.native.operations import KINDS, FeatureMap, Operation, Span
from dpuflow.dpuczdx8g.native.placement import ceil_div
from dpuflow.dpuczdx8g.native.writer import LENGTH

ROW_ENTRIES = 1024
"""Entries per stored row that every jump_*_endl field can express."""
CHANNEL_GROUPS = 256
"""Channel groups that one CONV, ALU or ELEW can express."""
STRIDE_OUT = 4
"""Rows per bank that CONV can write (docs/reference/instruction-set.md)."""


@dataclass(frozen=True)
class Tile:
    """Output rows and columns [row, row_end) x [column, column_end)."""

    row: int
    row_end: int
    column: int
    column_end: int


def window_range(start: int, end: int, stride: int, kernel: int, pad: int, size: int) -> Span:
    """Input positions [first, last + 1) inside the map that outputs [start, end) read."""
    return max(0, start * stride - pad), min(size, (end - 1) * stride - pad + kernel)


def input_tile(op: Operation, tile: Tile) -> tuple[int, int, int, int]:
    """(row, row_end, column, column_end) of the input that an output tile reads."""
    if not op.windowed:
        return tile.row, tile.row_end, tile.column, tile.column_end
    height, width, _ = op.inputs[0].shape
    rows = window_range(tile.row, tile.row_end, op.stride[0], op.kernel[0], op.pad[0], height)
    columns = window_range(tile.column, tile.column_end, op.stride[1], op.kernel[1], op.pad[1], width)
    return *rows, *columns


def sub_rows(op: Operation, machine: Machine) -> int:
    """Rows per bank in which `op` wants its input stored.

    The row stride, so that one instruction computes as many output rows as it can. More where a
    window would need more bank passes than an instruction has (then one output row at a time), and
    for a single output row, whose stride is free. The phases of a transposed convolution have stride 1.
    """
    if not op.windowed or KINDS[op.kind].phases_as:
        return 1
    most, kernel = PASSES * machine.pixels, op.kernel[0]
    if op.output.shape[0] == 1:
        rows, first = ceil_div(kernel, most), -op.pad[0]
        while (first // rows) % machine.pixels + ceil_div(first % rows + kernel, rows) > most:
            rows += 1
        return rows
    rows = op.stride[0]
    # the window may begin in any row of any bank
    while machine.pixels - 1 + ceil_div(rows - 1 + kernel, rows) > most:
        rows += 1
    return rows


def map_size(machine: Machine, rows: int, columns: int, channels: int, sub: int) -> int:
    """Entries per bank that rows x columns x channels take in an image group."""
    return ceil_div(rows, sub * machine.pixels) * sub * columns * machine.groups(channels)


def whole(op: Operation) -> Tile:
    """The tile that is the whole output."""
    height, width, _ = op.output.shape
    return Tile(0, height, 0, width)


def fits_whole(machine: Machine, feature_map: FeatureMap, sub: int, free: int = BANK_DEPTH) -> bool:
    """Whether a whole map can lie in one image group, `sub` rows per bank."""
    height, width, channels = feature_map.shape
    columns_fit = width <= LENGTH and width * machine.groups(channels) <= ROW_ENTRIES
    return columns_fit and map_size(machine, height, width, channels, sub) <= free


class TooLargeError(UserError):
    """Not even one output pixel of an operation fits the image banks."""


def channel_slices(op: Operation, machine: Machine) -> list[Operation]:
    """The operation in as few slices of its channels as have tiles that fit, [op] if it fits whole.

    For the operations whose channels do not mix: pooling, depthwise convolution.
    """
    groups, channels = machine.groups(op.output.shape[2]), op.output.shape[2]
    for count in range(1, groups + 1) if KINDS[op.kind].channelwise else ():
        step = ceil_div(groups, count) * machine.channels
        slices = [op.channels(c, min(step, channels - c)) for c in range(0, channels, step)]
        try:
            tiles(slices[0], machine, BANK_DEPTH, BANK_DEPTH, 1)
        except TooLargeError:
            continue
        return slices if count > 1 else [op]
    return [op]


def tiles(
    op: Operation, machine: Machine, input_free: int | None, output_free: int | None, output_sub: int
) -> list[Tile]:
    """List of Tile, row by row.

    Parameters
    ----------
    input_free, output_free : entries per bank for input and output tiles; None where the
        whole map is resident already.
    output_sub : rows per bank of the output.

    Prefers tiles that leave room for the next one (so that loading overlaps computing),
    then whole rows, then full bands of PP rows. UserError when not even one pixel fits.
    """
    height, width, _ = op.output.shape
    bands = sorted(
        {min(height, machine.pixels * output_sub * n) for n in (64, 32, 16, 8, 4, 2, 1)}, reverse=True
    )
    heights = bands + [rows for rows in range(machine.pixels - 1, 0, -1) if rows < bands[-1]]
    for share, candidates in ((2, bands), (1, bands), (2, heights), (1, heights)):
        for pieces in _piece_counts(width):
            columns = ceil_div(width, pieces)
            for rows in candidates:
                limits = [None if free is None else free // share for free in (input_free, output_free)]
                if _fits(op, machine, rows, columns, limits, output_sub):
                    return [
                        Tile(row, min(row + rows, height), column, min(column + columns, width))
                        for row in range(0, height, rows)
                        for column in range(0, width, columns)
                    ]
    raise TooLargeError(
        f"{op.name}: not even one output pixel and its {op.kernel[1]}x{op.kernel[0]} window of"
        f" {op.inputs[0].shape[2]} channels fit the image banks of {machine.name}"
    )


def _piece_counts(width):
    return sorted({ceil_div(width, ceil_div(width, n)) for n in range(1, width + 1)})


def _fits(op, machine, rows, columns, limits, output_sub):
    input_limit, output_limit = limits
    # the most that any tile of this size reads: one in the middle of the map
    in_rows, in_columns = rows, columns
    if op.windowed:
        in_rows = min(op.inputs[0].shape[0], (rows - 1) * op.stride[0] + op.kernel[0])
        in_columns = min(op.inputs[0].shape[1], (columns - 1) * op.stride[1] + op.kernel[1])
    if input_limit is not None:
        size = 0
        for feature_map in op.inputs if KINDS[op.kind].engine == "elementwise" else op.inputs[:1]:
            size += map_size(machine, in_rows, in_columns, feature_map.shape[2], sub_rows(op, machine))
        row = in_columns * machine.groups(op.inputs[0].shape[2])
        if size > input_limit or row > ROW_ENTRIES or in_columns > LENGTH:
            return False
    if output_limit is not None:
        channels = op.output.shape[2]
        size = map_size(machine, rows, columns, channels, output_sub)
        row = columns * machine.groups(channels)
        if size > output_limit or row > ROW_ENTRIES or columns > LENGTH:
            return False
    return True
