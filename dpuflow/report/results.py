"""The numbers of the report: a row per run, a cell per stage. What accuracy.json holds."""

import itertools
from collections.abc import Sequence
from typing import Any

from dpuflow.accuracy.evaluation import Record, accuracy_change, agreement
from dpuflow.accuracy.outputs import compare_outputs, pictures_alike
from dpuflow.accuracy.top import top_change
from dpuflow.report import task_results
from dpuflow.report.inputs import Images, LoadedRun, Row
from dpuflow.task.tasks import task_of

FORMAT = "dpuflow accuracy report 1"


def run_results(run: LoadedRun) -> dict[str, Any]:
    """Everything the stage table shows about one run, as a dict for JSON.

    Returns
    -------
    dict: the ids, split, images, `stages` (list of stage, label, how, images, correct,
    accuracy, interval95, agreement_with_previous, agreement_with_first: None for the
    first), `comparisons` (before, after, agreement, accuracy change), `gates_passed`
    (None without gates), `files` (bytes and SHA-256) and, when there is a compiled model, `estimate`.
    """
    stages = list(run.records)
    first = run.records[stages[0]]
    rows = []
    for index, stage in enumerate(stages):
        record = run.records[stage]
        row: dict[str, Any] = {"stage": stage, "label": run.stage_label(stage), "how": run.how(stage)}
        row |= _figures(record)
        if "top5" in record:
            row["top5"] = {key: record["top5"][key] for key in ("correct", "accuracy", "interval95")}
        previous = run.records[stages[index - 1]] if index else None
        row["agreement_with_previous"] = _agreement(previous, record) if previous else None
        row["agreement_with_first"] = _agreement(first, record) if index else None
        rows.append(row)
    result = {**run.ids, "split": first["split"], "images": first["images"], "stages": rows}
    result["comparisons"] = [_compare(run, a, b) for a, b in compared_pairs(stages)]
    result["gates_passed"] = None if run.gate is None else bool(run.gate.get("passed"))
    result["estimate"] = (run.compile or {}).get("estimate")
    result["files"] = [{k: f[k] for k in ("key", "path", "bytes", "sha256")} for f in run.files]
    return result


def _figures(record: Record) -> dict[str, Any]:
    """The cell of a stage; without a class or a task's figure the shapes of its outputs."""
    task = task_of(record)
    if task is not None:
        return task_results.figures(task, record)
    if "accuracy" in record:
        return {key: record[key] for key in ("images", "correct", "accuracy", "interval95")}
    shapes = {name: output["shape"] for name, output in record["outputs"].items()}
    return {"images": record["images"], "outputs": shapes}


def _agreement(before: Record, after: Record) -> dict[str, Any]:
    task = task_of(after)
    if task is not None:
        return task_results.agreement(task, before, after)
    if "accuracy" not in after:
        return pictures_alike(before["outputs"], after["outputs"])
    return agreement(*common(before, after))


def compared_pairs(stages: Sequence[str]) -> list[tuple[str, str]]:
    """Consecutive stages, and first to last when that is not one of them."""
    pairs = list(itertools.pairwise(stages))
    if len(stages) > 2:
        pairs.append((stages[0], stages[-1]))
    return pairs


def common(a: Record, b: Record) -> tuple[list[int], list[int]]:
    """Predictions of two records on the images that both saw: a board may stop after the first n."""
    count = min(a["images"], b["images"])
    return a["predictions"][:count], b["predictions"][:count]


def _compare(run: LoadedRun, before: str, after: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "before": before,
        "before_label": run.stage_label(before),
        "after": after,
        "after_label": run.stage_label(after),
    }
    return row | comparison(run.records[before], run.records[after], run.images, (before, after))


def comparison(first: Record, second: Record, images: Images | None, names: tuple[str, str]) -> Row:
    """How the answers of two records of the same pictures differ, of any task.

    images : what they show, None: not known, and no change of accuracy is told. names : of the two, for
    messages. `second` may be of the first pictures only.

    Returns images, equal, agreement, interval95, first_difference; with `images` change, change_interval95,
    lost, gained and p_value, too; outputs (`compare_outputs`) where they are no class alone, top5
    (`top_change`) of many classes.
    """
    row: Row = {}
    if "outputs" in first and "outputs" in second:
        row["outputs"] = compare_outputs(first["outputs"], second["outputs"], names)
    task = task_of(first)
    if task is None and "accuracy" not in first:
        return row | _agreement(first, second)
    if task is not None:
        return row | task_results.comparison(task, images, first, second)
    a, b = common(first, second)
    row |= agreement(a, b)
    best = top_change(first, second)
    if best is not None:
        row["top5"] = best
    # without the dataset the labels are not known image by image
    if images is not None:
        change = accuracy_change(images.labels[: len(a)], a, b)
        row |= {"change": change["change"], "change_interval95": change["interval95"]}
        row |= {key: change[key] for key in ("lost", "gained", "p_value")}
    return row
