"""Sweeps on a real Slurm: they complete, and what is killed on the way costs only what was killed.

One folder grows from test to test: every sweep adds a seed, so each also shows that the
finished runs stay as they are.
"""

import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.rules]

TRAIN = "rule_train_wildcards_tiny_small-s"


def kinds_of_jobs(cluster):
    """How many jobs of which kind Slurm has seen: the first words of their comments."""
    kinds = ("rule_data", "rule_graph", "rule_int8", "rule_train", "rule_sweep_report")
    return Counter(next(k for k in kinds if name.startswith(k)) for name in cluster.names_of_jobs().values())


def running(cluster, comment):
    """A function that gives the id and node of the running job whose comment starts so, or None."""

    def find():
        names = cluster.names_of_jobs()
        jobs = cluster.jobs("RUNNING")
        return next(((job, jobs[job]) for job in jobs if names.get(job, "").startswith(comment)), None)

    return find


def trainings(cluster, seed):
    """Ids of all jobs that train with this seed, whatever became of them."""
    return {job for job, name in cluster.names_of_jobs().items() if name == f"{TRAIN}{seed}"}


def changed(before, after):
    """The paths of `before` whose time is not the same in `after`."""
    return sorted(path for path, at in before.items() if after.get(path) != at)


def test_a_sweep_shares_what_runs_have_in_common(sweep, cluster):
    process = sweep.start([1], "first.txt")
    sweep.finish(process, "first.txt")
    # one data set, one training, its evaluation and frozen graph, an INT8 job per quantizer for both targets
    expected = {"rule_data": 1, "rule_train": 1, "rule_graph": 2, "rule_int8": 2, "rule_sweep_report": 1}
    assert kinds_of_jobs(cluster) == expected
    (part,) = json.loads((sweep.folder / "results/report/sweep.json").read_text())["datasets"]
    runs = {(run["quantizer"], run["target"]): run for run in part["runs"]}
    assert set(runs) == {(q, t) for q in ("plain", "searched") for t in ("kv260", "zcu104")}
    assert all(run["seconds"] > 0 and run["images"] == 48 and run["seed"] == 1 for run in runs.values())


def test_what_is_killed_costs_only_itself(sweep, cluster):
    """One more seed; on its way a job, the controller, Snakemake and a node are killed, in this order."""
    before = sweep.times()
    process = sweep.start([1, 2], "killed.txt")
    try:
        first, _ = cluster.wait_for(running(cluster, f"{TRAIN}2"), 400, "the training")
        cluster.cancel(first)
        cluster.wait_for(lambda: trainings(cluster, 2) - {first}, 400, "another try")
        submitted = time.time()
        (second,) = trainings(cluster, 2) - {first}
        # a job that has not begun its work, or that is not saved yet, would die with any controller
        cluster.wait_for(lambda: f"{second}.0" in cluster.steps(), 200, "its work")
        state = cluster.root / "state/job_state"
        cluster.wait_for(lambda: state.exists() and state.stat().st_mtime > submitted, 200, "the saved state")
        cluster.stop_controller(signal.SIGKILL)
        cluster.start_controller()
    finally:
        process.kill()
        process.wait()
    cluster.wait_for(lambda: not cluster.jobs(), 400, "the end of the job that nobody watches")
    trained = sweep.times("results/tiny/small-s2/*")

    sweep.call("--unlock")
    process = sweep.start([1, 2], "again.txt")
    try:
        _, node = cluster.wait_for(running(cluster, "rule_graph_convert"), 400, "the frozen graph")
        cluster.lose_node(node)
        cluster.wait_for(lambda: cluster.jobs("NODE_FAIL"), 400, "the loss of the node")
        sweep.finish(process, "again.txt")
    finally:
        process.kill()

    after = sweep.times()
    assert before and not changed(before, after)
    assert {Path(path).name for path in trained} == {"keras_trained_model.h5", "history.csv"}
    assert not changed(trained, after)
    assert trainings(cluster, 2) == {first, second}
    (part,) = json.loads((sweep.folder / "results/report/sweep.json").read_text())["datasets"]
    assert len(part["runs"]) == 8
    assert "Nothing to be done" in sweep.call("sweep")
