"""The tasks by name, what each of them must have, and the reading of their records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from dpuflow.accuracy.evaluation import Record, read_accuracy
from dpuflow.base.errors import UserError
from dpuflow.base.files import read_json
from dpuflow.base.outputs import Shapes
from dpuflow.base.totality import Total
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.datasets.tasks import TASKS as NAMES
from dpuflow.records import read_record
from dpuflow.task import detection, segmentation
from dpuflow.task.figures import Figure


class Collector(Protocol):
    """Gathers a stage's answers for a split, batch by batch."""

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """The outputs (N, ...) of the next pictures."""

    def record(self, stage: str) -> Record:
        """The accuracy record, without its `outputs`."""


class Task(Protocol):
    """A task other than classification: a module of this room.

    Classification keeps its own records and pages (`accuracy.evaluation`, `accuracy.stages`).
    """

    NAME: str
    SCHEMA: str
    UNIT: str
    Collector: Any

    def check_outputs(
        self, dataset: Dataset, shapes: Shapes, decode: Mapping[str, Any] | None, key: str
    ) -> None:
        """UserError where a network's outputs are none of the task. key : of its model, for messages."""

    def targets_digest(self, dataset: Dataset, split: str) -> str:
        """SHA-256 of what a split's pictures show."""

    def contradiction(self, record: Record) -> str | None:
        """What in a record cannot be, or None."""

    def figures(self, record: Record) -> list[Figure]:
        """What a report says of a stage, the most important first."""

    def agreement(self, before: Record, after: Record) -> dict[str, Any]:
        """How the answers of two stages differ: images, equal, agreement, first_difference and more."""

    def change(self, dataset: Dataset, before: Record, after: Record) -> dict[str, Any]:
        """Change of the first figure, and its interval95."""

    def predictions(self, dataset: Dataset, record: Record) -> str:
        """CSV text of the answers."""

    def line(self, record: Record) -> str:
        """One line for the log."""


TASKS: Mapping[str, Task] = Total(
    "task.tasks: what is asked of a network",
    NAMES[1:],
    {module.NAME: cast(Task, module) for module in (detection, segmentation)},
)
"""Name -> task, of those other than classification."""


def task_named(name: str) -> Task | None:
    """The task of this name; None for classification."""
    return None if name == NAMES[0] else TASKS[name]


def check_outputs(dataset: Dataset, shapes: Shapes, decode: Mapping[str, Any] | None, key: str) -> None:
    """UserError where a network's outputs do not fit the data set's task, which is not classification.

    decode : the key of the model. key : `models.NAME`, for messages.
    """
    TASKS[dataset.task].check_outputs(dataset, shapes, decode, key)


def task_of(record: Mapping[str, Any]) -> Task | None:
    """The task of an accuracy record; None for classification."""
    return task_named(record.get("task", NAMES[0]))


def read_stage(path: Path | str) -> Record:
    """Read the accuracy record of any task; UserError when it is not one or contradicts itself."""
    content = read_json(path)
    name = content.get("task", NAMES[0]) if isinstance(content, dict) else NAMES[0]
    if name not in NAMES:
        raise UserError(f"{path}: task {name!r}, expected one of {', '.join(NAMES)}; remove it and run again")
    task = task_named(name)
    if task is None:
        return read_accuracy(path)
    record = read_record(path, task.SCHEMA)
    answers, images = len(record["answers"]), record["images"]
    problem = None
    if answers != images:
        problem = f"answers for {answers} pictures, but images says {images}"
    problem = problem or task.contradiction(record)
    if problem is None:
        for output, entry in record["outputs"].items():
            if len(entry["digests"]) != record["images"]:
                problem = f"output {output!r} has digests of other pictures"
    if problem:
        raise UserError(f"{path}: contradicts itself: {problem}; remove it and run again")
    return record
