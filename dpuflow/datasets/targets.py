"""What is to be found in pictures, as dataset.h5 holds it: boxes of objects, or the class of each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from dpuflow.base.hdf5 import stored_values
from dpuflow.datasets.placement import FIELDS


@dataclass(frozen=True)
class Boxes:
    """The boxes of several pictures, one after the other."""

    boxes: np.ndarray
    """(n, 4) float32: x1, y1, x2, y2 in pixels of the prepared picture (0 to W, 0 to H)."""
    classes: np.ndarray
    """(n,) int64, indices into the class names."""
    ignored: np.ndarray
    """(n,) bool: neither to be found nor wrong when found."""
    offsets: np.ndarray
    """(pictures + 1,) int64: boxes offsets[i] to offsets[i + 1] are in picture i."""

    def __len__(self) -> int:
        """Pictures."""
        return len(self.offsets) - 1

    def __getitem__(self, picture: int) -> "Boxes":
        """Those of one picture."""
        return self.of([range(len(self))[picture]])

    def of(self, pictures: Sequence[int] | np.ndarray) -> "Boxes":
        """Those of some pictures, in their order."""
        starts, ends = self.offsets[:-1][pictures], self.offsets[1:][pictures]
        rows = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)] or [np.arange(0)])
        rows = rows.astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
        return Boxes(self.boxes[rows], self.classes[rows], self.ignored[rows], offsets)


def write_boxes(file: h5py.File, boxes: Boxes) -> None:
    """Write /boxes, /box_classes, /box_ignored and /box_offsets."""
    values = {
        "boxes": boxes.boxes.astype(np.float32),
        "box_classes": boxes.classes.astype(np.uint16),
        "box_ignored": boxes.ignored.astype(np.uint8),
        "box_offsets": boxes.offsets.astype(np.int64),
    }
    for name, value in values.items():
        file.create_dataset(name, data=value, track_times=False)


def read_boxes(file: h5py.File, shape: tuple[int, int, int], pictures: int, classes: int) -> Boxes:
    """Of all pictures of dataset.h5; ValueError for what cannot be. shape : (H, W, C) of a picture."""
    corners = stored_values(file, "boxes", np.float32, 2)
    kinds = stored_values(file, "box_classes", np.uint16, 1)
    flags = stored_values(file, "box_ignored", np.uint8, 1)
    offsets = stored_values(file, "box_offsets", np.int64, 1)
    if any(values is None for values in (corners, kinds, flags, offsets)):
        raise ValueError("no boxes in it")
    if len(offsets) != pictures + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ValueError("boxes and pictures do not fit each other")
    if corners.shape != (offsets[-1], 4) or not len(kinds) == len(flags) == len(corners):
        raise ValueError("boxes and their classes do not fit each other")
    high = np.array([shape[1], shape[0]] * 2, np.float32)
    inside = (corners >= 0) & (corners <= high)
    if not inside.all() or not (corners[:, :2] < corners[:, 2:]).all():
        raise ValueError("boxes outside of their pictures")
    if len(kinds) and kinds.max() >= classes:
        raise ValueError("boxes and class names do not fit each other")
    return Boxes(corners, kinds.astype(np.int64), flags.astype(bool), offsets)


def read_placements(file: h5py.File, pictures: int) -> np.ndarray:
    """/geometry: int32 (pictures, 10), a `placement.Placement` each."""
    values = stored_values(file, "geometry", np.int32, 2)
    if values is None or values.shape != (pictures, FIELDS):
        raise ValueError("no geometry of its pictures")
    return values
