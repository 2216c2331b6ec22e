"""The wheel is the whole library: built and installed elsewhere, it does what the checkout does."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from quantize.frozen_networks import plain_network

from dpuflow.emulator import c_kernels

pytestmark = pytest.mark.slow
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
USER = Path(__file__).with_name("library_user.py")


def run(*command, cwd, **variables):
    """Standard output of a program that finds no package but what `variables` say."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | variables
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repo, tmp_path_factory):
    """The wheel, built offline from a copy: setuptools leaves its own folders beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(repo / "dpuflow", source / "dpuflow", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(repo / name, source)
    run(*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    (path,) = folder.glob("dpuflow-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds the installed package and nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(*PIP, "install", "--no-index", "--no-deps", "--target", folder, wheel, cwd=folder)
    return folder


def test_it_holds_every_file_of_the_package_and_nothing_else(repo, wheel):
    files = (path for path in (repo / "dpuflow").rglob("*") if path.is_file() and path.suffix != ".pyc")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {path.relative_to(repo).as_posix() for path in files}


def test_it_asks_for_the_packages_of_the_requirements(repo, wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needed = {line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")}
    pins = (line for line in (repo / "requirements.txt").read_text().splitlines() if "==" in line)
    assert needed == set(pins) and "License-Expression: MIT" in lines


def test_a_network_goes_from_graph_to_board_as_in_the_checkout(repo, installed, tmp_path):
    graph = plain_network(tmp_path / "graph.pb")
    found = {}
    for place in (installed, repo):
        folder = tmp_path / place.name
        folder.mkdir()
        # a cache of its own: the kernels are compiled from the source that was installed
        variables = {"PYTHONPATH": str(place), "XDG_CACHE_HOME": str(folder)}
        # -P: without the folder of the program, which is the repository's
        answer = json.loads(run(sys.executable, "-P", USER, graph, folder, cwd=tmp_path, **variables))
        assert answer.pop("package") == str(place / "dpuflow")
        found[place] = answer
    answer = found[installed]
    assert answer == found[repo]
    assert answer["backends"] == ["native" if c_kernels.library() else "numpy", "numpy"]
    assert answer["outputs"][0] == answer["outputs"][1] and len(answer["outputs"][0]) == 48
    assert answer["board"] == {"images": 40, "equal": 40, "xdputil": "virtual board (emulated)"}
    assert answer["agreement"] == 1.0

    xmodel = tmp_path / installed.name / "model.xmodel"
    elsewhere = {"PYTHONPATH": str(installed)}
    told = run(sys.executable, "-m", "dpuflow.isa", "check", xmodel, cwd=tmp_path, **elsewhere)
    assert told.startswith("subgraph_conv2: B4096, ") and "bytes, no fault found\n" in told
    told = run(sys.executable, "-m", "dpuflow.xir", "show", xmodel, cwd=tmp_path, **elsewhere)
    assert "conv1" in told and "DPU" in told
