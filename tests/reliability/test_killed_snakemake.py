"""Snakemake itself dies, or runs twice: the lock is explained, and after --unlock a plain run finishes."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from killed_jobs import EveryRule, configuration, killing
from workflow_copy import copy_of

from dpuflow.base.files import sha256

pytestmark = [pytest.mark.slow, pytest.mark.rules]

DATASET = "results/tiny/dataset.h5"
MADE = ["resources/tiny/train.csv", "resources/tiny/test.csv", DATASET]


@pytest.fixture
def flow(repo, tmp_path):
    """A copy in which nothing has run."""
    (tmp_path / "notes").mkdir()
    return EveryRule(copy_of(repo, tmp_path / "flow"), configuration())


def check_finished(flow, undisturbed):
    assert {path: sha256(flow.path(path)) for path in MADE} == {p: undisturbed.artifacts[p] for p in MADE}
    assert not list(flow.path("results").rglob(".*"))


def wait_until(condition):
    """Wait for a condition; fail when it does not come."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def ended(process):
    """Whether a process is gone, or a zombie: not every container has somebody who buries those."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.fault("processes", "SIGKILL of Snakemake: {id}", "message (--unlock), then resume")
@pytest.mark.parametrize(
    ("rule", "does"),
    [
        ("obtain_dataset", "power_failure"),
        ("build_dataset", "kill_snakemake"),
    ],
    ids=[
        "with its job, between two outputs",
        "alone, its job runs to the end unwatched",
    ],
)
def test_a_killed_snakemake(flow, undisturbed, tmp_path, rule, does):
    result = flow.run(DATASET, more=killing(tmp_path / "notes", rule, does=does), check=False)
    assert result.returncode == -signal.SIGKILL
    note = json.loads((tmp_path / "notes" / rule).read_text())
    wait_until(lambda: ended(note["process"]))  # the unwatched job
    refused = flow.run(DATASET, check=False)
    assert refused.returncode != 0 and "--unlock" in refused.stdout and "Traceback" not in refused.stdout
    flow.run("--unlock")
    flow.run(DATASET)
    check_finished(flow, undisturbed)


@pytest.mark.fault("processes", "two Snakemakes in one folder", "message; the first finishes")
def test_a_second_snakemake_is_refused(flow, undisturbed, tmp_path):
    note = tmp_path / "notes/build_dataset"
    results = []
    more = killing(tmp_path / "notes", "build_dataset", does="stop")
    first = threading.Thread(target=lambda: results.append(flow.run(DATASET, more=more, check=False)))
    first.start()
    wait_until(lambda: note.exists() and note.stat().st_size)
    second = EveryRule.__new__(EveryRule)
    second.folder, second.config, second.more = flow.folder, flow.config, {}
    refused = second.run(DATASET, check=False)
    assert refused.returncode != 0
    assert "cannot be locked" in refused.stdout and "Traceback" not in refused.stdout
    os.kill(json.loads(note.read_text())["process"], signal.SIGCONT)
    first.join(300)
    assert results[0].returncode == 0, results[0].stdout
    check_finished(flow, undisturbed)
