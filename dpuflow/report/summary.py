"""What a run says when it is done: the stage table as plain text, and where the report lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpuflow.report.wording import SPACE, count, interval, percent, points


def summary(content: Mapping[str, Any], report_path: Path | str) -> str:
    """Text for a terminal or a log.

    content : of accuracy.json; report_path : of accuracy.html. Lines fit 100 columns for
    names of the usual length; the text ends with a newline.
    """
    rows = []
    for run in content["runs"]:
        ids = [str(run[key]) for key in ("quantizer", "target", "runner") if run.get(key) is not None]
        rows.append([f"{run.get('model', '')} on {run.get('dataset', '')}", f"({' / '.join(ids)})", "", ""])
        for stage in run["stages"]:
            rows.append([f"  {stage['label']}", *_cells(stage)])
            if "top5" in stage:
                rows[-1].append(f"top-5 {percent(stage['top5']['accuracy'])}")
            agreed = stage["agreement_with_first"]
            if agreed:
                differ = agreed["images"] - agreed["equal"]
                first = run["stages"][0]["label"]
                what = "answers" if "correct" in stage else "pictures"
                rows[-1].append(f"{differ:,} {what} differ from {first}" if differ else f"answers as {first}")
        rows += [row for pair in run["comparisons"] for row in _distances(pair)]
        change = run["comparisons"][-1] if run["comparisons"] else {}
        if "change" in change:
            low, high = change["change_interval95"]
            span = f"{points(low)} to {points(high)}"
            rows.append(["  first to last stage", points(change["change"]), span, ""])
    table = [row for row in rows if row[0].startswith(" ") and len(row) > 1]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    lines = []
    for row in rows:
        if len(row) == 1:
            lines.append(row[0])
            continue
        if not row[0].startswith(" "):
            lines += ["", f"{row[0]} {row[1]}"]
            continue
        cells = [
            row[0].ljust(widths[0]),
            row[1].rjust(widths[1]),
            row[2].rjust(widths[2]),
            row[3].rjust(widths[3]),
        ]
        lines.append("  ".join(cells + row[4:]).rstrip())
    lines += ["", f"report: {report_path}"]
    return "\n".join(lines).replace(SPACE, " ").lstrip("\n") + "\n"


def _cells(stage):
    """Figure, interval and what they are of."""
    if "accuracy" not in stage:
        outputs = ", ".join(f"{name} {shape}" for name, shape in stage["outputs"].items())
        return ["", "", f"{count(stage['images'])} pictures, outputs {outputs}"]
    of = f"{count(stage['correct'])} of {count(stage['images'])}" if "correct" in stage else stage["measure"]
    return [percent(stage["accuracy"]), interval(stage["interval95"]), of]


def _distances(pair):
    """How far the outputs of two stages are apart."""
    for name, found in pair.get("outputs", {}).items():
        apart = f"differs by {found['relative_error']:.2g}, {found['max_difference']:.3g} at most"
        equal = f"every bit of {found['images']:,} pictures is equal"
        words = equal if found["equal"] == found["images"] else apart
        yield [f"  {name}, {pair['before_label']} to {pair['after_label']}: {words}"]
