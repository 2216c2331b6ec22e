"""Settings of the quantizer compared in one process, against a job each to quantize and to evaluate.

    python benchmarks/quantizer_search.py [results/DATASET/MODEL] [--scaling SUBTRACT DIVIDE] [--jobs N]

The folder holds network.h5 and tf/nodes.json, the one above dataset.h5 (`make run` leaves them).
Both sides run the workflow's own scripts as processes, without Snakemake: scripts/quantizer_search.py
once with the 18 settings of the default grid; scripts/quantize_reference.py (diagnosis off) and
scripts/evaluate_quantized.py for N of the settings, evenly chosen. Exit status 1 if the search is not
at least GOAL times as fast as jobs for all settings would be.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import REPO, Goals

from dpuflow.quantizer_search.grid import DEFAULT_GRID, expand

GOAL = 5


def seconds(script, **assignments):
    """Wall seconds of a script run alone; assignments: section__key=value."""
    words = [f"{name.replace('__', '.')}={value}" for name, value in assignments.items()]
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, f"scripts/{script}.py", *words, "threads=2"],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=REPO / "results/synthetic_signs/signnet")
    parser.add_argument("--scaling", nargs=2, type=float, default=(128, 128), help="of the model's input")
    parser.add_argument(
        "--jobs", type=int, default=6, help="how many settings to quantize by jobs of their own"
    )
    options = parser.parse_args()
    folder = options.folder.resolve()
    scaling = json.dumps(dict(zip(("subtract", "divide"), options.scaling, strict=True)))
    common = {
        "input__dataset": folder.parent / "dataset.h5",
        "input__nodes": folder / "tf/nodes.json",
        "params__input_scaling": scaling,
    }
    settings = expand(DEFAULT_GRID)
    chosen = settings[:: max(1, len(settings) // options.jobs)][: options.jobs]
    with tempfile.TemporaryDirectory(prefix="quantizer_search.") as name:
        out = Path(name)
        print("the search ...", file=sys.stderr, flush=True)
        search = seconds(
            "quantizer_search",
            **common,
            input__network=folder / "network.h5",
            output__table=out / "s.csv",
            output__page=out / "s.html",
            params__settings=json.dumps(settings),
            params__dataset=folder.parent.name,
            params__model=folder.name,
        )
        quantize, evaluate = [], []
        for number, setting in enumerate(chosen, 1):
            print(f"jobs {number} of {len(chosen)} ...", file=sys.stderr, flush=True)
            quantize.append(
                seconds(
                    "quantize_reference",
                    **common,
                    input__network=folder / "network.h5",
                    output__model=out / "m.h5",
                    output__eval_graph=out / "m.pb",
                    output__report=out / "m.json",
                    params__settings=json.dumps({"tool": "reference", **setting, "diagnosis": False}),
                    params__model=folder.name,
                )
            )
            evaluate.append(
                seconds(
                    "evaluate_quantized",
                    **common,
                    input__graph=out / "m.pb",
                    output__accuracy=out / "a.json",
                )
            )
    jobs = (sum(quantize) + sum(evaluate)) / len(chosen)
    ratio = jobs * len(settings) / search
    print(f"## {len(settings)} settings of the quantizer on `{folder.name}` ({folder.parent.name})\n")
    print("| | seconds |\n| --- | ---: |")
    print(f"| one search for all settings | {search:.1f} |")
    print(f"| a job to quantize, mean | {sum(quantize) / len(chosen):.1f} |")
    print(f"| a job to evaluate, mean | {sum(evaluate) / len(chosen):.1f} |")
    print(f"| both jobs for each of the {len(settings)} settings | {jobs * len(settings):.1f} |")
    print(f"| **ratio** | **{ratio:.1f}** |")
    print(
        "\nProcesses from start to end, one after the other, without Snakemake; the jobs were run for "
        f"{len(chosen)} evenly chosen settings and their mean multiplied. The search judges by the "
        "validation images, the evaluation by the test images."
    )
    goals = Goals()
    goals.add(f"the search is {ratio:.1f} times as fast (goal {GOAL})", ratio >= GOAL)
    sys.exit(goals.finish())


if __name__ == "__main__":
    main()
