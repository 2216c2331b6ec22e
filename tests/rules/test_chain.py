"""The whole chain on tiny data: every artifact is there, and the stages agree."""

import h5py
import numpy as np
import pytest

from dpuflow.accuracy.evaluation import read_accuracy
from dpuflow.accuracy.predictions import read_predictions
from dpuflow.base.files import read_json

pytestmark = pytest.mark.rules

ARTIFACTS = [
    "resources/tiny/train.csv",
    "resources/tiny/test.csv",
    "results/tiny/dataset.h5",
    "results/tiny/small/keras_trained_model.h5",
    "results/tiny/small/history.csv",
    "results/tiny/small/keras_accuracy.json",
    "results/tiny/small/tf/tfchkpt.ckpt.meta",
    "results/tiny/small/tf/tfchkpt.ckpt.index",
    "results/tiny/small/tf/tfchkpt.ckpt.data-00000-of-00001",
    "results/tiny/small/tf/checkpoint",
    "results/tiny/small/tf/tf_complete_model.pb",
    "results/tiny/small/tf/nodes.json",
    "results/tiny/small/frozen_graph.pb",
    "results/tiny/small/network.h5",
    "results/tiny/small/freeze.json",
    "results/tiny/small/frozen_accuracy.json",
    "results/tiny/small/reference/quantize_eval_model.pb",
    "results/tiny/small/reference/quantized_model.h5",
    "results/tiny/small/reference/quantization.json",
    "results/tiny/small/reference/quantized_accuracy.json",
    "results/tiny/small/reference/zcu104/small.xmodel",
    "results/tiny/small/reference/zcu104/small.quantized.xmodel",
    "results/tiny/small/reference/zcu104/compile.json",
    "results/tiny/small/reference/zcu104/emulator/predictions.csv",
    "results/tiny/small/reference/zcu104/emulator/board_accuracy.json",
    "results/report/test/accuracy.html",
    "results/report/test/accuracy.md",
    "results/report/test/accuracy.json",
    "results/report/test/provenance.json",
]


def test_every_artifact_exists_and_every_job_logged(finished):
    missing = [path for path in ARTIFACTS if not finished.path(path).is_file()]
    assert not missing
    assert len(list(finished.path("logs").rglob("*.log"))) >= 12
    assert len(list(finished.path("benchmarks/jobs").rglob("*.tsv"))) >= 12


def test_the_run_ends_with_the_stage_table_and_the_reports_path(finished):
    tail = finished.first_output[-3000:]
    assert "Keras" in tail and "Emulated board" in tail and "results/report/test/accuracy.html" in tail


def test_all_stages_saw_the_same_images_and_agree(finished):
    model = "results/tiny/small"
    records = {
        "keras": read_accuracy(finished.path(f"{model}/keras_accuracy.json")),
        "frozen": read_accuracy(finished.path(f"{model}/frozen_accuracy.json")),
        "quantized": read_accuracy(finished.path(f"{model}/reference/quantized_accuracy.json")),
        "board": read_accuracy(finished.path(f"{model}/reference/zcu104/emulator/board_accuracy.json")),
    }
    assert {record["images"] for record in records.values()} == {96}
    assert len({record["labels_sha256"] for record in records.values()}) == 1
    assert records["frozen"]["predictions"] == records["keras"]["predictions"]
    assert records["board"]["predictions"] == records["quantized"]["predictions"]
    assert records["board"]["agreement_with_quantized"]["agreement"] == 1.0


def test_predictions_csv_repeats_the_record(finished):
    folder = finished.path("results/tiny/small/reference/zcu104/emulator")
    labels, predictions = read_predictions(folder / "predictions.csv")
    record = read_accuracy(folder / "board_accuracy.json")
    assert predictions.tolist() == record["predictions"]
    assert int((labels == predictions).sum()) == record["correct"]


def test_freezing_is_proven_and_calibration_is_from_training(finished):
    report = read_json(finished.path("results/tiny/small/freeze.json"))
    assert report["variables_frozen"] == 8 and report["max_difference"] <= 1e-5
    with h5py.File(finished.path("results/tiny/dataset.h5")) as file:
        splits = {name: file["split"][name][()] for name in ("train", "validation", "test", "calibration")}
        assert set(splits["calibration"]) <= set(splits["train"]) and len(splits["calibration"]) == 72
        assert not set(splits["train"]) & (set(splits["test"]) | set(splits["validation"]))
        labels = file["labels"][()]
    assert (np.bincount(labels[splits["calibration"]], minlength=25)[[0, 9, 24]] == [3, 0, 3]).all()
