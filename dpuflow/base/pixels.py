"""How pixels become a network's input: in real numbers, and as the DPU's int8.

An *input scaling* is a mapping: network input = (pixel - subtract) / divide, where both are a number
or a list with one for each channel in the order of the picture (red, green, blue); `order: bgr`
turns the channels round afterwards. The quantizer may add `gain`, by which it multiplies each channel
of the picture and divides the weights of the first layer (`quantize.input_grid`): the network that
it made sees (pixel - subtract) / divide * gain. A scaling of one number for all channels in the order
of the picture has the keys subtract and divide only.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import quantize

Scaling = Mapping[str, Any]
"""{"subtract", "divide"}, and perhaps "order": "bgr" and "gain"."""

MODES: dict[str, dict[str, Any]] = {
    "caffe": {"subtract": [123.68, 116.779, 103.939], "divide": 1, "order": "bgr"},
    "tf": {"subtract": 127.5, "divide": 127.5},
    "torch": {"subtract": [123.675, 116.28, 103.53], "divide": [58.395, 57.12, 57.375]},
}
"""Keras's three modes of preprocess_input, with the means and deviations of ImageNet in red, green, blue."""


def complete(entry: str | Scaling) -> dict[str, Any]:
    """The scaling that an `input` of the configuration means: a name of MODES, or its figures."""
    scaling = dict(MODES[entry] if isinstance(entry, str) else entry)
    if scaling.get("order") == "rgb":
        del scaling["order"]
    return scaling


def problem(scaling: Any, channels: int | None = None) -> str | None:
    """What is wrong with an input scaling (for images of so many channels, if that is known), or None."""
    if not isinstance(scaling, Mapping) or not {"subtract", "divide"} <= scaling.keys():
        return f"{scaling!r}: expected finite numbers subtract and divide"
    if scaling.get("order", "rgb") not in ("rgb", "bgr"):
        return f"order {scaling['order']!r}: expected rgb or bgr"
    for key in ("subtract", "divide", "gain"):
        value = scaling.get(key, 1)
        numbers = value if isinstance(value, list | tuple) else [value]
        if not numbers or not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
            return f"{key} {value!r}: expected a finite number, or one for each channel"
        if key != "subtract" and min(numbers) <= 0:
            return f"{key} {value!r}: expected numbers above 0"
        if channels is not None and numbers is value and len(value) != channels:
            return f"{key} has {len(value)} numbers, the images have {channels} channels"
    return None


def check_scaling(scaling: Scaling, channels: int) -> None:
    """UserError unless the scaling is one for images of so many channels."""
    found = problem(scaling, channels)
    if found:
        raise UserError(f"models.NAME.input: {found}")


def words(scaling: Scaling) -> str:
    """The scaling for people: (pixel - 128) / 128."""
    order = ", channels in the order blue, green, red" if scaling.get("order") == "bgr" else ""
    return f"(pixel - {_shown(scaling['subtract'])}) / {_shown(scaling['divide'])}{order}"


def _shown(value):
    return f"[{', '.join(f'{n:g}' for n in value)}]" if isinstance(value, list | tuple) else f"{value}"


def scale_pixels(images: ArrayLike, scaling: Scaling) -> np.ndarray:
    """uint8 images (N, H, W, C) -> float32 network input; UserError where the number of channels differs."""
    images = np.asarray(images)
    if per_channel(scaling) or "order" in scaling:
        check_scaling(scaling, images.shape[-1])
    x = (images.astype(np.float32) - np.float32(scaling["subtract"])) / np.float32(scaling["divide"])
    if "gain" in scaling:
        x = (x * np.asarray(scaling["gain"], np.float64)).astype(np.float32)
    return np.ascontiguousarray(x[..., ::-1]) if scaling.get("order") == "bgr" else x


def network_gain(scaling: Scaling) -> np.ndarray:
    """The gain in the network's order of channels: float64 () or (C,)."""
    gain = np.asarray(scaling.get("gain", 1.0), np.float64)
    return gain[::-1] if gain.ndim and scaling.get("order") == "bgr" else gain


def per_channel(scaling: Scaling) -> bool:
    """Whether some figure differs between the channels of the picture."""
    return any(isinstance(scaling.get(key), list | tuple) for key in ("subtract", "divide", "gain"))


def input_table(
    subtract: float | Sequence[float],
    divide: float | Sequence[float],
    fix_point: int,
    gain: float | Sequence[float] = 1.0,
) -> np.ndarray:
    """Lookup table int8: what each uint8 pixel becomes at the DPU's input.

    (pixel - subtract) / divide, in float32, is the float input of the network; the table holds
    its DPU_ROUND quantization, after `gain` in float64 (docs/reference/numerics.md, "Rounding").
    (256,), or (C, 256) where a figure is a list of one for each channel.
    """
    away, by = (np.asarray(n, np.float32)[..., None] for n in (subtract, divide))
    value = ((np.arange(256, dtype=np.float32) - away) / by).astype(np.float64)
    table = quantize(value * np.asarray(gain, np.float64)[..., None], fix_point)
    return table if any(isinstance(n, Sequence) for n in (subtract, divide, gain)) else table.reshape(256)


def quantize_pixels(images: np.ndarray, scaling: Scaling, fix_point: int) -> np.ndarray:
    """uint8 images (N, H, W, C) -> int8 (N, H, W, C), the input of a network by its fix_point.

    UserError where the scaling has another number of channels.
    """
    table = input_table(scaling["subtract"], scaling["divide"], fix_point, scaling.get("gain", 1.0))
    if table.ndim == 1 and "order" not in scaling:
        return table[images]
    channels = images.shape[-1]
    check_scaling(scaling, channels)
    table = np.broadcast_to(table, (channels, 256))
    grid = np.empty(images.shape, np.int8)
    for channel in range(channels):
        place = channels - 1 - channel if scaling.get("order") == "bgr" else channel
        grid[..., place] = table[channel][images[..., channel]]
    return grid
