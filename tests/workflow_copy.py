"""A copy of the workflow in a folder of its own, and a configuration that runs in seconds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

PARTS = (
    "Snakefile",
    "rules",
    "scripts",
    "dpuflow",
    "config",
    "envs",
    "report",
    "profiles",
)
TINY = {
    "datasets": {
        "tiny": {
            "source": {"kind": "synthetic", "train_images": 480, "test_images": 96, "seed": 3},
            "validation": {"rows": 96, "take": "last"},
            "calibration": {"images": 72, "seed": 1},
        }
    },
    "models": {
        "small": {
            "input": {"subtract": 128, "divide": 128},
            "layers": [
                {"conv": {"filters": 8, "batch_norm": "before_activation", "activation": "relu"}},
                {"max_pool": 4},
                "flatten",
            ],
            "training": {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 32, "epochs": 2},
        }
    },
    "runs": [
        {
            "dataset": "tiny",
            "model": "small",
            "quantizer": "reference",
            "target": "zcu104",
            "runner": "emulator",
        }
    ],
}


class Workflow:
    """The workflow in `folder`; `run` calls Snakemake there, `plan` tells what a run would do."""

    def __init__(self, folder, config):
        self.folder = Path(folder)
        self.config = config

    @property
    def environment(self):
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MAKEFLAGS")}
        return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1"}

    def run(self, *arguments, config=None, check=True):
        """Run Snakemake; the merged output is the result's `stdout`."""
        path = self.folder / "test.yaml"
        path.write_text(yaml.safe_dump(config or self.config))
        result = self.snakemake(*arguments, "--cores", "2", "--configfile", path.name)
        if check:
            assert result.returncode == 0, result.stdout
        return result

    def snakemake(self, *arguments, cwd=None):
        """Run Snakemake with these arguments and no others."""
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=cwd or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def plan(self, target="all", config=None):
        """Names of the rules that would run for `target`, without `all` itself."""
        output = self.run(target, "-n", "--quiet", "rules", config=config).stdout
        if "Nothing to be done" in output:
            return set()
        table = output.partition("Job stats:")[2].partition("total")[0]
        return set(re.findall(r"^(\w+)\s+\d+$", table, re.MULTILINE)) - {"all", "job"}

    def path(self, relative):
        return self.folder / relative


def copy_of_run(workflow, folder):
    """The workflow and what it has made, in another folder: for runs that others must not see."""
    copy = object.__new__(type(workflow))
    copy.__dict__ |= vars(workflow) | {
        "folder": Path(shutil.copytree(workflow.folder, folder, symlinks=True))
    }
    return copy


def state_of(workflow):
    """{path: (time of the last change, bytes)} of what the workflow is made of and has made."""
    parts = (
        path
        for part in (*PARTS, "resources", "results", "logs", "deploy")
        for path in _files(workflow.path(part))
    )
    return {
        str(path.relative_to(workflow.folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in parts
    }


def _files(place):
    """A file, or all below a folder but Python's caches."""
    found = place.rglob("*") if place.is_dir() else [place]
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def copy_of(repo, folder):
    """Copy the workflow's own files (no results, no caches) to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = repo / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / part)
    return folder
