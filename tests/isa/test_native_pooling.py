"""Max pooling in two steps, against the integer reference on the simulator, on every size."""

import numpy as np
import pytest
from integer_reference import JobBuilder
from random_jobs import FINGERPRINTS, assert_equal

from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.dpuczdx8g.native.pooling import steps

B4096 = FINGERPRINTS["B4096"]


def windows(simulator):
    """(kernel_h, kernel_w, shift) of every ALUINIT of a program."""
    inits = [s.instruction for s in simulator.steps if s.instruction.name == "ALUINIT"]
    return {(init["kernel_h"], init["kernel_w"], init["shift_cut"]) for init in inits}


@pytest.mark.parametrize(("size", "seed"), [(size, seed) for seed, size in enumerate(FINGERPRINTS)])
def test_random_max_pools_on_every_size(size, seed):
    """Kernels, strides, padding and shifts of all kinds, between convolutions and three in a row."""
    random = np.random.default_rng(seed)
    builder = JobBuilder((int(random.integers(12, 40)), int(random.integers(12, 40)), 17), seed)
    x = builder.conv(builder.input, int(random.choice([16, 40])), activation="NONE")
    for number in range(3):
        kernel = tuple(int(n) for n in random.integers(2, 6, 2))
        stride = (1, 1) if number < 2 else tuple(int(random.integers(1, k + 1)) for k in kernel)
        pad = tuple(int(random.integers(0, kernel[i // 2])) for i in range(4))
        x = builder.pool(x, "max_pool", kernel, stride, pad, shift=int(random.integers(-1, 3)))
    assert_equal(builder, builder.job(builder.conv(x, 9)), FINGERPRINTS[size])


def test_a_window_is_taken_along_its_rows_and_then_its_columns():
    """The pooling of YOLO's heads: 5x5 with stride 1, three times; the last step alone shifts."""
    builder = JobBuilder((20, 20, 64), 0)
    x = builder.pool(builder.input, "max_pool", (5, 5), (1, 1), (2, 2, 2, 2), shift=1)
    assert windows(assert_equal(builder, builder.job(x), B4096)) == {(1, 5, 0), (5, 1, 9)}


@pytest.mark.parametrize(
    ("kernel", "stride", "parts"),
    [
        ((2, 2), (2, 2), [(2, 2)]),  # 4 positions; by two steps 6
        ((3, 3), (2, 2), [(3, 3)]),
        ((3, 3), (1, 1), [(1, 3), (3, 1)]),
        ((5, 5), (2, 2), [(1, 5), (5, 1)]),
        ((1, 5), (1, 1), [(1, 5)]),
    ],
)
def test_two_steps_where_they_are_quicker(kernel, stride, parts):
    builder = JobBuilder((40, 40, 64), 0)
    builder.pool(builder.input, "max_pool", kernel, stride)
    found = steps(builder.operations[-1], machine_for(B4096))
    assert [step.kernel for step in found] == parts
    assert found[-1].output is builder.operations[-1].output
    assert [step.part for step in found] == [True] * (len(parts) - 1) + [False]


def test_an_average_is_taken_at_once():
    """It is rounded, so that its parts would not add up."""
    builder = JobBuilder((20, 20, 16), 0)
    builder.pool(builder.input, "avg_pool", (5, 5), (1, 1))
    assert len(steps(builder.operations[-1], machine_for(B4096))) == 1
