"""How far one output of a frozen graph is from the trained model's, batch by batch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError


class Compared:
    """Gathers what two sources give for an output; memory does not grow with an image's values.

    Parameters
    ----------
    name : of the output. shape : of it, the batch first; the answers of a vector are compared as well.
    tolerance : allowed difference as a share of the largest value.

    Attributes
    ----------
    difference : the largest so far. changed : images whose greatest value is another one.
    """

    def __init__(self, name: str, shape: Sequence[int | None], tolerance: float) -> None:
        self.name, self.tolerance = name, tolerance
        self.is_vector = sum(size != 1 for size in shape[1:]) <= 1
        self.difference = self.size = 0.0
        self.changed = self.images = 0
        self._worst: tuple[int, int, float, float] | None = None
        self._worse = 0.0

    def add(self, frozen: np.ndarray, expected: np.ndarray) -> None:
        """Both sources' values (n, ...) of the next images."""
        frozen, expected = (values.reshape(len(values), -1) for values in (frozen, expected))
        apart = np.abs(frozen - expected)
        largest = float(apart.max())
        known = np.isnan(self.difference)  # nothing is worse than NaN, and no later image mends it
        if self._worst is None or (not known and not largest <= self.difference):
            image, place = np.unravel_index(int(apart.argmax()), apart.shape)
            given = float(frozen[image, place]), float(expected[image, place])
            self._worst = (self.images + int(image), int(place), *given)
            self.difference = largest
        self.size = max(self.size, float(np.abs(expected).max()))
        if self.is_vector:
            answers = frozen.argmax(1)
            self.changed += int((answers != expected.argmax(1)).sum())
            margins = expected.max(1) - expected[np.arange(len(expected)), answers]
            self._worse = max(self._worse, float(margins.max()))
        self.images += len(frozen)

    def require(self, frozen_path: Path | str, keras_path: Path | str, named: bool) -> None:
        """UserError where the frozen graph is another network; named : whether to say which output."""
        size = self.size or 1.0
        if self.difference <= self.tolerance * size and self._worse <= self.tolerance * size:
            return
        image, place, found, expected = self._worst or (0, 0, 0.0, 0.0)
        of = f" of {self.name!r}" if named else ""
        predictions = f", and in {self.changed} of {self.images} predictions" if self.is_vector else ""
        raise UserError(
            f"{frozen_path}: differs from {keras_path} by up to {self.difference:.2e} (image {image} of the "
            f"validation split, output {place}{of}: {found:.6g} instead of {expected:.6g}), "
            f"{self.difference / size:.1e} of the largest output {size:.4g} (allowed {self.tolerance:.0e})"
            f"{predictions}; the frozen graph is not the trained model"
        )
