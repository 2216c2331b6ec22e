"""A layer of many weights is worked on in pieces: what a step takes besides its result is little."""

import tracemalloc
import weakref

import numpy as np
import pytest

from dpuflow.base.numerics import quantize
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native import branches
from dpuflow.emulator.native_steps import convolution_order, describe, pack_convolution
from dpuflow.emulator.operations import Conv
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.ops.convolution import Dense
from dpuflow.quantize import equalization, output_search
from dpuflow.quantize.fix_points import choose_weights, pairwise_sum
from dpuflow.quantize.reference import quantize as quantize_network

INPUTS, OUTPUTS = 4096, 2048
COUNT = INPUTS * OUTPUTS
LITTLE = 0.6 * COUNT
"""Bytes: less than one more array of the smallest type."""


@pytest.fixture(scope="module")
def weights():
    """float32 (OUTPUTS, INPUTS) of a dense layer."""
    return np.random.default_rng(0).normal(scale=0.02, size=(OUTPUTS, INPUTS)).astype(np.float32)


@pytest.fixture(scope="module")
def integers(weights):
    """The same as int8."""
    return quantize(weights, 10, "STD_ROUND")


def peak(function, *arguments):
    """(bytes that a call took at most, its result): exact, NumPy tells tracemalloc of its arrays."""
    tracemalloc.start()
    try:
        result = function(*arguments)
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def test_quantizing_takes_the_result_and_little_more(weights):
    taken, integers = peak(quantize, weights, 10, "STD_ROUND")
    assert integers.nbytes == COUNT
    assert taken < COUNT + LITTLE


def test_choosing_a_fix_point_takes_little(weights):
    taken, fix_point = peak(choose_weights, weights, "min_diffs")
    assert fix_point == 10
    assert taken < LITTLE


def test_sums_of_integers_take_little(integers):
    x = np.ones((2, INPUTS), np.float32)
    dense = Dense("NONE")
    assert dense.needs_float64(integers)
    taken, sums = peak(dense.accumulate, x, integers, None, 0)
    assert taken < LITTLE + x.nbytes * 2 + 2 * sums.nbytes
    np.testing.assert_array_equal(sums[0], integers.sum(axis=1, dtype=np.int64))


def test_equalizing_scales_in_one_array(weights):
    dense = {"activation": "NONE"}
    layers = [
        Layer("in", "input", [], (8,)),
        Layer("head", "dense", ["in"], (INPUTS,), dense, np.ones((INPUTS, 8), np.float32)),
        Layer("tail", "dense", ["head"], (OUTPUTS,), dense, weights),
    ]
    taken, pairs = peak(equalization.equalize, Network("net", layers))
    assert len(pairs) == 1 and layers[2].weights is not weights
    assert taken < weights.nbytes + LITTLE


def test_the_emulator_packs_once(integers):
    conv = Conv(
        "conv2d", integers.reshape(OUTPUTS, 1, 1, INPUTS), None, (1, 1), (1, 1), (0, 0, 0, 0), 9, 0, 0
    )
    taken, described = peak(describe, conv, [(1, 1, 1, INPUTS)])
    assert taken < LITTLE
    expected = (1 << 8) - 128 * integers.sum(axis=1, dtype=np.int64)  # half a step, and inputs from 0 on
    np.testing.assert_array_equal(described.sums, expected)
    order = convolution_order(OUTPUTS, 16)
    taken, (packed, _) = peak(pack_convolution, conv.weights, True, order, 16)
    assert packed.nbytes == COUNT
    assert taken < COUNT + LITTLE


@pytest.fixture(scope="module")
def quantized(integers):
    """A dense layer alone, quantized."""
    layers = [
        Layer("in", "input", [], (INPUTS,)),
        Layer("out", "dense", ["in"], (OUTPUTS,), {"activation": "NONE"}),
    ]
    scaling = {"subtract": 0, "divide": 1}
    return QuantizedNetwork(Network("net", layers), {"in": 0, "out": 0}, {"out": (integers, 9)}, {}, scaling)


def test_the_verification_knows_the_range_of_sums_from_pieces(quantized, integers):
    taken, (least, greatest) = peak(branches._bounds, quantized, quantized.network["out"])
    assert taken < LITTLE
    sums = np.where(integers > 0, 127, -128) * integers.astype(np.int64)
    assert greatest == sums.sum(axis=1).max() / 2**9
    assert least == (np.where(integers > 0, -128, 127) * integers.astype(np.int64)).sum(axis=1).min() / 2**9


def test_lowering_for_the_emulator_copies_no_weights(quantized, integers):
    apart = {}
    taken, graph = peak(lower, quantized, get_target("zcu104"), None, apart)
    assert taken < LITTLE
    assert np.shares_memory(apart["out_weights"], integers)
    assert graph.op("out_weights").attrs["data"] == b""


@pytest.mark.parametrize("shape", [(3_000_001,), (1001, 1777), (7, 3, 3, 9999)])
def test_sums_in_pieces_are_numpys_own(shape):
    values = np.random.default_rng(1).normal(size=shape)
    flat = values.reshape(-1)
    assert pairwise_sum(lambda which: flat[which].sum(), flat.size) == values.sum()


def test_weights_that_nobody_holds_go_when_equalized_ones_take_their_place(monkeypatch):
    random = np.random.default_rng(0)
    window = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}
    loud = 2.0 ** np.arange(-8, 8, 2)  # quiet channels that count as much as the loud ones
    kernel = (random.normal(size=(8, 3, 3, 3)) * loud[:, None, None, None]).astype(np.float32)
    dense = (random.normal(size=(16, 512)) / np.tile(loud, 64)).astype(np.float32)
    layers = [
        Layer("in", "input", [], (8, 8, 3)),
        Layer("c", "conv", ["in"], (8, 8, 8), {**window, "activation": "NONE"}, kernel),
        Layer("f", "flatten", ["c"], (512,)),
        Layer("d", "dense", ["f"], (16,), {"activation": "NONE"}, dense),
        Layer("s", "softmax", ["d"], (16,)),
    ]
    networks, held, alive = [Network("net", layers)], weakref.ref(dense), []
    search = output_search.search_by_output_error

    def watched(*arguments):
        alive.append(held() is not None)
        return search(*arguments)

    monkeypatch.setattr(output_search, "search_by_output_error", watched)
    images = random.integers(0, 256, (8, 8, 8, 3), np.uint8)
    del layers, dense
    settings = {"diagnosis": False, "fast_finetune": False}
    _, report = quantize_network(networks.pop(), images, settings)
    assert [step["kept"] for step in report["steps"] if step["step"] == "equalization"] == [True]
    assert alive == [False]
