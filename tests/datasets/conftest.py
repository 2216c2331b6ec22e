"""Small CSV files, good and bad; folders of pictures and their data sets."""

import numpy as np
import pytest
from class_pictures import IMAGE

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.datasets.picture_dataset import build_picture_dataset


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


@pytest.fixture
def put(tmp_path):
    """put({"train/cat/1.png": bytes, ...}, folder="photos") -> the folder."""

    def write(files, folder="photos"):
        for name, data in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / folder

    return write


@pytest.fixture
def build(tmp_path):
    """build(source, **entry) -> Dataset."""

    def made(source, name="d.h5", **entry):
        source = {"folder": str(source)} if not isinstance(source, dict) else source
        build_picture_dataset(
            tmp_path / name, {"image": IMAGE, "source": {"kind": "pictures"} | source} | entry
        )
        return read_dataset(tmp_path / name)

    return made
