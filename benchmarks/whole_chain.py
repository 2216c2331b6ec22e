"""The whole chain, cold: the workflow against the same stages in one plain script.

    python benchmarks/whole_chain.py [--networks baseline optimal] [--epochs N] [--repeats 3] [--tutorial]
                                     [--quick]

Both make every artifact from the CSV files to the report, with the settings that the tutorial
gives its two networks, on the real Sign Language MNIST where it is present. The plain script
(plain_chain.py) is one process: no Snakemake, no process per stage, TensorFlow imported once.
With --tutorial a third contender reads by numpy.genfromtxt and trains by `model.fit`. --epochs
shortens the training, so that several runs can be taken; each is its own warm-up, being cold.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from dag_scaling import environment
from measuring import REPO, Goals, parser_of, progress, table
from workflow_runs import CONFIG, available, job_seconds, make_folder, settings_of, snakemake

SHARE, SECONDS = 0.15, 20
"""Overhead that is allowed: this share of the plain script's time, or so many seconds."""


def plain(config, folder, *arguments):
    """(seconds from start to end, {stage: seconds}) of the plain script."""
    path = folder / CONFIG
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    command = [sys.executable, REPO / "benchmarks" / "plain_chain.py", path, folder, *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment(REPO), capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return seconds, json.loads(done.stdout.splitlines()[-1])


def workflow(config, folder):
    """(seconds from start to end, {job: seconds}) of the workflow."""
    copy = make_folder(folder / "workflow")
    return snakemake(copy, config), job_seconds(copy)


def tutorial(config, folder):
    """`plain` with the tutorial's reader and training."""
    return plain(config, folder, "--tutorial")


def main():
    """Parse the command line, measure, print Markdown; returns the exit status."""
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument(
        "--networks", nargs="+", default=["baseline", "optimal"], help="models of config.yaml"
    )
    parser.add_argument("--epochs", type=int, help="instead of the tutorial's number")
    parser.add_argument("--tutorial", action="store_true", help="measure genfromtxt and model.fit, too")
    options = parser.parse_args()
    contenders = {"workflow": workflow, "plain script": plain}
    contenders |= {"tutorial's reader and training": tutorial} if options.tutorial else {}
    changes = {"epochs": options.epochs} if options.epochs else {}
    dataset = "synthetic_signs" if options.quick else available()
    goals, rows = Goals(binding=not options.quick), []
    for network in options.networks:
        config = settings_of(dataset, network, options.quick, **changes)
        epochs = config["models"][network]["training"]["epochs"]
        seconds = {name: [] for name in contenders}
        for _ in range(1 if options.quick else options.repeats):
            for name, contender in contenders.items():
                with tempfile.TemporaryDirectory(prefix="whole-chain.") as folder:
                    taken, stages = contender(config, Path(folder))
                seconds[name].append(taken)
                shares = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items())
                progress(f"{network}, {epochs} epochs, {name}: {taken:.1f} s ({shares})")
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        overhead = medians["workflow"] - medians["plain script"]
        share = overhead / medians["plain script"]
        rows.append(
            [
                f"`{network}`",
                epochs,
                *(f"{value:.1f}" for value in medians.values()),
                f"{overhead:+.1f}",
                f"{100 * share:+.0f} %",
            ]
        )
        goals.add(
            f"`{network}`, {epochs} epochs: the workflow takes {overhead:+.1f} s ({100 * share:+.0f} %), "
            f"at most {100 * SHARE:.0f} % or {SECONDS} s",
            overhead <= SECONDS or share <= SHARE,
        )
    print("## The whole chain, cold\n")
    print(
        table(("network", "epochs", *(f"{name}, s" for name in contenders), "overhead, s", "overhead"), rows)
    )
    print(
        f"On {dataset}, from the CSV files to the report; median of {options.repeats}; the plain script "
        "calls the same stages in one process.\n"
    )
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
