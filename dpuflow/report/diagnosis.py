"""Quantization as the report shows it: ranges against what INT8 holds, worst layers first."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX, INT8_MIN, dequantize, sqnr_db
from dpuflow.base.pixels import words
from dpuflow.network import QuantizedNetwork
from dpuflow.report.hardware import flatten, table
from dpuflow.report.inputs import LoadedRun, Row

TRACK = 1.25
"""A range track shows this many times what INT8 can represent, so that overflow is seen."""

COLUMNS = {
    "op": "op",
    "input_fix_point": "fix in",
    "weights_fix_point": "fix weights",
    "bias_fix_point": "fix bias",
    "fix_point": "fix out",
    "shift_cut": "shift cut",
    "shift_bias": "shift bias",
    "weights_sqnr_db": "SQNR of weights",
    "sqnr_db": "SQNR of output",
    "saturated": "saturated",
    "divergence_alone": "divergence alone",
    "agreement_alone": "agreement alone",
    "accuracy_change_alone": "accuracy change alone",
}
"""Keys of a layer that the diagnosis table shows -> column heading."""


def diagnosis(run: LoadedRun, quantized: QuantizedNetwork | None = None) -> dict[str, Any] | None:
    """Views of quantization.json and quantized_model.h5; None when both are absent.

    Returns
    -------
    dict: settings, layers (worst first), columns, images and source (of the ranges), bars
    (heading, range bars), quantiles (whether bars have them), votes (calibration batches per
    fix_point), steps (table), adjustments, folding, options (all settings).
    """
    if run.quantization is None and quantized is None:
        return None
    record = run.quantization or {}
    found = record.get("diagnosis", {})
    # what the vendor's quantizers tell of a layer stands outside: they measure nothing
    layers = merge_layers(found.get("layers") or record.get("layers", []), quantized)
    bars = recorded_bars(found.get("ranges", [])) or {
        "activation": [bar for row in layers if (bar := activation_bar(row))],
        "weights": [bar for row in layers if (bar := weight_bar(row))],
    }
    return {
        "layers": sorted(layers, key=_badness),
        "columns": [key for key in COLUMNS if any(row.get(key) is not None for row in layers)],
        "images": found.get("images"),
        "source": found.get("source", "calibration"),
        "bars": [(words, bars[kind]) for kind, words in KINDS.items() if bars.get(kind)],
        "quantiles": any(bar["core"] for group in bars.values() for bar in group),
        "votes": vote_rows(record.get("votes", {}), {row["name"]: row.get("fix_point") for row in layers}),
        "adjustments": adjustments(record.get("adjustments", [])),
        "folding": record.get("folding", []),
        "steps": table(record.get("steps", [])),
        "settings": settings(record),
        "options": flatten(record.get("settings", {})),
    }


def layer_row(row: Mapping[str, Any]) -> Row:
    """A layer of quantization.json under its name, with what it does alone beside the rest; no Nones."""
    flat = {"name": row["layer"], **row}
    alone = flat.pop("alone", {})
    flat |= {f"{key}_alone": value for key, value in alone.items()}
    if "accuracy_change" in alone:
        flat["accuracy_change_alone"] /= 100  # points -> fraction
    return {key: value for key, value in flat.items() if value is not None and key != "layer"}


def adjustments(found: Sequence[Row]) -> list[Row]:
    """Fix points that were moved after the vote: tensor, before, after, why."""
    return [{"tensor": e["tensor"], "before": e["from"], "after": e["to"], "why": e["why"]} for e in found]


def merge_layers(recorded: Sequence[Row], quantized: QuantizedNetwork | None) -> list[Row]:
    """Layers of quantized_model.h5 completed and overruled by those of quantization.json, by name."""
    rows = {row["name"]: row for row in (model_layers(quantized) if quantized else [])}
    for row in map(layer_row, recorded):
        rows[row["name"]] = {**rows.get(row["name"], {}), **row}
    return list(rows.values())


def model_layers(quantized: QuantizedNetwork) -> list[Row]:
    """Rows of a QuantizedNetwork: fix_points, shifts, float weight ranges and SQNR of the weights."""
    rows = []
    for layer in quantized.network.layers:
        if layer.operator.renames or not layer.operator.quantized:
            continue
        name = layer.name
        row: Row = {"name": name, "op": layer.op, "fix_point": quantized.fix_points.get(name)}
        if layer.inputs:
            row["input_fix_point"] = quantized.fix_points.get(layer.inputs[0])
        if name in quantized.weights:
            values, fix_point = quantized.weights[name]
            row |= {"weights_fix_point": fix_point, "shift_cut": quantized.shift_cut(name)}
            if layer.weights is not None:
                row |= {"weights_min": float(layer.weights.min()), "weights_max": float(layer.weights.max())}
                row["weights_sqnr_db"] = sqnr_db(layer.weights, dequantize(values, fix_point))
        if name in quantized.biases:
            row |= {"bias_fix_point": quantized.biases[name][1], "shift_bias": quantized.shift_bias(name)}
        rows.append(row)
    return rows


def _badness(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Order of the table: what alone moves the answers most, then accuracy lost, then noise."""
    noise = row.get("sqnr_db", row.get("weights_sqnr_db"))
    keys = (row.get("divergence_alone"), row.get("accuracy_change_alone"))
    return (-(keys[0] or 0.0), keys[1] or 0.0, math.inf if noise is None else noise)


def settings(record: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The chief facts of a quantization: scalars of the record, the method, the calibration images."""
    found = {key: value for key, value in record.items() if isinstance(value, (str, int, float, bool))}
    if "measure" in record.get("diagnosis", {}):
        found["accuracy in the diagnosis"] = record["diagnosis"]["measure"]
    found["method"] = record.get("settings", {}).get("method")
    if "replacements" in record:
        replaced = record["replacements"]
        found["replaced layers"] = f"{len(replaced['layers'])}: {replaced['how']}"
        found["agreement with the network before"] = f"{100 * replaced['agreement']:.2f} %, in floats"
    if "input_scaling" in record:
        found["input of the network"] = words(record["input_scaling"])
    found["calibration images"] = record.get("calibration", {}).get("images")
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, (str, int, float)) and not key.endswith("sha256")
    }


def vote_rows(votes: Mapping[str, Any], chosen: Mapping[str, int | None]) -> list[Row]:
    """Calibration votes: per layer the share of batches that wanted each fix_point.

    votes : layer -> {fix_point: batches}; chosen : layer -> final fix_point or None.
    Layers whose batches all agree with the outcome say nothing and are left out.
    """
    rows = []
    for name, found in votes.items():
        counts = sorted((int(fix_point), n) for fix_point, n in found.items())
        batches = sum(n for _, n in counts)
        final = chosen.get(name)
        if batches and (len(counts) > 1 or final not in (None, counts[0][0])):
            parts = [
                {"fix_point": fix_point, "batches": n, "share": n / batches, "chosen": fix_point == final}
                for fix_point, n in counts
            ]
            rows.append({"name": name, "batches": batches, "final": final, "parts": parts})
    return rows


KINDS = {"activation": "Activations", "weights": "Weights", "bias": "Biases"}


def recorded_bars(ranges: Sequence[Row]) -> dict[str, list[Row]]:
    """{kind: range bars} of the `ranges` of a diagnosis; {} without them."""
    bars: dict[str, list[Row]] = {}
    for entry in ranges:
        low, high, fix_point = (entry[key] for key in ("min", "max", "fix_point"))
        bar = range_bar(entry["tensor"], low, high, fix_point, (entry["p0.1"], entry["p99.9"]))
        if bar:
            bars.setdefault(entry["kind"], []).append(bar)
    return bars


def activation_bar(row: Mapping[str, Any]) -> Row | None:
    """Range bar of a layer's output during calibration; None when the row does not tell."""
    return range_bar(row["name"], row.get("float_min"), row.get("float_max"), row.get("fix_point"))


def weight_bar(row: Mapping[str, Any]) -> Row | None:
    """Range bar of a layer's float weights; None when the row does not tell."""
    return range_bar(
        row["name"], row.get("weights_min"), row.get("weights_max"), row.get("weights_fix_point")
    )


def range_bar(
    name: str,
    low: float | None,
    high: float | None,
    fix_point: float | None,
    core: tuple[float | None, float | None] = (None, None),
) -> Row | None:
    """Where a float range lies on a track that INT8 values fill from 10 % to 90 %.

    core : (low, high) that hold nearly all values, or Nones. Returns name, low, high,
    fix_point, holds (lowest and highest representable value), core (whether it is drawn) and
    `pieces`: (css class, left %, width %). None when the range or fix_point is missing.
    """
    if low is None or high is None or fix_point is None:
        return None
    if low > high:
        raise UserError(f"quantization.json: {name!r} has the minimum {low} above the maximum {high}")
    step = 2.0**-fix_point
    limit = -INT8_MIN * step

    def place(value: float) -> float:
        return 50 + 50 * max(-1.0, min(1.0, value / limit / TRACK))

    edges = [place(low), place(max(low, -limit)), place(min(high, limit)), place(high)]
    pieces = [
        (kind, round(left, 2), round(right - left, 2))
        for kind, left, right in zip(("over", "span", "over"), edges[:-1], edges[1:], strict=True)
        if right > left or kind == "span"
    ]
    if None not in core:
        inside = [place(min(max(value, -limit), limit)) for value in core]
        pieces.append(("core", round(inside[0], 2), round(inside[1] - inside[0], 2)))
    holds = (INT8_MIN * step, INT8_MAX * step)
    bar = {"name": name, "low": low, "high": high, "fix_point": fix_point, "holds": holds}
    return {**bar, "core": None not in core, "pieces": pieces}
