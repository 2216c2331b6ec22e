"""The report of a workflow that failed: what was made, and what was not and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.report.accuracy import write_report
from dpuflow.report.inputs import STAGES, Entry
from dpuflow.report.summary import summary


def write_partial_report(
    entries: Sequence[Entry],
    failures: Sequence[Mapping[str, Any]],
    folder: Path | str,
    provenance: Mapping[str, Any],
) -> str:
    """Write accuracy.html and .md on the runs that have an accuracy, remove older pages, return a summary.

    entries : runs with the files that were made; failures : a mapping per run that is not whole, its ids,
    `rule` and `message`. accuracy.json is not written: without it the workflow makes the whole report when
    it is started again, whatever the pages' times are.
    """
    folder = Path(folder)
    pages = {name: folder / f"accuracy.{name}" for name in ("html", "md", "json")}
    for path in pages.values():
        path.unlink(missing_ok=True)
    records = {key for key, _ in STAGES.values()}
    measured = [entry for entry in entries if records & set(entry["files"])]
    text = ""
    if measured:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            content = write_report(measured, pages["html"], pages["md"], None, provenance, failures)
            text = summary(content, pages["html"]) + "\n"
        except UserError as error:  # the first error, the job's own, counts
            text = f"no report on the rest: {error}\n"
    return text + "\n".join(f"failed: {sentence(alike)}" for alike in grouped(failures))


def grouped(failures: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The failures of one model that are the same, together: a job that failed is in the way of many runs."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for failure in failures:
        key = tuple(failure[key] for key in ("model", "dataset", "rule", "message"))
        found.setdefault(key, []).append(failure)
    return list(found.values())


def sentence(alike: Sequence[Mapping[str, Any]]) -> str:
    """The same failure of some runs in a line: the runs, the stage and its message."""
    runs = ", ".join(ids_of(failure) for failure in alike)
    first = alike[0]
    return f"{first['model']} on {first['dataset']} ({runs}), {first['rule']}: {first['message']}"


def ids_of(failure: Mapping[str, Any]) -> str:
    """What tells a run from others of its model."""
    return " / ".join(str(failure[key]) for key in ("quantizer", "target", "runner") if failure.get(key))
