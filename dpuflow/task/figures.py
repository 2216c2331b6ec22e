"""A figure of a stage's record, whatever the task."""

from typing import NamedTuple


class Figure(NamedTuple):
    """How good a stage is in one way."""

    name: str
    """As a report calls it."""
    value: float
    """0 to 1."""
    interval: list[float]
    """[low, high], 95 %."""
