"""The answers of all runs in the page, so that a reader can lay any two of them side by side."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.report.inputs import LoadedRun

MOST_ANSWERS = 600_000
"""Answers that a page holds (two bytes each, four thirds of that as text): more would make it too heavy."""


def comparable(runs: Sequence[LoadedRun], views: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the page's script needs to compare two runs: the last stage's answers of each.

    Returns {"data": [{"name", "classes", "labels"}], "runs": [{"name", "stage", "data", "id", "answers"}]},
    labels and answers as base64 of little-endian uint16; None when no two runs saw the same images of a
    known data set, or when there are too many answers (`too_many`).
    """
    data: dict[tuple[Any, ...], int] = {}
    sets: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for run, view in zip(runs, views, strict=True):
        if run.images is None or "predictions" not in next(iter(run.records.values())):
            continue
        key = (run.ids.get("dataset"), view["result"]["split"])
        if key not in data:
            data[key] = len(sets)
            name = f"{key[0]}, {key[1]} split"
            sets.append({"name": name, "classes": run.class_names, "labels": packed(run.images.labels)})
        stage = list(run.records)[-1]
        answers = np.asarray(run.records[stage]["predictions"])
        row = {"name": f"{view['short']} ({run.stage_label(stage)})", "id": view["id"], "data": data[key]}
        best = run.records[stage].get("top5")
        if best is not None:
            row["top5"] = best["accuracy"]
        rows.append({**row, "answers": packed(answers)})
    several = [index for index in range(len(sets)) if sum(row["data"] == index for row in rows) > 1]
    if not several or too_many(runs):
        return None
    return {"data": sets, "runs": rows}


def too_many(runs: Sequence[LoadedRun]) -> bool:
    """Whether the answers of all runs would make the page too heavy."""
    return sum(list(run.records.values())[-1]["images"] for run in runs) > MOST_ANSWERS


def packed(values: np.ndarray) -> str:
    """Classes as base64 of little-endian uint16."""
    return base64.b64encode(np.asarray(values).astype("<u2").tobytes()).decode("ascii")
