"""sitecustomize of a traced workflow: notes which of its files each job's processes open.

A copy of this file called sitecustomize.py lies in the workflow's folder, which is on
PYTHONPATH of every job. The folder TRACE gets a file per script with the paths, relative
to the workflow; child processes (pools, the board's application) count to their job.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
TRACE = os.environ.get("DPUFLOW_TEST_TRACE")
SCRIPT = "DPUFLOW_TEST_SCRIPT"
_CACHE = re.compile(r"__pycache__/(\w+)\.cpython-\d+\.pyc$")


def note(path):
    """Write down a file of the workflow's sources; a compiled module counts as its source."""
    path = os.path.abspath(path)
    if path.startswith(ROOT + os.sep):
        path = _CACHE.sub(r"\1.py", os.path.relpath(path, ROOT))
        if path.startswith(("dpuflow/", "scripts/", "envs/", "rules/", "config/")):
            file = os.open(os.path.join(TRACE, os.environ[SCRIPT]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(file, f"{path}\n".encode())
            os.close(file)


def watch(event, arguments):
    """The audit hook: opened files, and files that other programs (compilers) are told of."""
    if event == "open" and isinstance(arguments[0], str):
        note(arguments[0])
    elif event == "subprocess.Popen":
        for word in arguments[1]:
            if isinstance(word, str) and os.path.isfile(word):
                note(word)


for word in sys.orig_argv:
    found = re.search(r"\.snakemake/scripts/\w+\.(\w+)\.py$", word)
    if found:
        os.environ[SCRIPT] = found[1]
if TRACE and SCRIPT in os.environ:
    sys.addaudithook(watch)
