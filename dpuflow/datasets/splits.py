"""Which rows train, validate, calibrate and test.

Rows are numbered as in dataset.h5: the training file's rows first, then the test
file's. Validation and calibration come from the training file only; the original
tutorial calibrated on test images (docs/reference/tutorial.md, "Defects not repeated").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError

DEFAULT_VALIDATION = {"fraction": 0.1, "take": "random", "seed": 1}
DEFAULT_CALIBRATION = {"images": 480, "seed": 1}


def validation_split(rows: int, validation: Mapping[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Split `rows` training rows into (train, validation): ascending int64 indices.

    validation : {"rows": n} or {"fraction": f}, with "take": "last" (default) or
        "random" and, for random, "seed". None takes a tenth at random.
    """
    settings = dict(DEFAULT_VALIDATION if validation is None else validation)
    if ("rows" in settings) == ("fraction" in settings):
        raise UserError("validation: give either rows or fraction")
    count = int(settings["rows"]) if "rows" in settings else max(1, round(rows * settings["fraction"]))
    if not 0 < count < rows:
        raise UserError(
            f"validation: found {count} rows, expected 1 to {rows - 1} (there are {rows} training rows); "
            "set validation.rows or validation.fraction"
        )
    take = settings.get("take", "last")
    if take == "last":
        chosen = np.arange(rows - count, rows)
    elif take == "random":
        chosen = np.sort(_generator(settings).permutation(rows)[:count])
    else:
        raise UserError(f"validation.take: found {take!r}, expected last or random")
    return np.setdiff1d(np.arange(rows), chosen), chosen.astype(np.int64)


def calibration_rows(
    train: np.ndarray, labels: np.ndarray, calibration: Mapping[str, Any] | None = None
) -> np.ndarray:
    """Choose calibration rows among `train`, as evenly over the classes as they allow.

    train : int64 indices of training rows (validation excluded).
    labels : label of every row, indexed by row.
    calibration : {"images": n, "seed": s}; None takes 480 with seed 1.

    Returns ascending int64 indices. The images are dealt round by round, one of each
    class, so that any count is spread within one image per class, as long as no
    class runs out.
    """
    settings = dict(DEFAULT_CALIBRATION if calibration is None else calibration)
    count = int(settings.get("images", DEFAULT_CALIBRATION["images"]))
    if not 0 < count <= len(train):
        raise UserError(
            f"calibration.images: found {count}, expected 1 to {len(train)} (the training images)"
        )
    generator = _generator(settings)
    shuffled = np.asarray(train, np.int64)[generator.permutation(len(train))]
    of_class = np.asarray(labels)[shuffled]
    rounds = np.empty(len(shuffled), np.int64)  # how many of its class come before it
    for label in np.unique(of_class):
        members = np.flatnonzero(of_class == label)
        rounds[members] = np.arange(len(members))
    order = np.lexsort((np.arange(len(shuffled)), rounds))
    return np.sort(shuffled[order[:count]])


def stratified_choice(labels: Sequence[int] | np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """bool (N,): a share of the rows of each class, at least one and not all of it.

    settings : {"fraction": f, "seed": s}. A class with one row keeps it.
    """
    labels = np.asarray(labels)
    chosen = np.zeros(len(labels), bool)
    generator = _generator(settings)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(len(members) * settings["fraction"])), len(members) - 1)
        chosen[members[:count]] = True
    return chosen


def _generator(settings):
    return np.random.Generator(np.random.PCG64(int(settings.get("seed", 1))))
