"""The sweep page: many runs ranked by accuracy, against size and estimated latency, over seeds."""

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpuflow.accuracy.evaluation import mean_interval, wilson_interval
from dpuflow.base.errors import UserError
from dpuflow.base.files import write_text
from dpuflow.records import read_record, write_record
from dpuflow.report import figures, wording
from dpuflow.report.hardware import latency_us
from dpuflow.report.inputs import RECORDS, STAGES, Entry, Row
from dpuflow.report.page import render
from dpuflow.task.tasks import read_stage, task_of

FORMAT = "dpuflow sweep 1"

Cache = dict[tuple[str, str], Any]
"""(name of the reading function, path) -> what it gave."""

COSTS = {
    "xmodel_bytes": ("Accuracy against xmodel size", "xmodel in kB", 1000, False),
    "latency_us": ("Accuracy against latency", "estimated latency in µs", 1, True),
    "seconds": ("Accuracy against time spent", "seconds of the run's jobs", 1, False),
}
"""What accuracy is traded for -> (title, axis, units per axis unit, estimated)."""

CONFIGURATION = ("model", "quantizer", "target", "runner")


def write_sweep(entries: Sequence[Entry], html: Path | str, data: Path | str | None = None) -> dict[str, Any]:
    """Write sweep.html, and its numbers as JSON to `data`.

    entries : as `inputs.load_run` takes them, of which the accuracy records, compile.json
    and xmodel are read; `benchmarks` (optional) lists Snakemake's benchmark files of the
    run's jobs. Returns the content of the JSON.
    """
    if not entries:
        raise UserError("sweep: no runs; name at least one under `runs` in the config")
    cache: Cache = {}
    rows = [sweep_row(entry, cache) for entry in entries]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["split"]), []).append(row)
    parts = [dataset_part(dataset, split, members) for (dataset, split), members in groups.items()]
    content = {"format": FORMAT, "datasets": parts}
    if data is not None:
        write_record(data, "sweep.schema.yaml", content)
    views = []
    for index, part in enumerate(parts, 1):
        best = {name for names in part["pareto_fronts"].values() for name in names}
        views.append({**part, "id": f"data-{index}", "charts": charts(part), "best": best})
    kinds = sorted({row["how"] for row in rows if row["stage"] == "board"})
    timed = any(row["seconds"] is not None for row in rows)
    write_text(html, render("sweep.html.j2", parts=views, runs=len(rows), kinds=kinds, timed=timed))
    return content


def sweep_row(entry: Entry, cache: Cache) -> Row:
    """The numbers of one run. cache : dict shared between runs, so that common files are read once."""
    files = entry.get("files") or {}
    records = {s: cached(cache, score, files[key]) for s, (key, _) in STAGES.items() if files.get(key)}
    if not records:
        raise UserError(
            f"sweep: run {describe(entry)} names no accuracy record, so it has no place in a ranking"
        )
    stage, last = list(records.items())[-1]
    first = next(iter(records.values()))
    if (first["split"], first["labels_sha256"]) != (last["split"], last["labels_sha256"]):
        raise UserError(
            f"sweep: stages {next(iter(records))} and {stage} of run {describe(entry)} were not measured "
            "on the same images; runs in a ranking need all images at every stage"
        )
    estimate = cached(cache, estimate_of, files["compile"]) if files.get("compile") else {}
    model, seed = split_seed(entry)
    return {
        "dataset": str(entry.get("dataset", "")),
        "model": model,
        "seed": seed,
        **{key: str(entry.get(key, "")) for key in CONFIGURATION[1:]},
        "stage": stage,
        "how": last["origin"] or "measured",
        "split": last["split"],
        "labels_sha256": last["labels_sha256"],
        **{key: last[key] for key in ("images", "correct", "accuracy")},
        "interval95": last["interval95"] or list(wilson_interval(last["correct"], last["images"])),
        "change": last["accuracy"] - first["accuracy"] if last is not first else None,
        "xmodel_bytes": size_of(files["xmodel"]) if files.get("xmodel") else None,
        "weight_bytes": estimate.get("weight_bytes"),
        "workload": estimate.get("workload"),
        "latency_us": latency_us(estimate),
        "frames_board": estimate.get("frames_per_second", {}).get("board"),
        "seconds": seconds_of(entry.get("benchmarks"), cache),
    }


def cached(cache: Cache, read: Callable[[Path | str], Any], path: Path | str) -> Any:
    """read(path), once per path."""
    key = (read.__name__, str(path))
    if key not in cache:
        cache[key] = read(path)
    return cache[key]


def estimate_of(path: Path | str) -> dict[str, Any]:
    """The estimate in compile.json; {} of the vendor's compilers, which give none."""
    return read_record(path, RECORDS["compile"]).get("estimate", {})


def score(path: Path | str) -> Row:
    """What a ranking needs of an accuracy record; its predictions are checked and dropped.

    Of tasks other than classification their first figure (mAP@0.5, mIoU) stands for the accuracy.
    """
    record = read_stage(path)
    task = task_of(record)
    if task is None and "accuracy" not in record:
        raise UserError(
            f"{path}: no output of this network is the class of a picture (models.NAME.output: none), so it "
            "has no accuracy to be ranked by; leave the model out of the sweep"
        )
    wanted = ("split", "images", "correct", "accuracy", "labels_sha256", "origin")
    found = {key: record.get(key) for key in wanted} | {"interval95": None}
    if task is not None:
        first = task.figures(record)[0]
        found |= {"accuracy": first.value, "interval95": list(first.interval)}
    return found


def split_seed(entry: Entry) -> tuple[str, int | None]:
    """(model without its seed, seed or None): "signnet-s3" is seed 3 of signnet."""
    model = str(entry.get("model", ""))
    found = re.fullmatch(r"(.+)-s(\d+)", model)
    if entry.get("seed") is not None:
        return (found[1] if found else model), int(entry["seed"])
    return (found[1], int(found[2])) if found else (model, None)


def size_of(path: Path | str) -> int:
    """Bytes of a file; UserError when it is not there."""
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def seconds_of(benchmarks: Iterable[Path | str] | None, cache: Cache) -> float | None:
    """Seconds of all jobs in Snakemake's benchmark files (their first row), None without any."""
    known = [s for path in benchmarks or () if (s := cached(cache, benchmark_seconds, path)) is not None]
    return sum(known) if known else None


def benchmark_seconds(path: Path | str) -> float | None:
    """Column `s` of the first row of a benchmark file; None when the file is not there or empty."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            row = next(csv.DictReader(stream, delimiter="\t"), None)
        return float(row["s"]) if row else None
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: not a benchmark file of Snakemake (no column `s` with seconds)") from None


def describe(entry: Entry) -> str:
    """A run in a message."""
    return " / ".join(str(entry[key]) for key in ("dataset", *CONFIGURATION) if entry.get(key))


def dataset_part(dataset: str, split: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Ranking of the runs of one data set: runs, configurations over seeds, Pareto fronts."""
    labels = {row["labels_sha256"] for row in rows}
    if len(labels) > 1:
        raise UserError(f"sweep: runs of {dataset} were measured on different {split} images; run them again")
    rows = sorted(
        rows, key=lambda row: (-row["accuracy"], row["xmodel_bytes"] or 0, name_of(row), row["seed"] or 0)
    )
    configurations = summarise(rows)
    fronts = {}
    for cost in COSTS:
        points = [(c[cost], c["mean"]) for c in configurations]
        fronts[cost] = [configurations[i]["name"] for i in pareto_front(points)]
    ranked = [{key: value for key, value in row.items() if key != "labels_sha256"} for row in rows]
    return {
        "dataset": dataset,
        "split": split,
        "images": rows[0]["images"],
        "configurations": configurations,
        "pareto_fronts": {cost: names for cost, names in fronts.items() if names},
        "runs": [{"rank": rank, **row} for rank, row in enumerate(ranked, 1)],
    }


def name_of(row: Row) -> str:
    """A configuration: everything but the seed."""
    return " / ".join(row[key] for key in CONFIGURATION if row[key])


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Runs that differ in their seed only, together: mean accuracy, t interval, extremes, mean costs."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(name_of(row), []).append(row)
    found = []
    for name, group in members.items():
        accuracies = [row["accuracy"] for row in group]
        mean, interval = mean_interval(accuracies)
        if interval is not None:  # Student's t knows nothing of 0 and 100 %
            interval = [max(interval[0], 0.0), min(interval[1], 1.0)]
        summary = {"name": name, "runs": len(group), "mean": mean, "interval95": interval}
        summary |= {"lowest": min(accuracies), "highest": max(accuracies)}
        # one run has no spread over seeds; its own images still bound its accuracy
        summary["interval_of_single_run95"] = group[0]["interval95"] if len(group) == 1 else None
        for cost in COSTS:
            known = [row[cost] for row in group if row[cost] is not None]
            summary[cost] = sum(known) / len(known) if known else None
        found.append(summary)
    return sorted(found, key=lambda c: (-c["mean"], c["name"]))


def pareto_front(points: Sequence[tuple[float | None, float]]) -> list[int]:
    """Indices of points (cost, accuracy) that no other beats in both, by rising cost.

    Points without a cost (None) are left out; of equal points the first stays.
    """
    known = [i for i, (cost, _) in enumerate(points) if cost is not None]
    front, best = [], float("-inf")
    for i in sorted(known, key=lambda i: (points[i][0], -points[i][1], i)):
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front


def charts(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A scatter plot of the configurations for each cost that is known."""
    found = []
    for cost, (title, axis, unit, estimated) in COSTS.items():
        dots = [c for c in part["configurations"] if c[cost] is not None]
        if not dots:
            continue
        best = part["pareto_fronts"][cost]
        points = []
        for dot in dots:
            low, high = dot["interval95"] or dot["interval_of_single_run95"] or (None, None)
            words = (
                f"{dot['name']}: {wording.percent(dot['mean'])} at {wording.real(dot[cost] / unit)} ({axis})"
            )
            place = {"x": dot[cost] / unit, "y": dot["mean"], "low": low, "high": high}
            points.append({**place, "words": words, "class": "best" if dot["name"] in best else ""})
        points.sort(key=lambda point: point["class"] == "best")  # on top of others at the same place
        by_name = {dot["name"]: dot for dot in dots}
        front = [(by_name[name][cost] / unit, by_name[name]["mean"]) for name in best]
        svg = figures.scatter(title, points, axis, "accuracy", front, log_x=True)
        found.append({"title": title, "svg": svg, "estimated": estimated})
    return found
