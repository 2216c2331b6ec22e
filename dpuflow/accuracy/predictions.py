"""`predictions.csv`: one row per test image, however the model was run."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dpuflow.accuracy.evaluation import Classes
from dpuflow.base.errors import UserError

COLUMNS = ("index", "label", "prediction", "label_name", "prediction_name", "score")


def predictions_csv(
    labels: Classes, predictions: Classes, scores: ArrayLike, class_names: Sequence[str]
) -> str:
    """CSV text with COLUMNS; `score` is the winning class's, `scores` (N, classes) float."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    names = np.asarray(class_names, dtype=object)
    table = pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "prediction": predictions,
            "label_name": names[labels],
            "prediction_name": names[predictions],
            "score": np.take_along_axis(np.asarray(scores), predictions[:, None], axis=1)[:, 0],
        }
    )
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def outputs_csv(labels: Classes, outputs: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """CSV text for a network without a class answer: a row per image, the digest of each of its outputs.

    outputs : as a record has them (`accuracy.outputs`).
    """
    labels = np.asarray(labels)
    names = np.asarray(class_names, dtype=object)
    columns = {"index": np.arange(len(labels)), "label": labels, "label_name": names[labels]}
    columns |= {f"sha256 of {name}": output["digests"] for name, output in outputs.items()}
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")


def read_predictions(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Label and prediction columns of a predictions.csv as two int64 arrays (N,).

    UserError names the first line that is not what `predictions_csv` writes: a row too few or
    too many would shift all that follow.
    """
    pairs = []
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, strict=True)
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise ValueError(f"columns {rows.fieldnames}")
            for number, row in enumerate(rows):
                pairs.append(_numbers(row, number))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a predictions file ({error}); expected {', '.join(COLUMNS)}") from None
    labels, predictions = np.array(pairs, np.int64).reshape(-1, 2).T
    return labels, predictions


def _numbers(row, number):
    """(label, prediction) of row `number`; ValueError when the row is not whole."""
    values = [row[name] for name in COLUMNS[:3]]
    if None in row.values() or None in row or not all(re.fullmatch("[0-9]{1,9}", value) for value in values):
        raise ValueError(f"row {number} is not whole: {list(row.values())[:6]}")
    if int(values[0]) != number:
        raise ValueError(f"row {number} has the index {values[0]}")
    if not math.isfinite(float(row["score"])):
        raise ValueError(f"row {number} has the score {row['score']}")
    return int(values[1]), int(values[2])
