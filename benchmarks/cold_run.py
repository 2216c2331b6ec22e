"""A whole run from nothing to the report, and each job's share of it.

    python benchmarks/cold_run.py [--only synthetic_signs sign_mnist] [--quick]

In a fresh copy of the workflow without results, caches or compiled Python files: what `make run`
does once the packages are installed (`signnet` on the embedded data), and the same on the real
Sign Language MNIST where it is present. One run each: a cold run is its own warm-up. A job's
seconds are its process's life as Snakemake notes it; jobs overlap on several cores.
"""

import sys
import tempfile
from pathlib import Path

import subject
from measuring import Goals, parser_of, progress, table
from workflow_runs import available, job_seconds, make_folder, settings_of, snakemake

from dpuflow.base.files import read_json

MODEL = "signnet"
LIMITS = {"synthetic_signs": 180, "sign_mnist": 480}
"""Seconds that a run may take."""
ACCURACY = 0.995
"""What the emulated board must reach on the real data."""


def accuracy_of(folder):
    """(Keras, board) accuracy of the only run of a finished workflow."""
    stages = [
        read_json(next(Path(folder).glob(f"results/**/{name}_accuracy.json"))) for name in ("keras", "board")
    ]
    return [stage["accuracy"] for stage in stages]


def main():
    """Parse the command line, measure, print Markdown; returns the exit status."""
    parser = parser_of(__doc__, repeats=None)
    parser.add_argument("--only", nargs="+", choices=LIMITS, help="data sets (default: those present)")
    parser.add_argument("--quick", action="store_true", help="tiny data: only shows that the benchmark works")
    options = parser.parse_args()
    datasets = options.only or sorted({"synthetic_signs", available()}, reverse=True)
    goals, totals, shares, accuracies = Goals(binding=not options.quick), {}, {}, {}
    for dataset in datasets:
        progress(f"cold run on {dataset}")
        with tempfile.TemporaryDirectory(prefix="cold-run.") as name:
            folder = make_folder(Path(name) / "workflow")
            totals[dataset] = snakemake(folder, settings_of(dataset, MODEL, options.quick))
            shares[dataset] = job_seconds(folder)
            accuracies[dataset] = stages = accuracy_of(folder)
        limit = LIMITS[dataset]
        goals.add(
            f"`{MODEL}` on {dataset}: {totals[dataset]:.0f} s from nothing, at most {limit}",
            totals[dataset] <= limit,
        )
        if dataset == "sign_mnist":
            text = f"`{MODEL}` on {dataset}: {100 * min(stages):.2f} % on the emulated board or before"
            goals.add(f"{text}, at least {100 * ACCURACY} %", min(stages) >= ACCURACY)
    print("## From nothing to the report\n")
    rows = [["whole run", *(f"{totals[dataset]:.1f}" for dataset in datasets)]]
    for job in max(shares.values(), key=len):
        rows.append([f"`{job}`", *(f"{shares[dataset].get(job, 0):.1f}" for dataset in datasets)])
    for index, stage in enumerate(("trained", "on the emulated board")):
        rows.append(
            [f"accuracy {stage}, %", *(f"{100 * accuracies[dataset][index]:.2f}" for dataset in datasets)]
        )
    print(table(("seconds", *(subject.CONFIGS[dataset][2] for dataset in datasets)), rows))
    print("One run each in a fresh copy of the workflow; a job's seconds include its start and imports.\n")
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
