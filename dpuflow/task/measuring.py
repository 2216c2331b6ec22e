"""The record of a stage on a data set of any task."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpuflow.accuracy import stages
from dpuflow.accuracy.evaluation import Record, check_same_images
from dpuflow.accuracy.outputs import OutputsSummary, compare_outputs
from dpuflow.base.outputs import Stage
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.task.tasks import task_named, task_of


def stage_record(
    name: str,
    stage: Stage,
    dataset: Dataset,
    told: Mapping[str, Any],
    split: str = "test",
    where: Any = None,
    seen: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> Record:
    """Run a stage on every picture of a split.

    Parameters
    ----------
    told : params of a rule: answer (`models.NAME.output`, classification) and decode (detection,
    segmentation).
    For the rest see `accuracy.stages.stage_record`, which does this for classification.
    """
    task = task_named(dataset.task)
    if task is None:
        return stages.stage_record(name, stage, dataset, told.get("answer"), split, where, seen)
    shapes, count = stage.shapes, len(dataset.splits[split])
    answers = stages.answers_to(name, stage, dataset, split, count, seen)
    collector = task.Collector(dataset, split, shapes, told.get("decode"), where or name)
    summary = OutputsSummary(shapes, count)
    for values, _ in answers:
        summary.add(values)
        collector.add(values)
    return collector.record(name) | {"outputs": summary.record()}


def with_quantized(record: Record, quantized: Record) -> Record:
    """What a board's record says of the quantized network's answers to the same pictures: the keys for it."""
    task = task_of(record)
    if task is None:
        return stages.with_quantized(record, quantized)
    check_same_images([quantized, record])
    names = quantized["stage"], record["stage"]
    return {
        "agreement_with_quantized": task.agreement(quantized, record),
        "outputs_with_quantized": compare_outputs(quantized["outputs"], record["outputs"], names),
    }


def schema_of(record: Record) -> str:
    """The schema of a record."""
    task = task_of(record)
    return "accuracy.schema.yaml" if task is None else task.SCHEMA
