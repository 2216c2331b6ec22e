"""Two runs in two checkouts, as different as two users' machines may be: the same bytes."""

import copy
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from workflow_copy import TINY, Workflow, copy_of

from dpuflow.base.files import read_json, sha256
from dpuflow.workflow.code_closure import source_files
from dpuflow.workflow.config import expand_runs

pytestmark = [pytest.mark.rules, pytest.mark.slow]

SMALL = TINY["models"]["small"]
TRAINED = "results/tiny/small"
CONFIG = copy.deepcopy(TINY) | {
    "models": {
        "small": SMALL,
        "further": {"starts_from": "small", "qat": True, "training": SMALL["training"] | {"epochs": 1}},
        "own_h5": {"keras_h5": f"{TRAINED}/keras_trained_model.h5", "input": SMALL["input"]},
        "own_pb": {"frozen_pb": f"{TRAINED}/frozen_graph.pb", "input": SMALL["input"]},
    },
    "targets": {"plain": {"board": "zcu104"}, "machine": {"board": "kv260", "compiler": "native"}},
    "gates": [{"from_stage": "frozen", "to_stage": "board", "max_drop": 100}],
    "predict": {"images": "pictures"},
    "runs": [
        TINY["runs"][0] | {"target": "plain", "runner": ["emulator", "virtual_board"]},
        TINY["runs"][0] | {"target": "machine", "runner": "isa_simulator"},
    ],
}
TARGETS = [
    *("all", "bundles", "sweep", "predict"),
    *("results/tiny/further/keras_trained_model.h5", "results/tiny/own_h5/keras_trained_model.h5"),
    "results/tiny/own_pb/frozen_graph.pb",
]
DIFFERENT = {
    "results/*/board.json": "latency, images per second and threads of the run on the (virtual) board",
    "results/report/test/sweep.*": "seconds that the jobs took",
    "results/report/test/provenance.json": "checksum of board.json",
}
"""Artifacts whose bytes may differ, and what in them does. Logs and benchmarks/jobs/ hold seconds, too."""
SAME = (
    "dataset.h5", "keras_trained_model.h5", "history.csv", "tfchkpt.ckpt.index", "tfchkpt.ckpt.meta",
    "tfchkpt.ckpt.data-00000-of-00001", "tf_complete_model.pb", "frozen_graph.pb", "network.h5",
    "quantize_eval_model.pb", "quantized_model.h5", "small.xmodel", "small.quantized.xmodel",
    "predictions.csv", "board_accuracy.json",
    "tiny.small.reference.tar", "accuracy.html", "predictions.html", "train.csv",
)  # fmt: skip
"""Artifacts that must be among the compared ones."""
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
DAY = {"GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z"}


def checkout(repo, folder):
    """A git checkout of the workflow with a picture to read."""
    copy_of(repo, folder)
    (folder / "test.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "pictures").mkdir()
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30).astype(np.uint8)).save(
        folder / "pictures/a.png"
    )
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True, env=os.environ | DAY)
    return Workflow(folder, CONFIG)


def run(workflow, cores, umask, **environment):
    """Make everything."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *TARGETS, "--cores", str(cores), "--configfile", "test.yaml"],
        cwd=workflow.folder,
        env=workflow.environment | environment,
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="module")
def twins(repo, tmp_path_factory):
    """Two finished workflows; the first one's jobs noted the files that they opened."""
    folder = tmp_path_factory.mktemp("twins")
    first = checkout(repo, folder / "one")
    second = checkout(repo, folder / "another user's" / "long path" / "two")
    trace, home = folder / "trace", folder / "home"
    trace.mkdir()
    home.mkdir()
    shutil.copy(Path(__file__).with_name("opened_files.py"), first.path("sitecustomize.py"))
    other = {"HOME": str(home), "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "77", "LC_ALL": "C"}
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(run, first, 2, 0o022, DPUFLOW_TEST_TRACE=str(trace), PYTHONHASHSEED="0", TZ="UTC"),
            pool.submit(run, second, 1, 0o077, **other),
        ]
        for one in done:
            one.result()
    first.trace = trace
    return first, second


def artifacts(workflow):
    """{relative path: path} of what a run makes for its user."""
    paths = [path for top in ("resources", "results", "deploy") for path in workflow.path(top).rglob("*")]
    return {path.relative_to(workflow.folder).as_posix(): path for path in paths if path.is_file()}


def may_differ(path):
    return any(fnmatch(path, pattern) for pattern in DIFFERENT)


def test_every_artifact_is_the_same_byte_for_byte(twins):
    first, second = map(artifacts, twins)
    assert first.keys() == second.keys()
    assert set(SAME) <= {Path(path).name for path in first}
    differing = {path for path in first if sha256(first[path]) != sha256(second[path])}
    assert {path for path in differing if not may_differ(path)} == set()


def test_what_may_differ_differs_in_times_alone(twins):
    times = ("seconds", "per_second", "latency", "_ms", "threads")

    def without_times(value):
        if isinstance(value, dict):
            kept = {key: entry for key, entry in value.items() if not may_differ(key)}
            return {k: without_times(v) for k, v in kept.items() if not any(word in k for word in times)}
        return [without_times(entry) for entry in value] if isinstance(value, list) else value

    first, second = map(artifacts, twins)
    compared = [path for path in first if path.endswith(".json") and may_differ(path)]
    assert {Path(path).name for path in compared} == {"board.json", "sweep.json", "provenance.json"}
    for path in compared:
        assert without_times(read_json(first[path])) == without_times(read_json(second[path])), path


def test_no_artifact_says_where_it_was_made(twins):
    for workflow in twins:
        for name, path in artifacts(workflow).items():
            assert str(workflow.folder).encode() not in path.read_bytes(), name


def test_provenance_names_every_artifact_of_the_runs(twins):
    workflow = twins[0]
    record = read_json(workflow.path("results/report/test/provenance.json"))
    for path, facts in record["artifacts"].items():
        assert facts == {"bytes": workflow.path(path).stat().st_size, "sha256": sha256(workflow.path(path))}
    elsewhere = (
        "results/predict/",
        "results/report/test/sweep",
        "deploy/",
        "results/report/test/provenance.json",
    )
    elsewhere += tuple(f"results/tiny/{model}/" for model in ("further", "own_h5", "own_pb"))  # not in runs
    named = {
        path for path in artifacts(workflow) if not path.startswith(elsewhere) and "gate.json" not in path
    }
    assert record["artifacts"].keys() == named
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=workflow.folder, capture_output=True, text=True, check=True
    )
    assert record["commit"] == commit.stdout[:12]
    assert record["versions"]["tensorflow"] and record["versions"]["dpuflow"]
    assert record["seeds"] == {
        "training": {"small": 1},
        "datasets": {"tiny": {"source": 3, "validation": 1, "calibration": 1}},
    }
    assert {run.target for run in expand_runs(CONFIG)} == record["config"]["targets"].keys()


def test_jobs_open_no_source_file_that_their_rule_does_not_declare(twins):
    """Runtime's word on code_closure.py: what a job really loads, child processes included."""
    workflow = twins[0]
    traces = {path.name: set(path.read_text().split()) for path in workflow.trace.iterdir()}
    assert len(traces) == 23  # all scripts but those for vendor tools, ssh and pictures of the workflow
    for script, opened in traces.items():
        declared = set(source_files(f"scripts/{script}.py", workflow.folder))
        assert opened - declared <= {f"scripts/{script}.py"}, script
        assert "dpuflow/workflow/scripting.py" in opened, script
    assert "dpuflow/foreign/board/app.py" in traces["bundle"]
    assert "dpuflow/virtual_board/vart_api.py" in traces["run_virtual_board"]
    assert "dpuflow/emulator/native/convolve.c" in traces["run_emulator"]
