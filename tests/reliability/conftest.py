"""One undisturbed run of every rule, and one in which each rule's process is killed once."""

import json
from types import SimpleNamespace

import pytest
from killed_jobs import TARGETS, EveryRule, configuration, killing
from ssh_server import Server, make_keys, what_is_missing
from workflow_copy import copy_of, state_of

from dpuflow.base.files import sha256

ATTEMPTS = 25
"""More plain reruns than the graph of jobs is deep."""


@pytest.fixture(scope="session")
def board(tmp_path_factory):
    """An SSH server that stands for a board, or None where there is no sshd."""
    if what_is_missing():
        yield None
        return
    server = Server(tmp_path_factory.mktemp("board"), make_keys(tmp_path_factory.mktemp("keys")), batch=64)
    yield server
    server.stop()


def artifacts(workflow):
    """{path below the workflow's folder: SHA-256} of all that the workflow made."""
    made = [path for part in ("resources", "results", "deploy") for path in workflow.path(part).rglob("*")]
    return {str(p.relative_to(workflow.folder)): sha256(p) for p in sorted(made) if p.is_file()}


@pytest.fixture(scope="session")
def undisturbed(repo, board, tmp_path_factory):
    """The workflow after a run of every rule that can run here, to be looked at."""
    folder = copy_of(repo, tmp_path_factory.mktemp("every_rule") / "flow")
    workflow = EveryRule(folder, configuration(board))
    workflow.scripts = folder.with_name("scripts")  # of the jobs, with their values: RULE.py
    workflow.scripts.mkdir()
    workflow.run(*TARGETS, "--quiet", "rules", more=killing(workflow.scripts, does="keep"))
    workflow.artifacts = artifacts(workflow)
    before = state_of(workflow)
    yield workflow
    assert state_of(workflow) == before, "a test has changed what the others look at"


@pytest.fixture(scope="session")
def campaign(repo, board, undisturbed, tmp_path_factory):
    """The same, but every rule's process is killed once; after each failure Snakemake is called again.

    Attributes: workflow; notes, what the killer wrote about each rule; runs, Snakemake's results; left, after
    each failed run the artifacts that stood there; artifacts, at the end.
    """
    folder = tmp_path_factory.mktemp("killed")
    notes = folder / "notes"
    notes.mkdir()
    workflow = EveryRule(copy_of(repo, folder / "flow"), configuration(board))
    runs, left = [], []
    while not runs or (runs[-1].returncode and len(runs) < ATTEMPTS):
        runs.append(
            workflow.run(*TARGETS, "--keep-going", "--quiet", "rules", more=killing(notes), check=False)
        )
        left.append(artifacts(workflow))
    return SimpleNamespace(
        workflow=workflow,
        notes={path.name: json.loads(path.read_text()) for path in notes.iterdir()},
        runs=runs,
        left=left,
        artifacts=artifacts(workflow),
    )
