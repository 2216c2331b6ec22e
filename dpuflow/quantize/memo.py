"""Results of steps that several settings of the quantizer share, and what each took."""

import time


class Memo:
    """Calls each computation once: `memo(key, compute)` with a key that says all that the result depends on.

    Attributes
    ----------
    saved : seconds of the results that were found ready; with the seconds that passed, what a
        computation would have taken alone.
    """

    def __init__(self):
        self.saved = 0.0
        self._found = {}

    def __call__(self, key, compute):
        if key not in self._found:
            begun = self.alone()
            value = compute()
            self._found[key] = value, self.alone() - begun
            return value
        value, seconds = self._found[key]
        self.saved += seconds
        return value

    def alone(self):
        """A clock in seconds that shared results drive on by what they took."""
        return time.perf_counter() + self.saved
