"""What the benchmarks of whole runs share: a copy of the workflow, a configuration, timed Snakemake calls."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import subject
import yaml
from dag_scaling import DATASET, MODEL, copy_of, environment
from measuring import REPO

CONFIG = "benchmark.yaml"
"""The configuration of a copy of the workflow, relative to its folder."""


def settings_of(dataset, model, quick=False, **changes):
    """A whole configuration with one run.

    dataset : "sign_mnist" or "synthetic_signs". model : name of a model of config/config.yaml.
    quick : tiny data and one short epoch. changes : keys of the model's `training`.
    """
    config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
    path, target, _ = subject.CONFIGS[dataset]
    source = yaml.safe_load((REPO / path).read_text())["datasets"][dataset]["source"]
    if "folder" in source:  # relative to the workflow's folder, but the copy lies elsewhere
        source["folder"] = str((REPO / source["folder"]).resolve())
    config["datasets"][dataset]["source"] = source
    if quick:
        config["datasets"][dataset] = DATASET
        config["models"][model] = {**MODEL, "training": config["models"][model]["training"] | {"epochs": 1}}
    config["models"][model]["training"] |= changes
    names = {"dataset": dataset, "model": model, "quantizer": "reference", "runner": "emulator"}
    return config | {"runs": [names | {"target": target}]}


def available():
    """The data set to measure on: the real one where it is present, else the embedded one."""
    folder = yaml.safe_load((REPO / "config" / "sign_mnist.yaml").read_text())["datasets"]["sign_mnist"]
    present = (REPO / folder["source"]["folder"]).is_dir()
    return "sign_mnist" if present else "synthetic_signs"


def make_folder(folder):
    """A copy of the workflow without any results, in `folder`; returns its path."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    return copy_of(REPO, folder)


def snakemake(folder, config, target="all"):
    """Seconds that one call takes in a copy of the workflow; exits with its messages if it fails."""
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    command = [sys.executable, "-m", "snakemake", target, "--cores", str(cores()), "--configfile", CONFIG]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout[-4000:])
    return seconds


def cores():
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def job_seconds(folder, since=0.0):
    """{job: wall seconds} of the jobs that ran after the time `since`, in the order of their end."""
    paths = [path for path in folder.glob("benchmarks/jobs/**/*.tsv") if path.stat().st_mtime >= since]
    jobs = {}
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        with open(path, newline="") as stream:
            jobs[path.stem] = float(next(csv.DictReader(stream, delimiter="\t"))["s"])
    return jobs
