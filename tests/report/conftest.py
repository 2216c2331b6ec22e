"""Fixtures of the report's tests."""

import pytest
from made_up_runs import write_toy_report


@pytest.fixture(scope="session")
def toy_report(tmp_path_factory):
    """Folder with a report of three runs, one of them bare and of the instruction simulator."""
    return write_toy_report(tmp_path_factory.mktemp("report"))
