"""Arrays that begin where native libraries want memory to begin."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

ALIGNMENT = 64
"""Bytes: a vector of the processor. TensorFlow takes over an array that begins at a multiple of it, and
copies any other."""


def aligned(shape: Sequence[int], dtype: Any, zeros: bool = False) -> np.ndarray:
    """An array that begins at a multiple of `ALIGNMENT`; its values are any, or zeros.

    Zeros take no memory as long as they are only read.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    whole = (np.zeros if zeros else np.empty)(size + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + size].view(dtype).reshape(shape)
