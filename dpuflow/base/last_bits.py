"""How far two float32 computations of one network may be apart: what sums in another order change."""

import numpy as np

NUDGE = 1e-6
ROUNDINGS = 30
"""Outputs of a badly conditioned network (random weights, pixels of a size that it was not trained with)
differ by whole per mille between two runtimes that both are right. So how far they move when each pixel moves
by NUDGE of itself (some ten roundings of float32) is allowed so many times on top."""


def nudge(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float32 `x` of any shape, each value moved up or down by its last bits."""
    return (x * (1 + NUDGE * random.choice(np.array([-1, 1], np.float32), x.shape))).astype(np.float32)


def allowed_difference(expected: np.ndarray, nudged: np.ndarray, tolerance: float) -> float:
    """The greatest difference from `expected` that means nothing.

    nudged : the same outputs for `nudge`d inputs; tolerance : as a share of the largest expected value.
    """
    size = float(np.abs(expected).max()) or 1.0
    return tolerance * size + ROUNDINGS * float(np.abs(expected - nudged).max())
