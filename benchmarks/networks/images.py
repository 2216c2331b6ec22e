"""Random pictures that batch norms and fix_points are calibrated on, and how a network sees them."""

import numpy as np

SCALING = {"subtract": 127.5, "divide": 127.5}


def pictures(shape, count):
    """uint8 images of blocks in many colours with a little noise."""
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (count, 14, 14, shape[2]))
    rows, columns = (np.arange(n) * 14 // n for n in shape[:2])
    noisy = coarse[:, rows][:, :, columns] + random.integers(-12, 13, (count, *shape))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def scaled(shape, count):
    """The same as a network sees them, float32."""
    return (pictures(shape, count).astype(np.float32) - SCALING["subtract"]) / SCALING["divide"]
