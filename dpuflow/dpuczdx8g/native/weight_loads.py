"""How the weights of a convolution get into their banks: few long LOADs.

Bank k holds the output channels k, k + OCP, k + 2 OCP... (docs/reference/instruction-set.md). One LOAD takes
several of them, which lie OCP channels apart in REG_0, where a channel's weights fill whole entries.
"""

from collections.abc import Iterator

import numpy as np

from dpuflow.dpuczdx8g.grouping import groups_read
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.native.operations import Operation, Span

SHARE = 4
"""At most so large a part of a bank is filled at once, so that loading overlaps computing."""
CHANNELS, JUMP_READ, JUMP_WRITE = 1 << 14, 1 << 16, 1 << 10
"""What the fields of a LOAD hold."""


def reads(op: Operation, machine: Machine, parameters: bytes) -> tuple[int, tuple[int, ...]] | None:
    """(channel groups that every group of outputs reads, first of them for each); None if that is all.

    A convolution in groups is an ordinary one with zeros between the groups. A CONV may take some
    neighbouring channel groups of a map alone, so most of the zeros need neither cycles nor loading.
    """
    channels, outputs, taps = op.inputs[0].shape[2], op.output.shape[2], op.kernel[0] * op.kernel[1]
    entries = machine.groups(channels)
    if op.kind != "conv" or op.phase is not None or entries == 1:
        return None
    weights = np.frombuffer(parameters, np.int8, outputs * taps * channels, op.weights)
    width, starts = groups_read(weights.reshape(outputs, taps, channels), machine.channels)
    return None if width == entries else (width, starts)


def read_groups(op: Operation, machine: Machine) -> int:
    """Channel groups of its input that one CONV (or ALU) of an operation reads."""
    return op.reads[0] if op.reads else machine.groups(op.inputs[0].shape[2])


def channel_entries(op: Operation, machine: Machine) -> int:
    """Entries that the weights of one output channel take in its bank."""
    return op.kernel[0] * op.kernel[1] * read_groups(op, machine)


def chunks(op: Operation, machine: Machine) -> list[Span]:
    """[start, end) of the output channel groups that are loaded together, the first alone.

    More and more of them: the first CONV begins early, and there are few LOADs.
    """
    groups, entries = machine.groups(op.output.shape[2]), channel_entries(op, machine)
    taps, channels = op.kernel[0] * op.kernel[1], op.inputs[0].shape[2]
    whole = taps == 1 or channels % machine.channels == 0
    size = taps * channels
    fits = size <= CHANNELS and size * machine.channels <= JUMP_READ and entries <= JUMP_WRITE
    most = max(1, BANK_DEPTH // SHARE // entries) if not op.picks_taps and whole and fits else 1
    if op.reads:
        most = 1
    found, start, count = [], 0, 1
    while start < groups:
        found.append((start, min(start + count, groups)))
        start, count = start + count, min(2 * count, most)
    return found


def bank_loads(op: Operation, machine: Machine, chunk: Span) -> Iterator[tuple[int, int, int, int, int]]:
    """(bank, byte offset of its weights, LOAD's length, channel, jump_read) for a chunk of groups."""
    taps, channels = op.kernel[0] * op.kernel[1], op.inputs[0].shape[2]
    first, end = chunk[0] * machine.channels, min(chunk[1] * machine.channels, op.output.shape[2])
    if op.reads:
        skipped = op.reads[1][chunk[0]] * machine.channels
        read = min(op.reads[0] * machine.channels, channels - skipped)
        for channel in range(first, end):
            yield channel - first, channel * taps * channels + skipped, taps, read, channels
        return
    for channel in range(first, min(first + machine.channels, end)):
        start, count = channel * taps * channels, len(range(channel, end, machine.channels))
        if count == 1:
            yield channel - first, start, taps, channels, channels
        else:
            size = taps * channels
            yield channel - first, start, count, size, machine.channels * size
