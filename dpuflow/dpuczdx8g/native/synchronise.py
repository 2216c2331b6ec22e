"""Dependency masks: the fewest tokens that order every two accesses to the same memory.

Every instruction keeps its engine's own order (self bit in both masks). Across engines a
token goes from the last instruction of each other engine that must be finished to the one
that needs it, unless that follows already from earlier tokens (docs/reference/instruction-set.md).
Since what is known to be finished only grows along an engine's queue, the tokens between
two engines never cross, and the k-th one taken is the k-th one given.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.cycles import durations
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.isa.ordering import NEVER, Conflicts
from dpuflow.dpuczdx8g.isa.step_derivation import derive_steps
from dpuflow.dpuczdx8g.isa.steps import Region

LAG = 16
"""From this many instructions of the producing engine in between, wait for a later one.

That gives one token where there would be one per instruction. It is the last one, up to the middle of the
lag, that by the estimate of time is finished before anything else lets the waiting instruction begin.
"""
MOST = 8
"""Where so many tokens wait already between two engines, it is the middle of a long lag.

How many the hardware can hold is unknown (docs/reference/instruction-set.md); in vendor-compiled files up to
31 wait. The two engines still overlap by half of what the banks allow.
"""


def synchronise(instructions: Sequence[Instruction], machine: Machine, regions: Mapping[str, Region]) -> None:
    """Set dpdon and dpdby of every instruction in place."""
    steps, _ = derive_steps(instructions, machine, regions)
    conflicts = Conflicts(machine, regions)
    last_end = np.full((len(ENGINES), len(ENGINES)), NEVER)
    ends = np.full((len(steps), len(ENGINES)), NEVER)
    positions = np.zeros(len(steps), int)
    queues: list[list[int]] = [[] for _ in ENGINES]
    cycles = durations(instructions)
    done = [0.0] * len(steps)
    takers: dict[tuple[int, int], list[int]] = defaultdict(list)
    for step in steps:
        instruction = step.instruction
        engine = instruction.engine
        instruction.dpdon = instruction.dpdby = 1 << engine
        known = last_end[engine].copy()
        needed: dict[int, int] = {}
        for earlier in conflicts.step(step):
            producer = steps[earlier].instruction.engine
            if earlier > needed.get(producer, -1):
                needed[producer] = earlier
        start = max((done[i] for i in (*needed.values(), *queues[engine][-1:])), default=0.0)
        # the latest first: it may imply the others
        for producer, earlier in sorted(needed.items(), key=lambda item: -item[1]):
            if known[producer] < positions[earlier]:
                queue, taken = queues[producer], takers[producer, engine]
                crowded = len(taken) >= MOST and earlier < taken[-MOST]
                earlier = _awaited(queue, positions[earlier], None if crowded else start, done)
                taken.append(step.index)
                start = max(start, done[earlier])
                steps[earlier].instruction.dpdby |= 1 << engine
                instruction.dpdon |= 1 << producer
                np.maximum(known, ends[earlier], out=known)
        done[step.index] = start + cycles[step.index]
        positions[step.index] = known[engine] = len(queues[engine])
        queues[engine].append(step.index)
        ends[step.index] = last_end[engine] = known


def _awaited(queue, place, start, done):
    """The instruction of a queue to wait for, so that the one at `place` is finished.

    start : when the waiting one could begin; None: however late, so that one token serves for many.
    """
    lag = len(queue) - 1 - place
    if lag < LAG:
        return queue[place]
    middle = place + lag // 2
    if start is None:
        return queue[middle]
    return queue[max(place, bisect_right(queue, start, place, middle + 1, key=done.__getitem__) - 1)]
