"""Pixels through the compiled kernels' tables give the bytes of base.pixels."""

import numpy as np
import pytest
from compiled_kernels import need_compiled_kernels

from dpuflow.base import pixels
from dpuflow.base.errors import UserError
from dpuflow.emulator.native_pixels import quantize_pixels

SCALINGS = [
    {"subtract": 127.5, "divide": 127.5},
    {"subtract": 0, "divide": 255, "order": "bgr"},
    *pixels.MODES.values(),
    {"subtract": [1, 2, 3], "divide": 64.0, "gain": [1.5, 0.5, 1.0], "order": "bgr"},
]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("shape", [(2, 9, 7, 3), (0, 4, 4, 3), (1, 1, 1, 3), (3, 8, 16, 3)])
def test_the_same_bytes_as_in_numpy(scaling, shape):
    need_compiled_kernels()
    images = np.random.default_rng(shape[1]).integers(0, 256, (*shape[:2], 2 * shape[2], 3), dtype=np.uint8)
    for given in (images, images[:, :, ::2], np.zeros((2, 3, 5, 1), np.uint8)[..., [0, 0, 0]]):
        found = quantize_pixels(given, scaling, 5)
        assert found.dtype == np.int8
        np.testing.assert_array_equal(found, pixels.quantize_pixels(given, scaling, 5))


def test_a_scaling_of_other_channels_is_refused():
    need_compiled_kernels()
    with pytest.raises(UserError, match="3 numbers, the images have 1"):
        quantize_pixels(np.zeros((1, 2, 2, 1), np.uint8), pixels.MODES["torch"], 5)
