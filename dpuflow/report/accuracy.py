"""The accuracy report: accuracy.html, accuracy.md and accuracy.json of a list of runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_text
from dpuflow.base.totality import Total
from dpuflow.network.quantized_file import read_quantized
from dpuflow.records import write_record
from dpuflow.report import details, diagnosis, hardware
from dpuflow.report.deviation import deviation_view
from dpuflow.report.found_boxes import found_boxes
from dpuflow.report.found_masks import found_masks
from dpuflow.report.inputs import Entry, LoadedRun, load_run
from dpuflow.report.network_drawing import FOLDED_ROWS, network_drawing
from dpuflow.report.overview import page_values
from dpuflow.report.page import render
from dpuflow.report.results import FORMAT, run_results
from dpuflow.task.tasks import TASKS, task_of

ERROR_BUDGET, ROW_BUDGET = 480, 4000
"""Misclassified images, and rows of classes and of layers, on the whole page; each run gets its share."""
SHOWN_LAYERS = 20
"""Of a long network: the worst of its layers, that one wants to see; the others unfold."""

SECTIONS = {
    "agreement": "Stage to stage",
    "classes": "Classes",
    "errors": "Misclassified",
    "found": "Pictures",
    "training": "Training",
    "quantization": "Quantization",
    "deviation": "First deviating layer",
    "network": "Network",
    "target": "Target fit",
    "size": "Size",
}


def write_report(
    entries: Sequence[Entry],
    html: Path | str,
    markdown: Path | str,
    data: Path | str | None,
    provenance: Mapping[str, Any],
    failures: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write the report of runs.

    Parameters
    ----------
    entries : list of dicts as `inputs.load_run` takes them.
    html, markdown, data : paths of accuracy.html, accuracy.md and accuracy.json; data None: not written.
    provenance : dict of `provenance.provenance`.
    failures : runs that are not whole, as `partial.write_partial_report` takes them.

    Returns accuracy.json's content. Raises UserError when an input is malformed.
    """
    if not entries:
        raise UserError("report: no runs; name at least one under `runs` in the config")
    digests: dict[Path, str] = {}
    runs = [load_run(entry, digests) for entry in entries]
    content = {
        "format": FORMAT,
        "runs": [run_results(run) for run in runs],
        "provenance": provenance,
    }
    page = page_values(runs, content) | {"failures": failures}
    if data is not None:
        write_record(data, "report.schema.yaml", content)
    write_text(markdown, render("accuracy.md.j2", **page))
    views = page["views"]
    budget = max(8, min(details.SHOWN_ERRORS, ERROR_BUDGET // len(runs)))
    rows = max(2 * SHOWN_LAYERS, ROW_BUDGET // len(runs))
    for run, view in zip(runs, views, strict=True):
        view["rows"] = rows
        view |= detail_views(run, budget, rows, f"{view['id']}-matrix")
    write_text(
        html,
        render(
            "accuracy.html.j2", headings=diagnosis.COLUMNS, shown=SHOWN_LAYERS, folded=FOLDED_ROWS, **page
        ),
    )
    return content


def _answers(run: LoadedRun, shown: int, rows: int, anchor: str) -> dict[str, Any]:
    """What the page shows of a run's answers, by its task."""
    first = next(iter(run.records.values()))
    task = task_of(first)
    if task is None and "accuracy" not in first:  # no output says a class
        return dict.fromkeys(("confusions", "classes", "errors", "found"))
    if task is None:
        return {
            "confusions": details.confusions(run, anchor),
            "classes": details.classes(run, rows),
            "errors": details.misclassified(run, shown),
            "found": None,
        }
    return {"confusions": None, "classes": None, "errors": None, "found": FOUND[task.NAME](run)}


FOUND: Mapping[str, Callable[[LoadedRun], dict[str, Any] | None]] = Total(
    "report.accuracy: what is shown of a task's answers",
    TASKS,
    {"detection": found_boxes, "segmentation": found_masks},
)


def detail_views(run: LoadedRun, shown_errors: int, rows: int, anchor: str) -> dict[str, Any]:
    """The sections below the stage table of one run, and which of them exist."""
    quantized = read_quantized(run.paths["quantized_model"]) if "quantized_model" in run.paths else None
    view = {
        "network": network_drawing(run, quantized),
        **_answers(run, shown_errors, rows, anchor),
        "training": details.training(run),
        "diagnosis": diagnosis.diagnosis(run, quantized),
        "hardware": hardware.hardware(run),
        "deviation": deviation_view(run.deviation, rows),
        "sizes": details.sizes(run),
        "gates": run.gate["gates"] if run.gate else [],
        "freeze": hardware.scalars(run.freeze or {}),
    }
    present = {
        "agreement": True,
        "classes": view["confusions"] or view["found"],
        "errors": view["confusions"],
        "found": view["found"],
        "training": view["training"],
        "quantization": view["diagnosis"],
        "deviation": view["deviation"],
        "network": view["network"],
        "target": view["hardware"],
        "size": view["sizes"],
    }
    view["sections"] = [(anchor, words) for anchor, words in SECTIONS.items() if present[anchor]]
    return view
