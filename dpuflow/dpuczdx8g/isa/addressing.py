"""Which bank entries an instruction reads and writes, as index arrays.

Indices are *flat*: bank * BANK_DEPTH + address (`machine.Machine`). Source of every rule:
docs/reference/instruction-set.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine

PASSES = 4
"""Input base addresses an instruction carries: before and after up to three bank wraps."""

AUGMENTED_MAX = 64
"""Greatest LOAD.channel with which a LOAD pads."""

PADDING = -1
"""In index arrays: the position is padding, nothing is read."""


@dataclass
class Window:
    """Input of a CONV or ALU: `index[row, column, channel group]` flat entries or PADDING."""

    index: np.ndarray
    kernel: tuple[int, int]
    stride: tuple[int, int]

    @property
    def reads(self) -> np.ndarray:
        """The flat entries read, each once."""
        return distinct(self.index[self.index != PADDING])

    def taps(self, rows: int, columns: int) -> Iterator[tuple[int, slice, slice]]:
        """(tap number, row slice, column slice) of every kernel position for `rows` x `columns` outputs."""
        (kernel_h, kernel_w), (stride_h, stride_w) = self.kernel, self.stride
        for i in range(kernel_h):
            for j in range(kernel_w):
                yield (
                    i * kernel_w + j,
                    slice(i, i + (rows - 1) * stride_h + 1, stride_h),
                    slice(j, j + (columns - 1) * stride_w + 1, stride_w),
                )


def distinct(index: np.ndarray) -> np.ndarray:
    """The values of an index array, sorted, each once; for these a lot faster than np.unique."""
    index = np.sort(index, axis=None)
    first = np.ones(len(index), bool)
    np.not_equal(index[1:], index[:-1], out=first[1:])
    return index[first]


def flat(bank: int | np.ndarray, address: np.ndarray) -> np.ndarray:
    """Flat index of `address` (wrapping) in `bank`; both may be arrays."""
    # int32: programs hold tens of thousands of such arrays
    return (bank * BANK_DEPTH + address % BANK_DEPTH).astype(np.int32)


def run_of_entries(bank: int, address: int, jump: int, length: int, groups: int) -> np.ndarray:
    """Entries of LOAD and SAVE: [length, groups], `groups` consecutive ones per pixel."""
    addresses = address + jump * np.arange(length)[:, None] + np.arange(groups)
    return flat(bank, addresses)


def load_padding(machine: Machine, op: Instruction) -> np.ndarray | None:
    """[length, channel] bytes that the padding of a LOAD sets to zero, None where it has none.

    Channel augmentation's padding (docs/reference/instruction-set.md): bytes before `pad_start`, and in
    the last
    `pad_idx` pixels those from `pad_end` before the end of the pixel's entries on, each pixel
    `jump_read` bytes further. Only for overlapping reads of at most 64 bytes.
    """
    if not (op["pad_start"] or op["pad_end"]) or not op["jump_read"] <= op["channel"] <= AUGMENTED_MAX:
        return None
    pixel, byte = np.arange(op["length"])[:, None], np.arange(op["channel"])
    behind = pixel - (op["length"] - op["pad_idx"])
    width = machine.groups(op["channel"]) * machine.channels
    valid_end = np.maximum(0, width - (op["pad_end"] + op["jump_read"] * behind))
    mask = (byte < op["pad_start"] - pixel * op["jump_read"]) | ((behind >= 0) & (byte >= valid_end))
    return mask if mask.any() else None


def input_window(
    machine: Machine, init: Instruction, op: Instruction, rows_out: int, length: int, groups: int
) -> Window:
    """The Window that `rows_out` x `length` outputs of a CONV or ALU read.

    ValueError when the walk over the rows needs a fifth base address, or the window is
    larger than an image group.
    """
    kernel, stride = (init["kernel_h"], init["kernel_w"]), (init["stride_h"], init["stride_w"])
    n = np.arange((rows_out - 1) * stride[0] + kernel[0])
    x = np.arange((length - 1) * stride[1] + kernel[1])
    real_row = (n >= op["pad_top"]) & (n <= (rows_out - 1) * stride[0] + op["pad_bottom"])
    real_column = (x >= op["pad_left"]) & (x <= (length - 1) * stride[1] + op["pad_right"])
    entries = int(real_row.sum()) * int(real_column.sum()) * groups
    if entries > machine.pixels * BANK_DEPTH:
        raise ValueError(f"reads {entries} entries, more than an image group holds")
    position = init["stride_offset_in"] + n
    local = op["bank_id_in"] % machine.pixels + position // stride[0]
    passes = local // machine.pixels
    if (passes[real_row] >= PASSES).any():
        raise ValueError(
            f"reads {len(n)} rows from bank {op['bank_id_in']}: more than {PASSES} passes over the banks"
        )
    bases = np.array([op[f"bank_addr_in{suffix}"] for suffix in ("", "_1", "_2", "_3")])
    first = op["bank_id_in"] // machine.pixels * machine.pixels
    row_address = bases[np.minimum(passes, PASSES - 1)] + position % stride[0] * init["jump_read_endl"]
    address = (
        row_address[:, None, None] + (x * init["jump_read"])[None, :, None] + np.arange(groups)[None, None, :]
    )
    index = flat((first + local % machine.pixels)[:, None, None], address)
    index[~real_row] = PADDING
    index[:, ~real_column] = PADDING
    return Window(index, kernel, stride)


def output_entries(
    machine: Machine, init: Instruction, op: Instruction, rows_out: int, length: int, groups: int = 1
) -> np.ndarray:
    """Flat entries that a CONV or ALU writes: [rows_out, length, groups]."""
    position = init["stride_offset_out"] + np.arange(rows_out)
    local = op["bank_id_out"] % machine.pixels + position // init["stride_out"]
    first = op["bank_id_out"] // machine.pixels * machine.pixels
    wraps = local // machine.pixels
    row_address = (
        op["bank_addr_out"]
        + wraps * init["stride_out"] * init["jump_write_endl"]
        + position % init["stride_out"] * init["jump_write_endl"]
    )
    address = row_address[:, None, None] + (np.arange(length) * init["jump_write"])[None, :, None]
    return flat((first + local % machine.pixels)[:, None, None], address + np.arange(groups))


def elementwise_input(
    machine: Machine, operand: Instruction, rows_out: int, length: int, groups: int
) -> np.ndarray:
    """Flat entries that an ELEW reads for one operand: [rows_out, length, groups]."""
    rows = np.zeros(rows_out, int) if operand["share_pp"] else np.arange(rows_out)
    local = operand["bank_id_in"] % machine.pixels + rows * operand["jump_bank"]
    return _elementwise(
        machine, operand["bank_id_in"], local, operand["bank_addr_in"], operand["jump_read_endl"],
        operand["jump_read"], length, groups,
    )  # fmt: skip


def elementwise_output(
    machine: Machine, op: Instruction, rows_out: int, length: int, groups: int
) -> np.ndarray:
    """Flat entries that an ELEW writes: [rows_out, length, groups]."""
    local = op["bank_id_out"] % machine.pixels + np.arange(rows_out)
    return _elementwise(
        machine, op["bank_id_out"], local, op["bank_addr_out"], op["jump_write_endl"],
        op["jump_write"], length, groups,
    )  # fmt: skip


def _elementwise(machine, bank_id, local, address, jump_endl, jump, length, groups):
    first = bank_id // machine.pixels * machine.pixels
    row_address = address + local // machine.pixels * jump_endl
    columns = (np.arange(length) * jump)[None, :, None]
    addresses = row_address[:, None, None] + columns + np.arange(groups)
    return flat((first + local % machine.pixels)[:, None, None], addresses)
