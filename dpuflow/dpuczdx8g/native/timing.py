"""Estimated cycles of pieces of work, to choose among schedules; nothing here reaches a report.

The same assumptions as `isa.cycles`, of whole bands instead of instructions.
"""

from dpuflow.dpuczdx8g.isa.cycles import BYTES_PER_CYCLE
from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.native.operations import KINDS, Operation
from dpuflow.dpuczdx8g.native.placement import ceil_div

LOAD, SAVE, CONV, MISC = range(4)
TRANSFER, COMPUTING = 12.0, 12.0
"""Cycles that an instruction costs besides its work: what makes many small ones worse than a few large ones."""


def transfer(rows: int, columns: int, channels: int) -> float:
    """Cycles of so many LOADs or SAVEs of a row each."""
    return rows * (TRANSFER + columns * channels / BYTES_PER_CYCLE)


def engine_of(op: Operation) -> int:
    """Number of the engine that computes an operation."""
    return CONV if KINDS[op.kind].engine == "convolution" else MISC


def band(op: Operation, machine: Machine, rows: int, limit: int, columns: int) -> float:
    """Cycles of computing `rows` output rows, `limit` per instruction, of one output channel group (CONV)."""
    count = ceil_div(rows, limit)
    if KINDS[op.kind].engine == "elementwise":
        return count * (COMPUTING + columns * machine.groups(op.output.shape[2]) * len(op.inputs))
    taps = op.kernel[0] * op.kernel[1] * machine.groups(op.inputs[0].shape[2])
    return count * (COMPUTING + columns * taps)


def weights(op: Operation, machine: Machine) -> float:
    """Cycles of loading the weights of one output channel group (CONV), of all channels (ALU)."""
    taps, channels = op.kernel[0] * op.kernel[1], op.inputs[0].shape[2]
    if KINDS[op.kind].engine == "convolution":
        count = min(machine.channels, op.output.shape[2])
        return count * (TRANSFER + taps * channels / BYTES_PER_CYCLE)
    if op.kind == "depthwise" or KINDS[op.kind].factors:
        return 2 * TRANSFER + taps * channels / BYTES_PER_CYCLE
    return 0.0
