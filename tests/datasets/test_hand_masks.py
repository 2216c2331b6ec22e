"""Hands drawn with the class of each pixel."""

import numpy as np
from PIL import Image

from dpuflow.datasets.hand_masks import SIDE, draw, write


def test_hands_and_their_masks_are_drawn_alike_each_time():
    pictures, masks = draw(range(6), 1)
    again, _ = draw(range(6), 1)
    assert pictures.shape == masks.shape == (6, SIDE, SIDE) and np.array_equal(pictures, again)
    assert not np.array_equal(pictures, draw(range(6), 2)[0])
    for picture, mask in zip(pictures.astype(float), masks, strict=True):
        assert set(np.unique(mask)) == {0, 1} and 0.1 < (mask == 1).mean() < 0.8
        # what the mask calls a hand looks other than what is around it
        assert abs(picture[mask == 1].mean() - picture[mask == 0].mean()) > 5


def test_a_fifth_is_for_the_test_and_pictures_and_masks_have_one_name(tmp_path):
    write(tmp_path, 10, 1)
    names = {
        part: sorted(p.name for p in (tmp_path / part / "images").iterdir()) for part in ("train", "test")
    }
    assert names["test"] == ["00004.png", "00009.png"] and len(names["train"]) == 8
    for part, files in names.items():
        assert sorted(p.name for p in (tmp_path / part / "masks").iterdir()) == files
    mask = np.asarray(Image.open(tmp_path / "test/masks/00009.png"))
    assert np.array_equal(mask, draw(range(10), 1)[1][9])
