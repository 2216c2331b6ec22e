"""The tiny workflow, finished or fresh."""

import pytest
from workflow_copy import TINY, Workflow, copy_of


@pytest.fixture(scope="session")
def finished(repo, tmp_path_factory):
    """The tiny workflow after one complete run. Leave it as you found it."""
    workflow = Workflow(copy_of(repo, tmp_path_factory.mktemp("workflow")), TINY)
    workflow.first_output = workflow.run("all").stdout
    return workflow


@pytest.fixture
def fresh(repo, tmp_path):
    """A copy in which nothing has run."""
    return Workflow(copy_of(repo, tmp_path / "flow"), TINY)
