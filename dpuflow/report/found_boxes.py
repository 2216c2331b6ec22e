"""Of a detector's run: pictures with the boxes of every stage, tables of classes, precision by recall."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from dpuflow.datasets.targets import Boxes
from dpuflow.report import figures
from dpuflow.report.images import data_uri
from dpuflow.report.inputs import LoadedRun
from dpuflow.report.svg import drawing, element
from dpuflow.task import boxes, detection
from dpuflow.task.boxes import Answer

SHOWN_PICTURES = 16
"""Of a run; several runs share the budget of the page."""
SIDE = 360
"""Pixels of the longer side of a picture in the page."""
STAGE_CLASSES = ("first", "second", "third", "fourth")
CURVE_CLASSES = 6
"""Classes with a chart of their own: those with the most objects."""


def found_boxes(run: LoadedRun, shown: int = SHOWN_PICTURES) -> dict[str, Any] | None:
    """What the page shows below the comparisons; None without the data set."""
    if run.images is None:
        return None
    stages = list(run.records)
    labels = [run.stage_label(stage) for stage in stages]
    answers = [detection.answers_of(run.records[stage]) for stage in stages]
    limits = [run.records[stage]["shown_from"] for stage in stages]
    drawn = [[one.above(limit) for one in each] for each, limit in zip(answers, limits, strict=True)]
    split = next(iter(run.records.values()))["split"]
    truth = run.images.dataset.boxes_in(split)
    facts = [_facts([each[n] for each in drawn], truth[n]) for n in range(len(truth))]
    order = sorted(range(len(truth)), key=lambda n: (-facts[n]["changed"], -sum(facts[n]["wrong"][-1]), n))
    chosen = order[:shown]
    pictures: Iterable[np.ndarray] = run.images.read(chosen) if chosen else []
    return {
        "kind": "detection",
        "labels": labels,
        "classes": STAGE_CLASSES[: len(stages)],
        "threshold": limits[0],
        "total": len(truth),
        "pictures": [
            {
                "index": n,
                **facts[n],
                "svg": _drawn(n, picture, truth[n], [each[n] for each in drawn], labels, run.class_names),
            }
            for n, picture in zip(chosen, pictures, strict=True)
        ],
        "per_class": per_class(run),
        "curves": curves(run),
    }


def _facts(answers: Sequence[Answer], truth: Boxes) -> dict[str, Any]:
    """changed: boxes that the last stage lost or gained; wrong: (missed, in vain) of each stage."""
    first, last = answers[0], answers[-1]
    pairs = len(boxes.matched(first, last))
    changed = len(first.boxes) + len(last.boxes) - 2 * pairs
    return {"changed": changed, "objects": len(truth.boxes), "wrong": [mistakes(a, truth) for a in answers]}


def mistakes(answer: Answer, truth: Boxes) -> tuple[int, int]:
    """(objects that were missed, boxes of nothing), those that are ignored left out."""
    real = Answer(truth.boxes, np.ones(len(truth.boxes), np.float32), truth.classes)
    hits = boxes.matched(answer, real)
    found = {place for _, place, _ in hits}
    used = {place for place, _, _ in hits}
    missed = sum(not truth.ignored[n] for n in range(len(truth.boxes)) if n not in found)
    return missed, len(answer.boxes) - len(used)


def _drawn(index, picture, truth, answers, labels, names) -> Markup:
    """A picture with all boxes over each other, each stage's in a group that the page can hide."""
    height, width = picture.shape[:2]
    size = {"x": 0, "y": 0, "width": width, "height": height}
    groups = [_group("truth", "truth", truth.boxes, truth.classes, None, names)]
    # the first stage's lines are the widest, so that those of later ones do not hide them
    for number, (answer, label) in enumerate(zip(answers, labels, strict=True)):
        groups.append(
            _group(STAGE_CLASSES[number], label, answer.boxes, answer.classes, answer.scores, names)
        )
    image = element("image", href=data_uri(picture, SIDE), preserveAspectRatio="none", **size)
    return drawing(width, height, f"image {index} with its boxes", [image, *groups], class_="found")


def _group(class_, label, corners, kinds, scores, names):
    parts = []
    for n, (x1, y1, x2, y2) in enumerate(corners.tolist()):
        score = "" if scores is None else f" {scores[n]:.2f}"
        title = element("title", f"{label}: {names[kinds[n]]}{score}")
        parts.append(element("rect", title, x=x1, y=y1, width=x2 - x1, height=y2 - y1))
    return element("g", *parts, class_=f"boxes {class_}")


def per_class(run: LoadedRun) -> list[dict[str, Any]]:
    """Rows of the table of classes: name, objects, and by stage ap50, interval and ap."""
    records = list(run.records.values())
    rows = []
    for number, entry in enumerate(records[0]["per_class"]):
        cells = [record["per_class"][number] for record in records]
        rows.append(
            {
                "name": entry["class"],
                "objects": entry["objects"],
                "stages": [
                    {"value": c["ap50"], "interval95": c["ap50_interval95"], "more": c["ap"]} for c in cells
                ],
            }
        )
    return rows


def curves(run: LoadedRun) -> list[dict[str, Any]]:
    """Charts of precision by recall at an overlap of half, a class each: those with the most objects."""
    records = list(run.records.items())
    entries = records[0][1]["per_class"]
    order = sorted(range(len(entries)), key=lambda n: (-entries[n]["objects"], n))[:CURVE_CLASSES]
    charts = []
    for number in order:
        if not entries[number]["objects"]:
            continue
        series = [
            (run.stage_label(stage), record["per_class"][number]["precision50"], class_)
            for (stage, record), class_ in zip(records, STAGE_CLASSES, strict=False)
        ]
        name = entries[number]["class"]
        charts.append({"title": name, "svg": figures.precision_recall(f"Precision of {name}", series)})
    return charts
