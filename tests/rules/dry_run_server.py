"""Real dry runs, one after the other, without paying for Snakemake's imports each time.

A process of its own, started in a copy of the workflow. It imports what a dry run
imports, dpuflow left out, and forks a child for each line of its standard input, a JSON
list of Snakemake's arguments. The child is `snakemake` itself, with state of its own; its
output goes to the file `output` here, the jobs of its graph to `jobs.json`. The answer is
the exit status.

A list that begins with PARSED goes to a child that waits with the rule files read and the
graph not yet built, and forks there: for many edits of files that rule files do not read.

Of Snakemake only two things are changed: YAML is read by PyYAML's C loader, and
`--touch` does not pause for each job.
"""

import contextlib
import gc
import importlib
import json
import os
import sys

import yaml
from snakemake.cli import main
from snakemake.dag import DAG
from snakemake.executors.touch import Executor

for kind in ("SafeLoader", "FullLoader"):
    setattr(yaml, kind, getattr(yaml, f"C{kind}"))
Executor.SLEEPING_TIME = 0.001
OUTPUT, JOBS, PARSED = "output", "jobs.json", "parsed"
graphs = []
first_init = DAG.__init__


def remembered_init(self, *arguments, **more):
    """Remember the graph; a waiting child forks here, and each of its children goes on."""
    graphs.append(self)
    if waiting:
        requests, answers = waiting.pop()
        for _ in requests:
            child = os.fork()
            if not child:
                redirect()
                break
            answers.write(f"{exit_status(child)}\n")
            answers.flush()
        else:
            os._exit(0)
    first_init(self, *arguments, **more)


waiting = []
DAG.__init__ = remembered_init


def write_jobs():
    """What the graph that Snakemake has built says of each job."""
    jobs = [
        {
            "rule": job.rule.name,
            "wildcards": dict(job.wildcards_dict),
            "input": list(map(str, job.input)),
            "output": list(map(str, job.output)),
            "would_run": graph.needrun(job),
        }
        for graph in graphs
        for job in graph.jobs
    ]
    with open(JOBS, "w") as stream:
        json.dump(jobs, stream)


def redirect():
    """Send the output of this process to OUTPUT."""
    file = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)


def exit_status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_here(arguments, finish=write_jobs):
    """Run Snakemake, call `finish` and end this process."""
    redirect()
    status = 1
    try:
        main(arguments)
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        finish()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def snakemake(arguments):
    """Exit status of a child that runs Snakemake."""
    child = os.fork()
    if not child:
        run_here(arguments)
    return exit_status(child)


def start_waiting(arguments):
    """(requests, answers) of a child that has read the rule files."""
    receive, send = os.pipe()
    back, answer = os.pipe()
    if not os.fork():
        os.close(send)
        waiting.append((os.fdopen(receive), os.fdopen(answer, "w")))
        run_here(arguments)
    os.close(receive)
    os.close(answer)
    return os.fdopen(send, "w"), os.fdopen(back)


def modules_of_a_dry_run():
    """Names of the modules that a dry run imports on top of these."""
    known = set(sys.modules)
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        run_here(
            ["--dry-run", "--cores", "1", "all"],
            lambda: os.write(send, " ".join(sorted(set(sys.modules) - known)).encode()),
        )
    os.close(send)
    with os.fdopen(receive) as stream:
        names = stream.read().split()
    os.waitpid(child, 0)
    return [name for name in names if name.partition(".")[0] != "dpuflow"]


def serve():
    """Answer requests until the standard input ends."""
    child = None
    for line in sys.stdin:
        arguments = json.loads(line)
        if arguments[0] != PARSED:
            print(snakemake(arguments), flush=True)
            continue
        child = child or start_waiting(arguments[1:])
        child[0].write("go\n")
        child[0].flush()
        print(child[1].readline().strip(), flush=True)


for name in modules_of_a_dry_run():
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
gc.freeze()
print("ready", flush=True)
serve()
