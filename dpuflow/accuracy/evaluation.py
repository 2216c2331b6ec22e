"""Accuracy of a stage, its uncertainty, and the agreement of stages image by image.

Every stage writes one accuracy record (`accuracy_record`) over the same images, so
that stages compare per image and not only by their means.
"""

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import Scaling, words
from dpuflow.records import read_record

CONFIDENCE = 0.95

Record = dict[str, Any]
"""An accuracy record, as `accuracy_record` makes it: a dict for JSON with the keys RECORD_KEYS."""
Classes = np.ndarray | Sequence[int]
"""One class per image, (N,) indices into the class names."""

RECORD_KEYS = (
    "stage",
    "split",
    "images",
    "correct",
    "accuracy",
    "interval95",
    "labels_sha256",
    "per_class",
    "predictions",
)


def wilson_interval(correct: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval (low, high) of the proportion correct / total.

    Chosen over the normal approximation because accuracies sit near 1, where that one
    leaves [0, 1] or collapses to zero width (E. B. Wilson, JASA 22, 1927).
    """
    if total <= 0 or not 0 <= correct <= total:
        raise ValueError(f"need 0 <= correct <= total and total > 0, got {correct} of {total}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = correct / total
    centre = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # the bounds are exact at the ends, where rounding would leave 0.9999999
    low = 0.0 if correct == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if correct == total else min(1.0, (centre + half) / scale)
    return low, high


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> tuple[float, list[float] | None]:
    """Mean of repeated measurements (seeds) and its Student t interval.

    Returns (mean, [low, high]); the interval is None for one value, whose spread is unknown, and for two:
    with one degree of freedom t is 12.7, and the interval says nothing.
    """
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    if len(values) < 3:
        return mean, None
    half = student_t(confidence, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, [mean - half, mean + half]


@functools.cache
def student_t(confidence: float, freedom: int) -> float:
    """t with P(|T| < t) = confidence for `freedom` (a whole number) degrees of freedom.

    Bisection on the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4, so that
    one quantile does not cost an import of SciPy.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(80):
        angle = (low + high) / 2
        if _student_probability(angle, freedom) < confidence:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(low)


def _student_probability(angle, freedom):
    """P(|T| < sqrt(freedom) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = (cosine if freedom > 1 else 0.0) if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def labels_digest(labels: Classes) -> str:
    """SHA-256 of the labels as little-endian int64: tells whether two stages saw the same images."""
    return hashlib.sha256(np.asarray(labels).astype("<i8").tobytes()).hexdigest()


def accuracy_record(
    stage: str, split: str, labels: Classes, predictions: Classes, class_names: Sequence[str]
) -> Record:
    """The accuracy of one stage on one split, as a dict for JSON.

    Parameters
    ----------
    stage : "keras", "frozen", "quantized", "board", ...
    split : name of the split that the images are from ("test", "validation", ...).
    labels, predictions : (N,) integers, indices into `class_names`.
    class_names : name of every label value, by index.

    Returns
    -------
    dict with the keys of RECORD_KEYS; `interval95` is the Wilson interval,
    `per_class` counts the images and the right answers of every class.
    """
    labels, predictions = _as_classes(labels, "labels"), _as_classes(predictions, "predictions")
    if len(labels) != len(predictions):
        raise UserError(
            f"{stage}: {len(predictions)} predictions for {len(labels)} images of split {split!r}"
        )
    if not len(labels):
        raise UserError(f"{stage}: split {split!r} holds no images, so there is no accuracy to measure")
    for what, values in (("label", labels), ("prediction", predictions)):
        if values.min() < 0 or values.max() >= len(class_names):
            bad = int(np.flatnonzero((values < 0) | (values >= len(class_names)))[0])
            raise UserError(
                f"{stage}: image {bad} of split {split!r} has {what} {values[bad]}, but there are only "
                f"{len(class_names)} class names (0 to {len(class_names) - 1})"
            )
    right = labels == predictions
    correct = int(right.sum())
    images_of = np.bincount(labels, minlength=len(class_names))
    correct_of = np.bincount(labels[right], minlength=len(class_names))
    return {
        "stage": stage,
        "split": split,
        "images": len(labels),
        "correct": correct,
        "accuracy": correct / len(labels),
        "interval95": list(wilson_interval(correct, len(labels))),
        "labels_sha256": labels_digest(labels),
        "per_class": [
            {"class": str(name), "images": int(n), "correct": int(c)}
            for name, n, c in zip(class_names, images_of, correct_of, strict=True)
        ],
        "predictions": predictions.tolist(),
    }


def _as_classes(values: Classes, what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or (values.size and not np.issubdtype(values.dtype, np.integer)):
        raise ValueError(f"{what} must be a vector of integers, got shape {values.shape} {values.dtype}")
    return values.astype(np.int64)


GUESSING = 0.1
"""A network this share of the way from guessing to all right, or less, has not understood its input."""


def guessing_hint(record: Record, input_scaling: Scaling) -> str | None:
    """What to look at when a float network is hardly better than guessing, or None.

    Guessing is the better of one of k classes at random and always the commonest class.

    record : of a stage in floating point. input_scaling : the model's `input`.
    """
    if "accuracy" not in record:
        return None
    counts = [entry["images"] for entry in record["per_class"] if entry["images"]]
    guess = max(max(counts) / record["images"], 1 / len(counts))
    if record["accuracy"] > guess + GUESSING * (1 - guess):
        return None
    return (
        f"{record['stage']}: right on {record['accuracy']:.1%} of the {record['split']} images, hardly "
        f"better than guessing ({guess:.1%}). In a network trained elsewhere the cause is nearly always "
        f"models.NAME.input: it sees {words(input_scaling)} now and must see what it was trained "
        "with (caffe, tf or torch for preprocess_input of Keras; raw pixels, subtract 0 and divide 1, where "
        "the network itself holds Rescaling or preprocess_input); else the order of class_names"
    )


def read_accuracy(path: Path | str) -> Record:
    """Read an accuracy record; UserError when it is not one or contradicts itself."""
    record = read_record(path, "accuracy.schema.yaml")
    for name, output in record.get("outputs", {}).items():
        if len(output["digests"]) != record["images"]:
            raise UserError(
                f"{path}: {len(output['digests'])} digests of output {name!r}, but images says "
                f"{record['images']}; remove it and run again"
            )
    if "accuracy" not in record:
        return record
    if len(record["predictions"]) != record["images"]:
        raise UserError(
            f"{path}: {len(record['predictions'])} predictions, but images says {record['images']}"
        )
    problem = _contradiction(record)
    if problem:
        raise UserError(f"{path}: contradicts itself: {problem}; remove it and run again")
    return record


def _contradiction(record):
    """What in an accuracy record cannot be, or None."""
    images, correct, classes = record["images"], record["correct"], record["per_class"]
    if correct > images:
        return f"{correct} of {images} images right"
    if record["accuracy"] != correct / images:
        return f"{correct} of {images} right is no accuracy of {record['accuracy']!r}"
    if record["interval95"] != list(wilson_interval(correct, images)):
        return f"the interval {record['interval95']!r} is not that of {correct} of {images}"
    for row in classes:
        if row["correct"] > row["images"]:
            return f"per_class: {row['correct']} of {row['images']} images of {row['class']} right"
    for key in ("images", "correct"):
        if sum(row[key] for row in classes) != record[key]:
            return f"{key} of all classes are not the {record[key]} in all"
    if not 0 <= min(record["predictions"]) <= max(record["predictions"]) < len(classes):
        return f"predictions outside the {len(classes)} classes"
    return None


def check_same_images(records: Sequence[Record], names: Sequence[Path | str] | None = None) -> None:
    """UserError unless all records are of the same split, image count and labels.

    names : what to call each record in the message (paths); its stage by default.
    """
    names = [record["stage"] for record in records] if names is None else [str(name) for name in names]
    for record, name in zip(records[1:], names[1:], strict=True):
        for key in ("split", "images", "labels_sha256"):
            if record[key] != records[0][key]:
                raise UserError(
                    f"{names[0]} and {name} were not measured on the same images: {key} is "
                    f"{records[0][key]!r} in the first and {record[key]!r} in the second; "
                    "remove the older one and run again"
                )


def agreement(a: Classes | Record, b: Classes | Record) -> dict[str, Any]:
    """How many images two stages answer alike, right or wrong.

    a, b : (N,) predicted classes, or accuracy records. Returns images, equal, agreement
    (fraction), interval95 (Wilson) and first_difference (index of an image, or None).
    """
    a, b = _paired(a, b)
    different = np.flatnonzero(a != b)
    equal = len(a) - len(different)
    return {
        "images": len(a),
        "equal": equal,
        "agreement": equal / len(a),
        "interval95": list(wilson_interval(equal, len(a))),
        "first_difference": int(different[0]) if len(different) else None,
    }


def _paired(a: Classes | Record, b: Classes | Record) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(a, dict) and isinstance(b, dict):
        check_same_images([a, b])
    a, b = (_as_classes(x["predictions"] if isinstance(x, dict) else x, "predictions") for x in (a, b))
    if len(a) != len(b):
        raise UserError(
            f"stages to compare have {len(a)} and {len(b)} predictions; they must see the same images"
        )
    return a, b


def accuracy_change(
    labels: Classes, before: Classes | Record, after: Classes | Record, confidence: float = CONFIDENCE
) -> dict[str, Any]:
    """Change of accuracy from stage `before` to stage `after` on the same images.

    Both stages answer the same images, so their errors are correlated and the two
    Wilson intervals would overstate the uncertainty of the change. The interval is
    Newcombe's for paired proportions (Statistics in Medicine 17, 1998, method 10);
    p_value is McNemar's exact two-sided test of "no change".

    Returns
    -------
    dict: change (after - before, a fraction), interval95, lost (right only before),
    gained (right only after), p_value.
    """
    before, after = _paired(before, after)
    labels = _as_classes(labels, "labels")
    if len(labels) != len(before):
        raise UserError(f"{len(labels)} labels for {len(before)} predictions")
    was, now = before == labels, after == labels
    both, gained = int((was & now).sum()), int((~was & now).sum())
    lost, neither = int((was & ~now).sum()), int((~was & ~now).sum())
    return {
        "change": (gained - lost) / len(labels),
        "interval95": list(_newcombe_paired(both, gained, lost, neither, confidence)),
        "lost": lost,
        "gained": gained,
        "p_value": mcnemar_exact(gained, lost),
    }


def _newcombe_paired(a, b, c, d, confidence):
    """Interval of p1 - p2 with p1 = (a + b) / n, p2 = (a + c) / n of a 2 x 2 table of pairs."""
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    low1, high1 = wilson_interval(a + b, n, confidence)
    low2, high2 = wilson_interval(a + c, n, confidence)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    numerator = a * d - b * c
    if numerator > 0:
        numerator = max(numerator - n / 2, 0)
    phi = numerator / math.sqrt(margins) if margins else 0.0

    def width(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    change = p1 - p2
    low = change - width(p1 - low1, high2 - p2)
    high = change + width(high1 - p1, p2 - low2)
    return max(low, -1.0), min(high, 1.0)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact McNemar p-value: a binomial test with 1/2 on the images that changed."""
    n = gained + lost
    tail = ways = (
        1  # each binomial coefficient from the one before: anew they would take seconds of thousands
    )
    for k in range(min(gained, lost)):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def confusion_matrix(labels: Classes, predictions: Classes, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64: row = true class, column = predicted class."""
    # one count of the cell numbers; scikit-learn's function would cost a second of imports for this
    cells = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def per_class_accuracy(matrix: ArrayLike) -> list[dict[str, Any]]:
    """Per class of a confusion matrix: list of dicts images, correct, accuracy, interval95.

    accuracy (recall) and interval95 are None for a class without images.
    """
    rows = []
    for index, row in enumerate(np.asarray(matrix)):
        images, correct = int(row.sum()), int(row[index])
        rows.append(
            {
                "images": images,
                "correct": correct,
                "accuracy": correct / images if images else None,
                "interval95": list(wilson_interval(correct, images)) if images else None,
            }
        )
    return rows
