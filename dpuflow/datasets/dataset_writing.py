"""What is common to all ways to write dataset.h5: the stream of images, the tables, the checks."""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import h5py
import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5_stream import NewHdf5File
from dpuflow.datasets import duplicates
from dpuflow.datasets.image_csv import ImageShape
from dpuflow.datasets.labels import Labels

log = logging.getLogger(__name__)

FORMAT = "dpuflow dataset 1"
WHAT = "a dataset file of dpuflow"
SPLITS = ("train", "validation", "test", "calibration")
CHUNK_ROWS = 512
SHOWN_CLASSES = 30
"""Names in a warning."""
MAX_CLASSES = 8000
"""Their numbers are an attribute, of which HDF5 holds 64 KiB."""


class Naming(NamedTuple):
    """How messages call what the images came from."""

    train: object
    """File of the training rows."""
    test: object
    """File of the test rows."""
    where: Callable[[str, int], str]
    """("train" or "test", row within this part) -> "line 7"."""
    rows: str
    """What is to be removed."""


def write_tables(
    file: h5py.File,
    content: tuple[np.ndarray, np.ndarray],
    labels: Labels,
    split: Mapping[str, np.ndarray],
    duplicate_policy: str,
    names: Naming,
    origins: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, int]:
    """Check for repeated images and write all but the images; return a dict of counts.

    file : with its /images. content : what `ImageSink.finish` returned. labels : the classes.
    split : name -> rows, those of the test the last ones. For the rest see `dataset_file.build_dataset`.
    """

    def write_labels() -> None:
        _report_missing_classes(content[0], split, labels)
        dtype = np.uint8 if labels.outputs <= 256 else np.uint16
        file.create_dataset("labels", data=content[0].astype(dtype), track_times=False)

    return write_frame(file, content, labels, split, write_labels, duplicate_policy, names, origins)


def write_frame(
    file: h5py.File,
    content: tuple[np.ndarray, np.ndarray],
    labels: Labels,
    split: Mapping[str, np.ndarray],
    write_targets: Callable[[], None],
    duplicate_policy: str,
    names: Naming,
    origins: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, int]:
    """`write_tables`, with what is to be found in the images, labels, boxes or masks, left to a function.

    content : its labels tell repeated images with other answers.
    """
    if len(labels.present) > MAX_CLASSES:
        raise UserError(
            f"{len(labels.present)} classes; dataset.h5 holds at most {MAX_CLASSES} (the highest is "
            f"{labels.name(labels.present[-1])}): is a label too large?"
        )
    all_labels, hashes = content
    first_test = len(all_labels) - len(split["test"])
    counts = _check_overlap(hashes, all_labels, first_test, split["calibration"], duplicate_policy, names)
    for name in SPLITS:
        file.create_dataset(f"split/{name}", data=split[name].astype(np.int64), track_times=False)
    write_targets()
    write_texts(file, "class_names", labels.names)
    file.attrs["format"] = FORMAT
    file.attrs["classes"] = labels.outputs
    file.attrs["present"] = np.array(labels.present, np.int64)
    for part, (digest, origin) in (origins or {}).items():
        file.attrs[f"{part}_sha256"] = digest
        file.attrs[f"{part}_origin"] = origin
    for name, value in counts.items():
        file.attrs[name] = value
    return {name: len(rows) for name, rows in split.items()} | counts


def write_texts(file: h5py.File, name: str, texts: Iterable[str]) -> None:
    """Write texts as UTF-8."""
    texts = list(texts)
    for text in texts:
        if "\0" in text:
            raise UserError(f"{name}: {text[:40]!r} holds a NUL character, which no HDF5 text can hold")
    values = np.array(texts, dtype=object)
    file.create_dataset(name, data=values, dtype=h5py.string_dtype(), track_times=False)


class ImageSink:
    """Appends images to /images block by block, keeping labels and hashes."""

    def __init__(self, file: NewHdf5File, chunk_rows: int = CHUNK_ROWS):
        self.file = file
        self.chunk_rows = chunk_rows
        self.images: h5py.Dataset | None = None
        self.shape: ImageShape | None = None
        self.labels: list[np.ndarray] = []
        self.hashes: list[np.ndarray] = []
        self.rows = 0
        self.pending: list[np.ndarray] = []

    def append(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> int:
        """Append blocks of (images uint8 (n, H, W, C), labels (n,)); return the number of rows now held."""
        for images, block_labels in blocks:
            if self.images is None:
                self.shape = ImageShape(*images.shape[1:])
                self.images = self.file.create_dataset(
                    "images",
                    shape=(0, *images.shape[1:]),
                    maxshape=(None, *images.shape[1:]),
                    chunks=(self.chunk_rows, *images.shape[1:]),
                    dtype=np.uint8,
                    track_times=False,
                )
            self.labels.append(block_labels)
            self.hashes.append(duplicates.content_hashes(images))
            self.rows += len(images)
            self.pending.append(images)
            if sum(map(len, self.pending)) >= self.chunk_rows:
                self._write_whole_chunks()
        return self.rows

    def _write_whole_chunks(self, everything=False):
        images = np.concatenate(self.pending)
        count = len(images) if everything else len(images) // self.chunk_rows * self.chunk_rows
        start = self.images.shape[0]
        self.images.resize(start + count, axis=0)
        self.images[start:] = images[:count]
        self.file.check_written()
        self.pending = [images[count:]]

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Write what is pending; return (labels (N,), hashes uint64 (N, 2))."""
        self._write_whole_chunks(everything=True)
        return np.concatenate(self.labels), np.concatenate(self.hashes)


def _check_overlap(hashes, labels, train_rows, calibration, policy, names):
    """Apply the duplicates policy; refuse calibration images that are test images too."""
    train, test = hashes[:train_rows], hashes[train_rows:]
    of_train, of_test = (functools.partial(names.where, part) for part in ("train", "test"))
    counts = {
        "train_duplicates": duplicates.check_duplicates(
            train, labels[:train_rows], policy, names.train, of_train, names.rows
        ),
        "test_duplicates": duplicates.check_duplicates(
            test, labels[train_rows:], policy, names.test, of_test, names.rows
        ),
    }
    leaked = duplicates.shared_with(train, test)
    counts["train_images_in_test"] = int(leaked.sum())
    calibrating = calibration[leaked[calibration]]
    if len(calibrating):
        raise UserError(
            f"{names.train}: {len(calibrating)} images chosen for calibration are also test images (first: "
            f"{of_train(calibrating[0])}; {leaked.sum()} training images are in the test file); "
            f"remove them from {names.train}"
        )
    if leaked.any():
        log.warning(
            "warning: %s: %d images are also in %s (first: %s), so test accuracy will look too good",
            names.train,
            leaked.sum(),
            names.test,
            of_train(np.flatnonzero(leaked)[0]),
        )
    return counts


def _report_missing_classes(all_labels, split, labels):
    for name in ("train", "test"):
        if not len(split[name]):
            continue
        missing = sorted(set(labels.present) - set(np.unique(all_labels[split[name]]).tolist()))
        if missing:
            shown = ", ".join(labels.name(label) for label in missing[:SHOWN_CLASSES])
            more = f" and {len(missing) - SHOWN_CLASSES} more" if len(missing) > SHOWN_CLASSES else ""
            log.warning("warning: the %s images show no %s%s", name, shown, more)
