"""Dependency masks: the fewest tokens that order every two accesses to the same memory.

Every instruction keeps its engine's own order (self bit in both masks). Across engines a
token goes from the last instruction of each other engine that must be finished to the one
that needs it, unless that follows already from earlier tokens (docs/reference/instruction-set.md).
Since what is known to be finished only grows along an engine's queue, the tokens between
two engines never cross, and the k-th one taken is the k-th one given.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.isa.ordering import NEVER, Conflicts
from dpuflow.dpuczdx8g.isa.step_derivation import derive_steps
from dpuflow.dpuczdx8g.isa.steps import Region

LAG = 16
"""From this many instructions of the producing engine in between, wait for a later one.

How many tokens the hardware can hold is unknown (docs/reference/instruction-set.md). Waiting for the middle
of a long lag gives one token where there would be one per instruction, and still lets the
two engines overlap by half of what the banks allow.
"""


def synchronise(instructions: Sequence[Instruction], machine: Machine, regions: Mapping[str, Region]) -> None:
    """Set dpdon and dpdby of every instruction in place."""
    steps, _ = derive_steps(instructions, machine, regions)
    conflicts = Conflicts(machine, regions)
    last_end = np.full((len(ENGINES), len(ENGINES)), NEVER)
    ends = np.full((len(steps), len(ENGINES)), NEVER)
    positions = np.zeros(len(steps), int)
    queues: list[list[int]] = [[] for _ in ENGINES]
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
        # the latest first: it may imply the others
        for producer, earlier in sorted(needed.items(), key=lambda item: -item[1]):
            if known[producer] < positions[earlier]:
                queue = queues[producer]
                lag = len(queue) - 1 - positions[earlier]
                if lag >= LAG:
                    earlier = queue[positions[earlier] + lag // 2]
                steps[earlier].instruction.dpdby |= 1 << engine
                instruction.dpdon |= 1 << producer
                np.maximum(known, ends[earlier], out=known)
        positions[step.index] = known[engine] = len(queues[engine])
        queues[engine].append(step.index)
        ends[step.index] = last_end[engine] = known
