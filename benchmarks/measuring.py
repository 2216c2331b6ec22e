"""What all benchmarks share: medians in turns, measuring in a process of its own, Markdown, goals.

A benchmark prints one Markdown section to standard output (`## title`, tables, a sentence on how
it was measured, goal lines) and its progress to standard error. Its exit status is 1 if a goal
was missed. `run_all.py` runs all of them and collects the sections.
"""

import argparse
import importlib
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))  # a script finds the package without being installed

REPEATS = 5


def parser_of(docstring, repeats=REPEATS):
    """Argument parser with what benchmarks share: --repeats and --quick (repeats None: neither)."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=docstring, formatter_class=form)
    if repeats:
        parser.add_argument("--repeats", type=int, default=repeats, help="measured rounds after the warm-up")
        text = "small sizes: only shows that the benchmark works"
        parser.add_argument("--quick", action="store_true", help=text)
    return parser


def progress(text):
    """One line to standard error."""
    print(text, file=sys.stderr, flush=True)


def medians(calls, repeats=REPEATS):
    """{name: median seconds} of {name: function}, see `median_times`."""
    return {name: wall for name, (wall, _) in median_times(calls, repeats).items()}


def median_times(calls, repeats=REPEATS):
    """{name: (median seconds, median seconds of CPU time of all threads)} of {name: function}.

    One warm-up of each, then rounds in which each has its turn, so that a machine that
    slows down slows all of them.
    """
    for call in calls.values():
        call()
    taken = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - start, time.process_time() - cpu_start))
    return {name: tuple(map(statistics.median, zip(*rows, strict=True))) for name, rows in taken.items()}


@dataclass(frozen=True)
class Measured:
    """What `in_child` found: the function's last result, seconds of each repeat, memory in MiB.

    peak is the greatest resident memory of the whole process, grown how much of it came
    on top of the imports.
    """

    result: object
    seconds: list
    peak: float
    grown: float

    @property
    def median(self):
        """Median seconds."""
        return statistics.median(self.seconds)


def in_child(function, *arguments, repeats=REPEATS, warm_up=True, imports=()):
    """Call a function of a module several times in a new process and measure it there.

    imports : names of modules that are imported before the clock and the memory count.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure_here, function, arguments, repeats, warm_up, imports).result()


def _measure_here(function, arguments, repeats, warm_up, imports):
    for name in imports:
        importlib.import_module(name)
    before = peak_mib()
    if warm_up:
        function(*arguments)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
    peak = peak_mib()
    return Measured(result, seconds, peak, peak - before)


def peak_mib():
    """Greatest resident memory of this process so far, MiB.

    From VmHWM, which starts anew with each exec; ru_maxrss is handed down from the parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(headers, rows):
    """Markdown table; the first column is text, the others are right-aligned."""
    lines = [headers, ["---"] + ["---:"] * (len(headers) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


class Goals:
    """Goals of a benchmark and whether this run met them.

    With `binding` false (--quick) they are printed as not judged: small sizes say nothing
    about speed.
    """

    def __init__(self, binding=True):
        self.binding = binding
        self.lines = []
        self.missed = 0

    def add(self, text, reached):
        """Note a goal, with the measured figure in `text`."""
        self.missed += self.binding and not reached
        outcome = ("met" if reached else "MISSED") if self.binding else "not judged"
        self.lines.append(f"- {outcome}: {text}")

    def finish(self):
        """Print the goal lines; returns the exit status."""
        if self.lines:
            print("\n".join(self.lines))
        return 1 if self.missed else 0


def goal_lines(section):
    """The goal lines of a printed section."""
    starts = ("- met: ", "- MISSED: ", "- not judged: ")
    return [line for line in section.splitlines() if line.startswith(starts)]
