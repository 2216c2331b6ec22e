"""How far estimates depend on the networks they were fitted with: leave one out, choose the numbers anew."""

import itertools
from collections import deque

import numpy as np
from measuring import progress

from dpuflow.dpuczdx8g.cost_model import handed_over, layer_times, layer_works
from dpuflow.dpuczdx8g.isa.cycles import COMPUTING, durations, transfer_bytes
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.timing import HOST, TIMING, Timing, between_images

BYTES, TRANSFER, ALU, ISSUE = (20.0, 22.0, 24.0), (4.0, 8.0, 12.0), (1.5, 1.75, 2.0), (20.0, 40.0, 60.0, 80.0)
CONTENTION = (0.7, 0.75, 0.8, 0.85)
OVERLAP, EXPOSED, KEPT = (0.5, 0.7, 0.9), (0.0, 0.25, 0.5), (0.0, 0.25, 0.5, 0.75)
CORES = (1, 2, 3)
"""What is tried of each number, and with how many cores at work."""

DPU_CHOICES = tuple(itertools.product(BYTES, TRANSFER, ALU, ISSUE))
LAYER_CHOICES = tuple(itertools.product(BYTES, ALU, OVERLAP, EXPOSED, KEPT))
"""For machine code, and for layers, whose transfers are too few to tell what one takes."""


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


def frames_of_many(programs, clocks, fetch_us):
    """Frames per second with many threads by every choice: {board: array [DPU_CHOICES, CONTENTION]}.

    The job's start and the fetching of outputs stay: two small networks tell the one, two with large outputs
    the other (docs/performance.md), and no more can.

    programs : instructions of each DPU subgraph. clocks : board -> (MHz, cores).
    fetch_us : of the outputs.
    """
    cycles = sum(cycles_of_many(instructions) for instructions in programs)
    found = {}
    for board, (clock, cores) in clocks.items():
        columns = [STRETCHES.index(stretch(value, cores)) for value in CONTENTION]
        shared = cycles[:, columns] / clock
        found[board] = 1e6 / between_images(len(programs) * HOST.job_us, shared + fetch_us, cores)
    return found


def frames_by_layers(network, targets):
    """The same by layers: {board: array [LAYER_CHOICES, CONTENTION]}. targets : board -> Target."""
    target = next(iter(targets.values()))
    works = {kept: layer_works(network, target, kept) for kept in KEPT}
    cycles = np.empty((len(LAYER_CHOICES), len(CONTENTION), len(CORES)))
    for row, (bytes_, alu, overlap, exposed, kept) in enumerate(LAYER_CHOICES):
        alone = None
        for column, contention in enumerate(CONTENTION):
            timing = Timing(
                bytes_, alu_cycles=alu, overlap=overlap, exposed=exposed, kept=kept, contention=contention
            )
            alone = alone or sum(layer_times(works[kept], timing, 1))
            more = [sum(layer_times(works[kept], timing, cores)) for cores in CORES[1:]]
            cycles[row, column] = alone, *more
    fetch_us, found = HOST.fetching(*handed_over(network)[1:]), {}
    for board, target in targets.items():
        clock, cores = target.board.clock_mhz, target.board.cores
        shared = fetch_us + cycles[..., CORES.index(cores)] / clock
        found[board] = 1e6 / between_images(HOST.job_us, shared, cores)
    return found


def leave_one_out(estimates, published, chosen):
    """Errors of each network's programs by the numbers that suit those of all others best (least squares of
    logarithms): {(name, program): {board: error}}.

    estimates : (name, program) -> `frames_of_many` or `frames_by_layers`, one of them for all.
    published : name -> {board: frames per second}. chosen : the numbers of an index, in words.
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


def of_layers(best):
    """In words, the numbers of an index of `frames_by_layers`."""
    bytes_, alu, overlap, exposed, kept = LAYER_CHOICES[best[0]]
    dpu = f"{bytes_:g} bytes, ALU {alu:g}, overlap {overlap:g}, exposed {exposed:g}, kept {kept:g}"
    return f"{dpu}, contention {CONTENTION[best[1]]:g}"


def of_code(best):
    """In words, the numbers of an index of `frames_of_many`."""
    bytes_, transfer, alu, issue = DPU_CHOICES[best[0]]
    dpu = f"{bytes_:g} bytes, {transfer:g} + , ALU {alu:g}, issue {issue:g}"
    return f"{dpu}, contention {CONTENTION[best[1]]:g}"


def in_use():
    """Indices of the numbers in use among those tried, of code and of layers: for the test that compares
    estimates by them."""
    t = TIMING
    numbers = t.bytes_per_cycle, t.transfer_cycles, t.alu_cycles, t.issue_cycles
    by_layers = t.bytes_per_cycle, t.alu_cycles, t.overlap, t.exposed, t.kept
    contention = CONTENTION.index(t.contention)
    return (DPU_CHOICES.index(numbers), contention), (LAYER_CHOICES.index(by_layers), contention)
