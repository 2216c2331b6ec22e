"""Compilation as the report shows it: target fit, workload per layer, estimated time."""

from collections.abc import Iterable, Mapping
from typing import Any

from dpuflow.report.inputs import LoadedRun, Row
from dpuflow.report.roofline import roofline

CHIEF = ("latency_us", "frames_per_second one_thread", "frames_per_second board", "energy saturated_mj")
"""Figures of an estimate that come first: the machine code's where there is one."""
LONG = 60
"""Characters; a longer string is a sentence and not a fact for the grid."""


def hardware(run: LoadedRun) -> dict[str, Any] | None:
    """Views of compile.json; None when absent.

    Returns
    -------
    dict: facts (scalar entries), note, findings, layers (table of the estimate's layers),
    estimate (flat), chief (its keys that come first), notes (what the estimate takes for granted),
    programs (a mapping of facts each), time (where it goes, `roofline`; None without an estimate),
    verification, has_instructions.
    """
    compiled = run.compile
    if not compiled:
        return None
    estimate = compiled.get("estimate", {})
    plain = {key: value for key, value in estimate.items() if key not in ("assumptions", "layers", "kind")}
    return {
        "facts": {key: value for key, value in scalars(compiled).items() if key != "machine_code"},
        "note": compiled.get("note", ""),
        "findings": [finding(entry) for entry in compiled["findings"]],
        "layers": table(estimate["layers"] if estimate else compiled["layers"]),
        "programs": [flatten(program) for program in compiled.get("programs", [])],
        "time": roofline(estimate) if estimate else None,
        "verification": compiled.get("verification", {}).get("how", ""),
        "estimate": {
            key: value
            for key, value in flatten(plain).items()
            if value != compiled.get(key) and not key.endswith(" kind")
        },
        "chief": [f"machine_code {key}" if "machine_code" in estimate else key for key in CHIEF]
        + ["ddr_bytes"],
        "notes": estimate["assumptions"]["notes"] if estimate else [],
        "has_instructions": compiled["machine_code"],
    }


def costs(run: LoadedRun) -> dict[str, float | None]:
    """Row of the size and speed table: xmodel bytes, weights, operations and the estimate; None = unknown."""
    estimate = (run.compile or {}).get("estimate", {})
    frames = estimate.get("machine_code", estimate).get("frames_per_second", {})
    return {
        "xmodel_bytes": next((f["bytes"] for f in run.files if f["key"] == "xmodel"), None),
        "weight_bytes": estimate.get("weight_bytes"),
        "workload": estimate.get("workload"),
        "latency_us": latency_us(estimate),
        "frames_one_thread": frames.get("one_thread"),
        "frames_board": frames.get("board"),
        "on_cpu": len(run.compile["findings"]) if run.compile else None,
    }


def latency_us(estimate: Mapping[str, Any]) -> float | None:
    """Estimated latency in microseconds: from the machine code's cycles where there is one; else None."""
    return estimate.get("machine_code", estimate).get("latency_us")


def finding(entry: Mapping[str, Any]) -> dict[str, str]:
    """A finding as level, where and message."""
    message = entry["reason"]
    if "limit" in entry:
        message = (
            f"{entry['limit']} is {entry['value']}, allowed {entry['allowed']}; {message}; "
            f"remedy: {entry['remedy']}"
        )
    return {"level": "warning", "where": f"{entry['layer']} ({entry['op']})", "message": message}


def scalars(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Entries that fit in a line: strings, numbers."""
    return {
        key: value
        for key, value in mapping.items()
        if isinstance(value, (str, int, float, bool)) and len(str(value)) <= LONG
    }


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a b": 1}; lists and None are left out."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            flat |= flatten(value, name)
        elif value is not None and not isinstance(value, list):
            flat[name] = value
    return flat


def table(rows: Iterable[Row]) -> dict[str, Any]:
    """Rows of dicts -> columns (keys with scalar values, in order of appearance), numeric ones, rows."""
    rows = [flatten(row) for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = [
        key
        for key in columns
        if all(
            isinstance(row[key], (int, float)) and not isinstance(row[key], bool)
            for row in rows
            if key in row
        )
    ]
    return {"columns": columns, "numeric": numeric, "rows": rows}
