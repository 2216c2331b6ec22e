"""What every script that measures a stage does with the stage's record: write it, say it."""

from pathlib import Path
from typing import Any

from dpuflow.accuracy.evaluation import Record, guessing_hint
from dpuflow.base.pixels import Scaling
from dpuflow.records import write_record
from dpuflow.task.measuring import schema_of
from dpuflow.task.tasks import task_of
from dpuflow.workflow.scripting import log, log_accuracy


def told(params: Any) -> dict[str, Any]:
    """What a rule's params say of the outputs, for `task.measuring.stage_record`."""
    return {"answer": params.get("answer"), "decode": params.get("decode")}


def write_stage(path: Path | str, record: Record, input_scaling: Scaling | None = None) -> None:
    """Write and log an accuracy record; input_scaling : of a stage in floating point, for a hint."""
    task = task_of(record)
    floats = input_scaling if task is None else None
    hint = None if floats is None else guessing_hint(record, floats)
    more: dict[str, Any] = {"warning": hint} if hint else {}
    write_record(path, schema_of(record), record | more)
    if task is None:
        log_accuracy(record)
    else:
        log.info("%s", task.line(record))
    if hint:
        log.warning("warning: %s", hint)
