"""Results of steps that several settings of the quantizer share, and what each took."""

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Result = TypeVar("Result")


class Memo:
    """Calls each computation once: `memo(key, compute)` with a key that says all that the result depends on.

    Attributes
    ----------
    saved : seconds of the results that were found ready; with the seconds that passed, what a
        computation would have taken alone.
    """

    def __init__(self) -> None:
        self.saved = 0.0
        self._found: dict[Hashable, tuple[Any, float]] = {}

    def __call__(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """The result, computed or found."""
        if key not in self._found:
            begun = self.alone()
            value = compute()
            self._found[key] = value, self.alone() - begun
            return value
        value, seconds = self._found[key]
        self.saved += seconds
        return value

    def alone(self) -> float:
        """A clock in seconds that shared results drive on by what they took."""
        return time.perf_counter() + self.saved


def nothing_kept(key: Hashable, compute: Callable[[], Result]) -> Result:
    """In place of a `Memo` where a result is asked for once, and is large."""
    return compute()
