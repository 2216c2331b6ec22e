"""Machine code with flipped bits: a MachineCodeError or a run, never anything else."""

import dataclasses

import numpy as np
import pytest
from integer_reference import JobBuilder, run_job
from random_jobs import FINGERPRINTS, chain, program

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.simulator import Simulator


@pytest.fixture(scope="module")
def small():
    """A program with every kind of instruction that the compiler emits, and one batch for it."""
    builder = JobBuilder((9, 10, 3), 1)
    x = builder.conv(builder.input, 20)
    y = builder.depthwise(x, (3, 3), pad=(1, 1, 1, 1))
    x = builder.concat([builder.add([x, y]), y])
    x = builder.pool(builder.pool(x), "avg_pool", (2, 2))
    job = builder.job(builder.dense(x, 5))
    return builder, job, program(job, FINGERPRINTS["B1024"])[0]


@pytest.mark.fault("xmodel", "flipped bits in machine code", "refused, or it runs to its end")
def test_any_flipped_bit_is_refused_or_runs(small):
    builder, _, compiled = small
    images = builder.images(1)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        code = bytearray(compiled.code)
        for bit in random.integers(0, 8 * len(code), random.integers(1, 3)):
            code[bit // 8] ^= 1 << (bit % 8)
        try:
            (output,) = Simulator(dataclasses.replace(compiled, code=bytes(code))).run([images])
            assert output.shape == (1, 1, 1, 5)
        except UserError as error:
            assert "instruction" in str(error) or "offset" in str(error) or "output" in str(error)
            refused += 1
    assert refused > 100


def test_the_unbroken_program_is_right(small):
    builder, job, compiled = small
    images = builder.images(3)
    (output,) = Simulator(compiled).run([images])
    np.testing.assert_array_equal(output, run_job(job, images)[0])
    names = {step.instruction.name for step in Simulator(compiled).steps}
    assert names >= {"LOAD", "SAVE", "CONVINIT", "CONV", "ALUINIT", "ALU", "ELEWINIT", "ELEW", "END"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"region_sizes": {"REG_0": 64}}, "lies outside its region REG_2"),
        ({"parameters": b""}, "outside REG_0"),
        ({"fingerprint": 0x1000020F7014407}, "is not a DPUCZDX8G of instruction set ISA1"),
        ({"fingerprint": FINGERPRINTS["B512"]}, "instruction"),
        ({"code": b""}, "ends at offset 0 without END"),
    ],
)
def test_a_program_that_does_not_fit_its_surroundings(small, change, message):
    with pytest.raises(UserError, match=message):
        Simulator(dataclasses.replace(small[2], **change))


def test_inputs_are_checked():
    simulator = Simulator(program(chain((4,), (5,))[1], FINGERPRINTS["B512"])[0])
    with pytest.raises(UserError, match=r"has the shape \(28, 28\), expected \(28, 28, 1\)"):
        simulator.run([np.zeros((2, 28, 28), np.int8)])
    with pytest.raises(UserError, match="must be int8 with at least one image"):
        simulator.run([np.zeros((0, 28, 28, 1), np.int8)])
    with pytest.raises(UserError, match="got 0 inputs, it has 1"):
        simulator.run([])
