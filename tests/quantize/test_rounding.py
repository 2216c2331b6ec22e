"""Choosing roundings by reconstruction, bias correction, equalization."""

import copy
import dataclasses

import numpy as np
import pytest

from dpuflow.base.pixels import scale_pixels
from dpuflow.device.dpuczdx8g import SHIFT_BIAS_RANGE
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.quantize import calibration, engine, equalization, reconstruction, rounding
from dpuflow.quantize.folding import fold
from dpuflow.quantize.reference import quantize
from dpuflow.quantize.settings import DEFAULTS
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import images, plain_network, residual_network

OFF = {
    "equalization": False,
    "position_search": {"criterion": None},
    "fast_finetune": False,
    "diagnosis": False,
}
OPTIONS = DEFAULTS["fast_finetune"]


@pytest.fixture(params=[plain_network, residual_network])
def quantized(request, tmp_path):
    path = request.param(tmp_path / "g.pb")
    return quantize(read_network(path), images(), OFF, {"subtract": 128, "divide": 128})[0]


def layer_errors(quantized, x):
    """Mean squared error per weighted layer against the float network, in steps squared."""
    names = list(quantized.weights)
    floats = engine.run_float(quantized.network, x, names)
    grid = calibration.to_grid(x, quantized.fix_points[quantized.network.input.name])
    integers = engine.run_integer(quantized, grid, names)
    return {
        n: float(np.square(floats[n] * 2.0 ** quantized.fix_points[n] - integers[n]).mean()) for n in names
    }


def test_finetuned_outputs_are_nearer_on_images_never_seen(quantized):
    x = scale_pixels(images(), quantized.input_scaling)
    unseen = scale_pixels(images(seed=9), quantized.input_scaling)
    tuned = copy.deepcopy(quantized)
    record = reconstruction.fast_finetune(tuned, x, OPTIONS)
    assert [row["layer"] for row in record] == list(quantized.weights)
    assert all(row["loss_after"] <= row["loss_before"] for row in record)
    before, after = layer_errors(quantized, unseen), layer_errors(tuned, unseen)
    assert sum(after.values()) < 0.95 * sum(before.values())


@pytest.mark.parametrize("reach", [1, 3])
def test_weights_stay_within_reach_and_int8(quantized, reach):
    x = scale_pixels(images(), quantized.input_scaling)
    reconstruction.fast_finetune(quantized, x, {**OPTIONS, "reach": reach})
    moved = 0
    for name, (values, fix) in quantized.weights.items():
        real = np.clip(np.ldexp(quantized.network[name].weights.astype(np.float64), fix), -128, 127)
        assert values.dtype == np.int8
        assert np.abs(values - real).max() <= reach
        moved += int((values != np.rint(real)).sum())
    assert moved > 0


def test_saturated_weights_stay_saturated(quantized):
    name = next(iter(quantized.weights))
    layer = quantized.network[name]
    _, fix = quantized.weights[name]
    finer = np.clip(np.rint(np.ldexp(layer.weights, fix + 3)), -128, 127).astype(np.int8)
    quantized.weights[name] = (finer, fix + 3)
    cut_off = np.abs(np.ldexp(layer.weights, fix + 3)) > 129
    assert cut_off.any()
    reconstruction.fast_finetune(quantized, scale_pixels(images(), quantized.input_scaling), OPTIONS)
    np.testing.assert_array_equal(quantized.weights[name][0][cut_off], finer[cut_off])


@pytest.mark.parametrize(
    ("shape", "pictures", "news"),
    [((7, 7, 4), 100, 300), ((112, 112, 4), 100, 4000), ((3, 3, 4), 20, 20), ((4,), 100, 100)],
)
def test_how_many_windows_tell_something_new(shape, pictures, news):
    """One of sixteen side by side, of every picture one, and no more than there are in the sample."""
    layer = Layer("l", "dense" if len(shape) == 1 else "conv", ["x"], shape)
    assert rounding.Rows(layer, pictures, 4000, seed=0).news == news


def test_the_fewer_windows_tell_something_new_the_more_weights_are_held():
    rng = np.random.default_rng(7)
    real = rng.normal(0, 0.1, (3, 20)).astype(np.float32)
    rows = rng.integers(-100, 101, (200, 20)).astype(np.int8)
    target = rows.astype(np.float32) / 64 @ real.T + rng.normal(0, 0.5, (200, 3)).astype(np.float32)
    layer = Layer("d", "dense", ["x"], (3,), {"activation": "NONE"}, real, np.zeros(3, np.float32))
    start = np.rint(real * 2**7).astype(np.int8), 7

    def moved(news):
        options = {**OPTIONS, "news": news}
        values = rounding.refine_layer(layer, rows, 6, start, None, 4, target, options)[0][0]
        return np.abs(values - real * 2**7).mean()

    assert moved(200) > 1.2 * moved(20) > 1.2 * moved(2)


def outlier(fix_bias):
    """A dense layer of whose weights one is a little too large for fix_point 7; at 6 others are coarse."""
    rng = np.random.default_rng(3)
    real = rng.uniform(-0.1, 0.1, (4, 16)).astype(np.float32)
    real[2, 5] = 1.01
    layer = Layer("d", "dense", ["x"], (4,), {"activation": "NONE"}, real, np.zeros(4, np.float32))
    network = Network("outlier", [Layer("x", "input", [], (16,)), layer])
    weights = np.rint(real * 2**6).astype(np.int8), 6
    tables = {"d": weights}, {"d": (np.zeros(4, np.int8), fix_bias)}
    x = rng.uniform(-1, 1, (300, 16)).astype(np.float32)
    return QuantizedNetwork(network, {"x": 7, "d": 5}, *tables, {"subtract": 0, "divide": 1}), x


def test_weights_become_finer_where_one_of_them_is_better_cut_off():
    quantized, x = outlier(fix_bias=5)
    unseen = np.random.default_rng(4).uniform(-1, 1, x.shape).astype(np.float32)
    before = layer_errors(quantized, unseen)["d"]
    (record,) = reconstruction.fast_finetune(quantized, x, OPTIONS)
    assert (record["finer"], quantized.weights["d"][1]) == (1, 7)
    assert quantized.weights["d"][0][2, 5] == 127
    assert layer_errors(quantized, unseen)["d"] < 0.8 * before


def test_weights_become_no_finer_than_the_shift_of_their_bias_allows():
    quantized, x = outlier(fix_bias=7 + 6 - SHIFT_BIAS_RANGE[1])
    (record,) = reconstruction.fast_finetune(quantized, x, OPTIONS)
    assert "finer" not in record and quantized.weights["d"][1] == 6


def test_what_a_relu6_cuts_off_counts_for_nothing():
    """At fix_point 4 it ends at 96, far below int8's end: one weight is wrong there, and stays."""
    layer = Layer("d", "dense", ["x"], (1,), {"activation": "RELU6"}, np.float32([[4]]), np.float32([0]))
    rows, start = np.full((50, 1), 100, np.int8), (np.int8([[65]]), 4)
    target = np.full((50, 1), 6.3, np.float32)  # the layer gives 6.35
    tuned = rounding.refine_layer(layer, rows, 6, start, None, 4, target, OPTIONS)
    assert tuned[0][0] == 65 and tuned[2:] == (0, 0)
    open_ended = dataclasses.replace(layer, attrs={"activation": "RELU"})
    assert rounding.refine_layer(open_ended, rows, 6, start, None, 4, target, OPTIONS)[2] > 0


def test_finetuning_repeats_bit_for_bit(quantized):
    x = scale_pixels(images(), quantized.input_scaling)
    twice = [copy.deepcopy(quantized) for _ in range(2)]
    for each in twice:
        reconstruction.fast_finetune(each, x, OPTIONS)
    for name in quantized.weights:
        np.testing.assert_array_equal(twice[0].weights[name][0], twice[1].weights[name][0])
        np.testing.assert_array_equal(twice[0].biases[name][0], twice[1].biases[name][0])


def test_descent_finds_the_rounding_that_reconstructs():
    rng = np.random.default_rng(0)
    inputs = rng.integers(-100, 101, (400, 12)).astype(np.float32)
    hidden = rng.integers(-60, 61, (12, 3)).astype(np.float64)  # the target is reachable exactly
    target = (inputs @ hidden).astype(np.float32)
    start = hidden + rng.integers(0, 2, hidden.shape)  # some rounded up by mistake
    real = hidden + 0.5
    problem = rounding.Problem(inputs, target, real, None, 0.0, -np.inf, np.inf, ridge=0.0)
    weights, bias, loss = rounding.descend(problem, start, None, sweeps=10, reach=1)
    assert bias is None
    assert loss == 0
    np.testing.assert_array_equal(weights, hidden)


def test_a_layer_with_more_inputs_than_samples_learns_less_by_heart(monkeypatch):
    """It would fit the samples' noise exactly, and so err more on others."""
    rng = np.random.default_rng(5)
    real = rng.normal(size=(8, 200)).astype(np.float32)
    layer = Layer("d", "dense", ["x"], (8,), {"activation": "NONE"}, real, np.zeros(8, np.float32))
    clean = rng.normal(size=(400, 200)) * 16
    rows = np.rint(clean + rng.normal(size=clean.shape)).astype(np.int8)
    target = (clean @ real.T / 2**4).astype(np.float32)
    start = np.rint(real * 2**4).astype(np.int8), 4
    seen, unseen = slice(50), slice(50, None)

    def errors():
        """Mean squared error on the samples and on others."""
        bias = np.zeros(8, np.int8), 4
        tuned = rounding.refine_layer(layer, rows[seen], 4, start, bias, 0, target[seen], OPTIONS)
        out = rows @ np.ldexp(tuned[0][0].astype(np.float64), -8).T + np.ldexp(tuned[1][0], -4)
        return [np.square(out[which] - target[which]).mean() for which in (seen, unseen)]

    held = errors()
    monkeypatch.setattr(rounding, "HELD", 0.25)
    free = errors()
    assert free[0] < held[0] and held[1] < free[1]


def test_bias_correction_moves_the_means_towards_float(quantized):
    x = scale_pixels(images(), quantized.input_scaling)
    for name, (values, fix) in quantized.biases.items():  # spoil the biases first
        quantized.biases[name] = (np.clip(values.astype(int) + 7, -128, 127).astype(np.int8), fix)
    before = layer_errors(quantized, x)
    record = reconstruction.correct_biases(quantized, x)
    after = layer_errors(quantized, x)
    assert [row["layer"] for row in record] == list(quantized.biases)
    assert sum(after.values()) < sum(before.values())


def test_equalization_keeps_the_function_and_evens_the_ranges(tmp_path):
    network, _ = fold(read_network(plain_network(tmp_path / "g.pb")))
    x = scale_pixels(images(), {"subtract": 128, "divide": 128})
    expected = engine.run_float(network, x)[network.output.name]
    pairs = equalization.equalize(network)
    np.testing.assert_allclose(engine.run_float(network, x)[network.output.name], expected, atol=1e-4)
    assert pairs
    assert all(pair["smallest"] < pair["largest"] for pair in pairs)
    for pair in pairs:
        head, tail = network[pair["head"]], network[pair["tail"]]
        out = equalization.output_range(head)
        np.testing.assert_allclose(out, equalization.input_range(tail, len(out)), rtol=0.05)
        assert head.attrs["activation"] != "RELU6"


def test_layers_with_few_weights_have_longer_samples():
    def layer(*shape):
        return Layer("d", "dense", ["x"], shape[:1], {"activation": "NONE"}, np.zeros(shape, np.float32))

    assert rounding.rows_for(layer(8, 8), 4000) == 12000
    assert rounding.rows_for(layer(256, 512), 4000) == 8000
    assert rounding.rows_for(layer(1024, 1024), 4000) == 4000


def test_pictures_without_a_sampled_row_give_none():
    shape = {
        "kernel": (1, 1),
        "stride": (1, 1),
        "pad": (0, 0, 0, 0),
        "dilation": (1, 1),
        "activation": "NONE",
    }
    layer = Layer("c", "conv", ["x"], (2, 2, 3), shape, np.zeros((3, 1, 1, 5), np.float32))
    rows = rounding.Rows(layer, 50, 4, seed=0)
    x = np.random.default_rng(0).normal(size=(50, 2, 2, 5)).astype(np.float32)
    parts = [rows.of_inputs(x[i : i + 1], slice(i, i + 1)) for i in range(50)]
    assert sorted(map(len, parts))[:46] == [0] * 46
    np.testing.assert_array_equal(np.concatenate(parts), x.reshape(-1, 5)[rows.chosen])
