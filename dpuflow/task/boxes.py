"""Boxes that a detector gave: as records hold them, and how those of two stages differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dpuflow.accuracy.evaluation import wilson_interval
from dpuflow.decoding.decode import overlaps

SAME_PLACE = 0.5
"""Intersection by union from which on two boxes of a class are one and the same object."""
SHOWN = 0.3
"""Score from which on a box is drawn and counted as an answer (`decode.show_threshold`)."""


@dataclass(frozen=True)
class Answer:
    """The boxes of one picture, the best first."""

    boxes: np.ndarray
    """(k, 4) float32: x1, y1, x2, y2 in pixels of the prepared picture."""
    scores: np.ndarray
    """(k,) float32."""
    classes: np.ndarray
    """(k,) int64."""

    def above(self, score: float) -> "Answer":
        """Those with this score or more."""
        kept = self.scores >= score
        return Answer(self.boxes[kept], self.scores[kept], self.classes[kept])

    def same(self, other: "Answer") -> bool:
        """Whether both are equal to the last bit."""
        mine, others = (self.boxes, self.scores, self.classes), (other.boxes, other.scores, other.classes)
        return all(np.array_equal(a, b) for a, b in zip(mine, others, strict=True))


def to_json(answer: Answer) -> dict[str, Any]:
    """For a record; nine digits name a float32."""
    return {
        "boxes": [[float(f"{value:.9g}") for value in box] for box in answer.boxes.tolist()],
        "scores": [float(f"{value:.9g}") for value in answer.scores.tolist()],
        "classes": answer.classes.tolist(),
    }


def from_json(entry: Mapping[str, Any]) -> Answer:
    """The reverse of `to_json`."""
    return Answer(
        np.array(entry["boxes"], np.float32).reshape(-1, 4),
        np.array(entry["scores"], np.float32),
        np.array(entry["classes"], np.int64),
    )


def matched(first: Answer, second: Answer) -> list[tuple[int, int, float]]:
    """Pairs (place in first, in second, overlap) of boxes of one class and at one place, each box once.

    The best boxes of `first` choose first, the nearest that is left; below SAME_PLACE nobody is chosen.
    """
    pairs, free = [], np.ones(len(second.boxes), bool)
    for index, (box, kind) in enumerate(zip(first.boxes, first.classes, strict=True)):
        shares = np.where(free & (second.classes == kind), _overlaps(box, second.boxes), 0.0)
        if len(shares) and shares.max() >= SAME_PLACE:
            chosen = int(shares.argmax())
            free[chosen] = False
            pairs.append((index, chosen, float(shares[chosen])))
    return pairs


def _overlaps(box, others):
    return overlaps(box.astype(np.float64), others.astype(np.float64))


def changes(before: Sequence[Answer], after: Sequence[Answer], shown: float = SHOWN) -> dict[str, Any]:
    """How the boxes of two stages for the same pictures differ.

    shown : boxes with less score are no answers and count only for `identical`.

    Returns images, interval95 (of the share of equal pictures), identical (pictures with the same boxes
    to the last bit, weak ones included), boxes
    (of `before`),
    kept, lost, gained, agreement (share of the boxes of both that the other has, too; 1 where neither has
    any), equal
    (pictures without a box lost or gained) and first_difference (the first of the others, or None).
    """
    kept = lost = gained = identical = 0
    differing = []
    for index, (first, second) in enumerate(zip(before, after, strict=True)):
        identical += first.same(second)
        a, b = first.above(shown), second.above(shown)
        pairs = len(matched(a, b))
        kept, lost, gained = kept + pairs, lost + len(a.boxes) - pairs, gained + len(b.boxes) - pairs
        if pairs < max(len(a.boxes), len(b.boxes)):
            differing.append(index)
    every = 2 * kept + lost + gained
    return {
        "images": len(before),
        "identical": identical,
        "equal": len(before) - len(differing),
        "interval95": list(wilson_interval(len(before) - len(differing), len(before))),
        "boxes": kept + lost,
        "kept": kept,
        "lost": lost,
        "gained": gained,
        "agreement": 2 * kept / every if every else 1.0,
        "first_difference": differing[0] if differing else None,
    }


def boxes_csv(
    found: Iterable[tuple[Any, Answer, np.ndarray]], class_names: Sequence[str], digits: int
) -> str:
    """CSV text, a row for each box: picture, class, score and corners.

    found : of each picture what it is called, its boxes, and their corners as they are to be written.
    """
    rows = []
    for picture, answer, corners in found:
        for box, score, kind in zip(corners, answer.scores, answer.classes, strict=True):
            rows.append((picture, class_names[kind], float(score), *box.tolist()))
    table = pd.DataFrame(rows, columns=["image", "class", "score", "x1", "y1", "x2", "y2"])
    return table.to_csv(index=False, lineterminator="\n", float_format=f"%.{digits}g")
