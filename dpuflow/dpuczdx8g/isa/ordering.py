"""Do the dependency masks of a program order every two accesses to the same memory?

Model (docs/reference/instruction-set.md): T[p -> c] are counting semaphores, at the start one token
in T[e -> e] of every engine. An instruction of engine c waits for one token of T[p -> c]
per bit p of its dpdon; when finished, an instruction of engine p gives one to T[p -> c] per
bit c of its dpdby. An engine starts and finishes its instructions in program order.

From that follows which instructions are known to be finished when one starts: a vector
clock with one entry per engine. Program order is the meaning of the code, so a read needs
the last write before it among the finished ones, a write also the reads before it.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpuflow.dpuczdx8g.isa.addressing import distinct
from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError, Region, Step

NEVER = -1

Tokens = deque[tuple[np.ndarray, int]]
"""Tokens in the order given: what was finished then ([engines]), and the instruction that gave it."""


@dataclass
class Clocks:
    """What is known to be finished when each instruction starts.

    Attributes
    ----------
    finished : [instructions, engines], position in that engine's queue, NEVER for none.
    position : [instructions], position in its own engine's queue.
    most_tokens : "LOAD->CONV" -> most tokens waiting at once when run in program order.
    """

    finished: np.ndarray
    position: np.ndarray
    most_tokens: dict[str, int]


def clocks(instructions: Sequence[Instruction]) -> Clocks:
    """Follow the tokens of a program.

    MachineCodeError when an instruction takes a token that nothing before it gave (a
    deadlock on the board), or when tokens are left over at the end (the next run would
    start with them).
    """
    count = len(ENGINES)
    queues: dict[tuple[int, int], Tokens] = {(p, c): deque() for p in range(count) for c in range(count)}
    for engine in range(count):
        queues[engine, engine].append((np.full(count, NEVER), -1))
    finished = np.full((len(instructions), count), NEVER)
    position = np.zeros(len(instructions), int)
    last_start = np.full((count, count), NEVER)
    issued = [0] * count
    most: dict[str, int] = {}
    offset = 0
    for index, instruction in enumerate(instructions):
        engine = instruction.engine
        start = last_start[engine].copy()
        for producer in range(count):
            if instruction.dpdon >> producer & 1:
                if not queues[producer, engine]:
                    raise MachineCodeError(
                        f"instruction {index} ({instruction.name} at offset {offset}): waits for"
                        f" {ENGINES[producer]}, but nothing before it signals {ENGINES[engine]}: deadlock"
                    )
                np.maximum(start, queues[producer, engine].popleft()[0], out=start)
        finished[index], position[index] = start, issued[engine]
        last_start[engine] = start
        end = start.copy()
        end[engine] = issued[engine]
        issued[engine] += 1
        for consumer in range(count):
            if instruction.dpdby >> consumer & 1:
                queue = queues[engine, consumer]
                queue.append((end, index))
                key = f"{ENGINES[engine]}->{ENGINES[consumer]}"
                most[key] = max(most.get(key, 0), len(queue))
        offset += instruction.size
    _check_left_over(queues, instructions)
    return Clocks(finished, position, most)


def _check_left_over(queues, instructions):
    for (producer, consumer), queue in queues.items():
        expected = 1 if producer == consumer else 0
        if len(queue) != expected:
            name = f"{ENGINES[producer]}->{ENGINES[consumer]}"
            last = f", the last given by instruction {queue[-1][1]}" if queue else ""
            raise MachineCodeError(
                f"{len(queue)} tokens {name} are left at the end instead of {expected}{last};"
                f" the program of {len(instructions)} instructions does not return to its initial state"
            )


def interleaving(instructions: Sequence[Instruction], seed: int) -> list[int]:
    """A random order (indices) in which four engines may run the program, by its masks.

    The engine that goes first is drawn anew now and then, so that in places one engine runs
    as far ahead of the others as its tokens allow.
    """
    random = np.random.default_rng(seed)
    count = len(ENGINES)
    queues = [deque(i for i, op in enumerate(instructions) if op.engine == e) for e in range(count)]
    tokens = np.eye(count, dtype=int)
    order, priority = [], random.permutation(count)
    while any(queues):
        if random.random() < 1 / 16:
            priority = random.permutation(count)
        for engine in priority:
            head = instructions[queues[engine][0]] if queues[engine] else None
            waits = [p for p in range(count) if head is not None and head.dpdon >> p & 1]
            if head is not None and all(tokens[p, engine] for p in waits):
                tokens[waits, engine] -= 1
                tokens[engine, [c for c in range(count) if head.dpdby >> c & 1]] += 1
                order.append(queues[engine].popleft())
                break
        else:
            raise MachineCodeError("deadlock: every engine waits for another")
    return order


class Accesses:
    """Last write and last reads of every location of one memory; reads for each engine of `read_by`."""

    def __init__(self, size: int, read_by: Sequence[int] = range(len(ENGINES))) -> None:
        self.writer = np.full(size, NEVER, np.int32)
        self.readers = np.full((len(read_by), size), NEVER, np.int32)
        self.row = {engine: row for row, engine in enumerate(read_by)}

    def needed_by(self, index: np.ndarray, writing: bool) -> list[int]:
        """[engines] last instruction of each engine that must be finished first; NEVER for none.

        Entries are *instruction* indices; the caller knows each one's engine. `index` [n], n > 0,
        may repeat a location.
        """
        writers = self.writer[index]
        # nearly always one instruction wrote all of it, and sorting takes most of the check's time
        writers = writers[:1] if writers.min() == writers.max() else distinct(writers)
        needed = [int(i) for i in writers if i != NEVER]
        if writing:
            needed += [int(i) for i in self.readers[:, index].max(axis=1) if i != NEVER]
        return needed

    def record(self, number: int, engine: int, index: np.ndarray, writing: bool) -> None:
        """Instruction `number` of `engine` accesses the locations `index`."""
        if writing:
            self.writer[index] = number
            self.readers[:, index] = NEVER
        else:
            self.readers[self.row[engine], index] = number


class Conflicts:
    """Walks steps in program order and yields, for each, the earlier ones it must wait for."""

    def __init__(self, machine: Machine, regions: Mapping[str, Region]) -> None:
        self.banks = Accesses(machine.banks * BANK_DEPTH)
        by_load = [ENGINES.index("LOAD")]  # nothing else reads DDR, where memories are large
        self.ddr = {
            name: Accesses(region.size, by_load) for name, region in regions.items() if name != "REG_0"
        }

    def step(self, step: Step) -> set[int]:
        """Indices of earlier instructions that conflict with `step`; records its accesses."""
        engine = step.instruction.engine
        needed = set()
        accesses = [(self.banks, step.reads, False), (self.banks, step.writes, True)]
        if step.transfer is not None and step.transfer.region in self.ddr:
            memory = self.ddr[step.transfer.region]
            accesses.append((memory, step.transfer.touched, step.instruction.name == "SAVE"))
        for memory, index, writing in accesses:
            if len(index):
                needed.update(memory.needed_by(index, writing))
        for memory, index, writing in accesses:
            if len(index):
                memory.record(step.index, engine, index, writing)
        return needed


def check(steps: Sequence[Step], machine: Machine, regions: Mapping[str, Region]) -> Clocks:
    """MachineCodeError at the first access that no dependency orders; returns the Clocks."""
    instructions = [step.instruction for step in steps]
    known = clocks(instructions)
    conflicts = Conflicts(machine, regions)
    for step in steps:
        for earlier in sorted(conflicts.step(step)):
            engine = steps[earlier].instruction.engine
            if known.finished[step.index, engine] < known.position[earlier]:
                raise step.error(
                    f"missing dependency: it uses memory of {steps[earlier].where},"
                    " but nothing orders it after that instruction"
                )
    _check_end(steps, known)
    return known


def _check_end(steps, known):
    """END tells the host that all is done: every SAVE must be finished by then."""
    end = steps[-1]
    for step in steps[:-1]:
        if step.instruction.name == "SAVE":
            engine = step.instruction.engine
            if known.finished[end.index, engine] < known.position[step.index]:
                raise end.error(f"missing dependency: {step.where} may still be running")


__all__ = ["Accesses", "Clocks", "Conflicts", "check", "clocks"]
