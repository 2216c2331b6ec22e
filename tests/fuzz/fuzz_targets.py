"""What is fuzzed: for each parser its valid files, made by our own writers, and how a file is read.

`read(path)` must end in a UserError that names the file or return normally; where an independent
way to the same answer exists (a plain reading of the rules, a writer, a second implementation), it
asserts that both agree. Everything else that it raises is a finding.
"""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import fuzz_models as models
import fuzz_pictures as pictures
import numpy as np
from fuzz_seeds import (
    REPO,
    code_seeds,
    config_seeds,
    csv_form_seeds,
    csv_seeds,
    dataset_seeds,
    graph_seeds,
    gz_seeds,
    listing_seeds,
    output_seeds,
    picture_seeds,
    predictions_seeds,
    quantized_seeds,
    record_seeds,
    xmodel_seeds,
    zip_seeds,
)

LETTERS = [label for label in range(25) if label != 9]
SMALL = 2**16
"""Elements up to which an accepted graph is also executed: a large one is no mistake, but takes its time."""


@dataclass(frozen=True)
class Target:
    """One parser under test.

    Attributes
    ----------
    name : what the command line and `Sandbox` call it.
    parser : what the `fuzz` mark and docs/reliability.md call it.
    file : name of the file that it reads.
    seeds : () -> list of bytes, valid files.
    read : path -> None.
    """

    name: str
    parser: str
    file: str
    seeds: Callable
    read: Callable


# -- CSV ------------------------------------------------------------------------------------


def plain_csv(data):
    """Rows of a CSV of 2x2 images read field by field, or None where a rule is broken."""
    header, found, body = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    if header.rstrip(b"\r\n") != b"label,pixel1,pixel2,pixel3,pixel4" or not found or not body:
        return None
    body += b"" if body.endswith(b"\n") else b"\n"  # the last line end may be missing
    rows = [line.split(b",") for line in body.replace(b"\r\n", b"\n")[:-1].split(b"\n")]
    for row in rows:
        if len(row) != 5 or not all(re.fullmatch(rb"[0-9]{1,3}", field) for field in row):
            return None
        if int(row[0]) not in LETTERS or max(map(int, row)) > 255:
            return None
    return [[int(field) for field in row] for row in rows]


def read_csv(path):
    from dpuflow.base.errors import UserError
    from dpuflow.datasets.image_csv import read_image_csv

    data = path.read_bytes()
    expected = plain_csv(data)
    try:
        images, labels = read_image_csv(path, height=2, width=2, labels_allowed=LETTERS)
    except UserError:
        assert expected is None, "a good file was refused"
        raise
    assert np.column_stack([labels, images.reshape(len(images), -1)]).tolist() == expected


def read_csv_form(path):
    """Each row that is read stands in its line in this order, the label before or after the pixels."""
    from dpuflow.datasets.csv_rows import form_of, other_blocks
    from dpuflow.datasets.image_csv import ImageShape

    form = form_of(path, None, ImageShape(2, 2), LETTERS)
    blocks = list(other_blocks(path, form, LETTERS))
    labels = np.concatenate([block for _, block in blocks]).tolist()
    images = np.concatenate([block for block, _ in blocks]).reshape(-1, 4).tolist()
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip(b" \t\r\n").split(b"\n")
    lines = lines[form.names is not None :]
    assert len(lines) == len(labels)
    for line, label, pixels in zip(lines, labels, images, strict=True):
        texts = [text.strip(b' "\r\t') for text in re.split(b"[,;\t]", line)]
        found = [float(text) if re.fullmatch(rb"[-+.eE0-9]+", text) else None for text in texts]
        kept = [value for index, value in enumerate(found) if index not in (*form.ignored, form.label)]
        assert kept[:4] == pixels and all(text == b"" for text in texts[form.columns :])
        assert found[form.label] == label in LETTERS


# -- gz, zip ----------------------------------------------------------------------------------


def read_gz(path):
    from dpuflow.datasets.image_csv import count_rows, read_image_csv

    images, labels = read_image_csv(path, height=2, width=2, labels_allowed=LETTERS)
    # whoever reads it differently reads the same
    with gzip.open(path) as stream:
        expected = plain_csv(stream.read())
    assert np.column_stack([labels, images.reshape(len(images), -1)]).tolist() == expected
    assert count_rows(path)[0] == len(labels)


def read_zip(path):
    from dpuflow.datasets.sources import obtain

    out = path.parent / "out"
    entry = {"source": {"kind": "files", "zip": str(path)}, "image": {"height": 2, "width": 2}}
    for part in ("train", "test"):
        (out / f"{part}.csv").unlink(missing_ok=True)
    obtain(entry, out / "train.csv", out / "test.csv")
    assert sorted(p.name for p in out.iterdir()) == ["test.csv", "train.csv"]
    for part in ("train", "test"):
        assert plain_csv((out / f"{part}.csv").read_bytes()) is not None


# -- GraphDef ---------------------------------------------------------------------------------


def read_graph(path):
    from dpuflow.base.errors import about
    from dpuflow.quantize.engine import run_float
    from dpuflow.quantize.folding import fold
    from dpuflow.tfgraph.graph_reader import read_network

    network = read_network(path)
    sizes = [layer.shape for layer in network.layers]
    assert all(all(type(n) is int and n > 0 for n in shape) for shape in sizes), sizes
    if sum(np.prod(shape, dtype=float) for shape in sizes) < SMALL:
        with about(path):
            folded, _ = fold(network)
        run_float(folded, np.zeros((2, *folded.input.shape), np.float32))


# -- xmodel, machine code ---------------------------------------------------------------------


def read_xmodel(path):
    from dpuflow.emulator import Emulator
    from dpuflow.xir import Graph
    from dpuflow.xir.describe import describe
    from dpuflow.xir.difference import differences
    from dpuflow.xir.svg import draw
    from dpuflow.xir.validate import validate

    describe(Graph.load(path, check=False))
    graph = Graph.load(path)
    validate(graph)
    draw(graph)
    again = Graph.from_bytes(graph.to_bytes())
    assert again.to_bytes() == graph.to_bytes()
    assert differences(graph, again) == []
    if sum(np.prod(op.tensor.shape, dtype=float) for op in graph.ops) > SMALL:
        return
    with Emulator(path, threads=1) as fast, Emulator(path, threads=1, use_native=False) as slow:
        images = np.arange(2 * np.prod(fast.input.tensor.shape[1:]), dtype=np.int64) % 256
        images = images.astype(np.uint8).reshape(2, *fast.input.tensor.shape[1:])
        batch = fast.quantize_input(images)
        same(fast.run(batch), slow.run(batch))
        for part in fast.parts:
            if part.device != "USER":
                given = {op.name: np.zeros((1, *op.tensor.shape[1:]), np.int8) for op in part.inputs}
                fast.run_subgraph(part.name, given)


def same(a, b):
    """Equal values, exactly."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    else:
        np.testing.assert_array_equal(a, b)


def read_code(path):
    """An xmodel with machine code: list it, check it, run it."""
    from dpuflow.dpuczdx8g.isa.assembly import parse_listing
    from dpuflow.dpuczdx8g.isa.code import encode
    from dpuflow.dpuczdx8g.isa.program import read_programs
    from dpuflow.dpuczdx8g.isa.runner import IsaRunner
    from dpuflow.dpuczdx8g.isa.shell import listing
    from dpuflow.xir import Graph

    graph = Graph.load(path)
    text = listing(graph, path)
    codes = [program.code for program in read_programs(graph, path)]
    assert [encode(instructions) for _, instructions in parse_listing(text)] == codes
    runner = IsaRunner(path, path)
    shape = runner.emulator.input.tensor.shape[1:]
    if sum(np.prod(op.tensor.shape, dtype=float) for op in graph.ops) < SMALL:
        first = runner.run(np.zeros((2, *shape), np.int8))
        # every order that the dependency masks allow gives the same
        same(first, runner.run(np.zeros((2, *shape), np.int8), interleave=1))


def read_listing(path):
    from dpuflow.dpuczdx8g.isa.assembly import read_listing
    from dpuflow.dpuczdx8g.isa.code import decode, encode

    for _, instructions in read_listing(path):
        assert decode(encode(instructions)) == instructions


# -- HDF5 -------------------------------------------------------------------------------------


def read_quantized_model(path):
    from dpuflow.base.errors import about
    from dpuflow.device.targets import load_targets
    from dpuflow.dpuczdx8g.compile_report import compile_reference
    from dpuflow.network.quantized_file import read_quantized, write_quantized

    quantized = read_quantized(path)
    again = path.parent / "again.h5"
    write_quantized(again, quantized)
    first = again.read_bytes()
    write_quantized(again, read_quantized(again))
    assert again.read_bytes() == first
    with about(path):
        compile_reference(quantized, load_targets()["kv260"], on_cpu="allow").graph.to_bytes()


def read_dataset_file(path):
    from dpuflow.accuracy.evaluation import accuracy_record
    from dpuflow.datasets.dataset_file import SPLITS, read_dataset

    dataset = read_dataset(path)
    for name in SPLITS:
        images, labels = dataset.subset(name)
        assert images.dtype == labels.dtype == np.uint8
        assert images.shape == (len(labels), *dataset.shape)
        assert np.array_equal(dataset.images[dataset.splits[name]], images)
        if len(labels):
            accuracy_record("keras", name, labels, np.zeros(len(labels), int), dataset.class_names)
    assert all(type(name) is str for name in dataset.class_names)
    assert dataset.outputs == len(dataset.class_names) and set(dataset.present) <= set(range(dataset.outputs))


# -- configuration ----------------------------------------------------------------------------


def read_config(path):
    import yaml

    from dpuflow.base.errors import UserError
    from dpuflow.datasets.image_csv import ImageShape
    from dpuflow.datasets.labels import labels_of
    from dpuflow.workflow.config import Settings, check, expand_runs
    from dpuflow.workflow.run_files import all_result_files

    try:
        config = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # Snakemake reads the file, and refuses it
        raise UserError(f"{path.name}: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path.name}: no mapping")
    check(config, REPO / "config/config.schema.yaml")
    settings, runs = Settings(config), expand_runs(config)
    for run in runs:
        entry = settings.dataset(run.dataset)
        labels_of(entry.get("class_names"))
        ImageShape.of_config(entry.get("image"))
        scaling = settings.input_scaling(run.model)
        assert {"subtract", "divide"} <= scaling.keys()
        assert isinstance(settings.seed(run.model), int)
        settings.hardware(run.target)
        re.compile(settings.models_from("layers"))
    all_result_files(settings, runs)
    json.dumps(settings.used_by(runs))


# -- predictions, records, outputs, pictures --------------------------------------------------


def read_predictions_file(path):
    from dpuflow.accuracy.predictions import read_predictions

    labels, predictions = read_predictions(path)
    assert labels.dtype == predictions.dtype == np.int64
    assert labels.shape == predictions.shape and labels.ndim == 1
    if len(labels):
        assert min(labels.min(), predictions.min()) >= 0


def read_accuracy_record(path):
    from dpuflow.accuracy.evaluation import agreement, check_same_images, read_accuracy

    record = read_accuracy(path)
    check_same_images([record, record])
    agreement(record, record)
    assert 0 <= record["correct"] <= record["images"] == len(record["predictions"])
    assert record["accuracy"] == record["correct"] / record["images"]
    low, high = record["interval95"]
    assert 0 <= low <= record["accuracy"] <= high <= 1
    assert sum(row["correct"] for row in record["per_class"]) == record["correct"]


def read_output_array(path):
    from dpuflow.vitis_ai.outputs import read_outputs

    outputs = read_outputs(path, 4)
    assert outputs.shape[0] == 4 and outputs.ndim == 2 and outputs.shape[1] and np.isfinite(outputs).all()
    assert outputs.argmax(axis=1).shape == (4,)


def read_picture_file(path):
    from dpuflow.datasets.picture_files import read_picture
    from dpuflow.predict.answers import answers_page

    for shape in ((5, 4, 1), (4, 5, 3)):
        picture = read_picture(path, shape)
        assert picture.pixels.shape == shape and picture.pixels.dtype == np.uint8
    answers_page(["x"], [picture], [[]], {}, True, False)


TARGETS = {
    target.name: target
    for target in (
        Target("csv", "CSV", "images.csv", csv_seeds, read_csv),
        Target("csv_form", "CSV", "images.csv", csv_form_seeds, read_csv_form),
        Target("gz", "zip and gz", "images.csv.gz", gz_seeds, read_gz),
        Target("zip", "zip and gz", "archive.zip", zip_seeds, read_zip),
        Target("graph_def", "GraphDef", "graph.pb", graph_seeds, read_graph),
        Target("xmodel", "xmodel", "model.xmodel", xmodel_seeds, read_xmodel),
        Target("machine_code", "DPU machine code", "code.xmodel", code_seeds, read_code),
        Target("listing", "DPU machine code", "code.isa", listing_seeds, read_listing),
        Target(
            "quantized", "quantized_model.h5", "quantized_model.h5", quantized_seeds, read_quantized_model
        ),
        Target("dataset", "dataset.h5", "dataset.h5", dataset_seeds, read_dataset_file),
        Target("config", "configuration", "config.yaml", config_seeds, read_config),
        Target("predictions", "predictions.csv", "predictions.csv", predictions_seeds, read_predictions_file),
        Target("record", "accuracy record", "accuracy.json", record_seeds, read_accuracy_record),
        Target("outputs", "output arrays", "outputs.npy", output_seeds, read_output_array),
        Target("picture", "pictures", "picture.png", picture_seeds, read_picture_file),
        Target("onnx", "ONNX", "model.onnx", models.onnx_seeds, models.read_onnx_model),
        Target("qdq", "quantized ONNX", "model.onnx", models.qdq_seeds, models.read_qdq),
        Target(
            "quantized_xmodel", "quantized xmodel", "q.xmodel",
            models.quantized_xmodel_seeds, models.read_quantized_xmodel,
        ),
        Target(
            "foreign_xmodel", "compiled xmodels of others", "theirs.xmodel",
            models.foreign_xmodel_seeds, models.read_foreign_xmodel,
        ),
        Target(
            "saved_model", "SavedModel", "saved/saved_model.pb",
            models.saved_model_seeds, models.read_saved_model,
        ),
        Target("keras_h5", "Keras H5", "model.h5", models.keras_h5_seeds, models.read_keras),
        Target("keras3", "Keras 3 archive", "model.keras", models.keras3_seeds, models.read_keras),
        Target(
            "pictures_zip", "zip of pictures", "set/pictures.zip",
            pictures.pictures_zip_seeds, pictures.read_pictures_zip,
        ),
        Target("list", "CSV of paths", "set/list.csv", pictures.list_seeds, pictures.read_list),
        Target("voc", "VOC", "voc/a.xml", pictures.voc_seeds, pictures.read_voc),
        Target("coco", "COCO", "coco/boxes.json", pictures.coco_seeds, pictures.read_coco),
        Target("yolo", "YOLO labels", "yolo/a.txt", pictures.yolo_seeds, pictures.read_yolo),
    )
}  # fmt: skip
