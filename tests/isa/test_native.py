"""Generated machine code against the integer reference, on the simulator with all its checks."""

import dataclasses

import numpy as np
import pytest
from integer_reference import JobBuilder, run_job
from random_jobs import FINGERPRINTS, assert_equal, chain, program, random_job

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.code import encode
from dpuflow.dpuczdx8g.isa.ordering import clocks
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError

B4096 = FINGERPRINTS["B4096"]


@pytest.mark.parametrize("size", sorted(FINGERPRINTS))
def test_small_network_on_every_size(size):
    builder, job = chain((28, 64), (96, 25), depthwise=True)
    simulator = assert_equal(builder, job, FINGERPRINTS[size])
    assert simulator.machine.name == size
    assert [op.name for op in job.operations if op.output.spilled] == [job.operations[-1].name]


def test_network_of_three_blocks_and_three_dense_layers():
    """The shape of the reference task's `optimal` network, 1024 and 512 units."""
    builder, job = chain((28, 64, 64), (1024, 512, 25))
    simulator = assert_equal(builder, job, B4096, images=3)
    # few tokens wait at once: how many the hardware holds is unknown
    assert max(simulator.clocks.most_tokens.values()) <= 16


@pytest.mark.parametrize("seed", range(48))
def test_random_networks(seed):
    """Strides, padding, pools, add, concat, several outputs; DPU sizes in turn."""
    builder, job = random_job(seed)
    assert_equal(builder, job, list(FINGERPRINTS.values())[seed % 8], images=1 + seed % 2)


@pytest.mark.parametrize("size", ["B512", "B1152", "B4096"])
def test_maps_that_need_tiles(size):
    """224 columns of 64 channels exceed a bank group: rows and columns are cut, no map goes through DDR."""
    builder = JobBuilder((20, 224, 16), 5)
    x = builder.conv(builder.input, 64)
    x = builder.conv(x, 40, stride=(2, 2), activation="LEAKYRELU")
    x = builder.pool(x, "max_pool", (3, 3), (2, 2), (1, 1, 1, 1))
    simulator = assert_equal(builder, builder.job(x), FINGERPRINTS[size], images=1)
    assert [op.output.spilled for op in builder.operations] == [False, False, True]
    saves = [step.transfer for step in simulator.steps if step.instruction.name == "SAVE"]
    assert {transfer.region for transfer in saves} == {"REG_3"}
    columns = {step.instruction["length"] for step in simulator.steps if step.instruction.name == "CONV"}
    assert max(columns) < 120


def test_residual_block_with_concat():
    builder = JobBuilder((16, 16, 3), 2)
    stem = builder.conv(builder.input, 20)
    inner = builder.conv(builder.conv(stem, 20), 20, activation="NONE")
    added = builder.add([inner, stem], "RELU", (0, 2), 1)
    joined = builder.concat([added, stem, builder.pool(added, "avg_pool", (3, 3), (1, 1), (1, 1, 1, 1))])
    pooled = builder.pool(joined, "avg_pool", (16, 16), (1, 1))
    assert_equal(builder, builder.job(builder.dense(pooled, 10)), B4096, images=5)


def test_code_is_the_same_every_time():
    first, again = (program(chain((16, 32), (25,))[1], B4096)[0].code for _ in range(2))
    assert first == again


def test_noise_in_the_banks_does_not_matter():
    builder, job = chain((20,), (25,))
    simulator = Simulator(program(job, B4096)[0])
    images = builder.images(3)
    outputs = [simulator.run([images], seed=seed)[0] for seed in range(3)]
    for output in outputs:
        np.testing.assert_array_equal(output, run_job(job, images)[0])


def test_batches_are_cut_without_changing_results(monkeypatch):
    builder, job = chain((8,), (25,))
    simulator = Simulator(program(job, FINGERPRINTS["B512"])[0])
    images = builder.images(10)
    (whole,) = simulator.run([images])
    monkeypatch.setattr("dpuflow.dpuczdx8g.isa.simulator.IMAGES_AT_ONCE", 4)
    (parts,) = simulator.run([images])
    np.testing.assert_array_equal(whole, parts)


def test_masks_overlap_loading_with_computing():
    """The next weights load while a CONV runs, and no token is superfluous."""
    _, job = chain((28, 64), (25,))
    compiled, instructions = program(job, B4096)
    known = clocks(instructions)
    convs = [i for i, op in enumerate(instructions) if op.name == "CONV"]
    loads_before = [known.finished[i, 0] for i in convs]
    loads_issued = [sum(op.name == "LOAD" for op in instructions[:i]) for i in convs]
    assert all(done < issued for done, issued in zip(loads_before, loads_issued, strict=True))
    free_loads = [op for op in instructions if op.name == "LOAD" and op.dpdon == 1]
    assert len(free_loads) > 0.9 * sum(op.name == "LOAD" for op in instructions)
    crossing = [
        (i, c) for i, op in enumerate(instructions) for c in range(4) if c != op.engine and op.dpdby >> c & 1
    ]
    assert crossing
    for index, consumer in crossing:
        code = [dataclasses.replace(op) for op in instructions]
        code[index].dpdby &= ~(1 << consumer)
        taker = next(
            op for op in code[index + 1 :] if op.engine == consumer and op.dpdon >> code[index].engine & 1
        )
        taker.dpdon &= ~(1 << code[index].engine)
        with pytest.raises(MachineCodeError, match=r"missing dependency|tokens"):
            Simulator(dataclasses.replace(compiled, code=encode(code)))


def test_what_does_not_fit_is_a_user_error():
    builder = JobBuilder((14, 14, 256), 0)
    dense = builder.dense(builder.input, 10)
    with pytest.raises(UserError, match="conv_0: 14x14 kernel on 256 channels needs 3136 entries"):
        program(builder.job(dense), B4096)
    builder = JobBuilder((100, 300, 3), 0)
    x = builder.pool(builder.input, kernel=(100, 256), stride=(1, 1))
    with pytest.raises(UserError, match="not even one output pixel and its 256x100 window of 3 channels"):
        program(builder.job(x), B4096)
    builder = JobBuilder((1, 1, 20000), 0)
    x = builder.concat([builder.input, builder.input])
    with pytest.raises(UserError, match=r"concat_0: not even one .* of 20000 channels"):
        program(builder.job(x), B4096)


@pytest.mark.parametrize(
    ("kind", "kernel", "stride", "pad"),
    [
        ("conv", (16, 2), (1, 1), (0, 0, 0, 0)),
        ("conv", (15, 1), (1, 1), (7, 7, 0, 0)),
        ("depthwise", (40, 3), (1, 1), (2, 0, 1, 1)),
        ("max_pool", (37, 1), (1, 1), (0, 3, 0, 0)),
        ("avg_pool", (20, 2), (2, 1), (0, 0, 0, 0)),
        ("max_pool", (44, 3), (5, 1), (1, 0, 0, 0)),
    ],
)
def test_windows_taller_than_the_bank_passes(kind, kernel, stride, pad):
    """Several rows per bank, one output row at a time, where a window would need a fifth pass."""
    for size in ("B512", "B4096"):
        builder = JobBuilder((48, 6, 5), 0)
        if kind in ("conv", "depthwise"):
            more = {"channels": 9} if kind == "conv" else {}
            x = getattr(builder, kind)(builder.input, kernel=kernel, stride=stride, pad=pad, **more)
        else:
            x = builder.pool(builder.input, kind, kernel, stride, pad)
        job, images = builder.job(x), builder.images(2)
        (output,) = Simulator(program(job, FINGERPRINTS[size])[0]).run([images])
        np.testing.assert_array_equal(output, run_job(job, images)[0])


@pytest.mark.parametrize("size", ["B512", "B4096"])
def test_windows_too_deep_for_the_banks_go_slice_by_slice(size):
    """Xception's last pool (10x10x2048), and other layers whose channels do not mix."""
    builder = JobBuilder((10, 10, 3), 1)
    x = builder.conv(builder.input, 2045, (1, 1), pad=(0, 0, 0, 0))
    y = builder.depthwise(x, (5, 5), stride=(5, 5), pad=(2, 2, 2, 2), activation="RELU6")
    x = builder.pool(x, "avg_pool", (10, 10))
    job, images = builder.job(x, y), builder.images(1)
    compiled, _ = program(job, FINGERPRINTS[size])
    for found, expected in zip(Simulator(compiled).run([images]), run_job(job, images), strict=True):
        np.testing.assert_array_equal(found, expected)
    slices = {piece.groups for piece in job.pieces.values() if piece.op == x.name}
    assert len(slices) > 1 and max(end for _, end in slices) == -(-2045 // {"B512": 8, "B4096": 16}[size])


def test_fields_at_their_ends():
    """More taps than one LOAD can count, more channel groups than one ALU can."""
    builder = JobBuilder((34, 36, 5), 0)
    deep = JobBuilder((1, 2, 2085), 0)
    for made, output in (
        (builder, builder.depthwise(builder.input, (34, 36), activation="RELU")),
        (deep, deep.pool(deep.input, "avg_pool", (1, 2), (1, 1))),
    ):
        job, images = made.job(output), made.images(2)
        (found,) = Simulator(program(job, FINGERPRINTS["B512"])[0]).run([images])
        np.testing.assert_array_equal(found, run_job(job, images)[0])
