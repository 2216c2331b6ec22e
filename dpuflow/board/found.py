"""What a board found in pictures: boxes or masks, as its application wrote them
(`foreign/board/found.py`)."""

import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError

Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""boxes float32 (k, 4) in pixels of the prepared picture, scores float32 (k,), classes int64 (k,)."""
PARTS = {
    "boxes": (np.float32, 2),
    "scores": (np.float32, 1),
    "classes": (np.int64, 1),
    "offsets": (np.int64, 1),
}
"""Of boxes.npz: type and number of axes."""


def read_boxes(folder: Path | str, pictures: int) -> list[Boxes]:
    """The boxes of each picture from boxes.npz; UserError when it is not one of so many pictures."""
    path = Path(folder) / "boxes.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            parts: dict[str, Any] = {name: stored[name] for name in PARTS}
        for name, (dtype, axes) in PARTS.items():
            if parts[name].dtype != dtype or parts[name].ndim != axes:
                raise ValueError(f"{name} of type {parts[name].dtype} and shape {parts[name].shape}")
        boxes, scores, classes, offsets = parts.values()
        if len(offsets) != pictures + 1 or offsets[0] or (np.diff(offsets) < 0).any():
            raise ValueError(f"of {len(offsets) - 1} pictures instead of {pictures}")
        if not len(boxes) == len(scores) == len(classes) == offsets[-1] or boxes.shape[1:] != (4,):
            raise ValueError("boxes, scores and classes do not fit each other")
        if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
            raise ValueError("a box or score that is no number")
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not the boxes of this run ({error}); run again") from None
    return [(boxes[a:b], scores[a:b], classes[a:b]) for a, b in pairwise(offsets)]


def read_masks(folder: Path | str, shape: tuple[int, int, int]) -> np.ndarray:
    """The masks uint8 of a shape (pictures, H, W) from masks.npy; UserError when they are none."""
    path = Path(folder) / "masks.npy"
    try:
        masks = np.load(path, mmap_mode="r", allow_pickle=False)  # thousands of them are large
        if masks.dtype != np.uint8 or masks.shape != shape:
            raise ValueError(f"type {masks.dtype} and shape {masks.shape} instead of {shape}")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not the masks of this run ({error}); run again") from None
    return masks
