"""`dataset.h5`: images, labels, class names, split and origin in one file.

Layout: /images uint8 (N, H, W, C), the training file's rows and then the test file's;
/labels uint8 (N,); /class_names, UTF-8, indexed by label; /split/{train, validation,
test, calibration}, int64 rows of /images (calibration is a subset of train). Root
attributes: format, classes (width of the network's output), present (labels that
occur), train_sha256 and test_sha256 of the CSV bytes, train_origin and test_origin,
and the counts of repeated images. Equal content gives equal bytes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import check_stored, new_hdf5, open_hdf5, stored_values
from dpuflow.datasets import duplicates
from dpuflow.datasets.image_csv import ImageShape, image_blocks
from dpuflow.datasets.labels import Labels
from dpuflow.datasets.splits import calibration_rows, validation_split

log = logging.getLogger(__name__)

FORMAT = "dpuflow dataset 1"
WHAT = "a dataset file of dpuflow"
SPLITS = ("train", "validation", "test", "calibration")
CHUNK_ROWS = 512


@dataclass
class Dataset:
    """An open view of dataset.h5; images are read when asked for.

    Attributes
    ----------
    path : the file.
    labels : uint8 (N,).
    classes : Labels (names indexed by label, and which labels occur).
    splits : name -> int64 rows, for train, validation, test, calibration.
    shape : (H, W, C).
    attrs : root attributes of the file as a dict (checksums, origins, counts).
    """

    path: Path
    labels: np.ndarray
    classes: Labels
    splits: dict[str, np.ndarray]
    shape: tuple[int, int, int]
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        """Names indexed by label."""
        return list(self.classes.names)

    @property
    def present(self) -> list[int]:
        """Labels that occur, ascending."""
        return list(self.classes.present)

    @property
    def outputs(self) -> int:
        """Width of the network's output."""
        return self.classes.outputs

    @cached_property
    def images(self) -> np.ndarray:
        """All images, uint8 (N, H, W, C)."""
        return self._read(slice(None))

    def subset(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(images uint8 (n, H, W, C), labels uint8 (n,)) of a split, in the order of its rows."""
        if name not in self.splits:
            raise UserError(f"{self.path}: no split {name!r}; it has {', '.join(self.splits)}")
        rows = self.splits[name]
        if not len(rows):
            return np.empty((0, *self.shape), np.uint8), self.labels[rows]
        low, high = int(rows.min()), int(rows.max()) + 1
        if "images" in self.__dict__:
            return self.images[rows], self.labels[rows]
        # one contiguous read, then a gather in memory: HDF5's own fancy indexing is slow
        span = self._read(slice(low, high))
        return span if high - low == len(rows) and (np.diff(rows) == 1).all() else span[
            rows - low
        ], self.labels[rows]

    def _read(self, rows):
        with open_hdf5(self.path, WHAT, sealed=False) as file:
            return file["images"][rows]


def read_dataset(path: Path | str) -> Dataset:
    """Open dataset.h5 and check it; UserError if it is damaged or something else."""
    with open_hdf5(path, WHAT) as file:
        if file.attrs.get("format") != FORMAT:
            raise UserError(f"{path}: not {WHAT} (expected the attribute format = {FORMAT!r})")
        check_stored(file["images"], np.uint8, 4)
        labels = stored_values(file, "labels", np.uint8, 1)
        names = tuple(file["class_names"].asstr()[()].tolist())
        present = tuple(int(label) for label in file.attrs["present"])
        splits = {name: stored_values(file["split"], name, np.int64, 1) for name in SPLITS}
        count, height, width, channels = (int(n) for n in file["images"].shape)
        attrs = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()
        }
        if 0 in (count, height, width, channels) or count != len(labels):
            raise ValueError("images and labels do not fit each other")
        if attrs["classes"] != len(names) or not set(np.unique(labels).tolist()) <= set(present):
            raise ValueError("labels and class names do not fit each other")
        _check_splits(splits, len(labels))
        shape = height, width, channels
        return Dataset(Path(path), labels, Labels(names, present), splits, shape, attrs)


def _check_splits(splits, images):
    """ValueError unless every image is in one split, and calibration takes from train."""
    for name, rows in splits.items():
        if len(rows) and not 0 <= rows.min() <= rows.max() < images:
            raise ValueError(f"rows of split {name} outside the images")
        if len(np.unique(rows)) != len(rows):
            raise ValueError(f"split {name} has a row twice")
    parts = np.concatenate([splits[name] for name in ("train", "validation", "test")])
    if len(parts) != images or len(np.unique(parts)) != images:
        raise ValueError("the splits do not divide the images among them")
    if not np.isin(splits["calibration"], splits["train"]).all():
        raise ValueError("calibration images that are not for training")


def build_dataset(
    path: Path | str,
    train_csv: Path | str,
    test_csv: Path | str,
    labels: Labels,
    *,
    shape: ImageShape | None = None,
    validation: Mapping[str, Any] | None = None,
    calibration: Mapping[str, Any] | None = None,
    duplicate_policy: str = "warn",
    origins: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, int]:
    """Write dataset.h5 from two CSV files; return a dict of counts.

    Parameters
    ----------
    path : the file to write (atomic).
    train_csv, test_csv : CSV files of images of one shape.
    labels : Labels; any other label in a file is an error.
    shape : ImageShape or None (square grey images, size from the header).
    validation, calibration : settings, see `splits`.
    duplicate_policy : "error" | "warn" | "allow" for images repeated within a file.
    origins : {"train": (sha256, text), "test": ...}, stored as attributes.

    Memory does not grow with the number of rows but for labels, hashes and indices.
    """
    with new_hdf5(path) as file:
        sink = _ImageSink(file)
        train_rows = sink.append(train_csv, shape, labels)
        test_rows = sink.append(test_csv, sink.shape, labels) - train_rows
        all_labels, hashes = sink.finish()
        train, held_out = validation_split(train_rows, validation)
        chosen = calibration_rows(train, all_labels, calibration)
        counts = _check_overlap(
            hashes, all_labels, train_rows, chosen, duplicate_policy, (train_csv, test_csv)
        )
        split = {
            "train": train,
            "validation": held_out,
            "test": np.arange(train_rows, train_rows + test_rows),
            "calibration": chosen,
        }
        _report_missing_classes(all_labels, split, labels)
        for name in SPLITS:
            file.create_dataset(f"split/{name}", data=split[name].astype(np.int64), track_times=False)
        file.create_dataset("labels", data=all_labels, track_times=False)
        file.create_dataset(
            "class_names",
            data=np.array(labels.names, dtype=object),
            dtype=h5py.string_dtype(),
            track_times=False,
        )
        file.attrs["format"] = FORMAT
        file.attrs["classes"] = labels.outputs
        file.attrs["present"] = np.array(labels.present, np.int64)
        for part, (digest, origin) in (origins or {}).items():
            file.attrs[f"{part}_sha256"] = digest
            file.attrs[f"{part}_origin"] = origin
        for name, value in counts.items():
            file.attrs[name] = value
    return {name: len(rows) for name, rows in split.items()} | counts


class _ImageSink:
    """Appends CSV files to /images block by block, keeping labels and hashes."""

    def __init__(self, file: h5py.File):
        self.file = file
        self.images: h5py.Dataset | None = None
        self.shape: ImageShape | None = None
        self.labels: list[np.ndarray] = []
        self.hashes: list[np.ndarray] = []
        self.rows = 0
        self.pending: list[np.ndarray] = []

    def append(self, path: Path | str, shape: ImageShape | None, labels: Labels) -> int:
        """Append one CSV; return the number of rows now held."""
        for images, block_labels in image_blocks(path, shape, labels.present):
            if self.images is None:
                self.shape = ImageShape(*images.shape[1:])
                self.images = self.file.create_dataset(
                    "images",
                    shape=(0, *images.shape[1:]),
                    maxshape=(None, *images.shape[1:]),
                    chunks=(CHUNK_ROWS, *images.shape[1:]),
                    dtype=np.uint8,
                    track_times=False,
                )
            self.labels.append(block_labels)
            self.hashes.append(duplicates.content_hashes(images))
            self.rows += len(images)
            self.pending.append(images)
            if sum(map(len, self.pending)) >= CHUNK_ROWS:
                self._write_whole_chunks()
        return self.rows

    def _write_whole_chunks(self, everything=False):
        images = np.concatenate(self.pending)
        count = len(images) if everything else len(images) // CHUNK_ROWS * CHUNK_ROWS
        start = self.images.shape[0]
        self.images.resize(start + count, axis=0)
        self.images[start:] = images[:count]
        self.pending = [images[count:]]

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Write what is pending; return (labels uint8 (N,), hashes uint64 (N, 2))."""
        self._write_whole_chunks(everything=True)
        return np.concatenate(self.labels), np.concatenate(self.hashes)


def _check_overlap(hashes, labels, train_rows, calibration, policy, names):
    """Apply the duplicates policy; refuse calibration images that are test images too."""
    train, test = hashes[:train_rows], hashes[train_rows:]
    counts = {
        "train_duplicates": duplicates.check_duplicates(train, labels[:train_rows], policy, names[0]),
        "test_duplicates": duplicates.check_duplicates(test, labels[train_rows:], policy, names[1]),
    }
    leaked = duplicates.shared_with(train, test)
    counts["train_images_in_test"] = int(leaked.sum())
    calibrating = calibration[leaked[calibration]]
    if len(calibrating):
        raise UserError(
            f"{names[0]}: {len(calibrating)} images chosen for calibration are also test images (first: line "
            f"{calibrating[0] + 2}; {leaked.sum()} training images are in the test file); "
            f"remove them from {names[0]}"
        )
    if leaked.any():
        log.warning(
            "warning: %s: %d images are also in %s (first: line %d), so test accuracy will look too good",
            names[0],
            leaked.sum(),
            names[1],
            np.flatnonzero(leaked)[0] + 2,
        )
    return counts


def _report_missing_classes(all_labels, split, labels):
    for name in ("train", "test"):
        missing = sorted(set(labels.present) - set(np.unique(all_labels[split[name]]).tolist()))
        if missing:
            log.warning(
                "warning: the %s images show no %s", name, ", ".join(labels.name(label) for label in missing)
            )
