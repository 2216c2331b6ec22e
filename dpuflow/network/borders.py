"""Zeros around a map as a layer of its own: for readers whose next layer cannot take them as its padding."""

from typing import Any

import numpy as np

from dpuflow.ops.operator import Window


def zero_border(
    shape: tuple[int, ...], pad: tuple[int, int, int, int]
) -> tuple[tuple[int, int, int], np.ndarray, dict[str, Any]]:
    """(shape, weights, attributes) of the depthwise convolution with a single tap of one that adds zeros.

    ValueError for more zeros on a side than a layer may have.

    shape : (H, W, C) of the map; pad : (left, right, top, bottom) zeros. The weights are float32
    [1, KH, KW, C]; the attributes are those of `depthwise_conv`.
    """
    if max(pad) > Window.MAX_PAD:
        raise ValueError(f"{max(pad)} zeros on a side of a map, at most {Window.MAX_PAD}")
    left, right, top, bottom = pad
    height, width, channels = shape
    weights = np.zeros((1, top + bottom + 1, left + right + 1, channels), np.float32)
    weights[0, bottom, right] = 1
    attrs: dict[str, Any] = {
        "kernel": (left + right + 1, top + bottom + 1),
        "stride": (1, 1),
        "dilation": (1, 1),
        "pad": (left + right, left + right, top + bottom, top + bottom),
        "activation": "NONE",
    }
    return (height + top + bottom, width + left + right, channels), weights, attrs
