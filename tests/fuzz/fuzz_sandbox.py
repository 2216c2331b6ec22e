"""The parent's side of `fuzz_worker`: feeds inputs to a child process and judges how it ends.

DPUFLOW_FUZZ=N multiplies the number of inputs by N and draws new ones each time; without it the
inputs are the same on every run.
"""

import itertools
import os
import pickle
import selectors
import subprocess
import sys
from collections import Counter
from pathlib import Path

from fuzz_mutations import ACTIONS, apply
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HANG = 300
"""Seconds of silence that count as a hang: thousands of times what one input takes, on busy machines, too."""
FACTOR = int(os.environ.get("DPUFLOW_FUZZ", "1"))
EDITS = st.lists(
    st.tuples(st.integers(0, 2 * ACTIONS - 1), st.floats(0, 1, exclude_max=True), st.integers(0, 2**16 - 1)),
    min_size=1,
    max_size=4,
)


class Sandbox:
    """A child process that reads files of one target, and is started anew when one kills it."""

    def __init__(self, name, folder):
        self.target, self.folder = TARGETS[name], Path(folder)
        self.seeds = self.target.seeds()
        self.counts = Counter()
        self.process = None

    def _start(self):
        worker = Path(__file__).with_name("fuzz_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, worker, self.target.name, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.folder / "stderr.txt", "wb"),  # noqa: SIM115 - the child's, until it ends
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._answer(2 * HANG) == "ready", self._stderr()

    def _answer(self, seconds):
        """What the child says next; "hang" or "crash" when it says nothing."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self.close()
                return "hang"
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            code = self.process.wait()
            self.process = None
            return f"crash with status {code}"

    def _stderr(self):
        return (self.folder / "stderr.txt").read_text(errors="replace")[-2000:]

    def feed(self, data):
        """Read one file; AssertionError with the reason unless it is accepted or refused as it should be."""
        if self.process is None:
            self._start()
        pickle.dump(data, self.process.stdin)
        self.process.stdin.flush()
        answer = self._answer(HANG)
        assert isinstance(answer, tuple), f"{answer}\n{self._stderr()}"
        outcome, detail = answer
        assert outcome != "finding", detail
        self.counts[outcome] += 1
        return outcome, detail

    def close(self):
        """Stop the child."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def fuzz(sandbox, examples):
    """Feed so many mutations of the target's valid files, drawn and shrunk by Hypothesis."""
    numbers = itertools.count()

    @settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, len(sandbox.seeds) - 1), edits=EDITS)
    def run(seed, edits):
        next(numbers)
        sandbox.feed(apply(sandbox.target.name, sandbox.seeds[seed], edits))

    run()
    return next(numbers)
