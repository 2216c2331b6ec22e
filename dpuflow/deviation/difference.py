"""How far two stages' values of one layer are apart, summed over images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dpuflow.base.numerics import decibels, short

QUIET = 1e-3
"""Share of the mean power of the channels below which a channel is judged as if it had that much."""
SAMPLES = 16
"""Values of a channel that a factor of its own takes."""
EQUAL = 1e-12
"""Share of the power that sums of float64 leave of equal values."""


@dataclass
class Difference:
    """Values of a layer against those of the stage before.

    Attributes
    ----------
    step : size of one LSB of the later stage's values.
    first : the first value that differs: image, position (without the batch), expected, found, in LSB.
    """

    step: float = 1.0
    elements: int = 0
    different: int = 0
    largest: float = 0.0
    total: float = 0.0
    power: float = 0.0
    noise: float = 0.0
    first: dict[str, Any] | None = None

    def add(self, image: int, expected: np.ndarray, found: np.ndarray) -> None:
        """One image's values, in any real type and equal shapes."""
        expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
        apart = np.abs(found - expected)
        self.elements += apart.size
        self.different += int(np.count_nonzero(apart))
        self.largest = max(self.largest, float(apart.max(initial=0.0)) / self.step)
        self.total += float(apart.sum()) / self.step
        self.power += float(np.square(expected).sum())
        self.noise += float(np.square(apart).sum())
        if self.first is None and apart.any():
            place = tuple(int(n) for n in np.argwhere(apart)[0])
            self.first = {
                "image": image,
                "position": list(place),
                "expected": short(float(expected[place]) / self.step),
                "found": short(float(found[place]) / self.step),
            }

    @property
    def sqnr_db(self) -> float | None:
        """Power of the earlier stage's values against that of the difference; None of equal ones."""
        return decibels(self.power, self.noise)

    def cell(self, within: bool) -> dict[str, Any]:
        """What the record says of it. within : whether it keeps to its tolerance."""
        return {
            "within": within,
            "max_lsb": short(self.largest),
            "mean_lsb": short(self.total / max(1, self.elements)),
            "sqnr_db": self.sqnr_db,
            "different": self.different,
            "elements": self.elements,
            "first": self.first,
        }


class Likeness:
    """Whether two float networks' values of a layer are equal up to a factor for each channel.

    Folding keeps what a layer computes; equalization gives it a factor per channel. The factors are the
    least squares fit over all images; a channel of a few values would fit anything, so those have one factor
    for all.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.products: np.ndarray | float = 0.0
        self.expected: np.ndarray | float = 0.0
        self.found: np.ndarray | float = 0.0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """One image's values, [..., channel]; further channels of `found` were added by folding."""
        a = np.asarray(expected, np.float64).reshape(-1, expected.shape[-1])
        b = np.asarray(found, np.float64)[..., : a.shape[1]].reshape(-1, a.shape[1])
        self.samples += len(a)
        self.products = self.products + (a * b).sum(axis=0)
        self.expected = self.expected + np.square(a).sum(axis=0)
        self.found = self.found + np.square(b).sum(axis=0)

    @property
    def sqnr_db(self) -> float | None:
        """Of what the factors leave, in the later network's size; None when nothing is left.

        Channels count alike: one that is wrong among many shows.
        """
        power, rest, products = (np.atleast_1d(n) for n in (self.found, self.expected, self.products))
        if self.samples < SAMPLES:
            power, rest, products = (n.sum(keepdims=True) for n in (power, rest, products))
        explained = np.divide(np.square(products), rest, out=np.zeros_like(power), where=rest > 0)
        # what rounding leaves of a channel that is as good as dead is no deviation
        size = np.maximum(power, QUIET * power.mean())
        share = np.divide(power - explained, size, out=np.zeros_like(power), where=size > 0)
        worst = float(share.max(initial=0.0))
        return decibels(1.0, worst) if worst > EQUAL else None
