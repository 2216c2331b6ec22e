"""How far a quantized network's outcome is from the float network's, on unlabelled images."""

from collections.abc import Mapping

import numpy as np


class LogitDistance:
    """Distance of logits from the float network's: KL divergence of softened softmaxes.

    Plain squared error would count classes that never come near the top, whose logits may
    saturate without harm. The temperature is an eighth of the median lead of the first class
    over the second (at least 1), so that confident networks keep a usable signal.
    """

    def __init__(self, reference: np.ndarray) -> None:
        ordered = np.sort(reference, axis=1)
        self.temperature = max(1.0, float(np.median(ordered[:, -1] - ordered[:, -2])) / 8)
        self.log_p = self._log_softmax(reference)
        self.p = np.exp(self.log_p)

    def _log_softmax(self, logits: np.ndarray) -> np.ndarray:
        z = logits.astype(np.float64) / self.temperature
        z -= z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    def __call__(self, logits: np.ndarray) -> float:
        """Mean divergence over the images, times temperature squared (so in logits squared)."""
        difference = self.log_p - self._log_softmax(logits)
        # a divergence is never negative; rounding makes it -1e-17 where nothing differs
        return max(0.0, float((self.p * difference).sum(axis=1).mean() * self.temperature**2))


class MapDistance:
    """Distance of a feature map, or of one value, from the float network's: noise over signal.

    The mean squared error as a share of the float values' variance, so that outputs of any unit compare.
    """

    def __init__(self, reference: np.ndarray) -> None:
        self.reference = reference
        self.power = float(np.var(reference, dtype=np.float64)) or 1.0

    def __call__(self, values: np.ndarray) -> float:
        """Mean over all values."""
        return float(np.square(values - self.reference, dtype=np.float64).mean()) / self.power


Ends = Mapping[str, np.ndarray]
"""Name of a layer among `Network.last_quantized` -> its values (N, ...) in real units."""


class EndsDistance:
    """Distance of everything that a network's outputs are made of, from the float network's.

    Vectors are taken for logits. Of several ends each counts by its share of what it varies by, added up.
    """

    def __init__(self, references: Ends) -> None:
        self.parts = {
            name: (LogitDistance if is_logits(values) else MapDistance)(values)
            for name, values in references.items()
        }
        self.units = {name: 1.0 for name in references}
        if len(references) > 1:
            self.units = {
                name: float(np.var(values, dtype=np.float64)) or 1.0 if is_logits(values) else 1.0
                for name, values in references.items()
            }

    def __call__(self, values: Ends) -> float:
        """The sum over the ends."""
        return sum(part(values[name]) / self.units[name] for name, part in self.parts.items())


def is_logits(values: np.ndarray) -> bool:
    """Whether an end is a vector of one number per class."""
    return values.ndim == 2 and values.shape[1] > 1


def ends_agreement(values: Ends, references: Ends) -> dict[str, float]:
    """Name of an end -> `agreement`, of a map pixel by pixel; of a single channel, of the signs."""
    found = {}
    for name, reference in references.items():
        pair = [array.reshape(-1, array.shape[-1]) for array in (values[name], reference)]
        if reference.shape[-1] == 1:
            pair = [np.concatenate([np.zeros_like(array), array], axis=1) for array in pair]
        found[name] = agreement(*pair)
    return found


def mean_agreement(values: Ends, references: Ends) -> float:
    """Mean of `ends_agreement`."""
    return float(np.mean(list(ends_agreement(values, references).values())))


def agreement(logits: np.ndarray, reference: np.ndarray) -> float:
    """Share of images whose first class is the same."""
    return float((np.argmax(logits, axis=1) == np.argmax(reference, axis=1)).mean())


def decided(logits: np.ndarray, reference: np.ndarray) -> float:
    """Share of images whose first class is the same and shares its place with no other."""
    first = logits == logits.max(axis=1, keepdims=True)
    same = np.argmax(logits, axis=1) == np.argmax(reference, axis=1)
    return float((same & (first.sum(axis=1) == 1)).mean())
