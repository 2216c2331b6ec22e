"""A throw-away Slurm cluster and a copy of the workflow that runs on it."""

import os
import subprocess
import sys

import pytest
import throwaway_cluster
from onnx_models import small_classifier
from slurm_sweep import SweepOnSlurm, write_branched, write_pictures
from workflow_copy import copy_of


@pytest.fixture(scope="session")
def plugins(repo, tmp_path_factory):
    """A folder with the packages of requirements-slurm.txt, for PYTHONPATH.

    Not in the environment of the other tests, whose every Snakemake would call scontrol.
    """
    folder = tmp_path_factory.mktemp("plugins")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    packages = ["--target", str(folder), "--requirement", str(repo / "requirements-slurm.txt")]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install requirements-slurm.txt: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two nodes on loopback, whose cores and memory (claimed, not owned) let no job wait."""
    try:
        throwaway_cluster.require_slurm()
    except throwaway_cluster.UnavailableError as error:
        pytest.skip(str(error))
    with throwaway_cluster.Cluster(tmp_path_factory.mktemp("slurm"), cpus=32, memory=512000) as running:
        yield running


@pytest.fixture(scope="session")
def sweep(repo, tmp_path_factory, cluster, plugins):
    """The workflow's own files in a folder of their own, with pictures and two ONNX models."""
    folder = copy_of(repo, tmp_path_factory.mktemp("sweep"))
    write_pictures(folder / "pictures")
    small_classifier(folder / "plain.onnx", shape=(3, 16, 16), classes=3)
    write_branched(folder / "branched.onnx")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE_")}
    return SweepOnSlurm(folder, inherited | cluster.environment, plugins)
