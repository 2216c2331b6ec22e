"""Attributes of XIR's resizing ops: resize of the uncompiled graph, upsample-fix, downsample-fix."""

from typing import Any

import numpy as np

from dpuflow.network import Layer, Network
from dpuflow.ops.resampling import ResizeBilinear


def resize_attributes(layer: Layer, network: Network) -> dict[str, Any]:
    """mode, align_corners, half_pixel_centers and scale (w, h) of a resizing layer.

    The scale of an upsample or downsample is its factor.
    """
    operator, (height, width, _) = layer.operator, network[layer.inputs[0]].shape
    if isinstance(operator, ResizeBilinear):
        grid = operator.grid
        scale = [_scale(old, new) for old, new in zip((width, height), operator.size, strict=True)]
    else:
        grid, scale = "asymmetric", [float(factor) for factor in layer.attrs["factor"]]
    return {
        "mode": "BILINEAR" if isinstance(operator, ResizeBilinear) else "NEAREST",
        "align_corners": grid == "align_corners",
        "half_pixel_centers": grid == "half_pixel",
        "scale": scale,
    }


def _scale(old: int, new: int) -> float:
    """The least float32 `scale` with int(old * scale) = new, as XIR infers a shape.

    Whether that multiplies in float32 or in more: a product that is not below `new` is rounded to none below.
    """
    scale = np.float32(new / old)
    while old * float(scale) < new:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)
