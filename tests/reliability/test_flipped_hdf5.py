"""A flipped bit in dataset.h5 or quantized_model.h5 is refused when the file is read."""

import numpy as np
import pytest
from hand_network import hand_network

from dpuflow.base.errors import UserError
from dpuflow.datasets.dataset_file import build_dataset, read_dataset
from dpuflow.datasets.image_csv import write_image_csv
from dpuflow.datasets.labels import labels_of
from dpuflow.network.quantized_file import read_quantized, write_quantized

PLACES = 300


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset.h5 of 30 images."""
    folder = tmp_path_factory.mktemp("seal")
    images = np.random.default_rng(3).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    for part, rows in (("train", slice(0, 24)), ("test", slice(24, 30))):
        write_image_csv(folder / f"{part}.csv", images[rows], np.arange(len(images[rows])) % 2)
    build_dataset(
        folder / "dataset.h5", folder / "train.csv", folder / "test.csv", labels_of(["a", "b"]),
        validation={"rows": 4}, calibration={"images": 6},
    )  # fmt: skip
    return folder / "dataset.h5"


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A quantized_model.h5."""
    path = tmp_path_factory.mktemp("seal") / "quantized_model.h5"
    write_quantized(path, hand_network())
    return path


def flipped(path, seed=1):
    """(place, the file's bytes with one bit flipped there), the end's checksum among the places."""
    data = path.read_bytes()
    random = np.random.default_rng(seed)
    for place in (*random.permutation(len(data))[: PLACES - 60].tolist(), *range(len(data) - 60, len(data))):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        yield place, bytes(changed)


def refused(name, read, original, tmp_path):
    """Every flipped copy of the file `original` is refused by `read` with a message that names it."""
    path = tmp_path / name
    for place, data in flipped(original):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: "):
            pytest.fail(f"byte {place}: {read(path)}")


@pytest.mark.fault("data", "dataset.h5 with one bit flipped, at 300 places", "refused")
def test_a_flipped_bit_in_a_dataset_is_refused(dataset, tmp_path):
    refused("dataset.h5", read_dataset, dataset, tmp_path)


@pytest.mark.fault("models", "quantized_model.h5 with one bit flipped, at 300 places", "refused")
def test_a_flipped_bit_in_a_quantized_model_is_refused(quantized, tmp_path):
    refused("quantized_model.h5", read_quantized, quantized, tmp_path)
