"""Detection: boxes of objects, judged by mean average precision in the pixels of the original pictures."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.accuracy.evaluation import Record, check_same_images
from dpuflow.base.errors import UserError
from dpuflow.base.outputs import Shapes
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.datasets.placement import Placement
from dpuflow.decoding.anchors import settled
from dpuflow.decoding.decode import Decoder
from dpuflow.task import boxes as box_answers
from dpuflow.task.average_precision import DRAWS, Found, Precision, change_interval, precision
from dpuflow.task.boxes import SHOWN, Answer
from dpuflow.task.figures import Figure

NAME = "detection"
SCHEMA = "detection.schema.yaml"
UNIT = "boxes"
"""What may change between two stages."""


def decoder(
    dataset: Dataset,
    shapes: Shapes,
    decode: Mapping[str, Any] | None,
    where: Any,
    key: str = "models.NAME",
) -> Decoder:
    """What makes boxes of a network's outputs; UserError where its decode does not fit them.

    decode : the key of the model. where : what is run, key : that of its model, for messages.
    """
    if not decode:
        raise UserError(
            f"{where}: task detection needs {key}.decode: how the outputs become boxes "
            "({kind: yolov3, yolov5, yolov8, ssd or none, ...}; docs/detection.md)"
        )
    size, names = dataset.shape[:2], dataset.class_names
    seen = dataset.boxes_in("train").boxes if decode.get("anchors") == "auto" else np.zeros((0, 4))
    told = settled(decode, len(names), shapes, size, seen, where=f"{key}.decode")
    return Decoder(told, dict(shapes), (size[0], size[1]))


def check_outputs(dataset: Dataset, shapes: Shapes, decode: Mapping[str, Any] | None, key: str) -> None:
    """UserError where a network's outputs do not become boxes by its decode. key : of its model."""
    decoder(dataset, shapes, decode, key, key)


def shown_from(decode: Mapping[str, Any] | None) -> float:
    """The score from which on a box counts as an answer (`decode.show_threshold`)."""
    return float((decode or {}).get("show_threshold", SHOWN))


class Collector:
    """Gathers the boxes of a split, batch by batch."""

    def __init__(
        self, dataset: Dataset, split: str, shapes: Shapes, decode: Mapping[str, Any] | None, where: Any
    ) -> None:
        self.dataset, self.split, self.shown = dataset, split, shown_from(decode)
        self.decode = decoder(dataset, shapes, decode, where)
        self.answers: list[Answer] = []

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """The outputs (N, ...) of the next pictures."""
        self.answers += [Answer(*found) for found in self.decode(dict(outputs))]

    def record(self, stage: str) -> Record:
        """The accuracy record without its `outputs`."""
        return detection_record(stage, self.split, self.dataset, self.answers, self.shown)


def truth(dataset: Dataset, split: str) -> Found:
    """The objects of a split's pictures, in pixels of the originals."""
    seen, places = dataset.boxes_in(split), dataset.placements_in(split)
    counts = np.diff(seen.offsets)
    boxes = [place.to_original(seen[number].boxes) for number, place in enumerate(places)]
    return Found(
        np.concatenate([np.zeros((0, 4)), *boxes]),
        seen.classes,
        np.repeat(np.arange(len(counts)), counts),
        seen.ignored.astype(np.float64),
    )


def found(answers: Sequence[Answer], places: Sequence[Placement]) -> Found:
    """The boxes of all pictures together, in pixels of the originals."""
    boxes = [place.to_original(answer.boxes) for answer, place in zip(answers, places, strict=True)]
    return Found(
        np.concatenate([np.zeros((0, 4)), *boxes]),
        np.concatenate([np.zeros(0, np.int64), *(answer.classes for answer in answers)]),
        np.repeat(np.arange(len(answers)), [len(answer.boxes) for answer in answers]),
        np.concatenate([np.zeros(0), *(answer.scores.astype(np.float64) for answer in answers)]),
    )


def measured(dataset: Dataset, split: str, answers: Sequence[Answer], draws: int = DRAWS) -> Precision:
    """Average precision of the answers for a split's pictures."""
    places, classes = dataset.placements_in(split), len(dataset.class_names)
    if len(answers) != len(places):
        raise UserError(f"answers for {len(answers)} pictures, but split {split!r} has {len(places)}")
    return precision(truth(dataset, split), found(answers, places), len(places), classes, draws)


def targets_digest(dataset: Dataset, split: str) -> str:
    """SHA-256 of what a split's pictures show: tells whether two stages were judged by the same."""
    seen, digest = dataset.boxes_in(split), hashlib.sha256()
    for part, kind in zip(
        (seen.boxes, seen.classes, seen.ignored, seen.offsets), ("<f4", "<i8", "u1", "<i8"), strict=True
    ):
        digest.update(part.astype(kind).tobytes())
    return digest.hexdigest()


def detection_record(
    stage: str, split: str, dataset: Dataset, answers: Sequence[Answer], shown: float = SHOWN
) -> Record:
    """How good the boxes of a stage are, with them, as a dict for JSON."""
    result = measured(dataset, split, answers)
    return {
        "task": NAME,
        "stage": stage,
        "split": split,
        "images": len(answers),
        "labels_sha256": targets_digest(dataset, split),
        "shown_from": shown,
        "map50": result.half,
        "map50_interval95": result.interval("half"),
        "map": result.whole,
        "map_interval95": result.interval("whole"),
        "per_class": [_class_entry(result, kind, name) for kind, name in enumerate(dataset.class_names)],
        "answers": [box_answers.to_json(answer) for answer in answers],
    }


def _class_entry(result, kind, name):
    objects = int(result.objects[kind])
    entry = {
        "class": name,
        "objects": objects,
        "ap50": None,
        "ap50_interval95": None,
        "ap": None,
        "precision50": None,
    }
    if objects:
        entry["ap50"] = float(result.average[0, kind])
        entry["ap50_interval95"] = result.class_interval(kind)
        entry["ap"] = float(result.average[:, kind].mean())
        entry["precision50"] = [float(f"{value:.6g}") for value in result.curves[:, kind]]
    return entry


def answers_of(record: Record) -> list[Answer]:
    """The boxes of each picture that a record holds."""
    return [box_answers.from_json(entry) for entry in record["answers"]]


def contradiction(record: Record) -> str | None:
    """What in a record cannot be, or None."""
    classes = len(record["per_class"])
    for number, entry in enumerate(record["answers"]):
        lengths = {len(entry[key]) for key in ("boxes", "scores", "classes")}
        if len(lengths) > 1 or not _are_corners(entry["boxes"]):
            return f"answers[{number}]: boxes, scores and classes do not fit each other"
        if entry["classes"] and not 0 <= min(entry["classes"]) <= max(entry["classes"]) < classes:
            return f"answers[{number}]: a class outside the {classes} classes"
        if any(first < second for first, second in zip(entry["scores"], entry["scores"][1:], strict=False)):
            return f"answers[{number}]: scores do not fall"
        if not np.isfinite(entry["scores"]).all():  # 1e999
            return f"answers[{number}]: a score without end"
    averages = [entry["ap50"] for entry in record["per_class"] if entry["objects"]]
    if None in averages or abs(float(np.mean(averages)) - record["map50"]) > 1e-9:
        return f"map50 {record['map50']!r} is not the mean of the classes' ap50"
    return None


def _are_corners(boxes):
    """Whether these are lists of four finite numbers each."""
    try:
        values = np.array(boxes)
    except ValueError:  # of different lengths
        return False
    if not len(boxes):
        return True
    return values.shape[1:] == (4,) and values.dtype.kind in "if" and bool(np.isfinite(values).all())


def figures(record: Record) -> list[Figure]:
    """What a report says of a stage, the most important first."""
    return [
        Figure("mAP@0.5", record["map50"], record["map50_interval95"]),
        Figure("mAP@0.5:0.95", record["map"], record["map_interval95"]),
    ]


def agreement(before: Record, after: Record) -> dict[str, Any]:
    """How the boxes of two stages for the same pictures differ (`boxes.changes`)."""
    check_same_images([before, after])
    return box_answers.changes(answers_of(before), answers_of(after), before["shown_from"])


def change(dataset: Dataset, before: Record, after: Record) -> dict[str, Any]:
    """Change of mAP@0.5 from a stage to another on the same pictures.

    Returns change, interval95 (both drawn alike), lost and gained (boxes that only the one or the other has).
    """
    found = agreement(before, after)
    first, second = (_measured(dataset, record) for record in (before, after))
    return {
        "change": second.half - first.half,
        "interval95": change_interval(first, second),
        "lost": found["lost"],
        "gained": found["gained"],
    }


_KNOWN: dict[tuple[str, str], Precision] = {}
"""What `_measured` found before: a report compares each stage with several others."""


def _measured(dataset, record):
    content = hashlib.sha256(repr(record["answers"]).encode()).hexdigest()
    key = record["labels_sha256"], content
    if key not in _KNOWN:
        _KNOWN[key] = measured(dataset, record["split"], answers_of(record))
    return _KNOWN[key]


def predictions(dataset: Dataset, record: Record) -> str:
    """CSV text, a row for each box: picture, class, score and corners in pixels of the original picture."""
    names, places = dataset.class_names, dataset.placements_in(record["split"])
    found = (
        (number, answer, place.to_original(answer.boxes))
        for number, (answer, place) in enumerate(zip(answers_of(record), places, strict=True))
    )
    return box_answers.boxes_csv(found, names, digits=9)


def line(record: Record) -> str:
    """One line for the log."""
    low, high = record["map50_interval95"]
    count = sum(len(answer.above(record["shown_from"]).boxes) for answer in answers_of(record))
    return (
        f"{record['stage']}: mAP@0.5 {record['map50']:.4f} (95 % interval {low:.4f} to {high:.4f}), "
        f"mAP@0.5:0.95 {record['map']:.4f}, {count} boxes on {record['images']} {record['split']} images"
    )
