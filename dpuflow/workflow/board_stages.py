"""What stands in for a board, on every test image: its record and predictions.csv."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dpuflow.accuracy.evaluation import Record, read_accuracy
from dpuflow.accuracy.predictions import outputs_csv, predictions_csv
from dpuflow.accuracy.stages import stage_record, with_quantized
from dpuflow.base.files import write_text
from dpuflow.base.outputs import Stage, answer_of
from dpuflow.datasets.dataset_file import Dataset


def board_stage(
    stage: Stage,
    dataset: Dataset,
    wanted: str | None,
    quantized: Path | str | None,
    xmodel: Path | str,
    predictions: Path | str,
) -> Record:
    """Run what stands in for a board on every test image; writes predictions.csv and returns the record.

    wanted : `models.NAME.output`. quantized : the quantized network's record, or nothing.
    """
    answer = answer_of(stage.shapes, wanted, xmodel)
    scores: list[np.ndarray] = []

    def seen(values: Mapping[str, np.ndarray]) -> None:
        if answer is not None:
            scores.append(values[answer].reshape(len(values[answer]), -1))

    record = stage_record("board", stage, dataset, wanted, where=xmodel, seen=seen)
    if quantized:
        record |= with_quantized(record, read_accuracy(quantized))
    labels = dataset.labels_in("test")
    if answer is None:
        text = outputs_csv(labels, record["outputs"], dataset.class_names)
    else:
        text = predictions_csv(labels, record["predictions"], np.concatenate(scores), dataset.class_names)
    write_text(predictions, text)
    return record
