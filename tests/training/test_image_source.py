"""Training images from the file: every one once an epoch, the same training as from memory."""

import numpy as np
import pytest
from test_training import LAYERS, SCALING, SETTINGS

from dpuflow.base import block_seal, hdf5
from dpuflow.base.errors import UserError
from dpuflow.datasets.dataset_file import build_dataset, read_dataset
from dpuflow.datasets.labels import labels_of
from dpuflow.training import image_source
from dpuflow.training.image_source import ArrayImages, Stretches
from dpuflow.training.model_builder import build_model
from dpuflow.training.objectives import Classification
from dpuflow.training.trainer import measured, seed_everything, train


@pytest.fixture
def dataset(tmp_path):
    """130 images of 8x8: class 1 is bright above, class 0 below; sealed by blocks, as large files are."""
    random = np.random.default_rng(0)
    for name, count in (("train", 100), ("test", 30)):
        labels = random.integers(0, 2, count)
        images = random.integers(0, 80, (count, 8, 8))
        images[labels == 1, :4] += 120
        images[labels == 0, 4:] += 120
        rows = [
            ",".join(map(str, [label, *image.ravel()])) for label, image in zip(labels, images, strict=True)
        ]
        header = "label," + ",".join(f"pixel{i}" for i in range(1, 65))
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    path = tmp_path / "dataset.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hdf5, "LARGE", 1)
        files = tmp_path / "train.csv", tmp_path / "test.csv"
        build_dataset(path, *files, labels_of(["down", "up"]), calibration={"images": 8})
    return read_dataset(path)


@pytest.fixture
def small_stretches(monkeypatch):
    """As for large images: nothing held in memory, runs of 3 images, stretches of 2 batches of 16."""
    monkeypatch.setattr(image_source, "IN_MEMORY", 0)
    monkeypatch.setattr(image_source, "RUN", 3 * 64)
    monkeypatch.setattr(image_source, "STRETCH", 32 * 64)


def trained(train_data, validation_data):
    seed_everything(3)
    model = build_model(LAYERS, (8, 8, 1), 2, "tiny")
    train(model, train_data, validation_data, SETTINGS, SCALING, 3)
    return model


def weights(model):
    return b"".join(w.tobytes() for w in model.get_weights())


def test_a_file_trains_the_same_network_as_an_array(dataset):
    parts = [dataset.part(name) for name in ("train", "validation")]
    arrays = [dataset.subset(name) for name in ("train", "validation")]
    assert len(parts[0]) == 90 and weights(trained(*parts)) == weights(trained(*arrays))


def test_an_epoch_from_the_file_is_every_image_once_in_runs_and_stretches(dataset, small_stretches):
    part = dataset.part("train")
    stretches = Stretches(part, 16, 50, seed=3)
    assert (stretches.steps, stretches.at_once, stretches.in_memory) == (6, 2, False)
    first, again, other = (stretches.order(epoch) for epoch in (0, 0, 1))
    assert sorted(first) == list(range(90)) and (first == again).all() and (first != other).any()
    for stretch in np.split(first, [32, 64]):  # whole runs of 3, but for those that a stretch's end cuts
        runs, counts = np.unique(stretch // 3, return_counts=True)
        assert (counts < 3).sum() <= 2 and (np.diff(runs) > 1).any()
    pixels, labels = dataset.subset("train")
    with stretches.opened() as read:
        parts = list(stretches.epoch(read, 0, 6))
    assert [len(images) for images, _ in parts] == [32, 32, 26]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in parts]), pixels[first])
    np.testing.assert_array_equal(np.concatenate([some for _, some in parts]), labels[first])


def test_training_from_the_file_learns_and_repeats(dataset, small_stretches):
    parts = [dataset.part(name) for name in ("train", "validation")]
    model = trained(*parts)
    assert weights(model) == weights(trained(*parts))
    assert measured(model, dataset.part("test"), SCALING, Classification())["accuracy"] > 0.9


def test_each_block_of_the_file_is_compared_once_in_a_training(dataset, small_stretches, monkeypatch):
    compared, original = [], block_seal.VerifiedFile._compared

    def counted(self, block):
        compared.append(block)
        return original(self, block)

    monkeypatch.setattr(block_seal.VerifiedFile, "_compared", counted)
    with dataset.part("train").reading() as read:
        for start in range(0, 90, 10):
            assert read(np.arange(start, start + 10)).shape == (10, 8, 8, 1)
    assert len(compared) == len(set(compared)) >= 1


@pytest.mark.fault("data", "data set that is damaged while it is read", "message")
def test_damage_in_the_file_is_named_and_errors_of_the_reader_are_their_own(dataset):
    with pytest.raises(ZeroDivisionError), dataset.part("train").reading():
        raise ZeroDivisionError
    content = bytearray(dataset.path.read_bytes())
    images = dataset.subset("train")[0]
    place = content.find(images[50].tobytes())
    content[place] ^= 1
    dataset.path.write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.h5: damaged .*bytes 0 to \d+ have changed"):
        trained(dataset.part("train"), dataset.part("validation"))


def test_what_fits_into_memory_is_read_once(dataset):
    stretches = Stretches(dataset.part("train"), 16, 50, seed=3)
    assert isinstance(stretches.data, ArrayImages) and stretches.at_once == 50
    expected = np.random.default_rng([3, 4]).permutation(90)
    np.testing.assert_array_equal(stretches.order(4), expected)
