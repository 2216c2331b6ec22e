"""What starting a job costs, against its work: interpreter, Snakemake's preamble, imports, TensorFlow.

    python benchmarks/job_start.py                    a tiny data set, 5 runs after a warm-up
    python benchmarks/job_start.py --embedded         the default configuration, once

Runs the whole chain in a scratch folder, one job at a time. Nothing is simulated: a probe
(benchmarks/probe) in the jobs' own processes notes when the interpreter has started and
Snakemake has handed over the job, when the script's imports are done, what TensorFlow's
import took, and when the script ends. Exit status 1 if a script imports what it does not
need: TensorFlow outside of TENSORFLOW.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from workflow_copy import TINY, Workflow, copy_of

REPO = Path(__file__).resolve().parent.parent
TENSORFLOW = ("train", "evaluate_keras", "freeze", "evaluate_frozen", "evaluate_quantized")
"""Scripts whose work is TensorFlow's."""
COLUMNS = ("start", "imports", "TensorFlow", "work", "all", "CPU", "memory")


class ProbedWorkflow(Workflow):
    """A workflow whose jobs write what the probe finds to the file `probe`."""

    @property
    def environment(self):
        probe = {"PYTHONPATH": str(REPO / "benchmarks/probe"), "DPUFLOW_PROBE": str(self.path("probe"))}
        return super().environment | probe

    def records(self):
        """One record for each job that ran since the last call."""
        lines = self.path("probe").read_text(encoding="utf-8").splitlines()
        self.path("probe").unlink()
        return [json.loads(line) for line in lines]


def row(record):
    """{column: seconds, or MB} of one job."""
    begun, ready, end = (record["marks"][name] for name in ("first import of dpuflow", "main", "end"))
    packages = record["packages"]
    # TensorFlow imports its Keras itself; ours comes on top
    tensorflow = max(
        (packages[name][0] for name in ("tensorflow", "tf_keras") if name in packages), default=0
    )
    return {
        "start": begun[0],
        "imports": ready[0] - begun[0],
        "TensorFlow": tensorflow,
        "work": end[0] - ready[0] - tensorflow,
        "all": end[0],
        "CPU": end[1],
        "memory": end[2],
        "packages": sorted(packages),
    }


def measure(config, repeats):
    """{script: [row of each repeat]} in the order in which the jobs ran."""
    rows = {}
    with tempfile.TemporaryDirectory(prefix="job_start.") as name:
        workflow = ProbedWorkflow(copy_of(REPO, Path(name) / "workflow"), config)
        for turn in range(repeats + (repeats > 1)):
            print(f"run {turn + 1} ...", file=sys.stderr, flush=True)
            workflow.run(
                "all", "sweep", "--forceall", "--quiet", "all", "--cores", "1", "--resources", "mem_mb=64000"
            )
            for record in workflow.records():
                if turn or repeats == 1:
                    rows.setdefault(record["script"], []).append(row(record))
    return rows


def table(rows):
    """Markdown lines: medians for each script, and their sum."""
    yield (
        "| script | " + " | ".join(f"{name}, {'MB' if name == 'memory' else 's'}" for name in COLUMNS) + " |"
    )
    yield "| --- |" + " ---: |" * len(COLUMNS)
    medians = {
        script: {name: statistics.median(row[name] for row in measured) for name in COLUMNS}
        for script, measured in rows.items()
    }
    for script, cells in medians.items():
        yield (
            f"| `{script}` | "
            + " | ".join(
                f"{cells[name]:.0f}" if name == "memory" else f"{cells[name]:.2f}" for name in COLUMNS
            )
            + " |"
        )
    total = {name: sum(cells[name] for cells in medians.values()) for name in COLUMNS}
    yield "| all jobs | " + " | ".join(f"{total[name]:.2f}" for name in COLUMNS[:-1]) + " | |"


def needless(rows):
    """Imports that a script does without, as messages."""
    for script, measured in rows.items():
        packages = set(measured[0]["packages"])
        unwanted = set() if script in TENSORFLOW else {"tensorflow", "tf_keras"}
        if found := sorted(packages & unwanted):
            yield f"{script}.py imports {', '.join(found)}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--embedded", action="store_true", help="the default configuration instead, once")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config, repeats, data = TINY, options.repeats, "a tiny data set (480 images, one layer, 2 epochs)"
    if options.embedded:
        config = yaml.safe_load((REPO / "config/config.yaml").read_text(encoding="utf-8"))
        repeats, data = 1, "the embedded data set (12,000 images, `signnet`, 10 epochs)"
    rows = measure(config, repeats)
    print(f"## Starting a job: {data}\n")
    print("\n".join(table(rows)))
    how = f"Medians of {repeats} runs after a warm-up" if repeats > 1 else "One run"
    print(
        f"\n{how} of `snakemake all sweep`, one job at a time on {os.cpu_count()} cores. *start*: the "
        "interpreter and Snakemake's preamble; *imports*: the script's modules; *TensorFlow*: its import; "
        "*work*: the rest. Leaving the process is not in it."
    )
    problems = list(needless(rows))
    print("\n".join(f"error: {problem}, which it does not need" for problem in problems), file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
