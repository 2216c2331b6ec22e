"""`dataset.h5`: images, labels, class names, split and origin in one file.

Layout: /images uint8 (N, H, W, C), the training rows and then the test rows;
/labels uint8 (N,), uint16 for more than 256 classes; /class_names, UTF-8, indexed by label;
/split/{train, validation, test, calibration}, int64 rows of /images (calibration is a subset of
train, or images of its own; without any to train on it is the validation, too). Root attributes:
format, classes (width of the network's output), present (labels that occur), train_sha256 and
test_sha256 of the CSV bytes or of the list of pictures, train_origin and test_origin, and the counts
of repeated images. Made of picture files it has /paths (one for each image) and the attribute
resize, too. Equal content gives equal bytes.

With the attribute task, detection or segmentation, there are no /labels but /boxes, /box_classes,
/box_ignored and /box_offsets, or /masks uint8 (N, H, W) (`targets`), and /geometry: how each picture
was prepared (`placement`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import OpenHdf5, check_stored, new_hdf5, open_hdf5, stored_values
from dpuflow.base.numerics import images_at_a_time
from dpuflow.base.progress import counted
from dpuflow.datasets.dataset_writing import FORMAT, SPLITS, WHAT, ImageSink, Naming, write_tables
from dpuflow.datasets.image_csv import ImageShape, image_blocks
from dpuflow.datasets.labels import Labels
from dpuflow.datasets.placement import Placement
from dpuflow.datasets.splits import calibration_rows, validation_split
from dpuflow.datasets.targets import Boxes, read_boxes, read_placements
from dpuflow.datasets.tasks import TASKS

SPAN_BYTES = 16 << 20
"""Read at a time: scattered rows are picked out of stretches of this size,"""
GAP_BYTES = 128 << 10
"""and rows with more than this between them are read on their own."""


@dataclass
class Dataset:
    """An open view of dataset.h5; images are read when asked for.

    Attributes
    ----------
    path : the file.
    labels : uint8 or uint16 (N,); of tasks other than classification, where there are none, all 0.
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
    all_boxes: Boxes | None = None
    """Boxes of all rows (detection)."""
    geometry: np.ndarray | None = None
    """int32 (N, 10): `placement.Placement.numbers` of all rows (detection, segmentation)."""

    @property
    def task(self) -> str:
        """One of `tasks.TASKS`."""
        return str(self.attrs.get("task", TASKS[0]))

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

    @property
    def resize(self) -> str:
        """How picture files were brought to the shape (`datasets.picture_files`); crop for CSV files."""
        return str(self.attrs.get("resize", "crop"))

    @cached_property
    def images(self) -> np.ndarray:
        """All images, uint8 (N, H, W, C)."""
        return self._read(slice(None))

    def subset(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(images uint8 (n, H, W, C), labels (n,)) of a split, in the order of its rows.

        All in memory at a time; `batches` is for whoever does not need that.
        """
        rows = self._rows(name)
        if "images" in self.__dict__:
            return self.images[rows], self.labels[rows]
        with self._opened() as file:
            return self._gather(file, rows), self.labels[rows]

    def batches(self, name: str, size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (images uint8 (n, H, W, C), labels (n,)) of a split, `size` images at a time, in its order.

        size : None for `numerics.images_at_a_time`. Memory holds one batch. An empty split
        yields nothing.
        """
        part = self.part(name)
        size = size or images_at_a_time(self.shape)
        if not len(part):
            return
        with part.reading() as read:
            for start in range(0, len(part), size):
                span = np.arange(start, min(start + size, len(part)))
                yield read(span), self.labels[self._rows(name)[span]]

    def part(self, name: str) -> "Part":
        """A split whose images are read in any order, as many at a time as wanted."""
        return Part(self, name)

    def images_in(self, name: str) -> "SplitImages":
        """The images of a split, read when they are asked for."""
        return SplitImages(self, name)

    def labels_in(self, name: str) -> np.ndarray:
        """Labels (n,) of a split, in the order of its rows; UserError where pictures have no label."""
        self._of_task("classification", "labels")
        return self.labels[self._rows(name)]

    def boxes_in(self, name: str) -> Boxes:
        """The boxes of a split's pictures, in the order of its rows (detection)."""
        self._of_task("detection", "boxes")
        assert self.all_boxes is not None
        return self.all_boxes.of(self._rows(name))

    def masks_in(self, name: str) -> "SplitMasks":
        """The masks of a split's pictures, read when they are asked for (segmentation)."""
        self._of_task("segmentation", "masks")
        return SplitMasks(self, name)

    def placements_in(self, name: str) -> list[Placement]:
        """How the pictures of a split were prepared, in the order of its rows (detection, segmentation)."""
        if self.geometry is None:
            raise UserError(f"{self.path}: {self.task}: how its pictures were prepared is not recorded")
        return [Placement.of(numbers) for numbers in self.geometry[self._rows(name)]]

    def _of_task(self, task, what):
        if self.task != task:
            raise UserError(
                f"{self.path}: holds pictures for {self.task}, but {what} ({task}) are asked for; "
                "see datasets.*.task"
            )

    def through(self, name: str, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """What a function makes of the images of a split (uint8 (n, H, W, C) -> (n, ...)), batch by batch."""
        if not len(self._rows(name)):
            raise UserError(f"{self.path}: no images for {name}")
        batches = counted(self.batches(name), "images", len(self._rows(name)), lambda batch: len(batch[0]))
        return np.concatenate([function(images) for images, _ in batches])

    def _rows(self, name):
        if name not in self.splits:
            raise UserError(f"{self.path}: no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    def _gather(self, file, rows, name="images"):
        """Images (or masks) of any rows: contiguous reads, then a choice in memory (HDF5's own is slow)."""
        shape = file[name].shape[1:]
        images = np.empty((len(rows), *shape), np.uint8)
        size = int(np.prod(shape))
        step, gap = max(1, SPAN_BYTES // size), max(1, GAP_BYTES // size)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        ends = np.append(np.flatnonzero(np.diff(ascending) > gap) + 1, len(rows))
        start = 0
        while start < len(rows):
            first = int(ascending[start])
            within = int(np.searchsorted(ascending, first + step))
            stop = min(within, int(ends[np.searchsorted(ends, start, side="right")]))
            span = file[name][first : int(ascending[stop - 1]) + 1]
            images[order[start:stop]] = span[ascending[start:stop] - first]
            start = stop
        return images

    def _read(self, rows):
        with self._opened() as file:
            return file["images"][rows]

    def _opened(self):
        return open_hdf5(self.path, WHAT, sealed=False)


@dataclass(frozen=True)
class _SplitRows:
    """What the file holds for each picture of one split, uint8 (n, ...), read when it is asked for."""

    dataset: Dataset
    name: str

    table: ClassVar[str]
    axes: ClassVar[int]
    """Of one picture: of (H, W, C) the first."""

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        return np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (len(self), *self.dataset.shape[: self.axes])

    def __len__(self) -> int:
        return len(self.dataset.splits[self.name])

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        rows = self.dataset.splits[self.name][which]
        with self.dataset._opened() as file:
            return self.dataset._gather(file, rows, self.table)


class SplitImages(_SplitRows):
    """The images of one split, uint8 (n, H, W, C), as an array of which only what is asked for is read."""

    table, axes = "images", 3


class SplitMasks(_SplitRows):
    """The masks of one split, uint8 (n, H, W), as an array of which only what is asked for is read."""

    table, axes = "masks", 2


@dataclass(frozen=True)
class Part:
    """A split of a data set, its images still in the file."""

    dataset: Dataset
    name: str

    def __len__(self) -> int:
        return len(self.dataset._rows(self.name))

    @property
    def labels(self) -> np.ndarray:
        """Labels (n,), in the order of the split's rows."""
        return self.dataset.labels_in(self.name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.dataset.shape

    @contextmanager
    def reading(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        """A function that reads images, uint8 (n, H, W, C), by their places in the split."""
        dataset, rows = self.dataset, self.dataset._rows(self.name)
        with OpenHdf5(dataset.path, WHAT, sealed=False) as opened:

            def read(places: np.ndarray) -> np.ndarray:
                with opened.reading() as file:
                    return dataset._gather(file, rows[places])

            yield read


def read_dataset(path: Path | str) -> Dataset:
    """Open dataset.h5 and check it; UserError if it is damaged or something else."""
    with open_hdf5(path, WHAT) as file:
        if file.attrs.get("format") != FORMAT:
            raise UserError(f"{path}: not {WHAT} (expected the attribute format = {FORMAT!r})")
        check_stored(file["images"], np.uint8, 4)
        names = tuple(file["class_names"].asstr()[()].tolist())
        present = tuple(int(label) for label in file.attrs["present"])
        splits = {name: stored_values(file["split"], name, np.int64, 1) for name in SPLITS}
        count, height, width, channels = (int(n) for n in file["images"].shape)
        shape = height, width, channels
        attrs = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()
        }
        if 0 in (count, *shape) or attrs["classes"] != len(names):
            raise ValueError("images and class names do not fit each other")
        labels, boxes, geometry = _targets(file, attrs.get("task", TASKS[0]), shape, count, present)
        _check_splits(splits, count)
        return Dataset(Path(path), labels, Labels(names, present), splits, shape, attrs, boxes, geometry)


def _targets(file, task, shape, count, present):
    """(labels, boxes or None, geometry or None) of dataset.h5; ValueError for what does not fit."""
    if task not in TASKS:
        raise ValueError(f"task {task!r}")
    if task == "classification":
        labels = stored_values(file, "labels", axes=1)
        if labels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"labels of the type {labels.dtype}")
        if count != len(labels):
            raise ValueError("images and labels do not fit each other")
        if not set(np.unique(labels).tolist()) <= set(present):
            raise ValueError("labels and class names do not fit each other")
        return labels, None, None
    labels, geometry = np.zeros(count, np.uint8), read_placements(file, count)
    if task == "detection":
        return labels, read_boxes(file, shape, count, len(present)), geometry
    check_stored(file["masks"], np.uint8, 3)
    if file["masks"].shape != (count, *shape[:2]):
        raise ValueError("images and masks do not fit each other")
    return labels, None, geometry


def _check_splits(splits, images):
    """ValueError unless every image is in one split; calibration shares with all but the test."""
    for name, rows in splits.items():
        if len(rows) and not 0 <= rows.min() <= rows.max() < images:
            raise ValueError(f"rows of split {name} outside the images")
        if len(np.unique(rows)) != len(rows):
            raise ValueError(f"split {name} has a row twice")
    fitted = np.concatenate([splits["train"], splits["validation"]])
    own = np.setdiff1d(splits["calibration"], fitted)
    parts = np.concatenate([fitted, splits["test"], own])
    if len(parts) != images or len(np.unique(parts)) != images:
        raise ValueError("the splits do not divide the images among them")


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
        sink = ImageSink(file)
        train_rows = sink.append(image_blocks(train_csv, shape, labels.present))
        test_rows = sink.append(image_blocks(test_csv, sink.shape, labels.present)) - train_rows
        all_labels, hashes = sink.finish()
        train, held_out = validation_split(train_rows, validation)
        split = {
            "train": train,
            "validation": held_out,
            "test": np.arange(train_rows, train_rows + test_rows),
            "calibration": calibration_rows(train, all_labels, calibration),
        }
        names = Naming(train_csv, test_csv, lambda part, row: f"line {row + 2}", "rows")
        return write_tables(file, (all_labels, hashes), labels, split, duplicate_policy, names, origins)
