"""Pixels to the network's int8 input.

Python 3.6 or later; part of a dpuflow bundle, next to app.py.
"""

import numpy as np


def input_table(subtract, divide, fix_point):
    """int8 value of every uint8 pixel: (pixel - subtract) / divide, halves rounded up.

    The same rounding as the quantizer's; truncating instead would shift every pixel
    and let 255 wrap to -128 at fix_point 7.
    """
    pixels = np.arange(256, dtype=np.float64)
    value = ((pixels - subtract) / divide).astype(np.float32).astype(np.float64)
    scaled = np.ldexp(value, fix_point)
    floor = np.floor(scaled)
    rounded = floor + (scaled - floor >= 0.5)
    return np.clip(rounded, -128, 127).astype(np.int8)
