"""What reruns after which change: exactly what depends on it."""

import copy
import os

import pytest

from dpuflow.files import sha256

pytestmark = pytest.mark.rules

REPORT = {"report"}
BOARD = {"run_emulator"} | REPORT
COMPILE = {"compile_reference"} | BOARD
QUANTIZE = {"quantize_reference", "evaluate_quantized"} | COMPILE
FREEZE = {"freeze", "evaluate_frozen"} | QUANTIZE
TRAIN = {"train", "evaluate_keras", "convert"} | FREEZE
DATASET = {"build_dataset"} | TRAIN
OBTAIN = {"obtain_dataset"} | DATASET

TRAINING = {"optimizer": "sgd", "learning_rate": 1, "batch_size": 1, "epochs": 1}

CONFIG_CHANGES = [
    ("datasets.tiny.source.seed", 4, OBTAIN),
    ("datasets.tiny.validation.rows", 48, DATASET),
    ("datasets.tiny.calibration.images", 48, DATASET),
    ("models.small.training.epochs", 1, TRAIN),
    ("models.small.layers.1", {"max_pool": 2}, TRAIN),
    ("seed", 9, TRAIN),
    ("models.small.input.subtract", 0, TRAIN),
    ("quantizers", {"reference": {"tool": "reference", "method": "non_overflow"}}, QUANTIZE),
    ("targets", {"zcu104": {"dpu": "DPUCZDX8G_ISA1_B1024", "release": "3.0"}}, COMPILE),
    ("models.other", {"layers": ["flatten"], "training": TRAINING}, set()),
]  # fmt: skip

FILE_CHANGES = [
    ("scripts/train.py", TRAIN),
    ("scripts/quantize_reference.py", QUANTIZE),
    ("scripts/report.py", REPORT),
    ("dpuflow/datasets/synthetic_signs.py", OBTAIN),
    ("dpuflow/datasets/splits.py", DATASET),
    ("dpuflow/training/augmentation.py", TRAIN),
    ("dpuflow/tfgraph/checkpoint.py", {"convert"} | FREEZE),
    ("dpuflow/quantize/folding.py", QUANTIZE),
    ("dpuflow/compiler/cost_model.py", COMPILE),
    ("dpuflow/emulator/kernels.py", BOARD),
    ("dpuflow/report/page.py", REPORT),
    ("docs/architecture.md", set()),
    ("config/README.md", set()),
]


def with_change(config, path, value):
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    node[int(last) if isinstance(node, list) else last] = value
    return config


def test_a_second_run_does_nothing(finished):
    assert finished.plan() == set()


def test_a_checkout_with_new_times_does_nothing(finished):
    for path in [*finished.folder.glob("dpuflow/**/*.py"), finished.path("resources/tiny/train.csv")]:
        path.touch()
    assert finished.plan() == set()


@pytest.mark.parametrize(("key", "value", "stale"), CONFIG_CHANGES, ids=[c[0] for c in CONFIG_CHANGES])
def test_a_changed_key_makes_stale_what_depends_on_it(finished, key, value, stale):
    assert finished.plan(config=with_change(finished.config, key, value)) == stale


@pytest.mark.parametrize(("path", "stale"), FILE_CHANGES, ids=[c[0] for c in FILE_CHANGES])
def test_a_changed_file_makes_stale_what_depends_on_it(finished, path, stale):
    file = finished.path(path)
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        file.touch()
    before, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(before + b"\n# changed\n")
    try:
        assert finished.plan() == stale
    finally:
        file.write_bytes(before)
        # Snakemake compares a script by its time, not by its content
        os.utime(file, ns=times)


def test_a_changed_quantizer_reruns_late_stages_and_keeps_early_bytes(finished):
    """Really run it, then go back: the first results return to the byte."""
    early = ["results/tiny/small/keras_trained_model.h5", "results/tiny/small/frozen_graph.pb"]
    late = [
        "results/tiny/small/reference/quantized_model.h5",
        "results/tiny/small/reference/zcu104/small.xmodel",
    ]
    times = [finished.path(path).stat().st_mtime_ns for path in early]
    digests = [sha256(finished.path(path)) for path in late]
    changed = with_change(
        finished.config, "quantizers", {"reference": {"tool": "reference", "method": "non_overflow"}}
    )
    finished.run("all", config=changed)
    assert [finished.path(path).stat().st_mtime_ns for path in early] == times
    finished.run("all")
    assert [sha256(finished.path(path)) for path in late] == digests
