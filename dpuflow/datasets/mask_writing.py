"""Masks into dataset.h5, as a stream."""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.datasets.tasks import NO_CLASS


class MaskSink:
    """Appends masks, uint8 (H, W) each, to /masks."""

    def __init__(self, file: h5py.File, shape: tuple[int, int], chunk_rows: int) -> None:
        self.masks = file.create_dataset(
            "masks",
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(chunk_rows, *shape),
            dtype=np.uint8,
            track_times=False,
        )
        self.chunk_rows = chunk_rows
        self.pending: list[np.ndarray] = []
        self.seen = np.zeros(256, bool)

    def append(self, mask: np.ndarray) -> None:
        """One more."""
        self.pending.append(mask)
        self.seen |= np.bincount(mask.ravel(), minlength=256) > 0
        if len(self.pending) == self.chunk_rows:
            self.finish()

    def finish(self) -> None:
        """Write what is pending."""
        if self.pending:
            start = self.masks.shape[0]
            self.masks.resize(start + len(self.pending), axis=0)
            self.masks[start:] = np.stack(self.pending)
            self.pending = []

    def check_values(self, place: str, settings: Mapping[str, Any]) -> None:
        """UserError where all masks know class 0 and 255 only: the object may be drawn in white."""
        classes = np.flatnonzero(self.seen[:NO_CLASS])
        if not len(classes):
            raise UserError(f"{place}: no mask has a pixel of any class")
        if "values" not in settings and classes.tolist() == [0]:
            raise UserError(
                f"{place}: all pixels of all masks are of class 0 or of none (255); where 255 is "
                "a class, say "
                "annotations: {values: [0, 255]}"
            )
