"""What a terminal shows of Snakemake's own messages: a line for each job, and its errors.

Snakemake's file below .snakemake/log has everything, and so has the terminal with --verbose or
--printshellcmds.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

NOISE = (
    "Config file ",
    "Assuming unrestricted shared filesystem",
    "Building DAG of jobs",
    "Using shell: ",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Select jobs to execute",
    "Execute ",
    "Complete log(s): ",
    "Elapsed time: ",
    "Exiting because a job execution failed",
    "At least one job did not complete successfully",
    "Removing output files of failed job",
    "Trying to restart job",
)
"""How messages begin that tell nothing about the work, or that the job's own line has told already."""
FAILED_COMMAND = "returned non-zero exit status"
SILENT = ("job_started", "job_finished", "progress", "resources_info", "workflow_started", "shellcmd")
"""Events that the line of the job stands for."""
SHOWN_LOG_LINES = 8
"""Of a failed job whose log has no error line of ours: the tools of others end as they like."""


class JobLines(logging.Filter):
    """Keeps Snakemake's noise off a terminal and writes a line when a job starts, one when it fails.

    stream : where the lines go, the handler's own; local() : whether jobs run on this machine. Whatever is
    neither a job nor noise passes.
    """

    def __init__(self, stream: TextIO, local: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self.stream, self.local = stream, local
        self.started = 0
        self.total = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether Snakemake shall show the record itself."""
        event = getattr(record, "event", None)
        kind = getattr(event, "value", event)
        if kind == "job_info":
            self._write(self._start(record.__dict__))
        elif kind == "run_info":
            jobs = getattr(record, "stats", {})
            self.total = jobs.get("total", 0) - sum(jobs.get(name, 0) for name in TARGETS)
        elif kind == "job_error":
            self._write(failure(record.__dict__, self.local()))
        elif kind not in SILENT:
            return not is_noise(record.getMessage() if record.msg else "")
        return False

    def _start(self, job: Mapping[str, Any]) -> str:
        if job["rule_name"] in TARGETS:
            return ""
        self.started += 1
        count = f"{self.started}/{self.total}" if self.total else str(self.started)
        return f"[{count}] {job['rule_name']} {where(job['wildcards'])}".rstrip()

    def _write(self, text):
        if text:
            self.stream.write(text + "\n")
            self.stream.flush()


TARGETS = ("all", "bundles", "sweep")
"""Rules that make nothing."""


def where(wildcards: Any) -> str:
    """The run of a job: its wildcards' values, in the order of the folders."""
    items = dict(wildcards.items()) if wildcards else {}
    return "/".join(str(value) for value in items.values())


def failure(job: Mapping[str, Any], local: bool) -> str:
    """A failed job in a line, and what its log ends with unless a local job has said it itself."""
    logs = [Path(path) for path in job.get("log") or []]
    text = f"failed: {job['rule_name']}" + (f" (log: {', '.join(map(str, logs))})" if logs else "")
    for path in logs:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        errors = [line for line in lines if line.startswith("error: ")]
        shown = ([] if local else errors) if errors else lines[-SHOWN_LOG_LINES:]
        text += "".join(f"\n  {line}" for line in shown)
    return text


def is_noise(message: str) -> bool:
    """Whether a message of Snakemake's says nothing that a person needs."""
    lines = [line for line in message.splitlines() if line.strip()]
    said = [line for line in lines if line not in ("RuleException:", "WorkflowError:")]
    return all(
        line.startswith(NOISE) or FAILED_COMMAND in line or "CalledProcessError in file" in line
        for line in said
    )


def quieten(handlers: Sequence[logging.Handler], settings: Any, local: Callable[[], bool]) -> None:
    """Give Snakemake's terminal handler its filter, unless the command line asks for everything.

    settings : Snakemake's output settings (verbose, printshellcmds, dryrun, debug_dag); local() : whether
    jobs run on this machine, so that this terminal has shown what they said.
    """
    if settings.verbose or settings.printshellcmds or settings.dryrun or settings.debug_dag:
        return
    for handler in handlers:
        if handler.name == "DefaultStreamHandler" and isinstance(handler, logging.StreamHandler):
            handler.addFilter(JobLines(handler.stream, local))
