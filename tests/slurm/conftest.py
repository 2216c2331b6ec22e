"""A throw-away Slurm cluster and a copy of the workflow that runs on it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import throwaway_cluster
import yaml
from workflow_copy import copy_of

SWEEP = {
    "datasets": {
        "tiny": {
            "source": {"kind": "synthetic", "train_images": 240, "test_images": 48, "seed": 3},
            "validation": {"rows": 48, "take": "last"},
            "calibration": {"images": 24, "seed": 1},
        }
    },
    "models": {
        "small": {
            "input": {"subtract": 128, "divide": 128},
            "layers": [
                {"conv": {"filters": 8, "activation": "relu"}},
                {"max_pool": 4},
                "flatten",
            ],
            "training": {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 32, "epochs": 1},
        }
    },
    "quantizers": {
        "plain": {"tool": "reference", "method": "non_overflow"},
        "searched": {"tool": "reference", "method": "min_diffs"},
        "corrected": {"tool": "reference", "fast_finetune": False, "bias_correction": True},
        "as_vendor": {"tool": "reference", "compat": "vai_q"},
    },
    "targets": {"own_board": {"board": "kv260"}},
    "runs": [
        {
            "dataset": "tiny",
            "model": "small",
            "quantizer": ["plain", "searched", "corrected", "as_vendor"],
            "target": ["kv260", "zcu102", "zcu104", "ultra96v2", "own_board"],
            "runner": "emulator",
        }
    ],
}


class SweepOnSlurm:
    """The workflow in `folder`; `start` submits the sweep with these seeds through profiles/slurm."""

    def __init__(self, folder, environment, plugins):
        self.folder = Path(folder)
        self.environment = environment | {
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONPATH": str(plugins),
            "NO_COLOR": "1",
        }
        self.environment.pop("MAKEFLAGS", None)

    def command(self, *arguments):
        quick = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20"]
        return [sys.executable, "-m", "snakemake", *arguments, "--workflow-profile", "profiles/slurm", *quick]

    def start(self, seeds, log):
        """The running Snakemake process; what it prints goes to the file `log` in the folder."""
        config = SWEEP | {"runs": [SWEEP["runs"][0] | {"seed": seeds}]}
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(config))
        with open(self.folder / log, "w", encoding="utf-8") as stream:
            return subprocess.Popen(
                self.command("sweep", "--configfile", "sweep.yaml"),
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def call(self, *arguments):
        done = subprocess.run(
            self.command(*arguments, "--configfile", "sweep.yaml"),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def finish(self, process, log, seconds=1800):
        """Wait for the end, which has to be a good one; the output."""
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            status = f"none after {seconds} s"
        output = (self.folder / log).read_text()
        assert status == 0, f"status {status}\n{output[-6000:]}"
        return output

    def times(self, pattern="results/tiny/**/*"):
        """{path: modification time in ns} of the results."""
        files = (path for path in self.folder.glob(pattern) if path.is_file())
        return {str(path.relative_to(self.folder)): path.stat().st_mtime_ns for path in files}


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
    """Two nodes of four cores (claimed, not owned) on loopback."""
    try:
        throwaway_cluster.require_slurm()
    except throwaway_cluster.UnavailableError as error:
        pytest.skip(str(error))
    with throwaway_cluster.Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="session")
def sweep(repo, tmp_path_factory, cluster, plugins):
    """The workflow's own files in a folder of their own."""
    folder = copy_of(repo, tmp_path_factory.mktemp("sweep"))
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE_")}
    return SweepOnSlurm(folder, inherited | cluster.environment, plugins)
