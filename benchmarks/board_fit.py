"""How far estimates depend on the networks they were fitted with: leave one out, choose the numbers anew."""

import itertools
from collections import deque
from dataclasses import replace

import numpy as np
from measuring import progress

from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.cost_model import handed_over, layer_times, layer_works
from dpuflow.dpuczdx8g.isa.cycles import COMPUTING, durations, transfer_bytes
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.timing import HOST, TIMING, Timing, between_images

BYTES, TRANSFER, ALU, ISSUE = (20.0, 22.0, 24.0), (4.0, 8.0, 12.0), (1.5, 1.75, 2.0), (20.0, 40.0, 60.0, 80.0)
SHARE = (0.425, 0.45, 0.5, 0.55)
OVERLAP, EXPOSED, KEPT = (0.5, 0.7, 0.9), (0.0, 0.25, 0.5), (0.0, 0.25, 0.5, 0.75)
"""What is tried of each number."""

DPU_CHOICES = tuple(itertools.product(BYTES, TRANSFER, ALU, ISSUE))
LAYER_CHOICES = tuple(itertools.product(BYTES, ALU, OVERLAP, EXPOSED, KEPT))
"""For machine code, and for layers, whose transfers are too few to tell what one takes."""


def stretch(share, board, cores=None):
    """How many times longer a transfer takes with all cores of a board at work, or with so many."""
    return replace(TIMING, memory_share=share).on(board).stretch(cores or board.cores)


BOARDS = tuple(get_target(name).board for name in ("kv260", "zcu104", "zcu102"))
STRETCHES = tuple(sorted({stretch(share, board) for share in SHARE for board in BOARDS}))
"""All that occur on the boards of the published figures."""


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


def frames_of_many(programs, boards, fetch_us):
    """Frames per second with many threads by every choice: {board: array [DPU_CHOICES, SHARE]}.

    The job's start and the fetching of outputs stay: two small networks tell the one, two with large outputs
    the other (docs/performance.md), and no more can.

    programs : instructions of each DPU subgraph. boards : name -> Board, of BOARDS.
    fetch_us : of the outputs.
    """
    cycles = sum(cycles_of_many(instructions) for instructions in programs)
    served, found = len(programs) * HOST.job_us + fetch_us, {}
    for name, board in boards.items():
        columns = [STRETCHES.index(stretch(share, board)) for share in SHARE]
        found[name] = 1e6 / between_images(served, cycles[:, columns] / board.clock_mhz, board.cores)
    return found


def frames_by_layers(network, targets):
    """The same by layers: {board: array [LAYER_CHOICES, SHARE]}. targets : name -> Target of a board."""
    target = next(iter(targets.values()))
    works = {kept: layer_works(network, target, kept) for kept in KEPT}
    cycles = {name: np.empty((len(LAYER_CHOICES), len(SHARE))) for name in targets}
    for row, (bytes_, alu, overlap, exposed, kept) in enumerate(LAYER_CHOICES):
        numbers = Timing(bytes_, alu_cycles=alu, overlap=overlap, exposed=exposed, kept=kept)
        for name, target in targets.items():
            known = {}
            for column, share in enumerate(SHARE):
                timing = replace(numbers, memory_share=share).on(target.board)
                slower = timing.stretch(target.board.cores)
                if slower not in known:
                    known[slower] = sum(layer_times(works[kept], timing, target.board.cores))
                cycles[name][row, column] = known[slower]
    served, found = HOST.job_us + HOST.fetching(*handed_over(network)[1:]), {}
    for name, target in targets.items():
        found[name] = 1e6 / between_images(served, cycles[name] / target.board.clock_mhz, target.board.cores)
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
    return f"{dpu}, share {SHARE[best[1]]:g}"


def of_code(best):
    """In words, the numbers of an index of `frames_of_many`."""
    bytes_, transfer, alu, issue = DPU_CHOICES[best[0]]
    dpu = f"{bytes_:g} bytes, {transfer:g} + , ALU {alu:g}, issue {issue:g}"
    return f"{dpu}, share {SHARE[best[1]]:g}"


def in_use():
    """Indices of the numbers in use among those tried, of code and of layers: for the test that compares
    estimates by them."""
    t = TIMING
    numbers = t.bytes_per_cycle, t.transfer_cycles, t.alu_cycles, t.issue_cycles
    by_layers = t.bytes_per_cycle, t.alu_cycles, t.overlap, t.exposed, t.kept
    share = SHARE.index(t.memory_share)
    return (DPU_CHOICES.index(numbers), share), (LAYER_CHOICES.index(by_layers), share)
