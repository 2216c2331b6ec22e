"""Which input scaling a network was trained with: tried on the user's pictures, not guessed from a name."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpuflow.base.pixels import MODES, scale_pixels
from dpuflow.network import Network
from dpuflow.quantize.engine import run_float

CANDIDATES: dict[str, dict[str, Any]] = {
    "{subtract: 0, divide: 255}": {"subtract": 0, "divide": 255},
    "torch": MODES["torch"],
    "tf": MODES["tf"],
    "caffe": MODES["caffe"],
    "{subtract: 0, divide: 1}": {"subtract": 0, "divide": 1},
}
"""As the configuration writes it -> the scaling: those that nearly all networks are trained with."""
COLOUR = ("torch", "caffe")
IMAGES, FEWEST, PIXELS = 40, 10, 600_000
"""Pictures that are tried: as many as have so many pixels together, within these bounds."""


def images_to_try(height: int, width: int) -> int:
    """How many pictures the scalings are tried on."""
    return int(np.clip(PIXELS // (height * width), FEWEST, IMAGES))


def tried_scalings(
    network: Network, images: np.ndarray, labels: Sequence[int], output: str
) -> list[dict[str, Any]]:
    """What a network makes of labelled pictures by each scaling, best first.

    images : uint8 (N, H, W, C). output : name of the output with a value for each class.
    Returns rows of words (for the configuration), loss (mean cross entropy) and right (how many answers).
    """
    rows, truth, layer = [], np.asarray(labels), network.outputs[output].name
    for words, scaling in CANDIDATES.items():
        if images.shape[-1] != 3 and words in COLOUR:
            continue
        parts = [
            run_float(network, scale_pixels(images[i : i + 4], scaling)) for i in range(0, len(images), 4)
        ]
        answers = np.concatenate([part[layer] for part in parts]).reshape(len(images), -1)
        chances = _log_chances(answers.astype(np.float64))
        rows.append(
            {
                "words": words,
                "loss": float(-chances[np.arange(len(truth)), truth].mean()),
                "right": int((answers.argmax(axis=1) == truth).sum()),
            }
        )
    return sorted(rows, key=lambda row: (row["loss"], row["words"]))


def _log_chances(answers):
    """Logarithms of the probabilities, of logits or of probabilities."""
    if answers.min() >= 0 and np.allclose(answers.sum(axis=1), 1, atol=1e-3):
        return np.log(np.maximum(answers, 1e-12))
    shifted = answers - answers.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
