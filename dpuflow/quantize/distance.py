"""How far a quantized network's outcome is from the float network's, on unlabelled images."""

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


def agreement(logits: np.ndarray, reference: np.ndarray) -> float:
    """Share of images whose first class is the same."""
    return float((np.argmax(logits, axis=1) == np.argmax(reference, axis=1)).mean())


def decided(logits: np.ndarray, reference: np.ndarray) -> float:
    """Share of images whose first class is the same and shares its place with no other."""
    first = logits == logits.max(axis=1, keepdims=True)
    same = np.argmax(logits, axis=1) == np.argmax(reference, axis=1)
    return float((same & (first.sum(axis=1) == 1)).mean())
