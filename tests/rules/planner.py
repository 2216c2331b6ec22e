"""What Snakemake would run after a change, job by job: many real dry runs in little time."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml
from workflow_copy import Workflow

STAGE = {
    "label": "",
    "accuracy": 0,
    "interval95": (0, 1),
    "correct": 0,
    "images": 1,
    "agreement_with_first": None,
}
PRETENDED = {"runs": [{"stages": [STAGE], "comparisons": []}]}
"""Content of every file of the pretended run: the end of a real one reads the report's."""
STAND_IN = Path(__file__).parents[1] / "vitis_ai/stand_in"
"""Holds an `apptainer` that a dry run with --sdm apptainer finds."""
SERVER = Path(__file__).with_name("dry_run_server.py")


class Job(NamedTuple):
    """A job of a plan: its rule and its wildcards as sorted (name, value) pairs."""

    rule: str
    wildcards: tuple = ()

    def matches(self, rule, wildcards):
        """Whether it is a job of `rule` with at least these wildcards (a dict)."""
        return self.rule == rule and wildcards.items() <= dict(self.wildcards).items()


class Facts(NamedTuple):
    """What a plan says of a job."""

    input: list
    output: list
    would_run: bool


class Planner:
    """Dry runs in `folder`, a copy of the workflow, for `targets` and the configuration `config`."""

    def __init__(self, folder, config, targets):
        self.folder, self.config, self.targets = Path(folder), config, targets
        environment = Workflow(folder, config).environment
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER)],
            cwd=folder,
            env=environment | {"PATH": f"{STAND_IN}:{environment['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout.readline() == "ready\n"

    def snakemake(self, *arguments, config=None, parsed=False):
        """Output of a run; an AssertionError shows it if the run failed.

        parsed : with the rule files as they were read at the first such run, whose arguments hold for all.
        """
        (self.folder / "test.yaml").write_text(
            config if isinstance(config, str) else yaml.safe_dump(config or self.config)
        )
        words = [
            *(["parsed"] if parsed else []),
            *self.targets,
            *arguments,
            "--cores",
            "2",
            "--configfile",
            "test.yaml",
        ]
        self._server.stdin.write(json.dumps(words) + "\n")
        self._server.stdin.flush()
        status = self._server.stdout.readline().strip()
        output = (self.folder / "output").read_text()
        assert status == "0", output[-4000:]
        return output

    def graph(self, *arguments, config=None, parsed=False):
        """{job: Facts} of the whole graph."""
        self.snakemake("--dry-run", "--quiet", "rules", *arguments, config=config, parsed=parsed)
        found = {}
        for entry in json.loads((self.folder / "jobs.json").read_text()):
            job = Job(entry["rule"], tuple(sorted(entry["wildcards"].items())))
            found[job] = Facts(entry["input"], entry["output"], entry["would_run"])
        return found

    def plan(self, *arguments, config=None):
        """The jobs that would run."""
        return {job for job, facts in self.graph(*arguments, config=config).items() if facts.would_run}

    def pretend_finished(self):
        """Make every output a file that Snakemake takes for its job's result; return the graph."""
        jobs = self.graph()
        for facts in jobs.values():
            for path in facts.output:
                self.folder.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
                self.folder.joinpath(path).write_text(json.dumps(PRETENDED))
        self.snakemake("--touch", "--forceall", "--quiet", "rules")
        return jobs

    def twin(self, folder):
        """Another planner in a copy of this one's folder, times included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Planner(folder, self.config, self.targets)

    def close(self):
        """End the server."""
        self._server.stdin.close()
        self._server.wait(timeout=300)


def with_all_below(graph, first):
    """`first` and every job of the graph that reads what one of them writes, at any distance."""
    readers = {}
    for job, facts in graph.items():
        for path in facts.input:
            readers.setdefault(path, set()).add(job)
    found, queue = set(first), list(first)
    while queue:
        for path in graph[queue.pop()].output:
            new = readers.get(path, set()) - found
            found |= new
            queue.extend(new)
    return found
