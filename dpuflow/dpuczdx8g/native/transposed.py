"""Transposed and dilated convolutions as ordinary ones: one for every position between their stride, or taps.

XIR's transposed convolution puts stride - 1 zeros between the pixels of the map, pads, and convolves
with stride 1 (docs/reference/numerics.md, "Transposed convolution"). Of every window all taps but those
that are `stride` apart meet zeros; which ones do not depends on the output pixel's position modulo the
stride alone. So the output is stride_h * stride_w interleaved images, each an ordinary convolution of the
map with the taps that count, and no zero is multiplied.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dpuflow.dpuczdx8g.native.operations import KINDS, Operation, Phase
from dpuflow.network import Layer
from dpuflow.ops.operator import Shape
from dpuflow.ops.transposed import axis_phase


def phases(op: Operation) -> Iterator[Operation]:
    """The ordinary convolutions of a transposed or dilated one whose output lies in DDR."""
    if op.dilation != (1, 1):
        yield from _dilated_phases(op)
        return
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
                phase=Phase(op.kernel, (down.tap, across.tap), step, (row, column), step),
            )


def _dilated_phases(op: Operation) -> Iterator[Operation]:
    """One ordinary convolution for each position between the taps, of the pixels that are as far apart."""
    (step_h, step_w), (height, width, _) = op.dilation, op.output.shape
    (source,) = op.inputs
    for row in range(min(step_h, height)):
        for column in range(min(step_w, width)):
            down = dilated_axis(step_h, op.pad[0], row, source.shape[0], height)
            across = dilated_axis(step_w, op.pad[1], column, source.shape[1], width)
            first, size = (down.first, across.first), (down.size, across.size)
            yield replace(
                op,
                kind="conv",
                inputs=[source.every(op.dilation, first, size)],
                output=op.output.every(op.dilation, (row, column), (down.length, across.length)),
                pad=(down.pad, across.pad),
                dilation=(1, 1),
                phase=Phase(op.kernel, (0, 0), (1, 1), (row, column), op.dilation),
            )


@dataclass(frozen=True)
class DilatedAxis:
    """One phase of a dilated convolution along one axis.

    Attributes
    ----------
    first, size : the first of the input's pixels, and how many there are, every `dilation`-th.
    pad : zeros in front of them; negative where the first window begins behind the first of them.
    length : output pixels.
    """

    first: int
    size: int
    pad: int
    length: int


def dilated_axis(step: int, pad: int, place: int, size: int, length: int) -> DilatedAxis:
    """Outputs place, place + step, ... of `length`: output o reads o - pad, o - pad + step, ..."""
    first = (place - pad) % step
    return DilatedAxis(
        first, -(-(size - first) // step), (first + pad - place) // step, -(-(length - place) // step)
    )


def skips(layer: Layer, source: Shape) -> bool:
    """Whether a dilated convolution on a map (H, W, C) runs in phases: stride 1, pixels in every window."""
    if layer.op != "conv" or tuple(layer.attrs["stride"]) != (1, 1):
        return False
    for axis, side in ((0, 2), (1, 0)):  # height and width, and where their padding stands
        step, kernel = layer.attrs["dilation"][1 - axis], layer.attrs["kernel"][1 - axis]
        size, length = source[axis], layer.shape[axis]
        if size < step:
            return False
        for place in range(min(step, length)):
            phase = dilated_axis(step, layer.attrs["pad"][side], place, size, length)
            if phase.length - 1 - phase.pad >= phase.size or kernel - 1 < phase.pad:
                return False
    return True


def tap_rows(op: Operation, channels: int) -> Iterator[tuple[int, int]]:
    """(number of its first tap, byte offset in one output channel's weights) of each kernel row of a phase.

    channels : bytes of one tap.
    """
    phase = op.phase
    assert phase is not None  # by the generator's choice
    for row in range(op.kernel[0]):
        first = (phase.first[0] + row * phase.step[0]) * phase.kernel[1] + phase.first[1]
        yield row * op.kernel[1], first * channels
