"""One attempt at a parser, and the child process that makes many of them under limits.

    python fuzz_worker.py TARGET FOLDER

reads inputs from standard input and writes outcomes to standard output, both as pickles: the
parent (`fuzz_sandbox`) sees a crash as a closed pipe, a hang as silence, and too much memory as
the MemoryError that RLIMIT_AS raises.
"""

import os
import pickle
import resource
import sys
import traceback
import warnings
from pathlib import Path

HEADROOM = 1 << 30
"""Bytes of address space beyond what the process has once every parser ran on its valid files."""


def attempt(target, data, folder):
    """Feed one file: ("accepted" | "refused" | "finding", text, exception or None)."""
    from dpuflow.base.errors import UserError

    path = Path(folder) / target.file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    try:
        target.read(path)
    except UserError as error:
        message = str(error)
        if path.name not in message and "config" not in message:
            return "finding", f"the message does not name the file: {message}", error
        return "refused", message, None
    except RecursionError as error:
        return "finding", f"RecursionError: {error}", error
    except Exception as error:
        return "finding", "".join(traceback.format_exception(error)), error
    return "accepted", "", None


def prepare(target, folder):
    """Read the valid files once: everything is imported, and they are good."""
    warnings.simplefilter("ignore")
    for seed in target.seeds():
        outcome, detail, _ = attempt(target, seed, folder)
        assert outcome == "accepted", (target.name, outcome, detail)


def limit_memory():
    """From now on, memory beyond HEADROOM more than now is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_FSIZE, (HEADROOM, HEADROOM))


def main(name, folder):
    from fuzz_targets import TARGETS

    target = TARGETS[name]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints is no answer
    prepare(target, folder)
    limit_memory()
    pickle.dump("ready", answers)
    answers.flush()
    while True:
        try:
            data = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(attempt(target, data, folder)[:2], answers)
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
