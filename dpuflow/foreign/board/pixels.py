"""Pixels to the network's int8 input.

Python 3.6 or later; part of a dpuflow bundle, next to app.py.
"""

import numpy as np


def input_table(subtract, divide, fix_point, gain=1.0):
    """int8 value of every uint8 pixel: (pixel - subtract) / divide * gain, halves rounded up.

    The same rounding as the quantizer's; truncating instead would shift every pixel
    and let 255 wrap to -128 at fix_point 7.
    """
    value = (np.arange(256, dtype=np.float32) - np.float32(subtract)) / np.float32(divide)
    scaled = np.ldexp(value.astype(np.float64) * gain, fix_point)
    floor = np.floor(scaled)
    rounded = floor + (scaled - floor >= 0.5)
    return np.clip(rounded, -128, 127).astype(np.int8)


class PixelTable:
    """int8 of whole images: one table, or one for each channel, and the order of the channels.

    told : meta.json's `input`: subtract, divide and gain (a number, or one for each channel of the
    picture), fix_point, and order where the network's channels are not in the picture's.
    """

    def __init__(self, told):
        figures = [told["subtract"], told["divide"], told.get("gain", 1.0)]
        self.turned = told.get("order") == "bgr"
        channels = max([len(value) for value in figures if isinstance(value, list)] or [1])
        each = [value if isinstance(value, list) else [value] * channels for value in figures]
        self.tables = [
            input_table(subtract, divide, told["fix_point"], gain)
            for subtract, divide, gain in zip(*each)  # noqa: B905 (Python 3.6)
        ]

    def __call__(self, images):
        """uint8 images (n, H, W, C) -> int8 of the same shape, channels in the network's order."""
        if len(self.tables) == 1:
            grid = np.take(self.tables[0], images, mode="clip")
        else:
            parts = [
                np.take(table, images[..., channel], mode="clip") for channel, table in enumerate(self.tables)
            ]
            grid = np.stack(parts, axis=-1)
        return grid[..., ::-1] if self.turned else grid
