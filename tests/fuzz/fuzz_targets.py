"""What is fuzzed: for each parser its valid files, made by our own writers, and how a file is read.

`read(path)` must end in a UserError that names the file or return normally; where an independent
way to the same answer exists (a plain reading of the rules, a writer, a second implementation), it
asserts that both agree. Everything else that it raises is a finding.
"""

import functools
import gzip
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[2]
for folder in (REPO, REPO / "tests", REPO / "tests/quantize", REPO / "tests/xir"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

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


def csv_seeds():
    from dpuflow.datasets.image_csv import csv_text

    header = b"label,pixel1,pixel2,pixel3,pixel4\n"
    random = np.random.default_rng(1)
    body = csv_text(random.integers(0, 256, (6, 2, 2, 1), np.uint8), np.array([0, 24, 8, 10, 3, 3], np.uint8))
    text = header + body
    return [text, text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + text, text[:-1]]


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
    from dpuflow.datasets.image_csv import read_image_csv
    from dpuflow.errors import UserError

    data = path.read_bytes()
    expected = plain_csv(data)
    try:
        images, labels = read_image_csv(path, height=2, width=2, labels_allowed=LETTERS)
    except UserError:
        assert expected is None, "a good file was refused"
        raise
    assert np.column_stack([labels, images.reshape(len(images), -1)]).tolist() == expected


# -- gz, zip ----------------------------------------------------------------------------------


def gz_seeds():
    text = csv_seeds()[0]
    stored = gzip.compress(text, 0, mtime=0)
    return [
        stored,
        gzip.compress(text, mtime=0),
        stored + gzip.compress(text.partition(b"\n")[2], 0, mtime=0),
    ]


def read_gz(path):
    from dpuflow.datasets.image_csv import count_rows, read_image_csv

    images, labels = read_image_csv(path, height=2, width=2, labels_allowed=LETTERS)
    # whoever reads it differently reads the same
    with gzip.open(path) as stream:
        expected = plain_csv(stream.read())
    assert np.column_stack([labels, images.reshape(len(images), -1)]).tolist() == expected
    assert count_rows(path)[0] == len(labels)


def zip_seeds():
    train, test = csv_seeds()[0], csv_seeds()[1]

    def packed(members, method):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as bundle:
            for name, data in members.items():
                bundle.writestr(zipfile.ZipInfo(name), data, method)
        return stream.getvalue()

    return [
        packed({"sign_mnist_train.csv": train, "sign_mnist_test.csv": test}, zipfile.ZIP_STORED),
        packed({"a/train.csv": train, "a/test.csv": test, "a/b/readme.txt": b"x"}, zipfile.ZIP_DEFLATED),
        packed({"train.csv.gz": gzip.compress(train, mtime=0), "test.csv": test}, zipfile.ZIP_STORED),
        packed({"train.csv": train, "test.csv": test}, zipfile.ZIP_BZIP2),
        packed({"train.csv": train, "test.csv": test}, zipfile.ZIP_LZMA),
    ]


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


@functools.cache
def graph_seeds():
    from frozen_networks import GraphMaker

    from dpuflow.tfgraph.graph_def import add_constant

    def written(build):
        g = GraphMaker((6, 6, 2))
        with tempfile.TemporaryDirectory() as folder:
            return g.write(Path(folder) / "g.pb", build(g)).read_bytes()

    def plain(g):
        x = g.pool(g.op("Relu", g.batch_norm(g.conv(g.input, 2, 3), 3)))
        return g.dense(g.flatten(x, 27), 27, 4)

    def branches(g):
        x = g.conv(g.input, 2, 4, bias=False)
        y = g.conv(g.op("Relu6", x), 4, 4, depthwise=True)
        z = g.op("ConcatV2", g.op("AddV2", x, y), y, add_constant(g.graph, "axis", np.array(3, np.int32)))
        z = g.op(
            "Pad", z, add_constant(g.graph, "pads", np.array([[0, 0], [1, 0], [0, 1], [0, 0]], np.int32))
        )
        z = g.op("Conv2D", z, g.constant(2, 2, 8, 3), strides=[1, 1, 1, 1], padding="VALID")
        z = g.op("LeakyRelu", z, alpha=0.1)
        axes = add_constant(g.graph, "axes", np.array([1, 2], np.int32))
        return g.dense(g.op("Mean", z, axes), 3, 4)

    def arithmetic(g):
        scale = g.op(
            "Mul", g.op("Rsqrt", g.op("Add", g.constant(2, positive=True), g.constant())), g.constant(2)
        )
        x = g.op("Sub", g.op("Mul", g.input, scale), g.constant(1, 1, 1, 2))
        shape = g.op("Shape", x)
        cut = [add_constant(g.graph, f"cut{i}", np.array([i], np.int32)) for i in (0, 1)]
        first = g.op("StridedSlice", shape, cut[0], cut[1], cut[1], shrink_axis_mask=1)
        count = add_constant(g.graph, "count", np.array(72, np.int32))
        flat = g.op(
            "Reshape", g.op("Maximum", x, g.op("Identity", g.constant(scale=0))), g.op("Pack", first, count)
        )
        return g.dense(flat, 72, 4)

    return [written(plain), written(branches), written(arithmetic)]


def read_graph(path):
    from dpuflow.errors import about
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


@functools.cache
def xmodel_seeds():
    from hand_network import hand_network
    from small_graph import small_graph

    from dpuflow.compiler.compile_report import compile_reference
    from dpuflow.targets import load_targets

    small = small_graph()
    small.attrs.update({"input_subtract": 127.5, "input_divide": 127.5})
    compiled = compile_reference(hand_network(), load_targets()["kv260"], on_cpu="allow")
    return [small.to_bytes(), compiled.graph.to_bytes(), compiled.quantized_graph.to_bytes()]


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


@functools.cache
def code_seeds():
    from hand_network import hand_network

    from dpuflow.compiler.compile_report import compile_reference
    from dpuflow.native.compile import compile_graph
    from dpuflow.targets import load_targets

    target = load_targets()["kv260"]
    graph = compile_reference(hand_network(), target, on_cpu="allow").graph
    compile_graph(graph)
    return [graph.to_bytes()]


def read_code(path):
    """An xmodel with machine code: list it, check it, run it."""
    from dpuflow.isa.__main__ import listing
    from dpuflow.isa.assembly import parse_listing
    from dpuflow.isa.code import encode
    from dpuflow.isa.program import read_programs
    from dpuflow.isa.runner import IsaRunner
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


@functools.cache
def listing_seeds():
    from dpuflow.isa.__main__ import listing
    from dpuflow.xir import Graph

    text = listing(Graph.from_bytes(code_seeds()[0]), "x").splitlines()
    kinds = {line.split()[0]: line for line in text if line}
    return ["\n".join(kinds.values()).encode() + b"\n", "\n".join(text[:12]).encode()]


def read_listing(path):
    from dpuflow.isa.assembly import read_listing
    from dpuflow.isa.code import decode, encode

    for _, instructions in read_listing(path):
        assert decode(encode(instructions)) == instructions


# -- HDF5 -------------------------------------------------------------------------------------


@functools.cache
def quantized_seeds():
    from hand_network import hand_network

    from dpuflow.quantized_file import write_quantized

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.h5"
        write_quantized(path, hand_network())
        return [path.read_bytes()]


def read_quantized_model(path):
    from dpuflow.compiler.compile_report import compile_reference
    from dpuflow.errors import about
    from dpuflow.quantized_file import read_quantized, write_quantized
    from dpuflow.targets import load_targets

    quantized = read_quantized(path)
    again = path.parent / "again.h5"
    write_quantized(again, quantized)
    first = again.read_bytes()
    write_quantized(again, read_quantized(again))
    assert again.read_bytes() == first
    with about(path):
        compile_reference(quantized, load_targets()["kv260"], on_cpu="allow").graph.to_bytes()


@functools.cache
def dataset_seeds():
    from dpuflow.datasets.dataset_file import build_dataset
    from dpuflow.datasets.image_csv import write_image_csv
    from dpuflow.datasets.labels import Labels

    random = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, count in (("train.csv", 40), ("test.csv", 12)):
            files.append(Path(folder) / name)
            write_image_csv(
                files[-1], random.integers(0, 256, (count, 3, 4, 1), np.uint8), np.arange(count) % 3
            )
        from dpuflow.datasets.image_csv import ImageShape

        path = Path(folder) / "d.h5"
        build_dataset(
            path, *files, Labels(("a", "b", "c"), (0, 1, 2)), shape=ImageShape(3, 4),
            calibration={"images": 6}, origins={"train": ("0" * 64, "x"), "test": ("1" * 64, "")},
        )  # fmt: skip
        return [path.read_bytes()]


def read_dataset_file(path):
    from dpuflow.datasets.dataset_file import SPLITS, read_dataset
    from dpuflow.evaluation import accuracy_record

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


def config_seeds():
    import yaml

    base = (REPO / "config/config.yaml").read_bytes()
    merged = yaml.safe_load(base)
    for name, section in yaml.safe_load((REPO / "config/vitis_ai.yaml").read_bytes()).items():
        merged[name] = {**merged[name], **section} if isinstance(section, dict) else section
    return [base, yaml.safe_dump(merged).encode()]


def read_config(path):
    import yaml

    from dpuflow.config import Settings, check, expand_runs
    from dpuflow.datasets.image_csv import ImageShape
    from dpuflow.datasets.labels import labels_of
    from dpuflow.errors import UserError
    from dpuflow.run_files import all_result_files

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


def predictions_seeds():
    from dpuflow.predictions import predictions_csv

    labels, answers = np.array([0, 1, 2, 1]), np.array([0, 1, 1, 2])
    text = predictions_csv(labels, answers, np.eye(3)[answers], ["A", 'B "b", c', "Ü"])
    return [text.encode()]


def read_predictions_file(path):
    from dpuflow.predictions import read_predictions

    labels, predictions = read_predictions(path)
    assert labels.dtype == predictions.dtype == np.int64
    assert labels.shape == predictions.shape and labels.ndim == 1
    if len(labels):
        assert min(labels.min(), predictions.min()) >= 0


def record_seeds():
    from dpuflow.evaluation import accuracy_record

    labels = np.array([0, 1, 2, 1])
    record = accuracy_record("board", "test", labels, np.array([0, 1, 1, 1]), ["a", "b", "c"])
    return [json.dumps(record, indent=1).encode()]


def read_accuracy_record(path):
    from dpuflow.evaluation import agreement, check_same_images, read_record

    record = read_record(path)
    check_same_images([record, record])
    agreement(record, record)
    assert 0 <= record["correct"] <= record["images"] == len(record["predictions"])
    assert record["accuracy"] == record["correct"] / record["images"]
    low, high = record["interval95"]
    assert 0 <= low <= record["accuracy"] <= high <= 1
    assert sum(row["correct"] for row in record["per_class"]) == record["correct"]


def output_seeds():
    stream = io.BytesIO()
    np.save(stream, np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3))
    return [stream.getvalue()]


def read_output_array(path):
    from dpuflow.vitis_ai.outputs import read_outputs

    outputs = read_outputs(path, 4)
    assert outputs.shape[0] == 4 and outputs.ndim == 2 and outputs.shape[1] and np.isfinite(outputs).all()
    assert outputs.argmax(axis=1).shape == (4,)


@functools.cache
def picture_seeds():
    from PIL import Image

    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (9, 7, 4), np.uint8)
    files = []
    for mode, kind, options in (
        ("L", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {"transparency": 3}),
        ("I;16", "PNG", {}),
        ("RGB", "JPEG", {}),
        ("CMYK", "JPEG", {"progressive": True}),
    ):
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        elif mode != "RGBA":
            image = image.convert("RGB").convert(mode)
        exif = image.getexif()
        exif[0x0112] = 6
        stream = io.BytesIO()
        image.save(stream, kind, exif=exif, **options)
        files.append(stream.getvalue())
    return files


def read_picture_file(path):
    from dpuflow.predict.answers import answers_page
    from dpuflow.predict.picture_files import read_picture

    for shape in ((5, 4, 1), (4, 5, 3)):
        picture = read_picture(path, shape)
        assert picture.pixels.shape == shape and picture.pixels.dtype == np.uint8
    answers_page(["x"], [picture], [[]], {}, True, False)


TARGETS = {
    target.name: target
    for target in (
        Target("csv", "CSV", "images.csv", csv_seeds, read_csv),
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
    )
}
