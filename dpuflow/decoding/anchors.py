"""Anchors from the boxes of the training pictures: `anchors: auto`.

They follow from the data set alone, so every stage that has it finds the same ones, and no file carries them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.decoding import ANCHORED
from dpuflow.decoding.decode import check

AUTO = "auto"
ROUNDS = 100
"""Of the clustering, at most."""
MOST_BOXES = 20000
"""That are clustered; of more, every so manieth."""
TRIES = 10
"""Clusterings from other starts, of which the best counts."""


def settled(
    settings: Mapping[str, Any],
    classes: int,
    shapes: Mapping[str, Sequence[int]],
    size: Sequence[int],
    boxes: np.ndarray,
    where: str = "decode",
) -> dict[str, Any]:
    """`settings` as `decode.Decoder` takes them: with the number of classes, and with anchors for `auto`.

    Parameters
    ----------
    settings : the model's `decode`. classes : of the data set, without a background.
    shapes : {name: shape without the batch} of the network's outputs; size : (height, width) of its pictures.
    boxes : of the training pictures, (n, 4) x1, y1, x2, y2 in pixels of the prepared pictures.
    where : the key, for messages.

    UserError where they do not fit each other.
    """
    told = {**settings, "classes": classes}
    if told.get("anchors") == AUTO:
        scales, counts = _scales(told, classes, shapes, where)
        _check(told | {"anchors": [[[1, 1]] * count for count in counts]}, shapes, size, where)
        told["anchors"] = _automatic(scales, counts, shapes, boxes)
    _check(told, shapes, size, where)
    return told


def check_fits(
    settings: Mapping[str, Any],
    classes: int,
    shapes: Mapping[str, Sequence[int]],
    size: Sequence[int],
    where: str,
) -> None:
    """UserError where `settings` do not fit a network's outputs: asked before there are boxes.

    For the parameters see `settled`.
    """
    told = {**settings, "classes": classes}
    if told.get("anchors") == AUTO:
        told["anchors"] = [[[1, 1]] * count for count in _scales(told, classes, shapes, where)[1]]
    _check(told, shapes, size, where)


def _check(told, shapes, size, where):
    try:
        check(told, dict(shapes), (size[0], size[1]))
    except ValueError as error:
        raise UserError(f"{where}.{error}") from None


def _scales(told, classes, shapes, where):
    """(names of each scale's maps, how many anchors each has) of `anchors: auto`."""
    if told.get("kind") not in ANCHORED:
        raise UserError(f"{where}.anchors: auto is for {' and '.join(ANCHORED)}, not for {told.get('kind')}")
    names = told.get("outputs") or sorted(shapes, key=lambda name: (-int(np.prod(shapes[name][:-1])), name))
    scales = [[entry] if isinstance(entry, str) else list(entry) for entry in names]
    missing = [name for scale in scales for name in scale if name not in shapes]
    if missing:
        raise UserError(
            f"{where}.outputs: the network has no {missing[0]}; it has {', '.join(sorted(shapes))}"
        )
    channels = [sum(int(shapes[name][-1]) for name in scale) for scale in scales]
    return scales, [max(1, count // (5 + classes)) for count in channels]


def _automatic(scales, counts, shapes, boxes):
    # the smallest anchors belong to the largest map, whatever the order of the outputs
    order = sorted(range(len(scales)), key=lambda k: -int(np.prod(shapes[scales[k][0]][:-1])))
    found, start = cluster_sides(boxes[:, 2:] - boxes[:, :2], sum(counts)), 0
    anchors: list[Any] = [None] * len(scales)
    for k in order:
        anchors[k] = found[start : start + counts[k]].tolist()
        start += counts[k]
    return anchors


def cluster_sides(sides: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` anchors (width, height) for boxes of these sides (n, 2), the smallest area first.

    k-means on the overlap of boxes with one corner in common, as YOLOv2 (arXiv 1612.08242) chooses them, with
    the mean sides of a cluster as its middle; the best of a few seeded starts. Rounded to tenths of a pixel.
    UserError without boxes.
    """
    sides = np.asarray(sides, np.float64)
    if not len(sides):
        raise UserError("anchors: auto: the training pictures have no boxes")
    sides = sides[:: -(-len(sides) // MOST_BOXES)]
    found = max((_clustered(sides, count, [seed, k]) for k in range(TRIES)), key=lambda pair: pair[0])[1]
    return np.round(np.maximum(found[np.argsort(found.prod(axis=1), kind="stable")], 0.1), 1)


def overlaps_of_sides(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Intersection over union (n, k) of boxes (n, 2) and anchors (k, 2) with a corner in common."""
    both = np.minimum(sides[:, None], anchors).prod(axis=-1)
    return both / (sides.prod(axis=1)[:, None] + anchors.prod(axis=1) - both)


def _clustered(sides, count, seed):
    """(mean overlap, middles (count, 2)) from one start: boxes far from those chosen before are likelier."""
    random = np.random.default_rng(seed)
    middles = sides[random.integers(len(sides), size=1)]
    while len(middles) < count:
        distance = (1 - overlaps_of_sides(sides, middles).max(axis=1)) ** 2 + 1e-12
        middles = np.vstack([middles, sides[random.choice(len(sides), p=distance / distance.sum())]])
    for _ in range(ROUNDS):
        owner = overlaps_of_sides(sides, middles).argmax(axis=1)
        moved = np.array(
            [sides[owner == k].mean(axis=0) if (owner == k).any() else middles[k] for k in range(count)]
        )
        if np.array_equal(moved, middles):
            break
        middles = moved
    return float(overlaps_of_sides(sides, middles).max(axis=1).mean()), middles
