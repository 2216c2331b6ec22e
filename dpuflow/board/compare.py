"""`board_accuracy.json`: what a board answered, compared with the emulator image by image.

The emulator executes the same xmodel file in exact integer arithmetic, so on a healthy
board every int8 output is equal. Where one is not, a dump of the board's tensors shows
the first layer that differs.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpuflow.accuracy.evaluation import accuracy_record, agreement
from dpuflow.accuracy.outputs import OutputsSummary
from dpuflow.accuracy.outputs import compare_outputs as distances
from dpuflow.accuracy.stages import outputs_record
from dpuflow.accuracy.top import MANY_CLASSES, among_best, top_record
from dpuflow.base.errors import UserError
from dpuflow.base.numerics import images_at_a_time
from dpuflow.base.pixels import quantize_pixels
from dpuflow.board.bundle import Bundle
from dpuflow.board.dump import dumped_tensors
from dpuflow.emulator import Emulator
from dpuflow.emulator.outputs import named_values
from dpuflow.records import read_record
from dpuflow.xir import Graph

PREFIX = "q_"
"""Columns of predictions.csv with the int8 output of each class."""


def read_board_predictions(path: Path | str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, predictions, int8 outputs (N, classes)) of a board's predictions.csv."""
    try:
        table = pd.read_csv(path)
        columns = [name for name in table.columns if name.startswith(PREFIX)]
        values = table[columns].to_numpy()
        if not columns or values.min() < -128 or values.max() > 127:
            raise ValueError(f"no int8 columns {PREFIX}CLASS")
        return table["label"].to_numpy(), table["prediction"].to_numpy(), values.astype(np.int8)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not the predictions of a board ({error}); run again") from None


def network_outputs(emulator: Emulator, meta: Mapping[str, Any], images: np.ndarray) -> np.ndarray:
    """int8 outputs (N, classes) of the whole network, from uint8 images on.

    Every layer counts, also those that the board runs on its CPU: what the board has left out
    is not left out here.
    """
    name, step = meta["output"]["value"], images_at_a_time(images.shape[1:])
    batches = (_quantized(emulator, meta, images[i : i + step]) for i in range(0, len(images), step))
    return np.concatenate([emulator.values(batch, [name])[name].reshape(len(batch), -1) for batch in batches])


def _quantized(emulator, meta, images):
    grid = quantize_pixels(images, meta["input"], meta["input"]["fix_point"])
    return grid.reshape(len(images), *emulator.input.tensor.shape[1:])


def compare_outputs(board: np.ndarray, emulated: np.ndarray) -> dict[str, Any]:
    """Agreement of two arrays (N, classes) of int8 outputs.

    Returns the agreement of the predictions, the number of images with any different
    value, and for the first of them both sides' values (None when all are equal).
    """
    answer = agreement(board.argmax(axis=1), emulated.argmax(axis=1))
    different = np.flatnonzero((board != emulated).any(axis=1))
    answer["different_outputs"] = len(different)
    answer["first_different_output"] = None
    if len(different):
        index = int(different[0])
        answer["first_different_output"] = {
            "image": index,
            "board": board[index].tolist(),
            "emulator": emulated[index].tolist(),
        }
    return answer


def first_different_layer(
    folder: Path | str,
    emulator: Emulator,
    meta: Mapping[str, Any],
    images: np.ndarray,
    index: int,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Compare a board's dump of image `index` with the emulator, layer by layer.

    folder : the `dump` folder that the runtime wrote. Only tensors in DDR are there:
    what a compiled model keeps on the chip cannot be dumped. without : as for `dump.dumped_tensors`.

    Returns dict: image, compared (names in order of execution), not_dumped (count), and
    first_different (None, or op, tensor, type, different, elements, position, board,
    emulator).
    """
    tensors = emulator.run(_quantized(emulator, meta, images[index : index + 1]), dump=True)
    answer: dict[str, Any] = {"image": int(index), "compared": [], "not_dumped": 0, "first_different": None}
    for op, found in dumped_tensors(folder, emulator, without):
        if op.name not in tensors or tensors[op.name].dtype != np.int8:
            continue
        if found is None:
            answer["not_dumped"] += 1
            continue
        expected = tensors[op.name][0]
        answer["compared"].append(op.name)
        places = np.argwhere(found != expected)
        if len(places):
            place = tuple(int(n) for n in places[0])
            answer["first_different"] = {
                "op": op.name,
                "tensor": op.tensor.name,
                "type": op.type,
                "different": len(places),
                "elements": int(expected.size),
                "position": list(place),
                "board": int(found[place]),
                "emulator": int(expected[place]),
            }
            break
    return answer


def board_record(
    results: Path | str,
    bundle: Path | str,
    quantized: Mapping[str, Any] | None = None,
    dump: Path | str | None = None,
    runner: str = "board",
    gone: Callable[[Graph], Collection[str]] = lambda graph: (),
) -> dict[str, Any]:
    """The accuracy record of a board run with its comparisons; where boxes or masks are found, the part of it
    that knows nothing of these.

    Parameters
    ----------
    results : folder with predictions.csv and board.json.
    bundle : the bundle that was run.
    quantized : accuracy record of the quantized stage, or None.
    dump : a `dump` folder of another run, else results/dump is used if it is there.
    runner : "board", "virtual_board" or "ssh", for the record.
    gone : tells of which ops of a graph a dump says nothing (`dump.dumped_tensors`, without).

    UserError when the results are not of this bundle.
    """
    content = Bundle.open(bundle)
    meta, images, labels = content.meta, content.images, content.labels
    report = read_record(Path(results) / "board.json", "board.schema.yaml")
    path = Path(results) / "predictions.csv"
    emulator = Emulator(content.graph)
    if "task" in meta:
        record = {"images": report["images"]}
    elif "output" in meta:
        record = _class_record(path, content, emulator, quantized)
    else:
        found = _labels_of(path, report["images"], labels, bundle)
        record = outputs_record("board", meta["images"]["split"], found, {})
    record["runner"] = runner
    record["origin"] = "emulated" if report["emulated"] else "measured"
    record["how"] = (
        "emulated: the board application on the virtual board of a PC; no board"
        if report["emulated"]
        else f"measured on a board of target {meta['target']}"
    )
    if "outputs" in meta:
        given = images[: record["images"]]
        record |= _output_records(report, emulator, meta, given, len(images), quantized)
    record["unstable_images"] = report["unstable_images"]
    folder, dumped = Path(dump or Path(results) / "dump"), report.get("dump")
    if dump is not None:
        dumped = read_record(folder.parent / "board.json", "board.schema.yaml").get("dump")
    if dumped and folder.is_dir():
        lost = gone(content.graph)
        record["layers"] = first_different_layer(folder, emulator, meta, images, dumped["image"], lost)
    return record


def _class_record(path, content, emulator, quantized):
    """The accuracy of the output that is the class of a picture, compared with the emulator's."""
    meta, images, labels = content.meta, content.images, content.labels
    found, predictions, outputs = read_board_predictions(path)
    count = len(found)
    if count > len(labels) or not np.array_equal(found, labels[:count]):
        raise UserError(f"{path}: not the results of {content.path}: the labels differ; run again")
    if not np.array_equal(predictions, outputs.argmax(axis=1)):
        raise UserError(f"{path}: predictions are not the largest outputs; the file was changed")
    record = accuracy_record("board", meta["images"]["split"], found, predictions, meta["class_names"])
    if len(meta["class_names"]) > MANY_CLASSES:
        record["top5"] = top_record(among_best(outputs, found))
    if quantized is not None:
        record["agreement_with_quantized"] = agreement(predictions, quantized["predictions"][:count])
    emulated = network_outputs(emulator, meta, images[:count])
    record["agreement_with_emulator"] = compare_outputs(outputs, emulated)
    return record


def _labels_of(path, count, labels, bundle):
    """Labels of the pictures that were run, where no output is their class."""
    try:
        found = pd.read_csv(path)["label"].to_numpy()
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not the predictions of a board ({error}); run again") from None
    if len(found) != count or count > len(labels) or not np.array_equal(found, labels[:count]):
        raise UserError(f"{path}: not the results of {bundle}: the labels differ; run again")
    return found


def _output_records(report, emulator, meta, images, total, quantized):
    """Every output of the board, and how far it is from the emulator's and from the quantized network's."""
    if "outputs" not in report:
        raise UserError("board.json: lacks the outputs that meta.json names; run again")
    summary, step = None, images_at_a_time(images.shape[1:])
    for start in range(0, len(images), step):
        values = named_values(
            emulator, emulator.run(_quantized(emulator, meta, images[start : start + step]))
        )
        if summary is None:
            shapes = {name: array.shape[1:] for name, array in values.items()}
            summary = OutputsSummary(shapes, len(images), total)
        summary.add(values)
    emulated = {} if summary is None else summary.record()
    distance = distances(emulated, report["outputs"], ("the emulator", "the board"))
    given = {name: report["outputs"][name] for name in emulated}  # board.json has them sorted
    found = {"outputs": given, "outputs_with_emulator": distance}
    if quantized is not None:
        names = "the quantized network", "the board"
        found["outputs_with_quantized"] = distances(quantized["outputs"], given, names)
    return found
