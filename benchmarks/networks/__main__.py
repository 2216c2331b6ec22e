"""Carry real networks through the whole chain and write docs/networks.md.

    python -m benchmarks.networks [--only MobileNet ...] [--minutes 10] [--estimate-only]

Each network has random weights; each of its stages runs in a process of its own, all with a time limit.
What was measured before stays for the networks that are not asked for (benchmarks/networks/results.json).
With --estimate-only the machine code of networks that passed before is made again, not verified, and only
what is estimated of it is renewed: after a change of the model of time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.networks.catalogue import CATALOGUE
from benchmarks.networks.page import page
from benchmarks.networks.stages import ESTIMATE_STAGES, ESTIMATED, STAGES

REPO = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")


def measured(name, minutes, stages=STAGES):
    """The stages of one network: [dict], with {"failed": why} at the end of one that did not pass."""
    found, deadline = [], time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="dpuflow-networks-") as folder:
        for stage in stages:
            command = [sys.executable, "-m", "benchmarks.networks.stages", stage, name, folder]
            left = max(1, deadline - time.monotonic())
            try:
                done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=left)
                lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
                found += lines
                if (done.returncode and not (lines and "failed" in lines[-1])) or not lines:
                    found.append({"failed": f"{stage} ended with {done.returncode}"})
            except subprocess.TimeoutExpired:
                found.append({"failed": f"{stage}: no result after {minutes:g} minutes in all"})
            if "failed" in found[-1]:
                break
    return found


def estimated_anew(name, minutes, before):
    """The stages of a network as they were measured, with the estimate of its machine code made again."""
    if not before:
        return [{"failed": "there is nothing to renew: measure it first, without --estimate-only"}]
    if "failed" in before[-1]:
        return before
    *_, last = measured(name, minutes, ESTIMATE_STAGES)
    if "failed" in last:
        return [*before, last]
    anew = {key: last[key] for key in ESTIMATED}
    return [{**stage, **(anew if set(ESTIMATED) <= set(stage) else {})} for stage in before]


def main():
    """Exit status 1 when a network that was asked for did not pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(CATALOGUE), default=list(CATALOGUE), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=15, help="time limit of each network")
    parser.add_argument("--output", type=Path, default=REPO / "docs" / "networks.md")
    parser.add_argument("--estimate-only", action="store_true", help="renew what the model of time says")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only:
        if options.estimate_only:
            results[name] = estimated_anew(name, options.minutes, results.get(name))
        else:
            results[name] = measured(name, options.minutes)
        print(f"{name}: {results[name][-1]}", file=sys.stderr, flush=True)
        kept = {known: results[known] for known in CATALOGUE if known in results}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        options.output.write_text(page(kept), encoding="utf-8")
    return int(any("failed" in results[name][-1] for name in options.only))


if __name__ == "__main__":
    sys.exit(main())
