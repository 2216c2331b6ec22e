"""Pixels as a network's input by the compiled kernels: in NumPy it takes as long as the network itself."""

import ctypes

import numpy as np

from dpuflow.base import pixels
from dpuflow.base.pixels import Scaling, check_scaling, input_table
from dpuflow.emulator import c_kernels


def quantize_pixels(images: np.ndarray, scaling: Scaling, fix_point: int) -> np.ndarray:
    """`base.pixels.quantize_pixels`, the same bytes: uint8 images (N, H, W, C) -> int8 (N, H, W, C)."""
    if c_kernels.library() is None:
        return pixels.quantize_pixels(images, scaling, fix_point)
    table = input_table(scaling["subtract"], scaling["divide"], fix_point, scaling.get("gain", 1.0))
    channels = images.shape[-1]
    if table.ndim == 1 and "order" not in scaling:
        channels = 1  # all values alike
    else:
        check_scaling(scaling, channels)
    places = np.arange(channels)[:: -1 if scaling.get("order") == "bgr" else 1]
    tables = np.ascontiguousarray(np.broadcast_to(table, (channels, 256)))
    arrays = np.ascontiguousarray(images), np.empty(images.shape, np.int8), tables, places.astype(np.int64)
    given, grid, tables, places = arrays
    addresses = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    sizes = ctypes.c_int64(given.size // channels), ctypes.c_int64(channels)
    c_kernels.loaded().translate(*addresses[:2], *sizes, *addresses[2:])
    return grid
