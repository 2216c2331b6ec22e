"""What stands in for a board, on every test image: its record and predictions.csv."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.accuracy.evaluation import Record
from dpuflow.accuracy.predictions import outputs_csv, predictions_csv
from dpuflow.base.files import write_text
from dpuflow.base.outputs import Stage, answer_of
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.task.measuring import stage_record, with_quantized
from dpuflow.task.tasks import read_stage, task_named


def board_stage(
    stage: Stage,
    dataset: Dataset,
    wanted: Mapping[str, Any],
    quantized: Path | str | None,
    xmodel: Path | str,
    predictions: Path | str,
) -> Record:
    """Run what stands in for a board on every test image; writes predictions.csv and returns the record.

    wanted : what is told of the outputs (`stage_records.told`). quantized : the quantized network's
    record, or nothing.
    """
    task = task_named(dataset.task)
    answer = answer_of(stage.shapes, wanted["answer"], xmodel) if task is None else None
    scores: list[np.ndarray] = []

    def seen(values: Mapping[str, np.ndarray]) -> None:
        if answer is not None:
            scores.append(values[answer].reshape(len(values[answer]), -1))

    record = stage_record("board", stage, dataset, wanted, where=xmodel, seen=seen)
    if quantized:
        record |= with_quantized(record, read_stage(quantized))
    names = dataset.class_names
    if task is not None:
        text = task.predictions(dataset, record)
    elif answer is None:
        text = outputs_csv(dataset.labels_in("test"), record["outputs"], names)
    else:
        labels = dataset.labels_in("test")
        text = predictions_csv(labels, record["predictions"], np.concatenate(scores), names)
    write_text(predictions, text)
    return record
