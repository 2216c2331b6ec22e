"""Fixtures shared by all tests."""

import copy
import os
from pathlib import Path

# Before any test imports TensorFlow: legacy Keras and a quiet log, as the scripts set them.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

# The same examples on every run, however slow the machine is. DPUFLOW_FUZZ draws new ones each time.
settings.register_profile(
    "dpuflow",
    derandomize="DPUFLOW_FUZZ" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("dpuflow")

pytest_plugins = ["fault_record", "hidden_skips", "quick_set"]

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared"


_first_states = {}


@pytest.fixture(autouse=True)
def _random_numbers_of_its_own(request):
    """Rewind the generators of the test's module, so that no test sees which ones ran before it."""
    for name, value in vars(request.module).items():
        if isinstance(value, np.random.Generator):
            place = request.module.__name__, name
            value.bit_generator.state = _first_states.setdefault(place, value.bit_generator.state)


@pytest.fixture(scope="session")
def repo():
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def shared():
    """Factory: shared("golden/ops.npz") -> path, or a skip that says what is missing."""

    def locate(relative):
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"needs {path}, which is not on this machine")
        return path

    return locate


@pytest.fixture(scope="session")
def default(repo):
    """The shipped configuration; not to be changed."""
    return yaml.safe_load((repo / "config/config.yaml").read_text())


@pytest.fixture
def config(default):
    """A copy of the shipped configuration."""
    return copy.deepcopy(default)


@pytest.fixture
def schema(repo):
    """Path of the configuration's schema."""
    return repo / "config/config.schema.yaml"
