"""A board's run on a data set of any task: what its bundle is told, and the record of what it answered."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.accuracy.evaluation import Record, read_accuracy
from dpuflow.base.errors import UserError
from dpuflow.base.totality import Total
from dpuflow.board.bundle import Bundle
from dpuflow.board.compare import board_record
from dpuflow.board.found import read_boxes, read_masks
from dpuflow.datasets.dataset_file import Dataset, read_dataset
from dpuflow.dpuczdx8g.isa.left_in_memory import not_left_in_memory
from dpuflow.emulator import Emulator
from dpuflow.emulator.outputs import named_outputs
from dpuflow.task.boxes import SHOWN, Answer
from dpuflow.task.detection import decoder, detection_record
from dpuflow.task.measuring import with_quantized
from dpuflow.task.segmentation import answer_map, segmentation_record
from dpuflow.task.tasks import TASKS, read_stage, task_named


def task_for_board(dataset: Dataset, xmodel: Path | str, decode: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments `task` and `geometry` of `board.bundle.build`; none for classification.

    decode : the key of the model. UserError where it does not fit the model's outputs.
    """
    if task_named(dataset.task) is None:
        return {}
    ends = named_outputs(Emulator(xmodel, use_native=False))  # nothing is run
    shapes = {name: tuple(op.tensor.shape[1:]) for name, op in ends.items()}
    if dataset.task == "segmentation":
        answer = answer_map(dataset, shapes, decode, xmodel)
        cut = {} if answer.cut is None else {"cut": answer.cut}
        return {"task": {"name": dataset.task, "output": answer.output, **cut}}
    assert dataset.geometry is not None
    told = decoder(dataset, shapes, decode, xmodel).told
    geometry = dataset.geometry[dataset.splits["test"]]
    return {"task": {"name": dataset.task, "decode": told}, "geometry": geometry}


def run_record(
    out: Path | str, bundle: Path | str, inputs: Any, runner: str, dump: Path | str | None = None
) -> Record:
    """The record of a run whose results lie in `out`.

    inputs : of the rule: quantized (the quantized network's record, or nothing), and dataset where the task
        is
    not classification. For the rest see `board.compare.board_record`.
    """
    quantized = inputs.get("quantized")
    if not inputs.get("dataset"):
        known = read_accuracy(quantized) if quantized else None
        return board_record(out, bundle, known, dump, runner, not_left_in_memory)
    dataset = read_dataset(inputs.dataset)
    ran = board_record(out, bundle, None, dump, runner, not_left_in_memory)
    meta, count = Bundle.open(bundle).meta, len(dataset.splits["test"])
    if ran["images"] != count:
        raise UserError(
            f"{out}: the board has run {ran['images']} of {count} test images; for {dataset.task} it "
            "must run all (runners.NAME.options.limit: 0)"
        )
    record = JUDGED[dataset.task](out, meta, dataset) | ran
    return record | (with_quantized(record, read_stage(quantized)) if quantized else {})


def _boxes(out, meta, dataset):
    answers = [Answer(*found) for found in read_boxes(out, len(dataset.splits["test"]))]
    classes = np.concatenate([np.zeros(0, np.int64), *(answer.classes for answer in answers)])
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(dataset.class_names):
        raise UserError(
            f"{out}/boxes.npz: classes beyond the {len(dataset.class_names)} class names; run again"
        )
    shown = float(meta["task"]["decode"].get("show_threshold", SHOWN))
    return detection_record("board", "test", dataset, answers, shown)


def _masks(out, meta, dataset):
    masks, classes = (
        read_masks(out, (len(dataset.splits["test"]), *dataset.shape[:2])),
        len(dataset.class_names),
    )
    if any(mask.max() >= classes for mask in masks):
        raise UserError(f"{out}/masks.npy: classes beyond the {classes} class names; run again")
    return segmentation_record("board", "test", dataset, list(masks))


JUDGED: Mapping[str, Callable[[Path | str, Mapping[str, Any], Dataset], Record]] = Total(
    "workflow.board_runs: what a board found",
    TASKS,
    {"detection": _boxes, "segmentation": _masks},
)
"""Task -> function(folder of the results, meta.json, data set) -> the record of what was found."""
