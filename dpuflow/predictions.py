"""`predictions.csv`: one row per test image, however the model was run."""

import numpy as np

from dpuflow.errors import UserError
from dpuflow.tables import read_table, table_csv, whole_numbers

COLUMNS = ("index", "label", "prediction", "label_name", "prediction_name", "score")


def predictions_csv(labels, predictions, scores, class_names):
    """CSV text with COLUMNS; `score` is the winning class's, `scores` (N, classes) float."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    names = np.asarray(class_names, dtype=object)
    return table_csv(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "prediction": predictions,
            "label_name": names[labels],
            "prediction_name": names[predictions],
            "score": np.take_along_axis(np.asarray(scores), predictions[:, None], axis=1)[:, 0],
        }
    )


def read_predictions(path):
    """Label and prediction columns of a predictions.csv as two int64 arrays (N,)."""
    try:
        table = read_table(path)
        return whole_numbers(table["label"]), whole_numbers(table["prediction"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a predictions file ({error}); expected {', '.join(COLUMNS)}") from None
