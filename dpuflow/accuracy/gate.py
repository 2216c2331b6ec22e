"""Drift gates: how much accuracy may be lost, and how many answers may change, between two stages."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dpuflow.accuracy.evaluation import Classes, Record, accuracy_change, agreement, check_same_images
from dpuflow.base.errors import UserError

KEYS = ("from_stage", "to_stage", "max_drop", "min_agreement")


class Judged(Protocol):
    """What a gate asks of a task other than classification (`dpuflow.task`)."""

    def figures(self, record: Record) -> list[Any]:
        """Figures (name, value, interval) of a record, the one that a gate judges first."""

    def agreement(self, before: Record, after: Record) -> dict[str, Any]:
        """How the answers of two stages differ: agreement (0 to 1) and first_difference."""


def check_limits(limits: Any, where: str = "gates") -> None:
    """UserError unless `limits` is a list of {from_stage, to_stage, max_drop and/or min_agreement}."""
    if not isinstance(limits, list):
        raise UserError(f"{where}: expected a list of gates, got {limits!r}")
    for index, limit in enumerate(limits):
        place = f"{where}[{index}]"
        if not isinstance(limit, dict):
            raise UserError(f"{place}: expected a mapping with {', '.join(KEYS)}, got {limit!r}")
        for key in limit:
            if key not in KEYS:
                raise UserError(f"{place}.{key}: unknown key; allowed: {', '.join(KEYS)}")
        for key in KEYS[:2]:
            if not isinstance(limit.get(key), str):
                raise UserError(f"{place}.{key}: expected the name of a stage, got {limit.get(key)!r}")
        if "max_drop" not in limit and "min_agreement" not in limit:
            raise UserError(f"{place}: expected max_drop (points) or min_agreement (0 to 1), or both")
        _number(place, limit, "max_drop", -100, 100)
        _number(place, limit, "min_agreement", 0, 1)


def _number(place, limit, key, least, greatest):
    value = limit.get(key, least)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= greatest:
        raise UserError(f"{place}.{key}: expected a number from {least} to {greatest}, got {value!r}")


def evaluate(
    records: Mapping[str, Record],
    limits: Sequence[Mapping[str, Any]],
    labels: Classes | None = None,
    task: Judged | None = None,
) -> dict[str, Any]:
    """Judge accuracy records of the same images by the limits.

    Parameters
    ----------
    records : {stage: accuracy record}, in the order of the stages.
    limits : list of dicts: from_stage, to_stage, max_drop (percentage points of accuracy that
        may be lost), min_agreement (fraction of images that both stages answer alike).
    labels : (N,) true classes; with them each gate also gets McNemar's p-value of the change.
    task : of the records; None for classification. max_drop is then in points of its first figure (mAP@0.5,
        mIoU), min_agreement the share of boxes or pixels that both stages have.

    Returns
    -------
    dict for JSON: passed, stages (stage, images, correct, accuracy) and gates (the limit,
    drop in points, agreement, passed, reasons).
    """
    check_limits(limits)
    check_same_images(list(records.values()), list(records))
    if limits and task is None and any("accuracy" not in record for record in records.values()):
        raise UserError(
            "gates: no output of this network is the class of a picture (models.NAME.output: none), so it "
            "has no accuracy that could fall; leave gates out of its configuration"
        )
    gates = []
    for index, limit in enumerate(limits):
        for key in KEYS[:2]:
            if limit[key] not in records:
                raise UserError(
                    f"gates[{index}].{key}: stage {limit[key]!r} has no record; "
                    f"there are {', '.join(records)}"
                )
        pair = records[limit["from_stage"]], records[limit["to_stage"]]
        gates.append(_judge(limit, *pair, labels) if task is None else _judge_task(limit, *pair, task))
    return {
        "passed": all(gate["passed"] for gate in gates),
        "stages": [{"stage": name, **_stage(record, task)} for name, record in records.items()],
        "gates": gates,
    }


def _stage(record, task):
    if task is None:
        return {key: record[key] for key in ("images", "correct", "accuracy") if key in record}
    name, value, *_ = task.figures(record)[0]
    return {"images": record["images"], "measure": name, "accuracy": value}


def _judge(limit, before, after, labels):
    # from counts, so that a drop of exactly the limit is not lost to rounding
    drop = 100 * (before["correct"] - after["correct"]) / before["images"]
    gate = _verdict(limit, drop, agreement(before, after), "accuracy")
    if labels is not None:
        change = accuracy_change(labels, before["predictions"], after["predictions"])
        gate["p_value"] = change["p_value"]
    return gate


def _judge_task(limit, before, after, task):
    (name, first, *_), (_, second, *_) = (task.figures(record)[0] for record in (before, after))
    return _verdict(limit, 100 * (first - second), task.agreement(before, after), name)


def _verdict(limit, drop, alike, what):
    reasons = []
    if "max_drop" in limit and drop > limit["max_drop"] + 1e-9:
        reasons.append(f"{what} fell by {drop:.3f} points, allowed {limit['max_drop']:g}")
    if "min_agreement" in limit and alike["agreement"] < limit["min_agreement"] - 1e-12:
        reasons.append(f"agreement is {alike['agreement']:.4f}, required {limit['min_agreement']:g}")
    gate = {**limit, "drop": drop, "agreement": alike["agreement"], "passed": not reasons, "reasons": reasons}
    gate["first_difference"] = alike["first_difference"]
    return gate


def table(result: Mapping[str, Any]) -> str:
    """Text of the stages and gates of `evaluate`."""
    stages = result["stages"]
    rows: list[tuple[str, ...]] = [("stage", "images", "correct", "accuracy")]
    if "measure" in stages[0]:
        rows = [("stage", "images", stages[0]["measure"])]
    rows += [
        (
            s["stage"],
            str(s["images"]),
            *([str(s["correct"])] if "correct" in s else []),
            f"{s['accuracy']:.4f}",
        )
        for s in stages
    ]
    lines = _columns(rows)
    rows = [("gate", "drop (points)", "allowed", "agreement", "required", "")]
    for gate in result["gates"]:
        rows.append(
            (
                f"{gate['from_stage']} -> {gate['to_stage']}",
                f"{gate['drop']:.3f}",
                f"{gate['max_drop']:g}" if "max_drop" in gate else "-",
                f"{gate['agreement']:.4f}",
                f"{gate['min_agreement']:g}" if "min_agreement" in gate else "-",
                "passed" if gate["passed"] else "FAILED",
            )
        )
    return "\n".join([*lines, "", *_columns(rows)])


def _columns(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def require(result: Mapping[str, Any]) -> None:
    """UserError with the table unless all gates passed."""
    if result["passed"]:
        return
    reasons = [
        f"{gate['from_stage']} -> {gate['to_stage']}: {reason}"
        for gate in result["gates"]
        for reason in gate["reasons"]
    ]
    raise UserError("a drift gate failed: " + "; ".join(reasons) + "\n" + table(result))
