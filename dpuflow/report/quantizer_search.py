"""The quantizer search: a table of settings, best first, as CSV and as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from dpuflow.accuracy.evaluation import wilson_interval
from dpuflow.base.files import write_text
from dpuflow.quantizer_search.grid import as_entry, varied
from dpuflow.report import figures, wording
from dpuflow.report.page import render

MEASURED = ("divergence", "agreement", "sqnr_db", "correct", "accuracy", "p_value", "seconds", "error")


def search_csv(rows: Sequence[dict[str, Any]]) -> str:
    """CSV text: rank, the keys in which the settings differ, what was measured; empty where nothing was."""
    words = varied([row["setting"] for row in rows])
    columns = {"rank": [row["rank"] for row in rows]}
    columns |= {key: [row[key] for row in words] for key in words[0]}
    columns |= {key: [row.get(key) for row in rows] for key in MEASURED}
    # counts stay whole numbers beside settings that could not be measured
    table = pd.DataFrame(columns).convert_dtypes()
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def write_search(
    rows: Sequence[dict[str, Any]],
    csv: Path | str,
    html: Path | str,
    *,
    dataset: str,
    model: str,
    images: int,
    float_correct: int,
) -> None:
    """Write the table and the page.

    rows : of `quantize.comparison.Comparison.ranked`; images : how many validation images;
    float_correct : how many of them the float network answers right.
    """
    write_text(csv, search_csv(rows))
    words = varied([row["setting"] for row in rows])
    compiled = [row for row in rows if "error" not in row]
    page = render(
        "quantizer_search.html.j2",
        dataset=dataset,
        model=model,
        images=images,
        float_accuracy=float_correct / images,
        float_interval=wilson_interval(float_correct, images),
        keys=list(words[0]),
        rows=[row | {"words": list(own.values())} for row, own in zip(rows, words, strict=True)],
        chart=_chart(compiled, words) if compiled else None,
        entry=as_entry(compiled[0]["setting"]) if compiled else None,
    )
    write_text(html, page)


def _chart(rows: Sequence[dict[str, Any]], words: Sequence[Mapping[str, str]]) -> Markup:
    points = [
        {
            "x": row["seconds"],
            "y": row["accuracy"],
            "low": row["interval95"][0],
            "high": row["interval95"][1],
            "class": "best" if row["rank"] == 1 else "",
            "words": f"{row['rank']}: {wording.percent(row['accuracy'])}, {row['seconds']:.1f} s "
            f"({', '.join(f'{key} {value}' for key, value in own.items())})",
        }
        for row, own in zip(rows, words, strict=False)  # those that cannot be compiled come last
    ]
    return figures.scatter(
        "INT8 accuracy of the settings",
        points,
        "seconds of quantizing",
        "accuracy on validation images",
        log_x=True,
    )
