"""Sweeps on a real Slurm: they complete, and what is killed on the way costs only what was killed.

One folder grows from test to test: every sweep adds a seed, so each also shows that the
finished runs stay as they are.
"""

import json
import signal
import time
from collections import Counter

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


def unchanged(before, after):
    """The paths of `before` whose time is not the same in `after`."""
    return sorted(path for path, at in before.items() if after.get(path) != at)


def test_a_sweep_shares_what_runs_have_in_common(sweep, cluster):
    process = sweep.start([1, 2], "first.txt")
    sweep.finish(process, "first.txt")
    # one data set, two trainings, per model an evaluation and a frozen graph, one INT8 network per run
    expected = {"rule_data": 1, "rule_train": 2, "rule_graph": 4, "rule_int8": 4, "rule_sweep_report": 1}
    assert kinds_of_jobs(cluster) == expected
    (part,) = json.loads((sweep.folder / "results/report/sweep.json").read_text())["datasets"]
    runs = {(run["seed"], run["quantizer"]): run for run in part["runs"]}
    assert set(runs) == {(1, "plain"), (1, "searched"), (2, "plain"), (2, "searched")}
    assert all(run["seconds"] > 0 and run["images"] == 48 for run in runs.values())
    assert [c["runs"] for c in part["configurations"]] == [2, 2]


def test_killing_a_job_the_controller_and_a_node_loses_nothing(sweep, cluster):
    before = sweep.times()
    process = sweep.start([1, 2, 3], "kills.txt")
    try:
        job, _ = cluster.wait_for(running(cluster, f"{TRAIN}3"), 120, "the training")
        cluster.cancel(job)
        second = cluster.wait_for(
            lambda: (found := running(cluster, f"{TRAIN}3")()) and found[0] != job and found,
            120,
            "another try",
        )

        # what the controller has not saved yet dies with it, on any cluster
        state, start = cluster.root / "state/job_state", time.time()
        cluster.wait_for(lambda: state.exists() and state.stat().st_mtime > start, 60, "the saved state")
        cluster.stop_controller(signal.SIGKILL)
        time.sleep(1)
        cluster.start_controller()

        _, node = cluster.wait_for(running(cluster, "rule_graph_convert"), 120, "the frozen graph")
        trained = sweep.times("results/tiny/small-s3/*.h5")
        cluster.lose_node(node)
        cluster.wait_for(lambda: cluster.jobs("NODE_FAIL"), 120, "the loss of the node")
        cluster.start_node(node)
        sweep.finish(process, "kills.txt")
    finally:
        process.kill()
    after = sweep.times()
    assert before and not unchanged(before, after)
    assert trained and not unchanged(trained, after)
    trainings = [job for job, name in cluster.names_of_jobs().items() if name == f"{TRAIN}3"]
    assert sorted(trainings) == sorted([job, second[0]])
    assert (
        len(json.loads((sweep.folder / "results/report/sweep.json").read_text())["datasets"][0]["runs"]) == 6
    )


def test_killing_snakemake_keeps_what_its_jobs_finish(sweep, cluster):
    before = sweep.times()
    process = sweep.start([1, 2, 3, 4], "killed.txt")
    cluster.wait_for(running(cluster, f"{TRAIN}4"), 120, "the training")
    process.kill()
    process.wait()
    cluster.wait_for(lambda: not cluster.jobs(), 120, "the end of the job that nobody watches")
    trained = sweep.times("results/tiny/small-s4/*.h5")
    sweep.call("--unlock")
    sweep.finish(sweep.start([1, 2, 3, 4], "again.txt"), "again.txt")
    after = sweep.times()
    assert not unchanged(before, after) and not unchanged(trained, after)
    assert len(trained) == 1 and list(cluster.names_of_jobs().values()).count(f"{TRAIN}4") == 1
    assert "Nothing to be done" in sweep.call("sweep")
