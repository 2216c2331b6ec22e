"""Whether the right class is among the five best: of networks with so many classes that it has a meaning."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpuflow.accuracy.evaluation import Record, wilson_interval

TOP = 5
MANY_CLASSES = 25
"""Above so many classes the five best are told of, too: they are less than a fifth of them."""


def among_best(scores: np.ndarray, labels: np.ndarray, top: int = TOP) -> np.ndarray:
    """Whether the class of each picture is among its `top` greatest scores: bool (N,).

    scores : (N, classes) in any real type; labels : (N,). Of equal scores, which are common in INT8, that of
    the lower class comes first, as argmax has it.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    better = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return better < top


def top_record(found: Sequence[bool] | np.ndarray) -> dict[str, Any]:
    """The key `top5` of an accuracy record: how often, and the images whose class is not among them."""
    found = np.asarray(found, bool)
    correct = int(found.sum())
    return {
        "correct": correct,
        "accuracy": correct / len(found),
        "interval95": list(wilson_interval(correct, len(found))),
        "missed": np.flatnonzero(~found).tolist(),
    }


def top_change(before: Record, after: Record) -> dict[str, Any] | None:
    """How the five best changed between two records of the same images: change, lost, gained.

    None where either has none. The later one may be of the first images only.
    """
    if "top5" not in before or "top5" not in after:
        return None
    count = min(before["images"], after["images"])
    first, second = ({i for i in record["top5"]["missed"] if i < count} for record in (before, after))
    lost, gained = len(second - first), len(first - second)
    return {"change": (gained - lost) / count, "lost": lost, "gained": gained}
