"""Estimate of the energy of an image, where a board's power was measured; nothing was measured by dpuflow.

The whole board's power, idle and under load, is published for networks on a KV260 (docs/performance.md, "Time
on the board"). What comes on top of idling is taken as energy of each operation and power of a DPU at work.
"""

from dataclasses import dataclass
from typing import Any

from dpuflow.device.targets import Target
from dpuflow.dpuczdx8g.timing import figure


@dataclass(frozen=True)
class Power:
    """A board's power, fitted to its measurements.

    idle_w : of the board that does nothing. work_w : more while the DPU is at work.
    operation_pj : energy of one of the network's operations (a multiply and an add are two).
    """

    idle_w: float
    work_w: float
    operation_pj: float


MEASURED = {("KV260", "B4096", 1, 300.0): Power(idle_w=5.28, work_w=0.85, operation_pj=3.3)}
"""(board, DPU size, cores, MHz) whose power was published."""


def published_power(target: Target) -> Power | None:
    """Of a target's board; None where nobody has published it."""
    if target.board is None:
        return None
    board = target.board
    return MEASURED.get((board.name, target.size, board.cores, float(board.clock_mhz)))


def assumption(target: Target) -> list[str]:
    """What an estimate of energy rests on, as sentences for a report; none without one."""
    power = published_power(target)
    if power is None:
        return []
    return [
        f"energy: the board takes {power.idle_w:g} W idle, {power.work_w:g} W more while the DPU works, and"
        f" {power.operation_pj:g} pJ for each operation (fitted to its published power)"
    ]


def energy(target: Target, workload: int, board: dict[str, Any], dpu_us: float) -> dict[str, Any] | None:
    """Energy of an image as a dict for JSON; None for a board whose power nobody has published.

    Parameters
    ----------
    workload : operations of an image. dpu_us : the DPU's time for it.
    board : `latency_us` and `frames_per_second` as `timing.figures` gives them.

    Returns
    -------
    `kind` "estimate"; `idle_w`; for one call after the other from Python (`call_`) and for threads enough to
    keep the DPU at work (`saturated_`) the board's mean power in W and the energy of an image in mJ.
    """
    power = published_power(target)
    if power is None:
        return None
    more_mj = workload * power.operation_pj / 1e9 + dpu_us * power.work_w / 1e3
    found: dict[str, Any] = {"kind": "estimate", "idle_w": power.idle_w}
    times = {"call": board["latency_us"], "saturated": 1e6 / board["frames_per_second"]["one_core_saturated"]}
    for way, microseconds in times.items():
        image_mj = power.idle_w * microseconds / 1e3 + more_mj
        found[f"{way}_w"] = figure(image_mj * 1e3 / microseconds)
        found[f"{way}_mj"] = figure(image_mj)
    return found
