"""A sweep on a real Slurm completes; what is killed costs only what was killed, and changes no byte."""

import itertools
import json
import shutil
import signal
import time
from collections import Counter

import pytest
from slurm_sweep import ONNX_RUNS, SWEEP, TRAINED_RUNS
from workflow_copy import Workflow, copy_of

from dpuflow.base.files import sha256

pytestmark = [pytest.mark.slow, pytest.mark.rules]

TRAIN = "rule_train_wildcards_tiny_small-s"
ONNX_GRAPH = "rule_graph_evaluate_frozen_evaluate_onnx_import_onnx"
KINDS = (
    "rule_data",
    ONNX_GRAPH,
    "rule_graph_evaluate_frozen_freeze",
    "rule_graph_evaluate_keras",
    "rule_int8",
    "rule_train",
    "rule_sweep_report",
)


def running(cluster, comment):
    """A function that gives the id and node of a running job whose comment starts so, or None."""

    def find():
        names, jobs = cluster.names_of_jobs(), cluster.jobs("RUNNING")
        return next(((job, jobs[job]) for job in jobs if names.get(job, "").startswith(comment)), None)

    return find


def trainings(cluster, seed):
    """Ids of all jobs that train with this seed, whatever became of them."""
    return {job for job, name in cluster.names_of_jobs().items() if name == f"{TRAIN}{seed}"}


def completed(cluster):
    """How many jobs of each kind ended well."""
    names = cluster.names_of_jobs()
    return Counter(next(k for k in KINDS if names[job].startswith(k)) for job in cluster.jobs("COMPLETED"))


def kill_controller(cluster, since):
    """Kill slurmctld once it has saved its state after `since` (time.time()), and start it again."""
    state = cluster.root / "state/job_state"
    cluster.wait_for(lambda: state.exists() and state.stat().st_mtime > since, 200, "the saved state")
    cluster.stop_controller(signal.SIGKILL)
    cluster.start_controller()


def interrupted(sweep, cluster):
    """Start the trained runs; kill a training, the controller while another runs, then Snakemake itself."""
    process = sweep.start([TRAINED_RUNS], "interrupted.txt")
    try:
        killed, _ = cluster.wait_for(running(cluster, f"{TRAIN}2"), 400, "the training")
        cluster.cancel(killed)
        cluster.wait_for(lambda: trainings(cluster, 2) - {killed}, 400, "another try")
        submitted = time.time()
        (second,) = trainings(cluster, 2) - {killed}
        # a job that has not begun its work, or that is not saved yet, would die with any controller
        cluster.wait_for(lambda: f"{second}.0" in cluster.steps(), 200, "its work")
        kill_controller(cluster, submitted)
    finally:
        process.kill()
        process.wait()
    cluster.wait_for(lambda: not cluster.jobs(), 400, "the end of the job that nobody watches")


def settled(cluster):
    """A function that tells whether every job in the queue is at work: none waits or is just starting."""

    def look():
        steps = cluster.steps()
        return not cluster.jobs("PENDING") and all(f"{job}.0" in steps for job in cluster.jobs("RUNNING"))

    return look


def resumed(sweep, cluster):
    """Start it with all runs; lose a node under an ONNX import, the controller under a quantizer; finish."""
    sweep.call("--unlock")
    process = sweep.start([TRAINED_RUNS, ONNX_RUNS], "resumed.txt")
    try:
        job, node = cluster.wait_for(running(cluster, ONNX_GRAPH), 400, "the import")
        cluster.wait_for(lambda: f"{job}.0" in cluster.steps(), 200, "its work")
        cluster.lose_node(node)
        cluster.wait_for(lambda: cluster.jobs("NODE_FAIL"), 400, "the loss of the node")
        cluster.start_node(node)
        cluster.wait_for(running(cluster, "rule_int8"), 400, "a quantizer")
        process.send_signal(signal.SIGSTOP)  # so that no job is being submitted when the controller dies
        stopped = time.time()
        cluster.wait_for(settled(cluster), 200, "the work of all jobs")
        kill_controller(cluster, stopped)
        process.send_signal(signal.SIGCONT)
        sweep.finish(process, "resumed.txt")
    finally:
        process.kill()


def undisturbed(sweep, repo, folder):
    """{path in the workflow: file} of two of the runs, made on this machine with nobody killed."""
    copy_of(repo, folder)
    shutil.copytree(sweep.folder / "pictures", folder / "pictures")
    for model in sweep.folder.glob("*.onnx"):
        shutil.copy(model, folder)
    local = Workflow(folder, SWEEP | {"runs": [TRAINED_RUNS, ONNX_RUNS]})
    ends = ("small-s2/plain/own_board", "branched_onnx/searched/kv260")
    local.run(*(f"results/tiny/{end}/emulator/board_accuracy.json" for end in ends), "--quiet", "rules")
    found = (path for path in folder.glob("results/**/*") if path.is_file())
    return {str(path.relative_to(folder)): path for path in found}


def test_a_sweep_completes_whatever_is_killed_and_repeats_no_finished_work(sweep, cluster, repo, tmp_path):
    interrupted(sweep, cluster)
    before = sweep.times()
    resumed(sweep, cluster)

    after = sweep.times()
    assert [path for path, at in before.items() if after.get(path) != at] == []
    models = {f"results/tiny/small-s{seed}/keras_trained_model.h5" for seed in (1, 2)}
    assert models | {"results/tiny/dataset.h5"} <= set(before)

    # one data set and two trainings for all; graphs per model, INT8 per model and quantizer for all targets
    shared = {"rule_data": 1, "rule_train": 2, "rule_sweep_report": 1}
    graphs = {"rule_graph_evaluate_frozen_freeze": 2, "rule_graph_evaluate_keras": 2, ONNX_GRAPH: 2}
    assert completed(cluster) == shared | graphs | {"rule_int8": 8}
    assert len(cluster.jobs("CANCELLED")) == 1 and cluster.jobs("NODE_FAIL") and not cluster.jobs("FAILED")

    (part,) = json.loads((sweep.folder / "results/report/sweep/sweep.json").read_text())["datasets"]
    runs = {(run["model"], run["seed"], run["quantizer"], run["target"]): run for run in part["runs"]}
    targets = TRAINED_RUNS["target"]
    trained = itertools.product(["small"], (1, 2), ["plain"], targets)
    foreign = itertools.product(ONNX_RUNS["model"], [None], ONNX_RUNS["quantizer"], targets)
    assert set(runs) == {*trained, *foreign}
    assert len(runs) == 40
    assert all(run["seconds"] > 0 and run["images"] == 48 for run in runs.values())
    assert "Nothing to be done" in sweep.call("sweep")

    made = undisturbed(sweep, repo, tmp_path / "local")
    assert {path.name for path in made.values()} >= {
        "keras_trained_model.h5",
        "network.h5",
        "predictions.csv",
    }
    assert len(made) > 30
    assert [path for path, file in made.items() if sha256(file) != sha256(sweep.folder / path)] == []
