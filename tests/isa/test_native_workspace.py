"""Maps in DDR whose life is over give their room to later ones, whatever the engines do side by side."""

import numpy as np
import pytest
from integer_reference import JobBuilder
from quantized_builder import Builder
from random_jobs import FINGERPRINTS, assert_equal

from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.attribution import layers_of
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.left_in_memory import left_in_memory, not_left_in_memory
from dpuflow.dpuczdx8g.isa.ordering import Conflicts
from dpuflow.dpuczdx8g.isa.program import feature_maps, read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native import workspace
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.emulator import Emulator

SHAPE = (40, 24, 16)
MAP = 40 * 24 * 16
LINKS = 6


def joined(links=LINKS):
    """A chain of joins, whose maps of 15 KiB all go through DDR."""
    builder = JobBuilder(SHAPE, 3)
    x = builder.input
    for _ in range(links):
        x = builder.concat([builder.conv(x, 8, (1, 1), pad=(0, 0, 0, 0)), builder.conv(x, 8)])
    return builder, builder.job(builder.conv(x, 8))


@pytest.mark.parametrize("size", FINGERPRINTS)
def test_a_chain_needs_much_less_than_the_sum_of_its_maps(size):
    builder, job = joined()
    simulator = assert_equal(builder, job, FINGERPRINTS[size], images=1)
    assert job.region_sizes["REG_1"] == simulator.program.region_sizes["REG_1"] == 2 * MAP
    # the dependency masks hold back what overwrites a map, and the simulator's checks ask for it
    conflicts, held = Conflicts(simulator.machine, simulator.regions), 0
    for step in simulator.steps:
        earlier = [simulator.steps[number] for number in conflicts.step(step)]
        if step.instruction.name == "SAVE" and step.transfer.region == "REG_1":
            held += any(e.instruction.name == "LOAD" and e.transfer.region == "REG_1" for e in earlier)
    assert held >= (LINKS - 2) * SHAPE[0]


def read_again():
    """The first join is read at the very end."""
    builder, x, joins = JobBuilder(SHAPE, 5), None, []
    for _ in range(LINKS):
        x = joins[-1] if joins else builder.input
        joins.append(builder.concat([builder.conv(x, 8, (1, 1), pad=(0, 0, 0, 0)), builder.conv(x, 8)]))
    return builder, builder.job(builder.concat([builder.conv(joins[-1], 8), builder.conv(joins[0], 8)]))


def test_a_map_that_is_read_again_keeps_its_room():
    builder, job = read_again()
    assert_equal(builder, job, FINGERPRINTS["B512"], images=1)
    assert job.region_sizes["REG_1"] == 3 * MAP


def test_rooms_of_living_maps_on_one_another_give_another_result(monkeypatch):
    monkeypatch.setattr(workspace.Room, "together", lambda *_: False)
    builder, job = read_again()
    with pytest.raises(AssertionError, match="not equal"):
        assert_equal(builder, job, FINGERPRINTS["B512"], images=1)


@pytest.fixture(scope="module")
def network():
    """A compiled graph with a chain of joins, and what the emulator made of it before."""
    b = Builder((24, 16, 8), 4)
    x = b.conv("input", 8)
    for _ in range(4):
        sides = [b.conv(x, 8), b.conv(x, 8)]
        x = b.layer("concat", sides, (24, 16, 16), 4, axis=3)
    graph = lower(b.quantized("joins", b.dense(b.flatten(b.pool(x)), 5)), get_target("DPUCZDX8G_ISA1_B512"))
    images = np.random.default_rng(1).integers(-128, 128, (2, 24, 16, 8), np.int8)
    maps = Emulator(type(graph).from_bytes(graph.to_bytes())).run(images, dump=True)
    return graph, compile_graph(graph), images, maps


def test_the_file_names_the_maps_that_are_left_in_memory(network):
    """`location` 1: what a runtime's dump, made when the program has ended, finds there."""
    graph, (compiled,), images, maps = network
    (made,) = read_programs(graph)
    left = feature_maps(graph, made)
    arrays = Simulator(made).run([images], maps=list(left.values()))[len(made.outputs) :]
    for name, array in zip(left, arrays, strict=True):
        np.testing.assert_array_equal(array.reshape(maps[name].shape), maps[name], err_msg=name)
    assert set(left_in_memory(graph, made)) == set(left) and not not_left_in_memory(graph)
    gone = [name for name in compiled.spilled if name not in left]
    assert len(gone) >= 2 and len(left) >= 3
    assert all(graph.op(name).tensor.attrs["location"] == 0 for name in gone)


def test_saves_of_maps_that_share_a_room_belong_to_their_layers(network):
    graph, (compiled,), _, _ = network
    (made,) = read_programs(graph)
    code = decode(made.code)
    names, numbers = layers_of(graph, made, code)
    rows = {}
    for instruction, number in zip(code, numbers, strict=True):
        if instruction.name == "SAVE" and instruction["reg_id"] == 1:
            rows[names[number]] = rows.get(names[number], 0) + instruction["length"]
    for name, pixels in rows.items():
        assert pixels == 24 * 16, name  # every pixel of a map once, of no other map any
    assert set(rows) <= set(compiled.spilled) and len(rows) >= 8
