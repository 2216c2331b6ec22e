"""Transposed convolutions as ordinary ones: one for every position between their stride.

XIR's transposed convolution puts stride - 1 zeros between the pixels of the map, pads, and convolves
with stride 1 (docs/reference/numerics.md, "Transposed convolution"). Of every window all taps but those
that are `stride` apart meet zeros; which ones do not depends on the output pixel's position modulo the
stride alone. So the output is stride_h * stride_w interleaved images, each an ordinary convolution of the
map with the taps that count, and no zero is multiplied.
"""

from collections.abc import Iterator
from dataclasses import replace

from dpuflow.dpuczdx8g.native.operations import KINDS, Operation, Phase
from dpuflow.ops.transposed import axis_phase


def phases(op: Operation) -> Iterator[Operation]:
    """The ordinary convolutions of a transposed one whose output lies in DDR."""
    step, (height, width, _) = op.stride, op.output.shape
    kind = KINDS[op.kind].phases_as
    assert kind is not None  # by the generator's choice
    for row in range(min(step[0], height)):
        for column in range(min(step[1], width)):
            down = axis_phase(op.kernel[0], step[0], op.pad[0], row, height)
            across = axis_phase(op.kernel[1], step[1], op.pad[1], column, width)
            output = op.output.every(step, (row, column), (down.length, across.length))
            # where the kernel is smaller than its stride, no tap counts: the bias alone
            nothing = down.taps < 1 or across.taps < 1
            yield replace(
                op,
                kind=kind,
                output=output,
                kernel=(max(1, down.taps), max(1, across.taps)),
                stride=(1, 1),
                pad=(down.pad, across.pad),
                weights=op.zeros if nothing else op.weights,
                phase=Phase(op.kernel, (down.tap, across.tap), step, (row, column)),
            )


def tap_rows(op: Operation, channels: int) -> Iterator[tuple[int, int]]:
    """(number of its first tap, byte offset in one output channel's weights) of each kernel row of a phase.

    channels : bytes of one tap.
    """
    phase = op.phase
    assert phase is not None  # by the generator's choice
    for row in range(op.kernel[0]):
        first = (phase.first[0] + row * phase.step[0]) * phase.kernel[1] + phase.first[1]
        yield row * op.kernel[1], first * channels
