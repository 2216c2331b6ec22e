"""dataset.h5: content, determinism, duplicates, damage."""

import logging

import h5py
import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import seal
from dpuflow.datasets.dataset_file import build_dataset, read_dataset
from dpuflow.datasets.duplicates import content_hashes, repeated
from dpuflow.datasets.image_csv import write_image_csv
from dpuflow.datasets.labels import labels_of, sign_mnist_labels


@pytest.fixture
def made(tmp_path):
    """Two CSV files (1300 and 48 rows, 3x3) and build(**settings) -> path of dataset.h5."""
    random = np.random.default_rng(5)
    images = random.integers(0, 256, (1348, 3, 3, 1), dtype=np.uint8)
    labels = np.resize(np.array(sign_mnist_labels().present, np.uint8), 1348)

    def build(name="d.h5", images=images, **settings):
        for part, rows in (("train", slice(0, 1300)), ("test", slice(1300, None))):
            write_image_csv(tmp_path / f"{part}.csv", images[rows], labels[rows])
        settings = {"validation": {"rows": 100}, "calibration": {"images": 48}, **settings}
        path = tmp_path / name
        build_dataset(path, tmp_path / "train.csv", tmp_path / "test.csv", sign_mnist_labels(), **settings)
        return path

    return build, images, labels


def test_content(made):
    build, images, labels = made
    data = read_dataset(build(origins={"train": ("ab", "known"), "test": ("cd", "")}))
    assert np.array_equal(data.images, images)
    assert np.array_equal(data.labels, labels)
    assert data.class_names[10] == "K"
    assert data.outputs == 25
    assert 9 not in data.present
    assert data.shape == (3, 3, 1)
    assert data.attrs["train_sha256"] == "ab"
    assert data.attrs["train_origin"] == "known"
    assert data.attrs["train_images_in_test"] == 0
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 1200,
        "validation": 100,
        "test": 48,
        "calibration": 48,
    }
    assert set(data.splits["calibration"]) <= set(data.splits["train"])
    assert np.bincount(labels[data.splits["calibration"]], minlength=25).tolist() == [2] * 9 + [0] + [2] * 15


def test_subset_before_and_after_loading_everything(made):
    build, images, labels = made
    path = build(validation={"fraction": 0.2, "take": "random", "seed": 2})
    for name in ("train", "validation", "test", "calibration"):
        data = read_dataset(path)
        lazy = data.subset(name)
        assert data.images is not None
        loaded = data.subset(name)
        rows = data.splits[name]
        for got in (lazy, loaded):
            assert np.array_equal(got[0], images[rows])
            assert np.array_equal(got[1], labels[rows])
    with pytest.raises(UserError, match="no split 'calib'"):
        data.subset("calib")


def test_byte_identical(made):
    build, _, _ = made
    assert build("a.h5").read_bytes() == build("b.h5").read_bytes()


@pytest.mark.fault("data", "duplicate rows, also with another label", "message or warning, as configured")
def test_duplicates_within_a_file(made, caplog):
    build, images, _ = made
    images = images.copy()
    images[24] = images[0]  # same label
    images[25] = images[0]  # another label
    with pytest.raises(
        UserError, match=r"train.csv: 2 images repeat .*line 27 that of line 2.* 1 of them with another"
    ):
        build(images=images, duplicate_policy="error")
    with caplog.at_level(logging.WARNING):
        path = build(images=images, duplicate_policy="warn")
    assert "2 images repeat" in caplog.text
    assert read_dataset(path).attrs["train_duplicates"] == 2
    caplog.clear()
    build(images=images, duplicate_policy="allow")
    assert not caplog.records


@pytest.mark.fault("data", "test images among the calibration images", "refused")
def test_test_images_never_calibrate(made, caplog):
    build, images, _ = made
    rows = read_dataset(build()).splits
    leaked = images.copy()
    leaked[1300] = leaked[rows["validation"][0]]
    with caplog.at_level(logging.WARNING):
        path = build("w.h5", images=leaked)
    assert "1 images are also in" in caplog.text
    assert read_dataset(path).attrs["train_images_in_test"] == 1
    leaked[1301] = leaked[rows["calibration"][3]]
    with pytest.raises(
        UserError, match=f"calibration are also test images .*line {rows['calibration'][3] + 2};"
    ):
        build("x.h5", images=leaked)
    assert not (path.parent / "x.h5").exists()


@pytest.mark.fault("data", "label that is no class", "refused")
def test_wrong_label_leaves_no_file(made, tmp_path):
    build, _, _ = made
    build()
    with pytest.raises(UserError, match="expected one of the labels 0-2"):
        build_dataset(
            tmp_path / "y.h5", tmp_path / "train.csv", tmp_path / "test.csv", labels_of(["a", "b", "c"])
        )
    assert not (tmp_path / "y.h5").exists()


@pytest.mark.fault("data", "class without an image", "warning")
def test_missing_class_is_told(made, tmp_path, caplog):
    build, images, _ = made
    build()
    write_image_csv(tmp_path / "test.csv", images[:2], np.array([0, 1]))
    with caplog.at_level(logging.WARNING), pytest.raises(UserError):
        build_dataset(tmp_path / "z.h5", tmp_path / "train.csv", tmp_path / "absent.csv", sign_mnist_labels())
    build_dataset(
        tmp_path / "z.h5",
        tmp_path / "train.csv",
        tmp_path / "test.csv",
        sign_mnist_labels(),
        calibration={"images": 1},
    )
    assert "test images show no C, D" in caplog.text


@pytest.mark.fault("data", "dataset.h5 truncated, foreign, changed, absent", "refused")
def test_damaged_and_foreign_files(made, tmp_path):
    build, _, _ = made
    whole = build().read_bytes()
    bad = tmp_path / "bad.h5"
    for data in (b"", b"no hdf5", whole[: len(whole) // 2], whole[:100]):
        bad.write_bytes(data)
        with pytest.raises(UserError, match=r"bad\.h5: damaged or not an HDF5 file"):
            read_dataset(bad)
    with h5py.File(bad, "w") as file:
        file["x"] = 1
    with pytest.raises(UserError, match="not a dataset file"):
        read_dataset(bad)
    bad.write_bytes(whole)
    with h5py.File(bad, "a") as file:
        del file["split/test"]
    with pytest.raises(UserError, match="checksum"):
        read_dataset(bad)
    seal(bad)
    with pytest.raises(UserError, match="not a dataset file"):
        read_dataset(bad)
    with pytest.raises(UserError, match="no such file"):
        read_dataset(tmp_path / "absent.h5")


def test_repeated_pairs():
    images = np.array([1, 2, 1, 3, 2, 1], np.uint8).reshape(6, 1, 1, 1)
    first, again = repeated(content_hashes(images))
    assert list(zip(first.tolist(), again.tolist(), strict=True)) == [(0, 2), (1, 4), (0, 5)]


def test_batches_are_the_split_in_its_order(made, monkeypatch):
    build, images, labels = made
    data = read_dataset(build(validation={"fraction": 0.2, "take": "random", "seed": 2}))
    monkeypatch.setattr("dpuflow.datasets.dataset_file.SPAN_BYTES", 40 * 9)  # stretches of 40 images
    monkeypatch.setattr("dpuflow.datasets.dataset_file.GAP_BYTES", 5 * 9)
    data.splits["validation"] = data.splits["validation"][::-1]  # any order
    for name, size in (("train", 300), ("validation", 7), ("test", 48), ("calibration", 512)):
        rows, batches = data.splits[name], list(data.batches(name, size))
        assert [len(b[0]) for b in batches[:-1]] == [size] * (len(batches) - 1)
        assert np.array_equal(np.concatenate([b[0] for b in batches]), images[rows])
        assert np.array_equal(np.concatenate([b[1] for b in batches]), labels[rows])
        assert np.array_equal(data.subset(name)[0], images[rows])
    with pytest.raises(UserError, match="no split 'calib'"):
        next(data.batches("calib"))


def test_a_function_goes_through_a_split_batch_by_batch(made):
    build, images, labels = made
    data, seen = read_dataset(build()), []
    sums = data.through("train", lambda batch: seen.append(len(batch)) or batch.sum(axis=(1, 2, 3)))
    rows = data.splits["train"]
    assert seen == [512, 512, 176] and np.array_equal(sums, images[rows].sum(axis=(1, 2, 3)))
    assert np.array_equal(data.labels_in("train"), labels[rows])
    data.splits["test"] = rows[:0]
    with pytest.raises(UserError, match="no images for test"):
        data.through("test", len)
