"""The answers of all runs in the page, so that a reader can lay any two of them side by side."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.totality import Total
from dpuflow.report.found_boxes import mistakes
from dpuflow.report.inputs import LoadedRun
from dpuflow.task import detection, masks, segmentation
from dpuflow.task.tasks import TASKS, task_of

MOST_ANSWERS = 600_000
"""Answers that a page holds (two bytes each, four thirds of that as text): more would make it too heavy."""


def comparable(runs: Sequence[LoadedRun], views: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the page's script needs to compare two runs: the last stage's answers of each.

    Returns {"data": [{"name", "classes", "labels"}], "runs": [{"name", "data", "id", "answers"}]}, labels
    and answers as base64 of little-endian uint16. Of another task a data set has its "task" in place of
    classes and labels, and a run has "facts" of each picture: [objects missed, boxes of nothing], or [the
    share of pixels that are right]. None when no two runs saw the same images of a known data set, or
    when there are too many answers (`too_many`).
    """
    data: dict[tuple[Any, ...], int] = {}
    sets: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for run, view in zip(runs, views, strict=True):
        first = next(iter(run.records.values()))
        task = task_of(first)
        if run.images is None or (task is None and "predictions" not in first):
            continue
        key = (run.ids.get("dataset"), view["result"]["split"])
        if key not in data:
            data[key] = len(sets)
            name = f"{key[0]}, {key[1]} split"
            told = {"classes": run.class_names, "labels": packed(run.images.labels)} if task is None else {}
            sets.append({"name": name} | (told or {"task": first["task"]}))
        stage = list(run.records)[-1]
        row = {"name": f"{view['short']} ({run.stage_label(stage)})", "id": view["id"], "data": data[key]}
        best = run.records[stage].get("top5")
        if best is not None:
            row["top5"] = best["accuracy"]
        if task is None:
            row["answers"] = packed(np.asarray(run.records[stage]["predictions"]))
        else:
            row["facts"] = JUDGED[task.NAME](run, run.records[stage])
        rows.append(row)
    several = [index for index in range(len(sets)) if sum(row["data"] == index for row in rows) > 1]
    if not several or too_many(runs):
        return None
    return {"data": sets, "runs": rows}


def _boxes(run, record):
    truth = run.images.dataset.boxes_in(record["split"])
    shown = [answer.above(record["shown_from"]) for answer in detection.answers_of(record)]
    return [list(mistakes(answer, true)) for answer, true in zip(shown, truth, strict=True)]


def _masks(run, record):
    counts = segmentation.counted(run.images.dataset, record["split"], segmentation.answers_of(record))[0]
    return [[round(float(share), 6)] for share in masks.pixel_accuracy(counts)]


JUDGED: Mapping[str, Callable[[LoadedRun, Mapping[str, Any]], list[list[float]]]] = Total(
    "report.answers: what is compared of a task's answers",
    TASKS,
    {"detection": _boxes, "segmentation": _masks},
)


def too_many(runs: Sequence[LoadedRun]) -> bool:
    """Whether the answers of all runs would make the page too heavy."""
    return sum(list(run.records.values())[-1]["images"] for run in runs) > MOST_ANSWERS


def packed(values: np.ndarray) -> str:
    """Classes as base64 of little-endian uint16."""
    return base64.b64encode(np.asarray(values).astype("<u2").tobytes()).decode("ascii")
