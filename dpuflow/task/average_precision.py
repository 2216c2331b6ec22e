"""Mean average precision: by pycocotools, and its uncertainty by drawing the pictures again.

Average precision as COCO defines it: precision, made to fall, at 101 values of recall; mAP@0.5 at an
overlap of
half, mAP@0.5:0.95 the mean over ten overlaps. Objects that are ignored are COCO's crowds.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError

DRAWS = 200
"""Times that the pictures are drawn again, for an interval."""
LEAST_BOXES = 100
"""COCO's limit of boxes in a picture; more of them count where there are more."""


@dataclass(frozen=True)
class Found:
    """What pictures show, or what was found in them, in pixels of the originals."""

    boxes: np.ndarray
    """(n, 4): x1, y1, x2, y2."""
    classes: np.ndarray
    """(n,)."""
    pictures: np.ndarray
    """(n,): the picture of each."""
    scores: np.ndarray
    """(n,): of answers; of objects that are ignored 1, else 0."""


@dataclass(frozen=True)
class Precision:
    """Average precision of one set of answers, and what its intervals are drawn from."""

    average: np.ndarray
    """(overlaps, classes) float64; NaN of a class without objects."""
    curves: np.ndarray
    """(101, classes): precision by recall at an overlap of half; NaN of a class without objects."""
    objects: np.ndarray
    """(classes,) that count."""
    drawn: np.ndarray
    """(DRAWS, overlaps, classes): `average` of pictures that were drawn again."""

    @property
    def half(self) -> float:
        """mAP@0.5."""
        return _mean(self.average[0])

    @property
    def whole(self) -> float:
        """mAP@0.5:0.95."""
        return _mean(self.average)

    def interval(self, what: str) -> list[float]:
        """[low, high] of `half` or `whole`."""
        return _interval(np.array([_mean(draw[0] if what == "half" else draw) for draw in self.drawn]))

    def class_interval(self, kind: int) -> list[float]:
        """[low, high] of a class's average precision at an overlap of half."""
        return _interval(self.drawn[:, 0, kind])


def change_interval(before: Precision, after: Precision) -> list[float]:
    """[low, high] of the change of mAP@0.5, both drawn with the same pictures."""
    pairs = zip(before.drawn, after.drawn, strict=True)
    return _interval(np.array([_mean(b[0]) - _mean(a[0]) for a, b in pairs]))


def _mean(values):
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else 0.0


def _interval(values):
    values = values[~np.isnan(values)]
    if not len(values):
        return [0.0, 1.0]
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


def precision(truth: Found, answers: Found, pictures: int, classes: int, draws: int = DRAWS) -> Precision:
    """`Precision` of answers for what pictures show. draws : 0 for none, where no interval is wanted."""
    evaluation = _evaluated(truth, answers, pictures, classes)
    table = evaluation.eval["precision"][:, :, :, 0, -1]
    exact = np.where(table < 0, np.nan, table)
    per_class = [_of_class(evaluation, kind, pictures) for kind in range(classes)]
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = np.full((draws, exact.shape[0], classes), np.nan)
    thresholds = evaluation.params.recThrs
    for draw in range(draws):
        weights = np.bincount(generator.integers(pictures, size=pictures), minlength=pictures)
        for kind, (right, wrong, owner, objects_in) in enumerate(per_class):
            table = weighted_precision(right, wrong, owner, objects_in, weights, thresholds)
            drawn[draw, :, kind] = table.mean(axis=1)
    objects = np.bincount(truth.classes[truth.scores == 0], minlength=classes)
    return Precision(exact.mean(axis=1), exact[0], objects, drawn)


def _evaluated(truth, answers, pictures, classes):
    """pycocotools' evaluation, of all sizes of objects together."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UserError(
            "task detection measures with pycocotools, which is not installed; pip install -r "
            "requirements.txt"
        ) from None
    frame: dict[str, Any] = {
        "images": [{"id": number} for number in range(pictures)],
        "categories": [{"id": kind} for kind in range(classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its seconds
        sides = COCO(), COCO()
        for side, found, given in zip(sides, (truth, answers), (False, True), strict=True):
            side.dataset = frame | {"annotations": _annotations(found, given)}
            side.createIndex()
        evaluation = COCOeval(*sides, "bbox")
        params = evaluation.params
        most = int(np.bincount(answers.pictures, minlength=1).max()) if len(answers.pictures) else 0
        params.maxDets = [max(LEAST_BOXES, most)]
        params.areaRng, params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _annotations(found, answers):
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    boxes = np.concatenate([found.boxes[:, :2], sides], axis=1).tolist()
    areas = sides.prod(axis=1).tolist()
    rows = zip(
        boxes, areas, found.classes.tolist(), found.pictures.tolist(), found.scores.tolist(), strict=True
    )
    return [
        {
            "id": number,
            "bbox": box,
            "area": area,
            "category_id": kind,
            "image_id": picture,
            **({"score": score, "iscrowd": 0} if answers else {"iscrowd": int(score)}),
        }
        for number, (box, area, kind, picture, score) in enumerate(rows, 1)
    ]


def _of_class(evaluation, kind, pictures):
    """(right, wrong: (overlaps, n) bool by falling score; picture of each (n,); objects by picture)."""
    results = evaluation.evalImgs[kind * pictures : (kind + 1) * pictures]
    levels = len(evaluation.params.iouThrs)
    objects = np.zeros(pictures, np.int64)
    scores, right, wrong, owner = (
        [np.zeros(0)],
        [np.zeros((levels, 0), bool)],
        [np.zeros((levels, 0), bool)],
        [],
    )
    for number, result in enumerate(results):
        if result is None:
            continue
        ignored = result["dtIgnore"].astype(bool)
        hit = result["dtMatches"] > 0
        scores.append(np.asarray(result["dtScores"], np.float64))
        right.append(hit & ~ignored)
        wrong.append(~hit & ~ignored)
        owner += [number] * len(result["dtScores"])
        objects[number] = int((np.asarray(result["gtIgnore"]) == 0).sum())
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    every = np.array(owner, np.int64)[order]
    return np.concatenate(right, axis=1)[:, order], np.concatenate(wrong, axis=1)[:, order], every, objects


def weighted_precision(
    right: np.ndarray,
    wrong: np.ndarray,
    owner: np.ndarray,
    objects: np.ndarray,
    weights: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    """(overlaps, thresholds): precision at each recall, each picture counted `weights` times; NaN without
    objects.

    The arithmetic of pycocotools' `accumulate`, which it equals where all weights are 1.
    """
    count = int((objects * weights).sum())
    if not count:
        return np.full((len(right), len(thresholds)), np.nan)
    each = weights[owner]
    hits, misses = np.cumsum(right * each, axis=1), np.cumsum(wrong * each, axis=1)
    recall = hits / count
    share = hits / (hits + misses + np.spacing(1))
    falling = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
    result = np.zeros((len(right), len(thresholds)))
    for level in range(len(right)):
        places = np.searchsorted(recall[level], thresholds, side="left")
        inside = places < len(owner)
        result[level, inside] = falling[level, places[inside]]
    return result
