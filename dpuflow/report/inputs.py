"""Read the files of a run: what the report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from dpuflow.accuracy.evaluation import Record, check_same_images, labels_digest
from dpuflow.base.errors import UserError
from dpuflow.base.files import sha256
from dpuflow.datasets.dataset_file import Dataset, read_dataset
from dpuflow.records import read_record
from dpuflow.task.tasks import read_stage, task_named

Row = dict[str, Any]
"""What a template shows of one thing: key -> value."""
Entry = Mapping[str, Any]
"""A run as the workflow names it: its ids and its files (`load_run`)."""

STAGES = {
    "keras": ("keras_accuracy", "Keras"),
    "onnx": ("onnx_accuracy", "ONNX"),
    "frozen": ("frozen_accuracy", "Frozen"),
    "quantized": ("quantized_accuracy", "Quantized"),
    "board": ("board_accuracy", "Board"),
}
"""stage -> (key of its accuracy record among a run's files, column heading)."""

RUNNERS = {
    "emulator": "Emulated board",
    "virtual_board": "Virtual board",
    "isa_simulator": "Machine code (simulated)",
    "ssh": "Board",
    "board": "Board",
}
"""kind of runner -> what its column is called."""

RECORDS = {
    "freeze": "freeze.schema.yaml",
    "quantization": "quantization.schema.yaml",
    "compile": "compile.schema.yaml",
    "gate": "gate.schema.yaml",
    "deviation": "deviation.schema.yaml",
}
"""Key of a JSON file among a run's files -> its schema; the accuracy records have theirs."""

FILES = {
    "dataset": "dataset",
    "keras_model": "Keras model",
    "onnx_model": "ONNX model",
    "history": "training history",
    "keras_accuracy": "Keras accuracy",
    "onnx_accuracy": "ONNX accuracy",
    "checkpoint": "TensorFlow checkpoint",
    "frozen_graph": "frozen graph",
    "freeze": "freezing",
    "frozen_accuracy": "frozen accuracy",
    "quantized_graph": "quantized graph",
    "quantized_model": "quantized model",
    "quantization": "quantization",
    "quantized_accuracy": "quantized accuracy",
    "xmodel": "xmodel",
    "compile": "compilation",
    "predictions": "predictions of the board",
    "board_accuracy": "accuracy of the board",
    "gate": "drift gates",
    "deviation": "first deviating layer",
}
"""Keys of a run's files, in the order of the chain, and what they are called in the report."""

IDS = ("dataset", "model", "quantizer", "target", "runner")


class Images:
    """The evaluated split of dataset.h5. Only images that are shown are read.

    Attributes
    ----------
    dataset : datasets.dataset_file.Dataset; labels : (N,) int64; class_names : by label.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset = dataset
        self.split = split
        self.rows = dataset.splits[split]
        self.labels = dataset.labels[self.rows].astype(np.int64)
        self.class_names = dataset.class_names

    def digest(self) -> str:
        """What the records of stages that saw these images have as labels_sha256."""
        task = task_named(self.dataset.task)
        return labels_digest(self.labels) if task is None else task.targets_digest(self.dataset, self.split)

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 images (n, H, W, C) at `positions` of the split, in any order."""
        # h5py reads increasing indices only
        unique, inverse = np.unique(self.rows[np.asarray(positions, dtype=np.int64)], return_inverse=True)
        with h5py.File(self.dataset.path, "r") as file:
            return file["images"][unique][inverse]


@dataclass
class LoadedRun:
    """One run: its ids, its accuracy records by stage and what else its files say (None = absent)."""

    ids: dict[str, Any]
    records: dict[str, Record]
    images: Images | None = None
    history: pd.DataFrame | None = None
    freeze: dict[str, Any] | None = None
    quantization: dict[str, Any] | None = None
    compile: dict[str, Any] | None = None
    gate: dict[str, Any] | None = None
    deviation: dict[str, Any] | None = None
    files: list[dict[str, Any]] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Ids joined for headings: "signnet / reference / zcu104 / emulator"."""
        return " / ".join(str(self.ids[key]) for key in IDS[1:] if self.ids.get(key))

    @property
    def class_names(self) -> list[str]:
        """Class names by label, from the dataset or else from the first record."""
        if self.images is not None:
            return self.images.class_names
        return [row["class"] for row in next(iter(self.records.values())).get("per_class", [])]

    def stage_label(self, stage: str) -> str:
        """What a stage's column is called for this run; the board's name says what it really was."""
        if stage != "board":
            return STAGES[stage][1]
        return board_name(self.records["board"])

    def how(self, stage: str) -> str:
        """ "measured", "emulated" or "simulated"."""
        return self.records[stage].get("origin", "measured")


def board_name(record: Record) -> str:
    """Column heading of a board's accuracy record; a login to a virtual board is no board."""
    label = RUNNERS[record["runner"]]
    return "Virtual board" if label == "Board" and record["origin"] != "measured" else label


def load_run(entry: Entry, digests: dict[Path, str] | None = None) -> LoadedRun:
    """Read one run.

    Parameters
    ----------
    entry : dict of the ids (dataset, model, quantizer, target, runner; optionally seed) and `files`, a
        dict of path by FILES key.
        Accuracy records are needed for at least one stage; any other file may be absent.
    digests : dict path -> SHA-256 shared between runs, so that files in common are read once.

    Raises UserError when a file is malformed or stages were measured on different images.
    """
    files = {key: Path(path) for key, path in (entry.get("files") or {}).items() if path}
    unknown = sorted(set(files) - set(FILES))
    if unknown:
        raise UserError(f"report: unknown file key {unknown[0]!r}, expected one of {', '.join(FILES)}")
    ids = {key: value for key, value in entry.items() if key != "files"}
    records = {stage: read_stage(files[key]) for stage, (key, _) in STAGES.items() if key in files}
    if not records:
        raise UserError(f"report: run {ids} names no accuracy record, so there is nothing to report")
    run = LoadedRun(ids, records, paths=files)
    if "dataset" in files:
        run.images = open_images(files["dataset"], next(iter(records.values())))
    check_records(run, {stage: files[STAGES[stage][0]] for stage in records})
    if "history" in files:
        run.history = read_history(files["history"])
    for key, schema in RECORDS.items():
        if key in files:
            setattr(run, key, read_record(files[key], schema))
    digests = {} if digests is None else digests
    run.files = [file_facts(key, files[key], digests) for key in FILES if key in files]
    return run


def check_records(run: LoadedRun, paths: Mapping[str, Path]) -> None:
    """UserError unless all stages saw the same images; a board may stop after the first n of them."""
    records = dict(run.records)
    board, first = records.get("board"), next(iter(records.values()))
    whole = "task" in first  # other tasks have no part of their pictures alone
    if (
        not whole
        and board is not None
        and board["images"] < first["images"]
        and board["split"] == first["split"]
    ):
        if (
            run.images is None
            or labels_digest(run.images.labels[: board["images"]]) != board["labels_sha256"]
        ):
            raise UserError(
                f"{paths['board']}: its {board['images']} images are not the first of the {first['images']} "
                f"that {next(iter(paths.values()))} was measured on; run the board again"
            )
        del records["board"]
    check_same_images(list(records.values()), [paths[stage] for stage in records])


def open_images(path: Path | str, record: Record) -> Images:
    """The split of dataset.h5 that `record` was measured on; UserError if its labels differ."""
    dataset = read_dataset(path)
    split = record["split"]
    if split not in dataset.splits:
        raise UserError(f"{path}: no split {split!r}, on which stage {record['stage']!r} was measured")
    images = Images(dataset, split)
    if images.digest() != record["labels_sha256"]:
        raise UserError(
            f"{path}: the labels of split {split!r} are not those that stage {record['stage']!r} was "
            "measured on; remove its accuracy record and run again"
        )
    return images


def read_history(path: Path | str) -> pd.DataFrame:
    """history.csv: one row per epoch, numeric columns such as loss, val_loss, accuracy."""
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: not a training history ({error})") from None
    return history.select_dtypes("number")


def file_facts(key: str, path: Path, digests: dict[Path, str] | None = None) -> dict[str, Any]:
    """name, shown path, bytes and SHA-256 of an artifact (a directory counts as its files in order)."""
    digests = {} if digests is None else digests
    members = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    try:
        for member in members:
            if member not in digests:
                digests[member] = sha256(member)
        size = sum(member.stat().st_size for member in members)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return {
        "key": key,
        "name": FILES[key],
        "path": shown_path(path),
        "bytes": size,
        "sha256": [{"file": shown_path(member), "sha256": digests[member]} for member in members],
    }


def shown_path(path: Path | str) -> str:
    """A path as the report may print it: relative to the working directory, never absolute."""
    path = Path(path)
    if not path.is_absolute():
        return path.as_posix()
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name
