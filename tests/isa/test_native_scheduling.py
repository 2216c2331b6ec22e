"""What the schedule saves: maps that never go to DDR, weights that are loaded once, joins without copies."""

import json

import numpy as np
import pytest
from integer_reference import JobBuilder
from random_jobs import FINGERPRINTS, assert_equal, program

from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.cycles import estimate_cycles
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.dpuczdx8g.native.lowering import lower_subgraph
from dpuflow.dpuczdx8g.native.placement import Ring
from dpuflow.xir import Graph

B4096 = FINGERPRINTS["B4096"]


def moved(simulator, name):
    """Bytes that the LOADs or SAVEs of a program move, by region."""
    found = {}
    for step in simulator.steps:
        if step.instruction.name == name:
            transfer = step.transfer
            found[transfer.region] = found.get(transfer.region, 0) + transfer.pixels * transfer.channel
    return found


@pytest.mark.parametrize("size", FINGERPRINTS)
def test_a_chain_of_maps_that_do_not_fit_stays_in_the_banks(size):
    """96 x 40 x 48 is beyond an image group of most sizes; bands of three layers at once are not."""
    builder = JobBuilder((96, 40, 16), 3)
    x = builder.conv(builder.input, 48, (1, 1), pad=(0, 0, 0, 0))
    x = builder.depthwise(x, (3, 3), (1, 1), (1, 1, 1, 1))
    x = builder.conv(x, 8, (1, 1), pad=(0, 0, 0, 0))
    simulator = assert_equal(builder, builder.job(x), FINGERPRINTS[size], images=1)
    assert set(moved(simulator, "LOAD")) == {"REG_0", "REG_2"}  # parameters and the input
    assert 96 * 40 * 16 <= moved(simulator, "LOAD")["REG_2"] <= 1.2 * 96 * 40 * 16  # strips overlap
    assert moved(simulator, "SAVE") == {"REG_3": 96 * 40 * 8}


def test_a_shortcut_stays_through_a_residual_block():
    builder = JobBuilder((28, 28, 24), 4)
    x = builder.conv(builder.input, 24)
    for _ in range(2):
        y = builder.conv(x, 96, (1, 1), pad=(0, 0, 0, 0))
        y = builder.depthwise(y, (3, 3), (1, 1), (1, 1, 1, 1))
        x = builder.add([x, builder.conv(y, 24, (1, 1), pad=(0, 0, 0, 0))], "NONE", (0, 0), 1)
    simulator = assert_equal(builder, builder.job(x), B4096)
    assert moved(simulator, "SAVE") == {"REG_3": 28 * 28 * 24}
    assert moved(simulator, "LOAD") == {
        "REG_2": 28 * 28 * 24,
        "REG_0": len_of_parameters(builder),
    }


def len_of_parameters(builder):
    """Bytes of all weights and biases, each once."""
    total = 0
    for op in builder.operations:
        channels, taps = op.output.shape[2], op.kernel[0] * op.kernel[1]
        if op.kind == "conv":
            total += channels * (taps * op.inputs[0].shape[2] + 1)
        if op.kind == "depthwise":
            total += channels * (taps + 1)
    return total


def test_weights_are_loaded_once_though_they_do_not_fit():
    """3 x 3 from 256 to 256 channels: 2,304 entries per bank of 2,048."""
    builder = JobBuilder((14, 14, 256), 5)
    x = builder.conv(builder.input, 256)
    simulator = assert_equal(builder, builder.job(x), B4096, images=1)
    assert moved(simulator, "LOAD")["REG_0"] == len_of_parameters(builder)


def test_a_load_takes_the_weights_of_many_output_channels():
    builder = JobBuilder((7, 7, 160), 6)
    x = builder.conv(builder.input, 960, (1, 1), pad=(0, 0, 0, 0))
    simulator = assert_equal(builder, builder.job(x), B4096, images=1)
    loads = [s for s in simulator.steps if s.transfer and s.transfer.region == "REG_0"]
    assert len(loads) <= 130  # 960 of them one by one


def test_a_join_copies_nothing():
    """What is joined lies in its place from the start; only the map that two joins share is copied once."""
    builder = JobBuilder((20, 20, 16), 7)
    a, b = builder.conv(builder.input, 32), builder.conv(builder.input, 32)
    first = builder.concat([a, b])
    second = builder.concat([builder.conv(first, 9), a])
    job = builder.job(builder.conv(second, 8))
    simulator = assert_equal(builder, job, B4096)
    pixels = 20 * 20
    assert moved(simulator, "SAVE") == {"REG_1": pixels * (32 + 32 + 9 + 32), "REG_3": pixels * 8}
    assert (a.strides, b.strides) == ((20 * 41, 41), (20 * 64, 64))


def test_a_ring_hands_out_what_nobody_holds():
    ring = Ring(100)
    assert [ring.take(40), ring.take(40)] == [0, 40]
    ring.hold(0, 40)
    assert ring.free == 60 and ring.take(30) == 40  # the 20 behind the cursor are too few
    ring.hold(90, 10)
    assert ring.take(50) == 40 and sorted(ring.gaps()) == [(40, 50)]
    ring.release(0)
    assert sorted(ring.gaps()) == [(0, 90)]
    with pytest.raises(ValueError, match="91 entries do not fit, 90 are free"):
        ring.take(91)


def test_joined_maps_of_other_fix_points_are_rounded_in_place(shared):
    """YOLOv8n as the vendor compiled it, five concats of unequal fix points: equal to its vectors."""
    path = shared("golden/wild/yolov8n_640_pt_b4096_3.5.xmodel")
    graph, vectors = Graph.load(path), np.load(path.with_suffix(".npz"))
    (subgraph,) = graph.subgraphs("DPU")
    lowered = lower_subgraph(graph, subgraph)
    rounded = [op for op in lowered.job.operations if op.part]
    assert len({op.name for op in rounded}) == 5
    compiled, _ = program(lowered.job, B4096)
    assert len(json.loads(str(vectors["meta"]))["subgraphs"]) == 1
    (found,) = Simulator(compiled).run([vectors["sub0_input_0"]])
    np.testing.assert_array_equal(found.reshape(-1), vectors["sub0_output_0"].reshape(-1))


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("efficientnetv2_32x56_32_k3_relu_pt_b2304_3.5", 0.9),
        ("efficientnetv2_32x56_48_k3_relu_se_pt_b2304_3.5", 1.0),
        ("efficientnetv2_48x28_96_k5_hswish_pt_b2304_3.5", 0.8),
        ("lenet_28_tf2_b4096_3.5", 0.9),
        ("mnist_28_pt_b4096_2.5", 1.0),
        ("mnistdense_28_tf2_b1152_2.5", 1.0),
    ],
)
def test_no_more_cycles_than_the_vendors_code(shared, name, most):
    """The vendor's graphs compiled again, both programs judged by the same estimate."""
    path = shared(f"golden/wild/{name}.xmodel")
    graph = Graph.load(path)
    compile_graph(graph)
    ours, theirs = (
        sum(estimate_cycles(decode(program.code))["cycles"] for program in read_programs(g))
        for g in (graph, Graph.load(path))
    )
    assert ours <= most * theirs


@pytest.mark.parametrize("size", FINGERPRINTS)
def test_zeros_between_groups_are_neither_loaded_nor_computed(size):
    """96 channels in groups of 6: an output group reads a few neighbouring channel groups of the input."""
    builder = JobBuilder((9, 11, 96), 8)
    x = builder.conv(builder.input, 96)
    op = builder.operations[-1]
    weights = (
        np.frombuffer(bytes(builder.blob[op.weights :][: 96 * 9 * 96]), np.int8).reshape(96, 9, 96).copy()
    )
    block = np.arange(96) // 6
    weights[block[:, None, None] != np.broadcast_to(block, (96, 9, 96))] = 0
    builder.blob[op.weights : op.weights + weights.size] = weights.tobytes()
    simulator = assert_equal(builder, builder.job(builder.conv(x, 10)), FINGERPRINTS[size])
    parallel = simulator.machine.channels
    spans = [(first // 6 * 6, -(-min(first + parallel, 96) // 6) * 6) for first in range(0, 96, parallel)]
    width = max(-(-end // parallel) - start // parallel for start, end in spans)
    assert width < simulator.machine.groups(96)
    convs = [step.instruction for step in simulator.steps if step.instruction.name == "CONV"]
    assert {op["channel_group"] for op in convs} == {width, simulator.machine.groups(96)}


def test_waiting_for_a_later_token_costs_nothing(monkeypatch):
    """The ALU waits for whole bands of the array, whose later channel groups are not done yet.

    Of a lag a later instruction is waited for, but none that the estimate has unfinished by then.
    """

    def compiled(lag):
        monkeypatch.setattr("dpuflow.dpuczdx8g.native.synchronise.LAG", lag)
        monkeypatch.setattr("dpuflow.dpuczdx8g.native.synchronise.MOST", 10**6)
        builder = JobBuilder((56, 56, 32), 5)
        x = builder.conv(builder.input, 192, (1, 1), pad=(0, 0, 0, 0))
        x = builder.depthwise(x, (3, 3), (2, 2), (1, 0, 1, 0))
        job = builder.job(builder.conv(x, 48, (1, 1), pad=(0, 0, 0, 0)))
        simulator = assert_equal(builder, job, FINGERPRINTS["B2304"], images=1)
        instructions = [step.instruction for step in simulator.steps]
        tokens = sum(op.dpdby.bit_count() for op in instructions)
        return tokens, estimate_cycles(instructions)["cycles"]

    (few, cycles), (many, exact) = compiled(4), compiled(10**6)
    assert few < many and cycles == exact
