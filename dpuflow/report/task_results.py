"""Of tasks other than classification: what the stage table and the comparisons show of a run."""

from collections.abc import Sequence
from typing import Any

from dpuflow.accuracy.evaluation import Record
from dpuflow.report.inputs import Images
from dpuflow.task.tasks import Task

AGREEMENT = ("images", "equal", "agreement", "interval95", "first_difference")


def figures(task: Task, record: Record) -> dict[str, Any]:
    """The cell of a stage: its chief figure stands where the accuracy of a classification does."""
    first, *others = task.figures(record)
    return {
        "images": record["images"],
        "measure": first.name,
        "accuracy": first.value,
        "interval95": list(first.interval),
        "more": [{"name": f.name, "value": f.value, "interval95": list(f.interval)} for f in others],
    }


def agreement(task: Task, before: Record, after: Record) -> dict[str, Any]:
    """Pictures whose answers are alike, and the share of alike answers."""
    found = task.agreement(before, after)
    return {key: found[key] for key in AGREEMENT}


def comparison(task: Task, images: Images | None, before: Record, after: Record) -> dict[str, Any]:
    """A row of the comparisons but for the names of its stages."""
    row = agreement(task, before, after)
    if images is not None:
        change = task.change(images.dataset, before, after)
        row |= {"change": change["change"], "change_interval95": change["interval95"]}
        row |= {"lost": change["lost"], "gained": change["gained"], "p_value": None}
    return row


def distinct(records: Sequence[tuple[str, Any]]) -> list[tuple[list[int], Any]]:
    """(places of stages, answer) of answers that are alike, each once, in the order of the stages."""
    found: list[tuple[list[int], Any]] = []
    for place, (key, answer) in enumerate(records):
        for places, _ in found:
            if records[places[0]][0] == key:
                places.append(place)
                break
        else:
            found.append(([place], answer))
    return found
