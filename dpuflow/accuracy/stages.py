"""The record of a stage: its accuracy where an output is the class of a picture, and what else it gives."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from dpuflow.accuracy.evaluation import Record, accuracy_record, agreement, check_same_images, labels_digest
from dpuflow.accuracy.outputs import OutputsSummary, compare_outputs, require_finite
from dpuflow.accuracy.top import MANY_CLASSES, among_best, top_record
from dpuflow.base.errors import UserError
from dpuflow.base.outputs import Stage, answer_of
from dpuflow.base.progress import counted


class Splits(Protocol):
    """What is asked of a data set: `datasets.dataset_file.Dataset` has it."""

    @property
    def class_names(self) -> list[str]:
        """Names indexed by label."""

    def batches(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of (images uint8 (n, H, W, C), labels (n,)) of a split."""

    def labels_in(self, name: str) -> np.ndarray:
        """Labels (n,) of a split."""


def classes_of(values: np.ndarray) -> np.ndarray:
    """The class of each picture, int64: the greatest of its values; of one sigmoid, whether above 1/2."""
    values = values.reshape(len(values), -1)
    return (values[:, 0] > 0.5).astype(np.int64) if values.shape[1] == 1 else values.argmax(axis=1)


def answers_to(
    name: str,
    stage: Stage,
    dataset: Splits,
    split: str,
    count: int,
    seen: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """(outputs, labels) of each batch of a split's `count` pictures, with progress; UserError of none.

    For the rest see `stage_record`.
    """
    if not count:
        raise UserError(f"{name}: split {split!r} holds no images, so there is nothing to measure")

    def answered() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for images, labels in counted(dataset.batches(split), "images", count, lambda batch: len(batch[0])):
            values = stage(images)
            if seen is not None:
                seen(values)
            yield values, labels

    return answered()


def stage_record(
    name: str,
    stage: Stage,
    dataset: Splits,
    answer: str | None = None,
    split: str = "test",
    where: Any = None,
    seen: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> Record:
    """Run a stage on every picture of a split.

    Parameters
    ----------
    name : of the stage ("keras", "frozen", "board", ...). answer : as for `answer_of`. where : the stage's
    file, for messages. seen(values) : is shown the outputs of each batch.

    Returns
    -------
    The accuracy record of the output that is the class of a picture; where there are more, or none is,
    with (or of) `outputs`, as `accuracy.outputs` makes them.
    """
    shapes = stage.shapes
    answer = answer_of(shapes, answer, where or name)
    labels = dataset.labels_in(split)
    answers = answers_to(name, stage, dataset, split, len(labels), seen)
    summary = OutputsSummary(shapes, len(labels)) if answer is None or len(shapes) > 1 else None
    predictions: list[np.ndarray] = []
    best: list[np.ndarray] = []
    done = 0
    for values, truth in answers:
        if summary is not None:
            summary.add(values)
        if answer is not None:
            given = values[answer].reshape(len(truth), -1)
            require_finite(answer, given, done)
            predictions.append(classes_of(given))
            if len(dataset.class_names) > MANY_CLASSES:
                best.append(among_best(given, truth))
        done += len(truth)
    outputs = {} if summary is None else {"outputs": summary.record()}
    if answer is None:
        return outputs_record(name, split, labels, outputs["outputs"])
    found = np.concatenate(predictions)
    record = accuracy_record(name, split, labels, found, dataset.class_names) | outputs
    return record | ({"top5": top_record(np.concatenate(best))} if best else {})


def outputs_record(stage: str, split: str, labels: np.ndarray, outputs: dict[str, Any]) -> Record:
    """The record of a stage of which no output is the class of a picture."""
    return {
        "stage": stage,
        "split": split,
        "images": len(labels),
        "labels_sha256": labels_digest(labels),
        "outputs": outputs,
    }


def with_quantized(record: Record, quantized: Record) -> Record:
    """What a board's record says of the quantized network's answers to the same pictures: the keys for it."""
    if "accuracy" not in record:
        check_same_images([quantized, record])
    found: Record = {}
    if "accuracy" in record:
        found["agreement_with_quantized"] = agreement(record["predictions"], quantized["predictions"])
    if "outputs" in record:
        names = quantized["stage"], record["stage"]
        found["outputs_with_quantized"] = compare_outputs(quantized["outputs"], record["outputs"], names)
    return found
