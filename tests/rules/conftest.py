"""The tiny workflow, finished or fresh."""

import pytest
from workflow_copy import TINY, Workflow, copy_of, copy_of_run, state_of


@pytest.fixture(scope="session")
def finished(repo, tmp_path_factory):
    """The tiny workflow after one complete run, to be looked at: what changes it takes `changeable`."""
    workflow = Workflow(copy_of(repo, tmp_path_factory.mktemp("workflow")), TINY)
    workflow.first_output = workflow.run("all").stdout
    before = state_of(workflow)
    yield workflow
    assert state_of(workflow) == before, "a test has changed what the others look at"


@pytest.fixture
def changeable(finished, tmp_path_factory):
    """A copy of the finished workflow for one test, which may run and change what it likes in it."""
    return copy_of_run(finished, tmp_path_factory.mktemp("changeable") / "flow")


@pytest.fixture
def fresh(repo, tmp_path):
    """A copy in which nothing has run."""
    return Workflow(copy_of(repo, tmp_path / "flow"), TINY)
