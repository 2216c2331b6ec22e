import re
from dataclasses import replace

import pytest

from dpuflow.report.inputs import FILES
from dpuflow.workflow import artifacts as made
from dpuflow.workflow.config import Run, Settings
from dpuflow.workflow.run_files import (
    all_artifact_files,
    all_result_files,
    artifact_files,
    benchmark_files,
    report_entries,
    result_files,
    stage_records,
    sweep_entries,
)

CONFIG = {
    "datasets": {"signs": {"source": {"kind": "synthetic"}}, "photos": {"source": {"kind": "pictures"}}},
    "models": {
        "own": {"layers": []},
        "h5": {"keras_h5": "m.h5"},
        "pb": {"frozen_pb": "m.pb"},
        "onnx": {"onnx": "m.onnx"},
    },
    "quantizers": {
        "reference": {"tool": "reference"},
        "tf1": {"tool": "vai_q_tensorflow"},
        "tf2": {"tool": "vai_q_tensorflow2"},
    },
    "runners": {"emulator": {"kind": "emulator"}, "lab": {"kind": "ssh"}},
}
SETTINGS = Settings(CONFIG)


def run(model="own", quantizer="reference", runner="emulator"):
    return Run("signs", model, quantizer, "kv260", runner)


def test_a_run_trained_here_has_every_file_that_the_report_knows():
    files = result_files(SETTINGS, run("own-s3"))
    assert set(files) <= set(FILES)
    assert files["history"] == "results/signs/own-s3/history.csv"
    assert files["xmodel"] == "results/signs/own-s3/reference/kv260/own-s3.xmodel"
    assert files["board_accuracy"] == "results/signs/own-s3/reference/kv260/emulator/board_accuracy.json"


@pytest.mark.parametrize(
    ("model", "missing"),
    [("h5", {"history"}), ("pb", {"history", "keras_model", "keras_accuracy", "freeze"})],
)
def test_a_run_that_enters_later_lacks_the_files_before(model, missing):
    assert set(result_files(SETTINGS, run())) - set(result_files(SETTINGS, run(model))) == missing


def test_a_run_of_an_onnx_model_has_its_own_first_stage():
    files = result_files(SETTINGS, run("onnx"))
    assert files["onnx_accuracy"] == "results/signs/onnx/onnx_accuracy.json"
    assert files["onnx_model"] == "results/signs/onnx/trained_model.onnx"
    assert not {"history", "keras_model", "keras_accuracy", "freeze"} & set(files) and set(files) <= set(
        FILES
    )
    stages = [path.rpartition("/")[2] for path in stage_records(SETTINGS, run("onnx"))]
    assert stages == [f"{stage}_accuracy.json" for stage in ("onnx", "frozen", "quantized", "board")]
    assert not any("tfchkpt" in path for path in artifact_files(SETTINGS, run("onnx")))


@pytest.mark.parametrize(
    ("quantizer", "names"),
    [
        ("reference", {"quantized_graph": "quantize_eval_model.pb", "quantized_model": "quantized_model.h5"}),
        ("tf1", {"quantized_graph": "quantize_eval_model.pb"}),
        ("tf2", {"quantized_graph": "quantized_model.h5"}),
    ],
)
def test_each_quantizer_writes_its_own_form(quantizer, names):
    files = result_files(SETTINGS, run(quantizer=quantizer))
    found = {
        key: path.rpartition("/")[2]
        for key, path in files.items()
        if key in ("quantized_graph", "quantized_model")
    }
    assert found == names


def test_gates_judge_the_stages_in_order():
    assert [path.rpartition("/")[2] for path in stage_records(SETTINGS, run())] == [
        "keras_accuracy.json",
        "frozen_accuracy.json",
        "quantized_accuracy.json",
        "board_accuracy.json",
    ]
    assert len(stage_records(SETTINGS, run("pb"))) == 3


def test_entries_name_the_runner_and_files_are_listed_once():
    runs = [run(), run(runner="lab")]
    assert [entry["runner"] for entry in report_entries(SETTINGS, runs)] == [run().runner, "lab"]
    files = all_result_files(SETTINGS, runs)
    assert files == sorted(set(files)) and files.count("results/signs/dataset.h5") == 1


ASIDE = ("bundle", "diagnose", "gate", "quantizer_search", "vitis_ai_test_images")
"""Jobs that no run's accuracy waits for."""


def test_the_seconds_of_every_stage_count(repo):
    """`benchmark_files` names exactly what the rules of the chain write."""
    text = "\n".join(path.read_text() for path in sorted((repo / "rules").glob("*.smk")))
    written = {
        made.of(made.times(getattr(made, folder), job), run())
        for folder, job in re.findall(r'made\.times\(made\.(\w+), "(\w+)"\)', text)
        if job not in ASIDE
    }
    assert set(benchmark_files(run())) == written and len(written) > 12


def test_runs_of_a_sweep_share_the_seconds_of_their_stages():
    first, second = sweep_entries(SETTINGS, [run(), run(runner="lab")])
    shared = set(first["benchmarks"]) & set(second["benchmarks"])
    assert {
        "benchmarks/jobs/signs/own/train.tsv",
        "benchmarks/jobs/signs/own/reference/quantize.tsv",
    } <= shared
    assert set(first["benchmarks"]) - shared == {"benchmarks/jobs/signs/own/reference/kv260/emulator/run.tsv"}


def test_artifacts_are_what_the_report_reads_and_what_lies_between():
    files = artifact_files(SETTINGS, run("own", runner="lab"))
    assert set(result_files(SETTINGS, run("own", runner="lab")).values()) < files
    assert {"resources/signs/test.csv", "results/signs/own/tf/tfchkpt.ckpt.meta"} <= files
    assert {
        f"results/signs/own/reference/kv260/{name}" for name in ("own.quantized.xmodel", "lab/board.json")
    } <= files
    frozen = artifact_files(SETTINGS, run("pb"))
    assert {path for path in frozen if "/tf/" in path} == {"results/signs/pb/tf/nodes.json"}
    assert not any("quantized.xmodel" in path for path in artifact_files(SETTINGS, run(quantizer="tf1")))
    of_pictures = artifact_files(SETTINGS, replace(run(), dataset="photos"))
    assert (
        not any("resources/" in path for path in of_pictures) and "results/photos/dataset.h5" in of_pictures
    )
    both = all_artifact_files(SETTINGS, [run(), run("pb")])
    assert both == sorted({*artifact_files(SETTINGS, run()), *frozen})
