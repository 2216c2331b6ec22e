"""The fuzz tests' helpers lie beside them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def sandbox(tmp_path):
    """sandbox(target name) -> a Sandbox, stopped at the end of the test."""
    from fuzz_sandbox import Sandbox

    opened = []

    def start(name):
        opened.append(Sandbox(name, tmp_path))
        return opened[-1]

    yield start
    for box in opened:
        box.close()
