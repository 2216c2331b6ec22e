"""How far estimates depend on the networks they were fitted with: leave one out, choose the numbers anew."""

import itertools
from collections import deque

import numpy as np
from measuring import progress

from dpuflow.dpuczdx8g.isa.cycles import COMPUTING, durations, transfer_bytes
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.timing import HOST, TIMING, Timing, between_images

BYTES, TRANSFER, ALU, ISSUE = (20.0, 22.0, 24.0), (4.0, 8.0, 12.0), (1.5, 1.75, 2.0), (0.0, 20.0, 40.0, 60.0)
CONTENTION = (0.65, 0.7, 0.75, 0.8)
FETCH = (0.0, 2.5, 5.0, 7.5)
CORES = (1, 2, 3)
"""What is tried of each number, and with how many cores at work."""

DPU_CHOICES = tuple(itertools.product(BYTES, TRANSFER, ALU, ISSUE))


def stretch(contention, cores):
    """How many times longer a transfer takes."""
    return Timing(contention=contention).stretch(cores)


STRETCHES = tuple(sorted({stretch(value, cores) for value in CONTENTION for cores in CORES}))


def cycles_of_many(instructions):
    """Cycles of a program by every choice of numbers: float [DPU_CHOICES, STRETCHES].

    The same as `isa.cycles.schedule` for each of them (a test holds them equal), all at once.
    """
    columns = (np.array(column)[:, None] for column in zip(*DPU_CHOICES, strict=True))
    per_cycle, transfer, alu, issue = columns
    slower = np.array(STRETCHES)[None, :]
    one_byte, one_transfer = slower / per_cycle, slower * transfer
    plain = durations(instructions, Timing(1.0, transfer_cycles=0.0, issue_cycles=0.0, alu_cycles=1.0))
    shape, count = (len(DPU_CHOICES), len(STRETCHES)), len(ENGINES)
    zero = np.zeros(shape)
    tokens = [[deque([zero] if p == c else []) for c in range(count)] for p in range(count)]
    free = [zero] * count
    for op, base in zip(instructions, plain, strict=True):
        engine, name = op.engine, op.name
        start = zero if op.dpdon >> engine & 1 else free[engine]
        for producer in range(count):
            if op.dpdon >> producer & 1 and tokens[producer][engine]:
                start = np.maximum(start, tokens[producer][engine].popleft())
        if name == "LOAD" and op["broadcast"]:
            taken = one_transfer + base * slower
        elif name in ("LOAD", "SAVE"):
            taken = one_transfer + transfer_bytes(op, TIMING.burst_bytes) * one_byte
        else:
            taken = (base * alu if name == "ALU" else base) + (issue if name in COMPUTING else 0.0)
        free[engine] = np.maximum(free[engine], start + taken)
        for consumer in range(count):
            if op.dpdby >> consumer & 1:
                tokens[engine][consumer].append(free[engine])
    return np.maximum.reduce(free)


def frames_of_many(programs, clocks, output_bytes):
    """Frames per second with many threads by every choice: {board: array [DPU, CONTENTION, FETCH]}.

    The job's start stays: two small networks tell it (docs/performance.md), and no other can.

    programs : instructions of each DPU subgraph. clocks : board -> (MHz, cores).
    """
    cycles = sum(cycles_of_many(instructions) for instructions in programs)
    found = {}
    for board, (clock, cores) in clocks.items():
        columns = [STRETCHES.index(stretch(value, cores)) for value in CONTENTION]
        shared = cycles[:, columns] / clock
        starts, fetches = len(programs) * HOST.job_us, (output_bytes * value / 1e3 for value in FETCH)
        found[board] = np.stack([1e6 / between_images(starts, shared + x, cores) for x in fetches], axis=-1)
    return found


def leave_one_out(estimates, published):
    """Errors of each network's programs by the numbers that suit those of all others best (least squares of
    logarithms): {(name, program): {board: error}}.

    estimates : (name, program) -> `frames_of_many`. published : name -> {board: frames per second}.
    """
    off = {
        (name, program): {b: np.log(frames[b] / fps) for b, fps in published[name].items()}
        for (name, program), frames in estimates.items()
    }
    errors = {}
    for left in dict.fromkeys(name for name, _ in off):
        others = [x**2 for (name, _), found in off.items() if name != left for x in found.values()]
        best = np.unravel_index(np.argmin(np.mean(others, axis=0)), others[0].shape)
        for key, found in off.items():
            if key[0] == left:
                errors[key] = {board: float(np.exp(values[best]) - 1) for board, values in found.items()}
        progress(f"without {left}: {chosen(best)}")
    return errors


def chosen(best):
    """In words, the numbers of an index."""
    bytes_, transfer, alu, issue = DPU_CHOICES[best[0]]
    dpu = f"{bytes_:g} bytes, {transfer:g} + , ALU {alu:g}, issue {issue:g}"
    return f"{dpu}, contention {CONTENTION[best[1]]:g}, fetch {FETCH[best[2]]:g}"


def in_use():
    """Index of the numbers in use among those tried: for the test that compares the two schedules."""
    numbers = TIMING.bytes_per_cycle, TIMING.transfer_cycles, TIMING.alu_cycles, TIMING.issue_cycles
    return DPU_CHOICES.index(numbers), CONTENTION.index(TIMING.contention), FETCH.index(HOST.fetch_ns)
