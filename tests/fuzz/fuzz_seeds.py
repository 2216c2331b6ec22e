"""Valid files for the fuzz targets, as bytes, made by our own writers."""

import functools
import gzip
import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[2]
for folder in (REPO, REPO / "tests", REPO / "tests/quantize", REPO / "tests/xir"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def csv_seeds():
    from dpuflow.datasets.image_csv import csv_text

    header = b"label,pixel1,pixel2,pixel3,pixel4\n"
    random = np.random.default_rng(1)
    body = csv_text(random.integers(0, 256, (6, 2, 2, 1), np.uint8), np.array([0, 24, 8, 10, 3, 3], np.uint8))
    text = header + body
    return [text, text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + text, text[:-1]]


def csv_form_seeds():
    """The rows of `csv_seeds` as other people write them."""
    _, *rows = csv_seeds()[0].splitlines()
    fields = [row.split(b",") for row in rows]
    last = [[*row[1:], row[0]] for row in fields]
    indexed = [[b"%d" % index, *row] for index, row in enumerate(fields)]

    def text(rows, separator=b",", first=()):
        return b"".join(separator.join(row) + b"\n" for row in (*first, *rows))

    names = [b"a", b"b", b"c", b"d"]
    return [
        text(last, b";", [[*names, b"class"]]) + b"\n",
        text([[*row, b""] for row in fields], b"\t", [[b"y", *names]]),
        text(indexed, first=[[b"", b"label", *names]]).replace(b"\n", b"\r\n"),
        text([[b'"' + field + b'"' for field in row] for row in fields], first=[[b'"label"', *names]]),
        text([[field + b".0" for field in row] for row in fields], first=[[b"label", *names]]),
        text(
            [[b" %.3e" % float(field) for field in row] for row in indexed],
            first=[[b"id", b"Target", *names]],
        ),
        text(fields, first=[[b"label", b"0", b"1", b"2", b"3"]])[:-1],
    ]


def gz_seeds():
    text = csv_seeds()[0]
    stored = gzip.compress(text, 0, mtime=0)
    return [
        stored,
        gzip.compress(text, mtime=0),
        stored + gzip.compress(text.partition(b"\n")[2], 0, mtime=0),
    ]


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


@functools.cache
def graph_seeds():
    from frozen_networks import GraphMaker

    from dpuflow.tfgraph.graph_def import add_constant, add_node

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

    def ints(g, name, *values):
        return add_constant(g.graph, name, np.array(values, np.int32))

    def blocks(g):
        """A dilated convolution in blocks, picked channels, a dense layer on a map, a sum of three."""
        picked = g.op("GatherV2", g.input, ints(g, "order", 1, 0), add_constant(g.graph, "last", np.int32(3)))
        block = ints(g, "block", 2, 2)
        pads = add_constant(g.graph, "pads", np.array([[2, 2], [2, 2]], np.int32))
        x = g.op("SpaceToBatchND", picked, block, pads)
        x = g.op("Conv2D", x, g.constant(3, 3, 2, 4), strides=[1, 1, 1, 1], padding="VALID")
        crops = add_constant(g.graph, "crops", np.array([[0, 1], [0, 0]], np.int32))
        x = g.op("BatchToSpaceND", g.op("Relu", x), block, crops)
        rows = g.op("MatMul", g.op("Reshape", x, ints(g, "rows", -1, 4)), g.constant(4, 3))
        x = g.op("Reshape", rows, ints(g, "map", -1, 5, 6, 3))
        x = g.op("AddN", x, x, g.op("Relu", x))
        return g.dense(g.op("Max", x, ints(g, "axes", 1, 2)), 3, 4)

    def switched(g):
        """Both sides of a training switch, dropout on the one, and a split of the channels."""
        switch = add_node(g.graph, "Placeholder", "is_training", dtype=("type", 10), shape=("shape", []))
        side = g.op("Switch", g.input, switch)
        noise = g.op("RandomUniform", g.op("Shape", f"{side}:1"), dtype=("type", 1))
        keep = add_node(g.graph, "Placeholder", "keep_prob", dtype=("type", 1), shape=("shape", []))
        dropped = g.op("Mul", f"{side}:1", g.op("Floor", g.op("Add", keep, noise)))
        x = g.op("Merge", side, dropped)
        parts = g.op("Split", add_constant(g.graph, "last", np.int32(3)), x, num_split=2)
        x = g.op("Concat", add_constant(g.graph, "axis", np.int32(3)), f"{parts}:1", g.op("Relu", parts))
        return g.dense(g.flatten(x, 72), 72, 4)

    return [written(build) for build in (plain, branches, arithmetic, blocks, switched)]


@functools.cache
def xmodel_seeds():
    from hand_network import hand_network
    from small_graph import small_graph

    from dpuflow.device.targets import load_targets
    from dpuflow.dpuczdx8g.compile_report import compile_reference

    small = small_graph()
    small.attrs.update({"input_subtract": 127.5, "input_divide": 127.5})
    compiled = compile_reference(hand_network(), load_targets()["kv260"], on_cpu="allow")
    return [small.to_bytes(), compiled.graph.to_bytes(), compiled.quantized_graph.to_bytes()]


@functools.cache
def code_seeds():
    from hand_network import hand_network

    from dpuflow.device.targets import load_targets
    from dpuflow.dpuczdx8g.compile_report import compile_reference
    from dpuflow.dpuczdx8g.native.compile import compile_graph

    target = load_targets()["kv260"]
    graph = compile_reference(hand_network(), target, on_cpu="allow").graph
    compile_graph(graph)
    return [graph.to_bytes()]


@functools.cache
def listing_seeds():
    from dpuflow.dpuczdx8g.isa.shell import listing
    from dpuflow.xir import Graph

    text = listing(Graph.from_bytes(code_seeds()[0]), "x").splitlines()
    kinds = {line.split()[0]: line for line in text if line}
    return ["\n".join(kinds.values()).encode() + b"\n", "\n".join(text[:12]).encode()]


@functools.cache
def quantized_seeds():
    from hand_network import hand_network

    from dpuflow.network.quantized_file import write_quantized

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.h5"
        write_quantized(path, hand_network())
        return [path.read_bytes()]


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


def config_seeds():
    import yaml

    base = (REPO / "config/config.yaml").read_bytes()
    merged = yaml.safe_load(base)
    for name, section in yaml.safe_load((REPO / "config/vitis_ai.yaml").read_bytes()).items():
        merged[name] = {**merged[name], **section} if isinstance(section, dict) else section
    return [base, yaml.safe_dump(merged).encode()]


def predictions_seeds():
    from dpuflow.accuracy.predictions import predictions_csv

    labels, answers = np.array([0, 1, 2, 1]), np.array([0, 1, 1, 2])
    text = predictions_csv(labels, answers, np.eye(3)[answers], ["A", 'B "b", c', "Ü"])
    return [text.encode()]


def record_seeds():
    from dpuflow.accuracy.evaluation import accuracy_record

    labels = np.array([0, 1, 2, 1])
    record = accuracy_record("board", "test", labels, np.array([0, 1, 1, 1]), ["a", "b", "c"])
    record |= {"runner": "ssh", "origin": "measured", "how": "measured on a board"}
    return [json.dumps(record, indent=1).encode()]


def output_seeds():
    stream = io.BytesIO()
    np.save(stream, np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3))
    return [stream.getvalue()]


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
