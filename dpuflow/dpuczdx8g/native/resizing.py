"""upsample-fix and downsample-fix -> operations of the code generator.

Nearest: every pixel is saved to all its places. Every n-th pixel: the others are not loaded, as in the
vendor's code. Bilinear by whole factors: a transposed depthwise convolution of the map with its edge.
"""

from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.native.operations import Operation
from dpuflow.ops.resampling import GRIDS, ResizeBilinear
from dpuflow.xir import Op

JUMP_MAX = 1 << 16
"""Bytes between two pixels in DDR that LOAD and SAVE can express."""


def upsample(reader: Any, op: Op) -> None:
    """An upsample-fix; `reader` is the `lowering._Reader` of its subgraph."""
    (source,) = op.inputs["input"]
    {"NEAREST": _nearest, "BILINEAR": _bilinear}.get(op.attr("mode").upper(), _unknown)(reader, op, source)


def downsample(reader: Any, op: Op) -> None:
    """A downsample-fix: a view of every n-th pixel, through the ALU, which shifts to another fix_point."""
    (source,) = op.inputs["input"]
    factor = _whole(op, op.attr("scale"))
    read = reader.map_of(source)
    _room(op, factor, read.shape[2])
    view = read.every(factor, (0, 0), tuple(op.tensor.shape[1:3]))
    reader.job.views.append((view, reader.job.source(read)))
    shift = reader._fix_point(source) - op.tensor.fix_point
    reader._limits(op, "fix_point of the input less that of the output", shift, -7, 23)
    reader.job.operations.append(Operation(op.name, "max_pool", [view], reader.new_map(op), shift_cut=shift))


def _nearest(reader, op, source):
    read, shape = reader.map_of(source), op.tensor.shape
    factor = _whole(op, [shape[2] / read.shape[1], shape[1] / read.shape[0]])
    if reader._fix_point(source) != op.tensor.fix_point:
        raise UserError(
            f"op {op.name!r}: its input has fix_point {reader._fix_point(source)}, its output"
            f" {op.tensor.fix_point}; {op.type} cannot shift"
        )
    if op.attr("align_corners") and factor != (1, 1):
        raise UserError(f"op {op.name!r}: align_corners of {op.type} NEAREST is not supported on the DPU")
    _room(op, factor, read.shape[2])
    reader.job.operations.append(Operation(op.name, "upsample", [read], reader.new_map(op), stride=factor))


def _bilinear(reader, op, source):
    read, (_, height, width, channels) = reader.map_of(source), op.tensor.shape
    half, corners = op.attr("half_pixel_centers"), op.attr("align_corners")
    grid = GRIDS[2 if corners else 0 if half else 1]
    kernel = ResizeBilinear((width, height), grid).kernel(read.shape)
    if kernel is None:
        raise UserError(
            f"op {op.name!r}: bilinear from {read.shape[0]} x {read.shape[1]} to {height} x {width} ({grid})"
            " is no convolution with int8 weights"
        )
    _room(op, kernel.stride[::-1], channels)
    taps = kernel.taps.shape
    shift_cut = reader._fix_point(source) + kernel.fix_point - op.tensor.fix_point
    reader._limits(op, "shift_cut", shift_cut, 0, 63)
    view = read.with_edge()
    reader.job.views.append((view, reader.job.source(read)))
    left, _, top, _ = kernel.pad
    reader.job.operations.append(
        Operation(
            op.name,
            "transposed_depthwise",
            [view],
            reader.new_map(op),
            kernel=taps,
            stride=kernel.stride[::-1],
            pad=(taps[0] - 1 - top, taps[1] - 1 - left),
            bias=reader.place(bytes(channels)),
            weights=reader.place(np.repeat(kernel.taps.reshape(-1), channels).tobytes()),
            shift_cut=shift_cut,
            shift_bias=1,
        )
    )


def _unknown(reader, op, source):
    raise UserError(f"op {op.name!r}: mode {op.attr('mode')!r} is not supported, only NEAREST and BILINEAR")


def _whole(op, scale):
    """(rows, columns) of a scale (w, h)."""
    if any(factor != int(factor) or factor < 1 for factor in scale):
        raise UserError(
            f"op {op.name!r}: scale {list(scale)} of {op.type} is not supported, only whole factors"
        )
    return int(scale[1]), int(scale[0])


def _room(op, factor, channels):
    if factor[1] * channels > JUMP_MAX:
        raise UserError(f"op {op.name!r}: {factor[1]} times {channels} channels are over {JUMP_MAX} bytes")
