"""How long Snakemake takes to plan a sweep: all of it to do, and nothing to do.

Copies the workflow to a scratch folder and gives it sweeps of rising size. Nothing is
computed: the files of the finished sweep are empty and marked as made (`snakemake
--touch`), so the figures hold Snakemake's start, the DAG and the check of every job's
times, params and checksums, not the reading of large files.

    python benchmarks/dag_scaling.py            15, 100, 1,000, 10,000 jobs; 1,000 runs in a grid
    python benchmarks/dag_scaling.py --runs 1 100 --grid

Exit status 1 if a goal is missed (GOALS).
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from measuring import Goals

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from workflow_copy import Workflow, copy_of

REPO = Path(__file__).resolve().parent.parent
SEEDS = (1, 12, 125, 1250)
"""Runs that differ in their seed share the data set only: 8 jobs each and 4 in all, so up to 10,004."""

REPEATED, REPEATS = 200, 5
"""Sweeps of at most so many runs are measured so often after a warm-up; the others take minutes."""

GOALS = {1: 5, 1000: 60}
"""Runs -> most seconds of planning and of the check that nothing is to do, together, on 2 cores."""

DATASET = {
    "source": {"kind": "synthetic", "train_images": 240, "test_images": 48, "seed": 3},
    "validation": {"rows": 48, "take": "last"},
    "calibration": {"images": 24, "seed": 1},
}
MODEL = {
    "input": {"subtract": 128, "divide": 128},
    "layers": [{"conv": {"filters": 8, "activation": "relu"}}, {"max_pool": 4}, "flatten"],
    "training": {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 32, "epochs": 1},
}
RUN = {
    "dataset": "tiny",
    "model": "small",
    "quantizer": "reference",
    "target": "zcu104",
    "runner": "emulator",
}

TOUCH = """
import sys
from snakemake.cli import main
from snakemake.executors.touch import Executor
Executor.SLEEPING_TIME = 0.001  # of each job: 0.1 s would be 17 minutes for 10,000
main()
"""


def seed_sweep(runs):
    """A configuration of so many runs, each trained with a seed of its own."""
    seeds = {"seed": list(range(1, runs + 1))} if runs > 1 else {}
    return {"datasets": {"tiny": DATASET}, "models": {"small": MODEL}, "runs": [RUN | seeds]}


def grid():
    """1,000 runs: 20 seeds x 10 quantizer settings x 5 targets."""
    quantizers = {f"images{i}": {"tool": "reference", "calibration": {"images": i}} for i in range(10, 20)}
    targets = {name: {"board": "kv260"} for name in "abcde"}
    run = RUN | {"seed": list(range(1, 21)), "quantizer": list(quantizers), "target": list(targets)}
    return seed_sweep(1) | {"quantizers": quantizers, "targets": targets, "runs": [run]}


def snakemake(folder, *arguments, start=("-m", "snakemake")):
    """(standard output and error, wall seconds, CPU seconds) of one call for the target `sweep`."""
    command = ["sweep", *arguments, "--cores", "2", "--configfile", "sweep.yaml"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *start, *command],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(folder),
    )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout[-4000:])
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment(folder):
    """Environment of a Snakemake that runs in `folder`."""
    return Workflow(folder, {}).environment


def pretend_finished(folder):
    """Make every output an empty file that Snakemake takes for its job's result."""
    table, _, _ = snakemake(folder, "--summary")
    for line in table.splitlines():
        path, tab, _ = line.partition("\t")
        if tab and path != "output_file":
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
    snakemake(folder, "--touch", "--quiet", "all", start=("-c", TOUCH))


def medians(folder, repeats, *arguments):
    """(output, wall seconds, CPU seconds) of calls of Snakemake: medians, after a warm-up if of several."""
    calls = [snakemake(folder, *arguments) for _ in range(repeats + (repeats > 1))][repeats > 1 :]
    return calls[-1][0], *(statistics.median(values) for values in list(zip(*calls, strict=True))[1:])


def measure(config, repeats):
    """(jobs, plan wall, plan CPU, no-op wall, no-op CPU) of a sweep."""
    with tempfile.TemporaryDirectory(prefix="dag_scaling.") as name:
        folder = Path(name)
        copy_of(REPO, folder)
        (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
        text, *plan = medians(folder, repeats, "-n", "--quiet", "rules")
        jobs = int(re.findall(r"^total\s+(\d+)", text, re.MULTILINE)[-1])
        pretend_finished(folder)
        text, *check = medians(folder, repeats, "--quiet", "rules")
        if "Nothing to be done" not in text:
            sys.exit(f"the finished sweep is not finished:\n{text[-2000:]}")
    return jobs, *plan, *check


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, nargs="*", help="only sweeps of so many runs that differ in their seed"
    )
    parser.add_argument("--grid", action="store_true", help="the 1,000 runs that share artifacts, too")
    options = parser.parse_args()
    everything = options.runs is None and not options.grid
    sweeps = [(n, seed_sweep(n), "a seed each") for n in (SEEDS if everything else options.runs or ())]
    if everything or options.grid:
        sweeps.append((1000, grid(), "20 seeds, 10 quantizers, 5 targets"))
    print("## Planning a sweep, and finding that nothing is to do\n")
    print("| sweep | jobs | plan, s | plan, CPU s | no-op, s | no-op, CPU s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    goals = Goals()
    for runs, config, kind in sweeps:
        print(f"{runs} runs ...", file=sys.stderr, flush=True)
        jobs, *seconds = measure(config, REPEATS if runs <= REPEATED else 1)
        named = f"{runs:,} run{'s' if runs > 1 else ''}, {kind}" if runs > 1 else "1 run"
        print(f"| {named} | {jobs:,} | " + " | ".join(f"{value:.1f}" for value in seconds) + " |", flush=True)
        if runs in GOALS:
            both = seconds[0] + seconds[2]
            text = f"{named}: planning and the check that nothing is to do take {both:.1f} s"
            goals.add(f"{text} (goal {GOALS[runs]} s)", both < GOALS[runs])
    print(
        "\nOne call of Snakemake, from the start of its process to its end (both build the DAG); up to "
        f"{REPEATED} runs the median of {REPEATS} calls after a warm-up, else one call; on "
        f"{os.cpu_count()} cores; the files of the finished sweep are empty.\n"
    )
    sys.exit(goals.finish())


if __name__ == "__main__":
    main()
