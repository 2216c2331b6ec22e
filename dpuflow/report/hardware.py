"""Compilation as the report shows it: target fit, workload per layer, estimated time."""

from dpuflow.report.tolerant import entries, mapping, number, text

LONG = 60
"""Characters; a longer string is a sentence and not a fact for the grid."""

INSTRUCTION_KEYS = ("machine_code", "instructions", "native")
"""Any of these, true in compile.json, says that the xmodel holds DPU instructions."""


def hardware(run):
    """Views of compile.json; None when absent.

    Returns
    -------
    dict: facts (scalar entries), note, findings, layers (table of the estimate's layers),
    estimate (flat), notes (what the estimate takes for granted), programs (table), verification,
    has_instructions.
    """
    compiled = run.compile
    if not compiled:
        return None
    estimate = mapping(compiled.get("estimate"))
    plain = {key: value for key, value in estimate.items() if key not in ("assumptions", "layers", "kind")}
    return {
        "facts": {key: value for key, value in scalars(compiled).items() if key not in INSTRUCTION_KEYS},
        "note": text(compiled.get("note")),
        "findings": [finding(entry) for entry in findings(compiled)],
        "layers": table(estimate.get("layers") or compiled.get("layers")),
        "programs": table(compiled.get("programs")),
        "verification": text(mapping(compiled.get("verification")).get("how")),
        "estimate": {
            key: value
            for key, value in flatten(plain).items()
            if value != compiled.get(key) and not key.endswith(" kind")
        },
        "notes": notes(estimate),
        "has_instructions": holds_instructions(compiled),
    }


def holds_instructions(compiled):
    """Whether compile.json says that the xmodel holds DPU instructions; silence means no."""
    return any(bool(compiled.get(key)) for key in INSTRUCTION_KEYS)


def findings(compiled):
    """The findings of compile.json: dicts or sentences."""
    found = compiled.get("findings")
    return [entry for entry in found if isinstance(entry, (dict, str))] if isinstance(found, list) else []


def notes(estimate):
    """What an estimate takes for granted, as sentences."""
    said = mapping(estimate.get("assumptions")).get("notes")
    return [note for note in said if isinstance(note, str)] if isinstance(said, list) else []


def costs(run):
    """Row of the size and speed table: xmodel bytes, weights, operations and the estimate; None = unknown."""
    estimate = mapping(mapping(run.compile).get("estimate"))
    frames = mapping(estimate.get("frames_per_second"))
    return {
        "xmodel_bytes": next((f["bytes"] for f in run.files if f["key"] == "xmodel"), None),
        "weight_bytes": number(estimate.get("weight_bytes")),
        "workload": number(estimate.get("workload")),
        "latency_us": latency_us(estimate),
        "frames_one_thread": number(frames.get("one_thread")),
        "frames_board": number(frames.get("board")),
        "on_cpu": len(findings(run.compile)) if run.compile else None,
    }


def latency_us(estimate):
    """Estimated latency in microseconds: from the machine code's cycles where there is one; else None."""
    return number(mapping(estimate.get("machine_code")).get("latency_us")) or number(
        estimate.get("latency_us")
    )


def finding(entry):
    """A finding as level, where and message, whatever form it has in the file."""
    if not isinstance(entry, dict):
        return {"level": "warning", "where": "", "message": str(entry)}
    message = entry.get("message") or entry.get("reason") or ""
    if entry.get("limit"):
        message = f"{entry['limit']} is {entry.get('value')}, allowed {entry.get('allowed')}; {message}"
    if entry.get("remedy"):
        message += f"; remedy: {entry['remedy']}"
    where = f"{entry.get('layer') or entry.get('name') or ''}"
    if entry.get("op"):
        where += f" ({entry['op']})"
    return {"level": str(entry.get("level", "warning")), "where": where, "message": message}


def scalars(mapping):
    """Entries that fit in a line: strings, numbers."""
    return {
        key: value
        for key, value in mapping.items()
        if isinstance(value, (str, int, float, bool)) and len(str(value)) <= LONG
    }


def flatten(mapping, prefix=""):
    """{"a": {"b": 1}} -> {"a b": 1}; lists and None are left out."""
    flat = {}
    for key, value in mapping.items():
        name = f"{prefix} {key}".strip()
        if isinstance(value, dict):
            flat |= flatten(value, name)
        elif value is not None and not isinstance(value, list):
            flat[name] = value
    return flat


def table(rows):
    """Rows of dicts -> columns (keys with scalar values, in order of appearance), numeric ones, rows."""
    rows = [flatten(row) for row in entries(rows)]
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
