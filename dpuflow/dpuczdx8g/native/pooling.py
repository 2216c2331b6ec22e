"""Max pooling as the steps that it is quickest in (`dpuczdx8g.pooling`).

Only the last step shifts to the output's fix_point: shifting keeps the order of values.
"""

from dataclasses import replace

from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.native.operations import FeatureMap, Operation
from dpuflow.dpuczdx8g.native.tiling import TooLargeError, tiles
from dpuflow.dpuczdx8g.pooling import max_pool_steps


def steps(op: Operation, machine: Machine) -> list[Operation]:
    """The operation, or two that give the same."""
    if op.kind != "max_pool" or min(op.kernel) == 1:
        return [op]
    (source,), (height, width, channels) = op.inputs, op.output.shape
    groups = machine.groups(channels)
    found = max_pool_steps(source.shape[:2], (height, width), op.kernel, groups, machine.alu_pixels)
    try:
        tiles(op, machine, BANK_DEPTH, BANK_DEPTH, 1)
    except TooLargeError:
        return [op]  # `limits` asks of the window as it is
    if len(found) == 1:
        return [op]
    (size, kernel), (_, last_kernel) = found
    between = FeatureMap(f"{op.name} along one axis", (*size, channels))
    first = _along(op, kernel, [source], between)
    return [replace(first, shift_cut=0, part=True), _along(op, last_kernel, [between], op.output)]


def _along(op, kernel, inputs, output):
    """The part of a pooling along the axis in which this kernel has more than one position."""
    stride, pad = (
        tuple(value if taps > 1 else neutral for value, taps in zip(values, kernel, strict=True))
        for values, neutral in ((op.stride, 1), (op.pad, 0))
    )
    return replace(op, inputs=inputs, output=output, kernel=kernel, stride=stride, pad=pad)
