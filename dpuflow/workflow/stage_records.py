"""What every script that measures a stage does with the stage's record: write it, say it."""

from pathlib import Path
from typing import Any

from dpuflow.accuracy.evaluation import Record, guessing_hint
from dpuflow.base.pixels import Scaling
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, log_accuracy


def write_stage(path: Path | str, record: Record, input_scaling: Scaling | None = None) -> None:
    """Write and log an accuracy record; input_scaling : of a stage in floating point, for a hint."""
    hint = None if input_scaling is None else guessing_hint(record, input_scaling)
    more: dict[str, Any] = {"warning": hint} if hint else {}
    write_record(path, "accuracy.schema.yaml", record | more)
    log_accuracy(record)
    if hint:
        log.warning("warning: %s", hint)
