"""Segmentation: the class of each pixel, judged by mean intersection over union and right pixels."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dpuflow.accuracy.evaluation import Record, check_same_images
from dpuflow.base.errors import UserError
from dpuflow.base.outputs import Shapes
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.task import masks
from dpuflow.task.figures import Figure

NAME = "segmentation"
SCHEMA = "segmentation.schema.yaml"
UNIT = "pixels"
"""What may change between two stages."""


class Answer(NamedTuple):
    """Where the classes of the pixels are."""

    output: str
    """Name of the output."""
    cut: float | None
    """Of one channel: the value above which a pixel is of class 1; None of a channel for each class."""

    def of(self, outputs: Mapping[str, np.ndarray], size: tuple[int, int], where: Any) -> np.ndarray:
        """The class of each pixel, uint8 (n, H, W), from the outputs of pictures of this size (H, W)."""
        return masks.classes_of_pixels(outputs[self.output], size, where, self.cut)


def answer_map(dataset: Dataset, shapes: Shapes, decode: Mapping[str, Any] | None, where: Any) -> Answer:
    """Which output holds the classes of the pixels; UserError where that is not to be told.

    decode : of the model: `outputs` names the output, `scores: sigmoid` says one channel is no share.
    """
    told = decode or {}
    wanted = told.get("outputs")
    names: list[str] = []
    for entry in wanted or list(shapes):
        names += [entry] if isinstance(entry, str) else entry
    classes = len(dataset.class_names)
    counts = (classes, 1) if classes == 2 else (classes,)
    listed = ", ".join(f"{name!r} {list(shape)}" for name, shape in shapes.items())
    fitting = [n for n in names if n in shapes and len(shapes[n]) == 3 and shapes[n][2] in counts]
    if len(fitting) != 1 or len(fitting) < len(names if wanted else fitting):
        single = f" (or one channel, the share of {dataset.class_names[1]})" if classes == 2 else ""
        raise UserError(
            f"{where}: task segmentation needs one output (height, width, {classes}), a score for each of "
            f"{', '.join(dataset.class_names)}{single}; it has {listed}; models.NAME.decode: "
            f"{{kind: none, outputs: [NAME]}} "
            "chooses"
        )
    if shapes[fitting[0]][2] != 1:
        return Answer(fitting[0], None)
    return Answer(fitting[0], masks.RAW if told.get("scores") == "sigmoid" else masks.SHARE)


def check_outputs(dataset: Dataset, shapes: Shapes, decode: Mapping[str, Any] | None, key: str) -> None:
    """UserError where no output of a network holds the classes of the pixels. key : of its model."""
    answer_map(dataset, shapes, decode, key)


class Collector:
    """Gathers the masks of a split, batch by batch."""

    def __init__(
        self, dataset: Dataset, split: str, shapes: Shapes, decode: Mapping[str, Any] | None, where: Any
    ) -> None:
        self.dataset, self.split, self.where = dataset, split, where
        self.answer = answer_map(dataset, shapes, decode, where)
        self.answers = masks.PackedMasks((dataset.shape[0], dataset.shape[1]))

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """The outputs (N, ...) of the next pictures."""
        for mask in self.answer.of(outputs, self.answers.shape, self.where):
            self.answers.append(mask)

    def record(self, stage: str) -> Record:
        """The accuracy record without its `outputs`."""
        return segmentation_record(stage, self.split, self.dataset, self.answers)


def counted(dataset: Dataset, split: str, answers: Sequence[np.ndarray]) -> tuple[masks.Pixels, np.ndarray]:
    """(pixels of each picture (n, classes), confusion of all pictures (classes, classes))."""
    true, classes = dataset.masks_in(split), len(dataset.class_names)
    if len(answers) != len(true):
        raise UserError(f"answers for {len(answers)} pictures, but split {split!r} has {len(true)}")
    total = np.zeros((classes, classes), np.int64)
    parts = np.zeros((3, len(true), classes), np.int64)
    for number, answer in enumerate(answers):
        matrix = masks.confusion(true[number : number + 1][0], answer, classes)
        total += matrix
        parts[:, number] = masks.pixels_of(matrix)
    return masks.Pixels(*parts), total


def targets_digest(dataset: Dataset, split: str) -> str:
    """SHA-256 of a split's masks: tells whether two stages were judged by the same."""
    true, digest = dataset.masks_in(split), hashlib.sha256()
    for start in range(0, len(true), 64):
        digest.update(true[start : start + 64].tobytes())
    return digest.hexdigest()


def segmentation_record(stage: str, split: str, dataset: Dataset, answers: Sequence[np.ndarray]) -> Record:
    """How good the masks of a stage are, with them, as a dict for JSON."""
    every, total = counted(dataset, split, answers)
    whole, drawn = masks.pixels_of(total), masks.drawn_again(every)
    if not total.sum():
        raise UserError(f"{stage}: no pixel of split {split!r} has a class, so there is nothing to measure")
    shares, ranges = masks.class_overlaps(whole), masks.class_overlaps(drawn)
    entries = []
    for kind, name in enumerate(dataset.class_names):
        known = not np.isnan(shares[kind])
        entries.append(
            {
                "class": name,
                "pixels": int(total[kind].sum()),
                "iou": float(shares[kind]) if known else None,
                "iou_interval95": _interval(ranges[:, kind]) if known else None,
            }
        )
    return {
        "task": NAME,
        "stage": stage,
        "split": split,
        "images": len(answers),
        "labels_sha256": targets_digest(dataset, split),
        "miou": float(masks.mean_overlap(whole)),
        "miou_interval95": _interval(masks.mean_overlap(drawn)),
        "pixel_accuracy": float(masks.pixel_accuracy(whole)),
        "pixel_accuracy_interval95": _interval(masks.pixel_accuracy(drawn)),
        "per_class": entries,
        "confusion": total.tolist(),
        "size": list(dataset.shape[:2]),
        "answers": masks.packed_texts(answers),
    }


def _interval(values):
    values = values[~np.isnan(values)]
    return [float(value) for value in np.quantile(values, (0.025, 0.975))] if len(values) else [0.0, 1.0]


def answers_of(record: Record) -> masks.PackedMasks:
    """The mask of each picture that a record holds, uint8 (H, W); ValueError on asking for a damaged one."""
    height, width = record["size"]
    return masks.PackedMasks((height, width), record["answers"])


def contradiction(record: Record) -> str | None:
    """What in a record cannot be, or None."""
    classes, matrix = len(record["per_class"]), np.array(record["confusion"], np.int64)
    if matrix.shape != (classes, classes):
        return f"a confusion of {matrix.shape} for {classes} classes"
    whole = masks.pixels_of(matrix)
    if abs(float(masks.mean_overlap(whole)) - record["miou"]) > 1e-9:
        return f"miou {record['miou']!r} is not that of its confusion"
    if abs(float(masks.pixel_accuracy(whole)) - record["pixel_accuracy"]) > 1e-9:
        return f"pixel_accuracy {record['pixel_accuracy']!r} is not that of its confusion"
    try:
        for number, answer in enumerate(answers_of(record)):
            if answer.max() >= classes:
                return f"answers[{number}]: a class outside the {classes} classes"
    except ValueError as error:
        return f"answers: {error}"
    return None


def figures(record: Record) -> list[Figure]:
    """What a report says of a stage, the most important first."""
    return [
        Figure("mIoU", record["miou"], record["miou_interval95"]),
        Figure("pixel accuracy", record["pixel_accuracy"], record["pixel_accuracy_interval95"]),
    ]


def agreement(before: Record, after: Record) -> dict[str, Any]:
    """How the masks of two stages for the same pictures differ (`masks.changes`)."""
    check_same_images([before, after])
    return masks.changes(answers_of(before), answers_of(after))


def change(dataset: Dataset, before: Record, after: Record) -> dict[str, Any]:
    """Change of mIoU from a stage to another on the same pictures.

    Returns change, interval95 (both drawn alike), lost and gained (pixels right in only the one or the
    other).
    """
    check_same_images([before, after])
    lost = gained = 0
    true = dataset.masks_in(before["split"])
    for number, (a, b) in enumerate(zip(answers_of(before), answers_of(after), strict=True)):
        mask = true[number : number + 1][0]
        was, now = a == mask, b == mask
        lost, gained = lost + int((was & ~now).sum()), gained + int((~was & now).sum())
    both = [counted(dataset, record["split"], answers_of(record))[0] for record in (before, after)]
    first, second = (masks.mean_overlap(masks.drawn_again(every)) for every in both)
    return {
        "change": after["miou"] - before["miou"],
        "interval95": _interval(second - first),
        "lost": lost,
        "gained": gained,
    }


def predictions(dataset: Dataset, record: Record) -> str:
    """CSV text, a row for each picture: pixels of each class found, and its share of right pixels."""
    names, answers = dataset.class_names, answers_of(record)
    shares = masks.pixel_accuracy(counted(dataset, record["split"], answers)[0])
    counts = np.stack([np.bincount(answer.ravel(), minlength=len(names)) for answer in answers])
    columns = {"image": np.arange(len(answers)), "right": shares}
    columns |= {f"pixels_{name}": counts[:, kind] for kind, name in enumerate(names)}
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n", float_format="%.6g")


def line(record: Record) -> str:
    """One line for the log."""
    low, high = record["miou_interval95"]
    return (
        f"{record['stage']}: mIoU {record['miou']:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"{record['pixel_accuracy']:.2%} of the pixels right on {record['images']} {record['split']} images"
    )
