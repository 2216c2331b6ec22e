"""Workers on one image: parts that begin before the step before is done; helpers of a forked process."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from compiled_kernels import need_compiled_kernels
from native_cases import by_oracle, convolution, every_way

from dpuflow.emulator import c_kernels, native_program, random_cases
from dpuflow.emulator.native_program import Node, Program

THREADS = 8


def chain(rng):
    """Layers one behind the other, whose maps take turns in a few places; their source's shape."""
    shape, nodes, channels = (1, 12, 10, 8), [], (8, 40, 8, 120, 8, 200, 16)
    for i, (before, after) in enumerate(pairwise(channels)):
        op = convolution(rng, (after, before), (1, 1 + i % 2), pad=(0, 0, 0, i % 2))
        nodes.append(Node(f"{i}", (f"{i - 1}" if i else "image",), op, (*shape[:3], after)))
    return nodes, shape


NETWORKS = {
    "all maps are outputs": (every_way, slice(None)),
    "the last map is the output": (every_way, slice(-1, None)),
    "maps in turns": (chain, slice(-1, None)),
}


@pytest.fixture(params=NETWORKS)
def program(request, monkeypatch):
    """(program of which all workers do one image in many small parts, its nodes, three images)."""
    need_compiled_kernels()
    for name, value in {"WORTH_SHARING": 0, "PART_MICROSECONDS": 0.0001}.items():
        monkeypatch.setattr(native_program, name, value)
    make, wanted = NETWORKS[request.param]
    nodes, source = make(np.random.default_rng(3))
    names = [node.name for node in nodes][wanted]
    batch = random_cases.values(np.random.default_rng(5), (3, *source[1:]))
    return Program(nodes, {"image": source}, names, THREADS), nodes, batch


def prepared(program, batch, results):
    """A call of all of `batch` by workers together, of which nothing is done; the arrays it points to."""
    given = [np.ascontiguousarray(batch), *program._constants.values()]
    arena = c_kernels.arena(program.arena_bytes)
    arena[:] = 77  # what a part reads too early is not what it should be
    places = [
        c_kernels.addresses(each) for each in (given, [results[name] for name in program.outputs], [arena])
    ]
    call = program._run_of(len(batch), 0, 1)
    call.sources, call.targets, call.arenas = map(ctypes.addressof, places)
    return call, (given, arena, places)


def orders(tickets, seed):
    """Numbers of an image's tickets in an order that `needed` allows; without a seed as early as may be."""
    random = np.random.default_rng(seed)
    left = list(range(len(tickets)))
    while left:
        ready = [number for number in left if tickets[number].needed <= left[0]]
        number = ready[-1] if seed is None else int(random.choice(ready))
        left.remove(number)
        yield number


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_parts_in_any_order_that_is_allowed_give_the_oracles_maps(program, seed):
    """Not a race but every step's parts as early as they may begin, one after the other."""
    program, nodes, batch = program
    expected = by_oracle(nodes, batch)
    results = {name: np.zeros_like(expected[name]) for name in program.outputs}
    call, kept = prepared(program, batch, results)
    part, early = c_kernels.loaded().part_of_image, 0
    for image in range(len(batch)):
        done = []
        for number in orders(program._tickets, seed):
            early += any(later > number for later in done)
            part(ctypes.byref(call), ctypes.c_int64(image), ctypes.c_int64(number))
            done.append(number)
    assert early > 20  # parts that came behind a later one
    for name in program.outputs:
        np.testing.assert_array_equal(results[name], expected[name], name)
    del kept


def test_a_part_does_not_wait_for_the_rows_below(program):
    """The first part of most layers begins while the layer before is at work."""
    program, _, _ = program
    tickets = list(program._tickets)
    starts = [number for number, ticket in enumerate(tickets) if ticket.part == 0]
    early = sum(tickets[number].needed < number for number in starts)
    assert len(starts) / 2 < early < len(starts)
    assert all(ticket.needed <= number for number, ticket in enumerate(tickets))


def test_a_forked_process_has_its_own_helpers(program):
    """The helpers of the process before are not there: nobody waits for them."""
    program, nodes, batch = program
    expected = by_oracle(nodes, batch)

    def right():
        found = program.run({"image": batch})
        return all(np.array_equal(found[name], expected[name]) for name in program.outputs)

    assert right()
    child = os.fork()
    if child == 0:
        os._exit(0 if right() and right() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert right()


def test_calls_from_several_threads_share_the_crew(program):
    """One of them is helped, the others work alone; a program's arenas are one call's at a time."""
    program, nodes, batch = program
    expected = by_oracle(nodes, batch)
    other = Program(nodes, {"image": batch.shape}, program.outputs, 3)

    def wrong(number):
        runner = (program, other)[number % 2]
        count = 1 + number % len(batch)
        found = runner.run({"image": batch[:count]})
        return [name for name in found if not np.array_equal(found[name], expected[name][:count])]

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(wrong, range(60)))
