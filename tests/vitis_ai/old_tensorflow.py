"""Virtual environments with old TensorFlow releases, made once and kept between test runs.

They lie in the folder that DPUFLOW_COMPAT names, or ~/.cache/dpuflow-compat. The interpreters are pyenv's.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
CACHE = Path(os.environ.get("DPUFLOW_COMPAT", Path.home() / ".cache" / "dpuflow-compat"))
INSTALL_TIMEOUT_S = 900


@dataclass(frozen=True)
class Release:
    """An old release: name of its environment, Python series, what pip installs."""

    name: str
    python: str
    packages: tuple


RELEASES = {
    release.name: release
    for release in (
        # what these need beyond the release: the newest versions of their time that still fit
        Release("tf1.15.5", "3.7", ("tensorflow==1.15.5", "protobuf<3.21", "numpy<1.19", "h5py<3")),
        Release("tf2.3.4", "3.8", ("tensorflow==2.3.4", "protobuf<3.21")),
        Release("tf2.12", "3.11", ("tensorflow==2.12.0",)),
        Release("numpy3.6", "3.6", ("numpy<1.20",)),
    )
}


def python_of(name):
    """Interpreter of an environment; makes the environment first, or skips the test with the reason."""
    release = RELEASES[name]
    folder = CACHE / release.name
    python = folder / "bin" / "python"
    done = folder / "complete"
    if done.exists() and done.read_text() == _key(release):
        return python
    interpreters = sorted(PYENV.glob(f"{release.python}.*/bin/python{release.python}"))
    if not interpreters:
        pytest.skip(f"needs CPython {release.python} in {PYENV} (pyenv install {release.python})")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([interpreters[-1], "-m", "venv", folder], check=True, env=clean_environment())
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *release.packages]
    try:
        result = subprocess.run(
            pip,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip did not install {release.packages[0]} within {INSTALL_TIMEOUT_S} s")
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"pip cannot install {release.packages[0]} for Python {release.python}: {last}")
    done.write_text(_key(release))
    return python


def _key(release):
    return " ".join((release.python, *release.packages))


def clean_environment():
    """Without what points a Python at this project's packages."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "TF_USE_LEGACY_KERAS", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(name, program, *arguments, cwd=None):
    """Run a program's text with the interpreter of an environment; returns what it prints."""
    result = subprocess.run(
        [python_of(name), "-c", program, *map(str, arguments)],
        env=clean_environment(), cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
