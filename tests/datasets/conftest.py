"""Small CSV files, good and bad."""

import numpy as np
import pytest


@pytest.fixture
def small():
    """(images uint8 (7, 2, 2, 1), labels uint8 (7,)): every digit count, both ends of the range."""
    images = np.array(
        [
            [0, 9, 10, 99],
            [100, 199, 200, 255],
            [1, 2, 3, 4],
            [7, 77, 177, 250],
            [0] * 4,
            [255] * 4,
            [5, 0, 5, 0],
        ],
        np.uint8,
    ).reshape(7, 2, 2, 1)
    return images, np.array([0, 24, 8, 10, 3, 3, 1], np.uint8)


@pytest.fixture
def write(tmp_path):
    """write(bytes, name="x.csv") -> path."""

    def put(data, name="x.csv"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return put
