"""Where a picture lies in what is prepared of it, and its boxes with it: crop, letterbox (pad) or stretch.

Coordinates are continuous: a picture of w x h pixels reaches from 0 to w and from 0 to h, and the box of
all of it is
(0, 0, w, h). A `Placement` is whole numbers only, so the way back is the way there.
"""

from typing import NamedTuple

import numpy as np

FIELDS = 10
"""Numbers of one placement in dataset.h5: size, part, place."""


class Placement(NamedTuple):
    """How one picture was brought to the shape of the data set."""

    size: tuple[int, int]
    """(width, height) of the upright original."""
    part: tuple[int, int, int, int]
    """(left, top, right, bottom) of what is used of the original."""
    place: tuple[int, int, int, int]
    """(left, top, right, bottom) of where that lies in the prepared picture."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """All of it, as dataset.h5 holds it."""
        return (*self.size, *self.part, *self.place)

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Placement":
        """The reverse of `numbers`."""
        values = [int(number) for number in numbers]
        return cls((values[0], values[1]), tuple(values[2:6]), tuple(values[6:10]))  # type: ignore[arg-type]

    def to_prepared(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in the original, x1, y1, x2, y2 -> in the prepared picture, float64, clipped."""
        return _clipped(_moved(boxes, self.part, self.place), self.place)

    def to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in the prepared picture -> in the original, float64, clipped to what is used of it."""
        return _clipped(_moved(boxes, self.place, self.part), self.part)


def _moved(boxes, source, target):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    moved = np.empty_like(boxes)
    for axis in (0, 1):
        scale = (target[axis + 2] - target[axis]) / (source[axis + 2] - source[axis])
        moved[:, axis::2] = (boxes[:, axis::2] - source[axis]) * scale + target[axis]
    return moved


def _clipped(boxes, bounds):
    low, high = (bounds[0], bounds[1]) * 2, (bounds[2], bounds[3]) * 2
    return np.clip(boxes, low, high)


def placement(size: tuple[int, int], width: int, height: int, resize: str = "crop") -> Placement:
    """How a picture of `size` (w, h) is brought to width x height by resize (crop, pad or stretch)."""
    whole, canvas = (0, 0, *size), (0, 0, width, height)
    if resize == "crop":
        return Placement(size, centred_crop(size, width, height), canvas)
    if resize == "stretch":
        return Placement(size, whole, canvas)
    across, down = fitting_sides(size, width, height)
    left, top = (width - across) // 2, (height - down) // 2
    return Placement(size, whole, (left, top, left + across, top + down))


def centred_crop(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Largest centred (left, top, right, bottom) in an image of `size` (w, h) with sides width : height."""
    across, down = size
    if across * height >= down * width:
        used = max(1, round(down * width / height)), down
    else:
        used = across, max(1, round(across * height / width))
    left, top = (across - used[0]) // 2, (down - used[1]) // 2
    return left, top, left + used[0], top + used[1]


def fitting_sides(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """Largest (w, h) within width x height with the sides of an image of `size` (w, h), rounded."""
    across, down = size
    if across * height >= down * width:
        return width, max(1, round(down * width / across))
    return max(1, round(across * height / down)), height
