"""Estimated cycles of pieces of work, to choose among schedules; nothing here reaches a report.

The same assumptions as `isa.cycles`, of whole bands instead of instructions.
"""

from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.native import weight_loads
from dpuflow.dpuczdx8g.native.operations import KINDS, FeatureMap, Operation
from dpuflow.dpuczdx8g.native.placement import ceil_div
from dpuflow.dpuczdx8g.timing import TIMING

LOAD, SAVE, CONV, MISC = range(4)


def run(pixels: int, channels: int, jump: int) -> float:
    """Cycles of one LOAD or SAVE of pixels that are `jump` bytes apart in DDR."""
    burst = TIMING.burst_bytes
    bytes_ = pixels * channels if jump <= channels else pixels * (channels + burst // 2)
    return TIMING.transfer_cycles + (bytes_ + burst // 2) / TIMING.bytes_per_cycle


def transfer(rows: int, columns: int, feature_map: FeatureMap) -> float:
    """Cycles of the LOADs or SAVEs of so many rows of a map."""
    if feature_map.parts:
        return sum(
            part.times[1] * transfer(rows, ceil_div(columns, part.times[1]), part.feature_map)
            for part in feature_map.parts
        )
    return rows * run(columns, feature_map.shape[2], feature_map.pixel_bytes)


def engine_of(op: Operation) -> int:
    """Number of the engine that computes an operation."""
    return CONV if KINDS[op.kind].engine == "convolution" else MISC


def band(op: Operation, machine: Machine, rows: int, limit: int, columns: int) -> float:
    """Cycles of computing `rows` output rows, `limit` per instruction, of one output channel group (CONV)."""
    count = ceil_div(rows, limit)
    if KINDS[op.kind].engine == "elementwise":
        return count * (TIMING.issue_cycles + columns * machine.groups(op.output.shape[2]) * len(op.inputs))
    taps = weight_loads.channel_entries(op, machine)
    cycles = 1.0 if KINDS[op.kind].engine == "convolution" else TIMING.alu_cycles
    return count * (TIMING.issue_cycles + columns * taps * cycles)


def weights(op: Operation, machine: Machine) -> list[tuple[int, float]]:
    """(output channel groups, cycles) of every load of an operation's weights, in order; ALU: one of all."""
    taps, channels = op.kernel[0] * op.kernel[1], op.inputs[0].shape[2]
    if KINDS[op.kind].engine == "convolution":
        found, read = [], min(weight_loads.read_groups(op, machine) * machine.channels, channels)
        for start, end in weight_loads.chunks(op, machine):
            if op.reads:
                found.append((1, machine.channels * run(taps, read, channels)))
                continue
            banks = min(machine.channels, op.output.shape[2] - start * machine.channels)
            jump = channels if end == start + 1 else 2 * taps * channels
            found.append((end - start, banks * run(end - start, taps * channels, jump)))
        return found
    if op.kind == "depthwise" or KINDS[op.kind].factors:
        return [(1, 2 * run(taps, channels, channels))]
    return []
