"""Pixels to a network's input: per channel, in another order, by Keras's modes; the same on the board."""

import re

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import quantize
from dpuflow.base.pixels import MODES, complete, input_table, problem, quantize_pixels, scale_pixels, words
from tests.board.application_modules import module

COLOURS = {
    **MODES,
    "wide": {"subtract": [0, 128, 33.3], "divide": [1, 255.5, 78.6], "order": "bgr"},
    "one divisor": {"subtract": 3, "divide": [2, 4, 8]},
    "gained": {**MODES["torch"], "gain": [0.3, 0.31, 0.29], "order": "bgr"},
}


def pixels(count=3, seed=5):
    """Images that hold every value in every channel."""
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_input_table_of_the_default_scaling_is_lossless():
    assert (input_table(128, 128, 7) == np.arange(-128, 128)).all()


def test_input_table_rounds_and_saturates_where_the_tutorial_wrapped():
    table = input_table(0, 255, 7)
    assert table[255] == 127 and table[0] == 0 and table.min() == 0
    assert table[3] == 2  # 3 / 255 * 128 = 1.506 rounds; truncation would give 1


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("fix_point", [-1, 0, 5, 7])
def test_each_channel_is_scaled_rounded_and_placed_by_itself(name, fix_point):
    scaling, images = COLOURS[name], pixels()
    by_hand = np.empty(images.shape)
    for channel in range(3):
        subtract, divide, gain = (
            np.broadcast_to(scaling.get(key, 1.0), (3,))[channel] for key in ("subtract", "divide", "gain")
        )
        real = (images[..., channel] - np.float32(subtract)) / np.float32(divide)
        place = 2 - channel if "order" in scaling else channel
        by_hand[..., place] = real.astype(np.float64) * gain
    np.testing.assert_array_equal(quantize_pixels(images, scaling, fix_point), quantize(by_hand, fix_point))
    np.testing.assert_array_equal(scale_pixels(images, scaling), by_hand.astype(np.float32))
    on_board = module("pixels").PixelTable({**scaling, "fix_point": fix_point})
    np.testing.assert_array_equal(on_board(images), quantize(by_hand, fix_point))


def test_the_modes_are_those_of_keras():
    from tf_keras.applications.imagenet_utils import preprocess_input

    images = pixels()
    for name, scaling in MODES.items():
        expected = preprocess_input(images.astype(np.float32), mode=name)
        np.testing.assert_allclose(scale_pixels(images, scaling), expected, rtol=2e-6, atol=2e-6)


def test_what_an_entry_of_the_configuration_means():
    assert complete("caffe") == {"subtract": [123.68, 116.779, 103.939], "divide": 1, "order": "bgr"}
    assert complete({"subtract": 0, "divide": 255, "order": "rgb"}) == {"subtract": 0, "divide": 255}
    assert words(complete("caffe")) == (
        "(pixel - [123.68, 116.779, 103.939]) / 1, channels in the order blue, green, red"
    )


@pytest.mark.parametrize(
    ("scaling", "channels", "found"),
    [
        ({"subtract": [1, 2], "divide": 1}, 3, "subtract has 2 numbers, the images have 3 channels"),
        ({"subtract": 1, "divide": [1, 2, 0]}, 3, "divide \\[1, 2, 0\\]: expected numbers above 0"),
        ({"subtract": float("nan"), "divide": 1}, 3, "expected a finite number"),
        ({"subtract": 0, "divide": 1, "order": "gbr"}, 3, "expected rgb or bgr"),
        ({"subtract": 0}, 3, "expected finite numbers subtract and divide"),
        ({"subtract": True, "divide": 1}, 1, "subtract True"),
    ],
)
def test_scalings_that_do_not_fit_are_refused(scaling, channels, found):
    assert re.search(found, problem(scaling, channels) or "")


def test_images_of_other_channels_are_refused():
    for use in (lambda x: quantize_pixels(x, MODES["torch"], 3), lambda x: scale_pixels(x, MODES["torch"])):
        with pytest.raises(UserError, match=r"subtract has 3 numbers, the images have 1 channels"):
            use(pixels()[..., :1])
