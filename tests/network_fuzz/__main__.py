"""Random networks over all operators through everything that executes them.

    python -m tests.network_fuzz [--seconds 600] [--networks N] [--seed 0] [--jobs 1] [--folder FOLDER]
    python -m tests.network_fuzz --replay FILE

Goes on where the last call with the same seed ended. A network that fails is made as small as it will get
and written to FOLDER as a recipe, which `--replay` runs again; exit status 1. Interrupting it loses at most
the networks under way.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.network_fuzz.recipes import Recipe, random_recipe
from tests.network_fuzz.shrinking import shrink
from tests.network_fuzz.stages import attempt, end_with_parent, kind_of_refusal, try_recipe

EVERY = 10.0
"""Seconds between two lines of progress."""
SHRINKING, SO_OFTEN = 60, 2
"""Seconds for making a failing network smaller, and how often for one kind of failure."""


class Record:
    """What has been tried of a seed, on disk: so that the next call goes on."""

    def __init__(self, folder, seed):
        self.path = folder / f"seed{seed}.json"
        empty = {"seed": seed, "next": 0, "left": [], "networks": 0, "failures": [], "passed": {}}
        empty |= {"layers": {}, "refused": {}}
        self.entries = json.loads(self.path.read_text()) if self.path.exists() else empty

    def add(self, number, outcome):
        """One network."""
        entries = self.entries
        entries["networks"] += 1
        if number in entries["left"]:
            entries["left"].remove(number)
        for key, found in (("passed", outcome.passed), ("layers", sorted(outcome.kinds))):
            entries[key] = dict(Counter(entries[key]) + Counter(found))
        why = Counter(f"{stage.split(' B')[0]}: {kind_of_refusal(m)}" for stage, m in outcome.refused.items())
        entries["refused"] = dict((Counter(entries["refused"]) + why).most_common(200))

    def numbers(self):
        """Which networks come next: those that an interrupted call left, then new ones."""
        yield from list(self.entries["left"])
        while True:
            number = self.entries["next"]
            self.entries["next"] += 1
            self.entries["left"].append(number)
            yield number

    def save(self):
        """Written aside, then renamed."""
        aside = self.path.with_suffix(".part")
        aside.write_text(json.dumps(self.entries, indent=1))
        aside.replace(self.path)

    def line(self):
        """Progress in words."""
        entries = self.entries
        code = sum(count for stage, count in entries["passed"].items() if stage.startswith("machine code"))
        return (
            f"{entries['networks']} networks of seed {entries['seed']}, {code} compiled to machine code that"
            f" agrees; {len(entries['failures'])} failed"
        )


def write_failure(folder, name, recipe, outcome, seconds):
    """Make it smaller and write it down; returns the file."""
    small = shrink(recipe, lambda other: try_recipe(other).same_failure(outcome), seconds)
    found = try_recipe(small)
    found = found if found.failure else outcome
    path = folder / f"{name}.json"
    path.write_text(small.text())
    stage, way, message, trace = found.failure
    path.with_suffix(".txt").write_text(
        f"{stage}: {way}\n{message}\n\n{trace}\npython -m tests.network_fuzz --replay {path}\n"
    )
    print(f"FAILED {name} ({stage}: {way}): {message.splitlines()[0] if message else ''}", flush=True)
    print(f"  {len(recipe.steps)} steps made {len(small.steps)}: {path}", flush=True)
    return path


def replay(path):
    """Run a recipe of a file; the exit status."""
    outcome = try_recipe(Recipe.read(Path(path).read_text()))
    for stage, message in outcome.refused.items():
        print(f"{stage} refuses it: {message}")
    if outcome.failure:
        print(*outcome.failure, sep="\n")
        return 1
    print(f"agree: {', '.join(outcome.passed)}")
    return 0


def run(arguments):
    """Try networks until the time or their number is over; the exit status."""
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder, arguments.seed)
    start = said = time.monotonic()
    failed, count, ways = 0, 0, Counter()
    numbers = record.numbers()
    spawn = get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn, initializer=end_with_parent) as pool:
        waiting = set()

        def more():
            return time.monotonic() - start < arguments.seconds and count < arguments.networks

        while waiting or more():
            while more() and len(waiting) < 2 * arguments.jobs:
                waiting.add(pool.submit(attempt, arguments.seed, next(numbers)))
                count += 1
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                number, outcome = future.result()
                record.add(number, outcome)
                if outcome.failure:
                    failed += 1
                    name, way = f"seed{arguments.seed}-{number}", outcome.failure[:2]
                    seconds = SHRINKING if ways[way] < SO_OFTEN else 0
                    ways[way] += 1
                    recipe = random_recipe(arguments.seed, number)
                    path = write_failure(folder, name, recipe, outcome, seconds)
                    record.entries["failures"].append(str(path))
            record.save()
            if time.monotonic() - said > EVERY:
                said = time.monotonic()
                print(f"{said - start:.0f} s: {record.line()}", flush=True)
    print(record.line())
    return 1 if failed else 0


def main(given=None):
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--networks", type=int, default=2**31)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", default="results/network_fuzz")
    parser.add_argument("--replay", metavar="FILE")
    arguments = parser.parse_args(given)
    if arguments.replay:
        return replay(arguments.replay)
    try:
        return run(arguments)
    except BrokenProcessPool:
        print("a process died: one of the networks that the record calls left (--seed and this number alone)")
        return 1


if __name__ == "__main__":
    sys.exit(main())
