"""pixel-shuffle-fix -> an operation of the code generator: a convolution that takes one value each.

Channels to pixels: a transposed convolution whose kernel is its stride; pixels to channels: a convolution
whose kernel is its stride. Every sum has one term, so it is exact.
"""

from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.native.operations import Operation
from dpuflow.xir import Op

STRIDE_MAX = 8
"""Of a convolution (docs/reference/instruction-set.md)."""


def pixel_shuffle(reader: Any, op: Op) -> None:
    """A pixel-shuffle-fix; `reader` is the `lowering._Reader` of its subgraph."""
    (source,) = op.inputs["input"]
    read, scale = reader.map_of(source), op.attr("scale")
    upscale = op.attrs.get("upscale", op.attr("reverse"))
    reader._limits(op, "scale", scale, 1, STRIDE_MAX)
    shift = reader._fix_point(source) - op.tensor.fix_point
    if not -6 <= shift <= 63:
        raise UserError(f"op {op.name!r}: fix_point of the input less that of the output is {shift}")
    channels = op.tensor.shape[-1]
    one = 1 << max(0, -shift)
    weights = taken(read.shape[2], scale, upscale) * one
    pad = (scale - 1, scale - 1) if upscale else (0, 0)
    reader.job.operations.append(
        Operation(
            op.name,
            "transposed_conv" if upscale else "conv",
            [read],
            reader.new_map(op),
            kernel=(scale, scale),
            stride=(scale, scale),
            pad=pad,
            bias=reader.place(bytes(channels)),
            weights=reader.place(weights.astype(np.int8).tobytes()),
            shift_cut=max(0, shift),
            shift_bias=1,
        )
    )


def taken(channels: int, scale: int, upscale: bool) -> np.ndarray:
    """Weights [OC, KH, KW, IC] of 0 and 1: which value each output takes of its window.

    upscale : for a transposed convolution in XIR's sense, which reads the kernel from its end.
    """
    places = [(i, j) for i in range(scale) for j in range(scale)]
    outputs = channels // scale**2 if upscale else channels * scale**2
    weights = np.zeros((outputs, scale, scale, channels), np.int8)
    for k, (i, j) in enumerate(places):
        if upscale:
            c = np.arange(outputs)
            weights[c, scale - 1 - i, scale - 1 - j, c * scale**2 + k] = 1
        else:
            c = np.arange(channels)
            weights[c * scale**2 + k, i, j, c] = 1
    return weights
