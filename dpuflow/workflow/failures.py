"""What a run of the workflow could not make, and why: for a report on what there is.

Snakemake's own objects are read in `rules/report.smk`; here a job is its plain facts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpuflow.workflow.artifacts import RUN_NAMES

ERROR = re.compile(r"^(?:error: |internal error)", re.MULTILINE)


@dataclass(frozen=True)
class UnfinishedJob:
    """A job that was to run and did not finish.

    Attributes
    ----------
    rule : its name; wildcards : name -> value; outputs, logs : paths; started : seconds since 1970 when
    the workflow was started, so that a log of an earlier run is not taken for this one's.
    """

    rule: str
    wildcards: Mapping[str, str]
    outputs: Sequence[str]
    logs: Sequence[str] = ()
    started: float = 0.0

    def message(self) -> str | None:
        """Why the job failed: the error line of its log, else the last line; None if it did not begin."""
        for path in map(Path, self.logs):
            if not path.is_file() or path.stat().st_mtime < self.started:
                continue
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            found = list(ERROR.finditer(text))
            if found:
                return text[found[-1].start() :].removeprefix("error: ").splitlines()[0]
            return text.splitlines()[-1] if text else f"ended without a word ({path} is empty)"
        return None

    def belongs_to(self, entry: Mapping[str, Any]) -> bool:
        """Whether the run `entry` (its ids) waits for this job: every wildcard of the two is the same."""
        return all(str(entry.get(key)) == value for key, value in self.wildcards.items() if key in RUN_NAMES)


def what_there_is(
    entries: Iterable[Mapping[str, Any]], unfinished: Sequence[UnfinishedJob]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split the runs of a report into files that this run of the workflow stands behind, and failures.

    entries : of `run_files.report_entries`; unfinished : all jobs that were planned and not finished. A file
    of one of them is left out even if it is there: it is of an earlier run.

    Returns the entries with the files that were made, and a mapping per run that is not whole: its ids, the
    `rule` that failed (or that was not reached) and the `message`.
    """
    stale = {path for job in unfinished for path in job.outputs}
    messages = [(job, job.message()) for job in unfinished]
    left, failures = [], []
    for entry in entries:
        files = {k: path for k, path in entry["files"].items() if path not in stale and Path(path).exists()}
        left.append({**entry, "files": files})
        if files.keys() == entry["files"].keys():
            continue
        mine = [(job, text) for job, text in messages if job.belongs_to(entry)]
        job, text = next(((job, text) for job, text in mine if text is not None), (None, None))
        ids = {key: value for key, value in entry.items() if key != "files"}
        if job is not None and text is not None:
            failures.append({**ids, "rule": job.rule, "message": text})
        else:
            waiting = mine[0][0].rule if mine else "?"
            failures.append({**ids, "rule": waiting, "message": "not run: the workflow was stopped before"})
    return left, failures
