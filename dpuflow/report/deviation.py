"""The first deviating layer: deviation.json as a page, and as a section of the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpuflow.base.files import write_text
from dpuflow.report.page import render
from dpuflow.report.wording import count, real

TABLE = "deviation_table.html.j2"
"""What the page and the report share; named here for `workflow.code_closure`."""

COLUMNS = {
    "folded": ("Folded floats", "against the frozen network"),
    "quantized": ("Quantized", "against the folded floats"),
    "emulator": ("Emulator", "the xmodel, against the quantized network"),
    "machine_code": ("Machine code", "against the emulator"),
    "board": ("Board", "against the emulator"),
}
"""Stage -> heading of its column and what it is compared with."""


def deviation_view(record: Mapping[str, Any] | None, rows: int | None = None) -> dict[str, Any] | None:
    """What the template shows of a deviation.json, at most so many `rows`; None without one.

    Returns
    -------
    dict: stages (label, words, notes, first), columns (stage, heading, against), layers (layer, op, device,
    fix_point, first: whether a stage first deviates here, cells: words and whether they deviate), first,
    left, images.
    """
    if record is None:
        return None
    there = [stage for stage in record["stages"] if stage["against"] or stage["stage"] == "emulator"]
    seen = {stage for row in record["layers"] for stage in row["cells"]}
    columns = [stage["stage"] for stage in there if stage["stage"] in seen]
    firsts = {(stage["first"], stage["stage"]) for stage in there}
    layers = []
    for row in record["layers"]:
        cells = [
            _cell(stage, row["cells"].get(stage)) | {"first": (row["layer"], stage) in firsts}
            for stage in columns
        ]
        layers.append({**row, "cells": cells, "first": any(cell["first"] for cell in cells)})
    rows = len(layers) if rows is None else rows
    shown = layers[:rows] + [row for row in layers[rows:] if row["first"]]
    return {
        "stages": there,
        "columns": [COLUMNS[stage] for stage in columns],
        "layers": shown,
        "left": len(layers) - len(shown),
        "first": record["first"],
        "images": len(record["images"]),
    }


def _cell(stage, cell):
    """{"words", "sub", "sort", "wrong"} of a layer in a stage."""
    if cell is None:
        return {"words": "–", "sub": "", "sort": "", "wrong": False}
    wrong, decibels = not cell["within"], cell.get("sqnr_db")
    if stage == "folded":
        words = "equal" if decibels is None or decibels >= EQUAL_DB else f"{decibels:.0f} dB"
        return {"words": words, "sub": "", "sort": _sort(decibels), "wrong": wrong}
    if stage == "quantized":
        own = cell["alone_db"]
        sub = f"mean {real(cell['mean_lsb'])}, at most {real(cell['max_lsb'])} LSB"
        sub += "" if own is None else f"; {own:.1f} dB by itself"
        words = "equal" if decibels is None else f"{decibels:.1f} dB"
        return {"words": words, "sub": sub, "sort": _sort(decibels), "wrong": wrong}
    if cell["within"]:
        return {"words": "equal", "sub": "", "sort": 0, "wrong": False}
    sub = f"{count(cell['different'])} of {count(cell['elements'])} values"
    if "max_lsb" not in cell:
        return {"words": "differs", "sub": sub, "sort": cell["different"], "wrong": True}
    sub += "" if decibels is None else f", {decibels:.1f} dB"
    return {"words": f"{real(cell['max_lsb'])} LSB", "sub": sub, "sort": cell["max_lsb"], "wrong": True}


def _sort(decibels):
    return 1000 if decibels is None else decibels


EQUAL_DB = 90.0
"""What float32 leaves of equal values."""


def write_deviation(record: Mapping[str, Any], html: Path | str, run: Mapping[str, str]) -> None:
    """Write the page. record : deviation.json; run : dataset, model, quantizer, target, runner."""
    tail = " / ".join(run[key] for key in ("quantizer", "target", "runner"))
    view = deviation_view(record)
    write_text(html, render("deviation.html.j2", run=run, tail=tail, view=view))
