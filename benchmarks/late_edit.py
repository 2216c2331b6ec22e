"""From an edit of a late setting to the new report.

    python benchmarks/late_edit.py [--datasets sign_mnist] [--results FOLDER] [--repeats 3] [--quick]

In a copy of the workflow a run of `signnet` is finished first (not timed); then, in turns, the
quantizer's method, the target's board and a sentence of the report are changed to and fro, and
`snakemake all` is timed from its start to its end. --results names a folder whose `results`,
`resources` and `.snakemake` are taken over, so that the training is not repeated.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import subject
from measuring import Goals, parser_of, progress, table
from workflow_runs import available, job_seconds, make_folder, settings_of, snakemake

LIMIT = 25
"""Seconds that an edit may take."""
TEMPLATE = "dpuflow/report/templates/base.html.j2"


def change_method(folder, config):
    """Another method of choosing positions: everything from the quantizer on is made again."""
    quantizer = config["quantizers"]["reference"]
    quantizer["method"] = "non_overflow" if quantizer.get("method") != "non_overflow" else "min_diffs"


def change_target(folder, config):
    """Another board behind the run's target: compiler, emulator and report."""
    target = config["targets"][config["runs"][0]["target"]]
    target["board"] = "zcu102" if target["board"] != "zcu102" else "kv260"


def change_wording(folder, config):
    """Another word on the report's page."""
    path = folder / TEMPLATE
    text = path.read_text()
    old, new = "</body>", "<p>Another word.</p></body>"
    path.write_text(text.replace(new, old) if new in text else text.replace(old, new))


EDITS = {
    "the quantizer's `method`": change_method,
    "the target's `board`": change_target,
    "a word of the report": change_wording,
}


def timed_edits(folder, config, repeats):
    """{edit: (median seconds, {job: seconds} of the last time)}; one warm-up of each first."""
    seconds, jobs = {name: [] for name in EDITS}, {}
    for turn in range(repeats + 1):
        for name, edit in EDITS.items():
            edit(folder, config)
            since = time.time()
            taken = snakemake(folder, config)
            jobs[name] = job_seconds(folder, since)
            progress(f"{name}: {taken:.1f} s")
            seconds[name] += [taken] if turn else []
    return {name: (float(np.median(seconds[name])), jobs[name]) for name in EDITS}


def main():
    """Parse the command line, measure, print Markdown; returns the exit status."""
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--datasets", nargs="+", choices=subject.CONFIGS, help="default: those present")
    parser.add_argument("--results", type=Path, help="folder of a workflow whose results are taken over")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    goals, rows = Goals(binding=not options.quick), []
    for dataset in options.datasets or sorted({"synthetic_signs", available()}, reverse=True):
        with tempfile.TemporaryDirectory(prefix="late-edit.") as name:
            folder = make_folder(Path(name) / "workflow")
            for part in ("results", "resources", ".snakemake") if options.results else ():
                shutil.copytree(options.results / part, folder / part)
            config = settings_of(dataset, "signnet", options.quick)
            progress(f"{dataset}: finished in {snakemake(folder, config):.1f} s; now the edits")
            for edit, (seconds, jobs) in timed_edits(folder, config, repeats).items():
                share = ", ".join(f"{job} {value:.1f}" for job, value in jobs.items())
                rows.append([f"{edit}, {dataset}", f"{seconds:.1f}", share])
                goals.add(
                    f"{edit}, {dataset}: {seconds:.1f} s to the new report, at most {LIMIT}", seconds <= LIMIT
                )
    print("## One late edit to a new report\n")
    print(table(("edit", "seconds", "jobs, s"), rows))
    print(
        f"`signnet`; `snakemake all` from its start to its end, median of {repeats} after a warm-up; "
        "the jobs' own seconds, which include the start of Python, as Snakemake noted them the last time.\n"
    )
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
