"""Maps that are put together on the way into the banks: nobody joins or repeats them in DDR.

A LOAD writes pixels as far apart in the banks as it is told, so what was upsampled (nearest) is the small map
loaded several times, and what was joined with it is loaded beside it. Saving every pixel to all its places,
and waiting for that, falls away. What is joined of few channels moves in longer runs of bytes.
"""

from itertools import accumulate

import numpy as np

from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.native.operations import KINDS, WORKSPACE, FeatureMap, Job, Operation, Part
from dpuflow.dpuczdx8g.native.tiling import channel_slices
from dpuflow.dpuczdx8g.native.weight_loads import JUMP_WRITE
from dpuflow.dpuczdx8g.timing import TIMING


def assemble(job: Job, machine: Machine) -> None:
    """Give the outputs of upsamplings, and of concats with such an input, their parts where that can be."""
    upsampled = [op for op in job.operations if op.kind == "upsample" and _movable(job, op.inputs[0])]
    joining = [op for op in job.operations if op.kind == "concat" and _joins(job, machine, op)]
    outputs = {id(op.output) for op in joining}
    for op in upsampled:
        readers = job.consumers(op.output)
        joined = [reader for reader in readers if id(reader.output) in outputs]
        groups = [machine.groups(m.shape[2]) for m in (op.output, *(reader.output for reader in joined))]
        reads = all(reader in joined or _reads_rows(reader, op.output, machine) for reader in readers)
        if readers and reads and _unseen(job, op.output) and op.stride[1] * max(groups) <= JUMP_WRITE:
            op.output.parts = (Part(op.inputs[0], 0, op.stride),)
    for op in joining:
        if any(feature_map.parts for feature_map in op.inputs) or _cheaper(op):
            op.output.parts = tuple(_parts(op))


def _movable(job: Job, feature_map: FeatureMap) -> bool:
    """Whether a map lies in the workspace as it is, and only there."""
    return feature_map.region == WORKSPACE and job.source(feature_map) is feature_map


def _unseen(job: Job, feature_map: FeatureMap) -> bool:
    """Whether a map need not be in DDR for an output or for views of its bytes."""
    return _movable(job, feature_map) and not job.views_of(feature_map)


def _joins(job: Job, machine: Machine, op: Operation) -> bool:
    """Whether the inputs of a concat begin in channel groups of their own, and only its rows are read."""
    if any(part.channel % machine.channels for part in _parts(op)):
        return False
    if not all(_movable(job, feature_map) for feature_map in op.inputs) or not _unseen(job, op.output):
        return False
    return all(_reads_rows(reader, op.output, machine) for reader in job.consumers(op.output))


def _reads_rows(op: Operation, feature_map: FeatureMap, machine: Machine) -> bool:
    """Whether an operation loads rows of a map, and no view of what is in DDR."""
    kind = KINDS[op.kind]
    computes = kind.engine != "none" and not kind.phases_as and op.factors is not feature_map
    return computes and len(channel_slices(op, machine)) == 1


def _parts(op):
    """An input that is put together itself is the map that it is made of."""
    channel = 0
    for feature_map in op.inputs:
        times = feature_map.parts[0].times if feature_map.parts else (1, 1)
        source = feature_map.parts[0].feature_map if feature_map.parts else feature_map
        yield Part(source, channel, times)
        channel += feature_map.shape[2]


def _cheaper(op):
    """Whether saving the inputs of a concat by themselves, and loading them side by side, moves less.

    Joined in DDR each pixel of an input is a run of its own, in whole bursts.
    """
    _, width, channels = op.output.shape
    counts = [feature_map.shape[2] for feature_map in op.inputs]
    firsts = accumulate(counts, initial=0)
    apart = sum(_row(width, count, count, 0) for count in counts)
    joined = sum(_row(width, count, channels, first) for count, first in zip(counts, firsts, strict=False))
    return 2 * apart < joined + _row(width, channels, channels, 0)


def _row(width, channels, jump, first):
    """Cycles of a LOAD or SAVE of one row whose pixels lie `jump` bytes apart."""
    size, burst = width * channels, TIMING.burst_bytes
    if jump > channels:
        starts = first + jump * np.arange(width)
        size = int(((starts + channels - 1) // burst - starts // burst + 1).sum()) * burst
    return TIMING.transfer_cycles + size / TIMING.bytes_per_cycle
