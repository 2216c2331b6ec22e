"""Estimate of how many cycles a program takes. Nothing here is measured.

Known is only the theoretical length of a CONV, length * kernel_h * kernel_w * channel groups
(docs/reference/instruction-set.md, inferred from the vendor's workload figures); the timing of the hardware
is not published (docs/reference/instruction-set.md). Assumed: ALU and ELEW likewise do one channel group of
one kernel position per cycle, LOAD and SAVE move bytes at a fixed rate, an instruction costs
nothing else, and the engines run in parallel as far as the dependency masks let them.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.isa.steps import Step

BYTES_PER_CYCLE = 20.0
"""DDR bytes per cycle and direction: 6 GB/s at 300 MHz, the cost model's assumption."""


def duration(step: Step, bytes_per_cycle: float = BYTES_PER_CYCLE) -> float:
    """Estimated cycles of one step."""
    op = step.instruction
    if op.name in ("LOAD", "SAVE"):
        return op["length"] * op["channel"] / bytes_per_cycle
    if op.name == "CONV":
        init = step.setting
        return op["length"] * init["kernel_h"] * init["kernel_w"] * op["channel_group"]
    if op.name == "ALU":
        init = step.setting
        return init["length"] * init["kernel_h"] * init["kernel_w"] * init["channel_group"]
    if op.name == "ELEW":
        return op["length"] * op["channel_group"] * op["num"]
    return 0


def estimate_cycles(steps: Sequence[Step], bytes_per_cycle: float = BYTES_PER_CYCLE) -> dict[str, Any]:
    """Run the four queues against the clock.

    Parameters
    ----------
    steps : steps.Step list of a checked program.
    bytes_per_cycle : of DDR, for LOAD and for SAVE.

    Returns
    -------
    dict for JSON: `kind` "estimate", `cycles` from start to end, `busy` cycles per engine,
    `sequential` cycles if nothing overlapped, and the assumptions.
    """
    count = len(ENGINES)
    tokens = {(p, c): deque([0.0] if p == c else []) for p in range(count) for c in range(count)}
    free, busy = [0.0] * count, [0.0] * count
    for step in steps:
        op, engine = step.instruction, step.instruction.engine
        start = free[engine] if not op.dpdon >> engine & 1 else 0.0
        for producer in range(count):
            if op.dpdon >> producer & 1:
                start = max(start, tokens[producer, engine].popleft())
        cycles = duration(step, bytes_per_cycle)
        busy[engine] += cycles
        free[engine] = max(free[engine], start + cycles)
        for consumer in range(count):
            if op.dpdby >> consumer & 1:
                tokens[engine, consumer].append(free[engine])
    return {
        "kind": "estimate",
        "cycles": round(max(free)),
        "sequential": round(sum(busy)),
        "busy": {name: round(value) for name, value in zip(ENGINES, busy, strict=True)},
        "bytes_per_cycle": round(bytes_per_cycle, 2),
        "note": "theoretical cycles per instruction, ideal DDR; the hardware's timing is unknown",
    }
