"""Made-up runs for the tests of the report: letters drawn with noise and invented stage results."""

import functools
import json
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.base.hdf5 import new_hdf5
from dpuflow.datasets.dataset_file import FORMAT
from dpuflow.dpuczdx8g.compile_report import NO_INSTRUCTIONS
from dpuflow.dpuczdx8g.timing import HOST, TIMING
from dpuflow.records import write_record
from dpuflow.report.accuracy import write_report
from dpuflow.report.provenance import provenance

LETTERS = [chr(ord("A") + i) for i in range(25)]
PRESENT = [i for i in range(25) if i != 9]
LAYERS = [
    ("input_1", "input"),
    ("conv2d", "conv"),
    ("max_pooling2d", "max_pool"),
    ("conv2d_1", "conv"),
    ("conv2d_2", "conv"),
    ("flatten", "flatten"),
    ("dense", "dense"),
    ("dense_1", "dense"),
]


def draw_letter(letter, random):
    """A noisy 28 x 28 picture of a printed letter: plainly test data, not a photograph."""
    picture = Image.new("L", (28, 28), 40)
    ImageDraw.Draw(picture).text(
        (random.integers(6, 13), random.integers(4, 11)), letter, fill=210, font_size=14
    )
    noisy = np.asarray(picture, np.int16) + random.integers(-25, 26, (28, 28))
    return noisy.clip(0, 255).astype(np.uint8)[..., None]


@functools.cache
def make_pictures(images, seed):
    """(labels (N,), pictures (N, 28, 28, 1)) of the 24 letters in random order."""
    random = np.random.default_rng(seed)
    labels = np.array([PRESENT[i % 24] for i in range(images)])[random.permutation(images)]
    return labels, np.stack([draw_letter(LETTERS[label], random) for label in labels])


def make_dataset(path, images=480, seed=0):
    """dataset.h5 with `images` test images of 24 letters; returns their labels."""
    labels, pictures = make_pictures(images, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.arange(10, 10 + images)
    splits = {
        "train": np.arange(6),
        "validation": np.arange(6, 10),
        "test": rows,
        "calibration": np.arange(3),
    }
    with new_hdf5(path) as file:
        # ten other rows come first: positions in the split are not rows of the file
        file["images"] = np.concatenate([np.zeros((10, 28, 28, 1), np.uint8), pictures])
        file["labels"] = np.concatenate([np.zeros(10), labels]).astype(np.uint8)
        file.create_dataset("class_names", data=np.array(LETTERS, dtype=object), dtype=h5py.string_dtype())
        for name, members in splits.items():
            file[f"split/{name}"] = members
        file.attrs.update({"format": FORMAT, "classes": 25, "present": PRESENT, "train_images_in_test": 0})
        file.attrs.update({"test_sha256": "ab" * 32, "test_origin": "made up by tests/report/conftest.py"})
    return labels


def confuse(labels, errors, random):
    """Predictions with `errors` mistakes at random positions."""
    given = labels.copy()
    for position in random.choice(len(labels), errors, replace=False):
        given[position] = random.choice([i for i in PRESENT if i != labels[position]])
    return given


def quantization(random):
    """A quantization.json with ranges, some of them beyond INT8."""
    layers = []
    for index, (name, op) in enumerate(LAYERS):
        high = float(np.round(random.uniform(0.8, 12), 3)) if index else 1.0
        fix = int(np.floor(np.log2(127 / high))) + int(index == 3)
        row = {"layer": name, "op": op, "input_fix_point": 5, "fix_point": fix}
        row |= {"float_min": 0.0 if index % 2 == 0 else -high / 3, "float_max": high}
        row |= {"saturated": 0.0123 if index == 3 else 0.0}
        if op in ("conv", "dense"):
            row |= {"weights_fix_point": 7, "bias_fix_point": 6, "shift_cut": 12 - fix, "shift_bias": 6}
            row["sqnr_db"] = 22.0 + 3 * index
            row["alone"] = {"divergence": 0.01, "agreement": 0.99, "accuracy_change": -0.4 / (index + 1)}
        layers.append(row)
    record = {"quantizer": "reference", "settings": {"method": "min_diffs"}}
    record["input_scaling"] = {"subtract": 0, "divide": 255}
    record["nodes"] = {"input": "input_1", "output": "softmax"}
    record["calibration"] = {"images": 320, "images_sha256": "ab" * 32}
    record["adjustments"] = [{"tensor": "dense/bias", "from": 11, "to": 10, "why": "shift_bias was -1"}]
    record["folding"] = [{"layer": "batch_norm", "into": "conv2d", "how": "folded"}]
    record["steps"] = [{"step": "positions", "divergence": 0.0123, "agreement": 0.994}]
    record["votes"] = {"conv2d": {"3": 7, "4": 3}, "dense": {"4": 10}}
    record["diagnosis"] = {"source": "validation", "images": 300, "float_accuracy": 0.98}
    record["diagnosis"] |= {"layers": layers, "ranges": []}
    names = {"input": "input_1", "logits_int8": "dense_1/int8", "logits": "logits", "output": "softmax"}
    return {**record, "eval_graph": names}


def estimate_row(name, op, workload, cycles):
    """A layer of an estimate."""
    row = {
        "name": name,
        "op": op,
        "engine": "convolution",
        "workload": workload,
        "workload_on_arch": workload,
    }
    row |= {"cycles": cycles, "utilisation": 0.5, "weight_bytes": 10, "ddr_bytes": 20}
    row |= {"transfers": 3}
    return {**row, "compute_us": 1.0, "memory_us": 0.5, "time_us": 1.0, "bound": "compute"}


def compilation(random, latency_us=432.9, workload=12_659_072, board_frames=8100.0):
    """A compile.json with a finding, layers and an estimate."""
    layers = [
        estimate_row(n, o, int(random.integers(1e4, 1e6)), int(random.integers(100, 9000)))
        for n, o in LAYERS
        if o not in ("input", "flatten")
    ]
    finding = {"layer": "dense_1", "op": "dense", "limit": "channels", "value": 5000, "allowed": "1 to 4096"}
    finding |= {"reason": "too many channels", "remedy": "use fewer units"}
    dpu, board = "DPUCZDX8G_ISA1_B4096", {"name": "ZCU104", "cores": 2, "clock_mhz": 300.0}
    assumptions = {**asdict(TIMING), **asdict(HOST), "notes": ["clock 300 MHz"]}
    estimate = {"kind": "estimate", "target": "zcu104", "dpu": dpu, "board": "ZCU104", "clock_mhz": 300.0}
    estimate |= {"cores": 2, "assumptions": assumptions, "latency_us": latency_us, "dpu_us": 92.1}
    estimate |= {"compute_us": 80.0, "memory_us": 40.0, "overhead_us": 260.0}
    frames = {"one_thread": 2310.0, "one_core_saturated": 10860.0, "board": board_frames}
    estimate |= {"frames_per_second": frames, "workload": workload, "workload_on_arch": workload}
    estimate |= {"peak_operations": 4096}
    estimate |= {"array_utilisation": 0.31, "end_to_end_utilisation": 0.1, "weight_bytes": 118_040}
    estimate |= {"activation_bytes": 3000, "ddr_bytes": 150_000, "layers": layers}
    return {
        "compiler": "reference",
        "machine_code": False,
        "note": NO_INSTRUCTIONS,
        "target": "zcu104",
        "dpu": dpu,
        "release": "3.0",
        "fingerprint": "0x101000056010407",
        "board": board,
        "findings": [finding],
        "estimate": estimate,
    }


ORIGINS = {
    "emulator": "emulated",
    "virtual_board": "emulated",
    "isa_simulator": "simulated",
    "ssh": "measured",
}


def board_record(record, runner="emulator", origin=None):
    """An accuracy record as a runner completes it."""
    origin = origin or ORIGINS[runner]
    return {**record, "runner": runner, "origin": origin, "how": f"{origin}: test text"}


def make_run(
    folder,
    model="signnet",
    errors=(9, 9, 12, 12),
    dataset=None,
    runner="emulator",
    seed=1,
    full=True,
    kind=None,
):
    """Write the files of a run under `folder`; returns its entry for `load_run`. kind: the runner's."""
    random = np.random.default_rng(seed)
    dataset = folder / "toy" / "dataset.h5" if dataset is None else dataset
    if dataset.exists():
        with h5py.File(dataset) as file:
            labels = file["labels"][()][file["split/test"][()]].astype(np.int64)
    else:
        labels = make_dataset(dataset)
    home = folder / "toy" / model
    files = {"dataset": dataset}
    given = confuse(labels, errors[0], random)
    for index, stage in enumerate(("keras", "frozen", "quantized", "board")):
        if index and errors[index] != errors[index - 1]:
            given = given.copy()
            right = np.flatnonzero(given == labels)
            for position in random.choice(right, errors[index] - errors[index - 1], replace=False):
                given[position] = PRESENT[(PRESENT.index(labels[position]) + 1) % 24]
        files[f"{stage}_accuracy"] = home / f"{stage}_accuracy.json"
        record = accuracy_record(stage, "test", labels, given, LETTERS)
        if stage == "board":
            record = board_record(record, kind or runner)
        write_record(files[f"{stage}_accuracy"], "accuracy.schema.yaml", record)
    if full:
        files |= write_extras(home, random)
    ids = {"dataset": "toy", "model": model, "quantizer": "reference", "target": "zcu104", "runner": runner}
    return {**ids, "files": {key: str(path) for key, path in files.items()}}


def write_extras(home, random):
    """history.csv, the JSON files of the stages and stand-ins of the model files."""
    epochs = np.arange(1, 13)
    history = pd.DataFrame(
        {
            "epoch": epochs,
            "learning_rate": 1e-3,
            "loss": 3.1 * np.exp(-epochs / 2.5) + 0.02,
            "accuracy": 1 - 0.9 * np.exp(-epochs / 2),
            "validation_loss": 2.8 * np.exp(-epochs / 2.2) + 0.03 + 0.01 * random.random(12),
            "validation_accuracy": 1 - 0.8 * np.exp(-epochs / 1.8) - 0.01 * random.random(12),
            "kept": (epochs == 11).astype(int),
        }
    )
    history.to_csv(home / "history.csv", index=False)
    freeze = {"variables_frozen": 1, "variables": ["conv/kernel"], "nodes_before": 340, "nodes_after": 29}
    freeze |= {"nodes_removed": {"Identity": 311}, "images_compared": 96, "max_difference": 4.1e-9}
    write_record(home / "freeze.json", "freeze.schema.yaml", {**freeze, "predictions_equal": True})
    write_record(home / "quantization.json", "quantization.schema.yaml", quantization(random))
    write_record(home / "compile.json", "compile.schema.yaml", compilation(random))
    files = {"history": "history.csv", "freeze": "freeze.json"}
    files |= {"quantization": "quantization.json", "compile": "compile.json"}
    for key, name, size in (
        ("keras_model", "keras_trained_model.h5", 4_730_112),
        ("frozen_graph", "frozen_graph.pb", 4_731_003),
        ("quantized_graph", "quantize_eval_model.pb", 4_742_210),
        ("xmodel", f"{home.name}.xmodel", 1_210_452),
    ):
        (home / name).write_bytes(bytes(size // 100))
        files[key] = name
    return {key: home / name for key, name in files.items()}


def write_toy_report(folder: Path):
    """accuracy.html, .md and .json of two made-up runs in `folder`."""
    from dpuflow.report.accuracy import write_report
    from dpuflow.report.provenance import provenance

    dataset = folder / "toy" / "dataset.h5"
    entries = [
        make_run(folder),
        make_run(folder, "optimal", (31, 31, 44, 44), dataset, seed=2),
        make_run(folder, "baseline", (95, 95, 97, 99), dataset, "lab", seed=3, full=False, kind="ssh"),
    ]
    about = provenance({"runs": [{"model": "signnet"}]}, ["snakemake all --cores 2"], "0123456789ab")
    paths = [folder / "report" / f"accuracy.{ending}" for ending in ("html", "md", "json")]
    write_report(entries, *paths, about)
    return folder / "report"


def make_sweep(folder, runs, images=480):
    """Entries of `runs` made-up runs: 4 models x 2 quantizers x 2 targets, the rest seeds."""
    random = np.random.default_rng(4)
    labels = np.array([PRESENT[i % 24] for i in range(images)])
    models = {
        "tiny": (0.06, 40, 120),
        "signnet": (0.03, 110, 280),
        "signresnet": (0.025, 160, 420),
        "wide": (0.02, 900, 900),
    }
    entries = []
    for index in range(runs):
        model = list(models)[index % 4]
        quantizer, target = ("reference", "vai_q")[index // 4 % 2], ("kv260", "ultra96v2")[index // 8 % 2]
        error, size, latency = models[model]
        home = folder / f"{model}-s{index // 16}" / quantizer / target
        wrong = int(images * error * (1 + 0.3 * (quantizer == "vai_q")) + random.integers(0, 5))
        files = {"keras_accuracy": home / "keras.json", "board_accuracy": home / "board.json"}
        for number, path in enumerate(files.values()):
            given = confuse(labels, wrong + 2 * number, random)
            record = accuracy_record(path.stem, "test", labels, given, LETTERS)
            record = board_record(record) if path.stem == "board" else record
            write_record(path, "accuracy.schema.yaml", record)
        files |= {"compile": home / "compile.json", "xmodel": home / f"{model}.xmodel"}
        latency_us = latency * (1 + (target == "ultra96v2"))
        compiled = compilation(
            np.random.default_rng(0), latency_us, size * 40_000, board_frames=1e6 / latency
        )
        write_record(files["compile"], "compile.schema.yaml", compiled)
        files["xmodel"].write_bytes(bytes(1000 * size))
        (home / "train.tsv").write_text(f"s\th:m:s\n{100 + size / 10 + index}\t0:01:40\n")
        ids = {"dataset": "toy", "model": f"{model}-s{index // 16}", "quantizer": quantizer, "target": target}
        entries.append(
            {
                **ids,
                "runner": "emulator",
                "files": {key: str(path) for key, path in files.items()},
                "benchmarks": [str(home / "train.tsv"), str(home / "absent.tsv")],
            }
        )
    return entries


def report_of(entries, folder, about=None):
    """(page, Markdown, dict) of the accuracy report of entries."""
    paths = [folder / f"accuracy.{ending}" for ending in ("html", "md", "json")]
    write_report(entries, *paths, about or provenance())
    html, markdown, data = (path.read_text(encoding="utf-8") for path in paths)
    return html, markdown, json.loads(data)
