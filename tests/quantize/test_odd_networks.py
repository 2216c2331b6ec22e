"""Random networks of odd kinds through the quantizer: a right answer or a clear refusal, never a clamp."""

import itertools

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import dequantize
from dpuflow.base.pixels import scale_pixels
from dpuflow.compiler.reference import lower
from dpuflow.device.dpuczdx8g import RELU6_FIX_POINT, SHIFT_BIAS_RANGE, SHIFT_CUT_RANGE
from dpuflow.device.targets import get_target
from dpuflow.emulator import Emulator
from dpuflow.network import Layer, Network
from dpuflow.network.check import check
from dpuflow.quantize import alignment, engine
from dpuflow.quantize.calibration import to_grid, vote
from dpuflow.quantize.distance import LogitDistance
from dpuflow.quantize.fix_points import ANY_FIX_POINT, COARSEST, non_overflow
from dpuflow.quantize.folding import fold
from dpuflow.quantize.quantization import Quantization
from dpuflow.quantize.reference import quantize
from dpuflow.quantize.settings import complete
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import images, plain_network
from tests.quantize.random_networks import NETWORKS, SCALINGS, NetworkMaker, dark, smooth

TUNE = {"rows": 200, "sweeps": 1}
SETTINGS = [
    {"fast_finetune": TUNE},
    {"position_search": {"criterion": None}, "equalization": False, "fast_finetune": False},
    {"position_search": {"criterion": "logit_error", "images": 16, "sweeps": 1}, "bias_correction": True},
]
CASES = [
    (kind, classes, scaling, SETTINGS[number % 3], smooth if number % 4 else dark)
    for number, (kind, (classes, scaling)) in enumerate(
        itertools.product(NETWORKS, zip((2, 3, 24), SCALINGS, strict=True))
    )
]
REFUSED = {"large weights", "all dead", "norms of tiny variance", "very large weights"}
"""Kinds whose ranges may be too large for INT8, which must then be said."""


def made(kind, classes, scaling, settings, pictures, seed):
    """(Quantization, its Outcome) of one case."""
    rng = np.random.default_rng(seed)
    network = NetworkMaker(rng, **NETWORKS[kind]).network(classes)
    settings = complete({"diagnosis": False, "calibration": {"batch": 8}, "fast_finetune": TUNE} | settings)
    quantization = Quantization(network, pictures(rng, 24), settings, SCALINGS[scaling])
    return quantization, quantization.run()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("number", "case"), enumerate(CASES), ids=[f"{kind}, {n}" for kind, n, *_ in CASES])
def test_quantized_as_it_should_be_or_refused(number, case):
    try:
        run, outcome = made(*case, seed=number)
        quantized = outcome.quantized
    except UserError as error:
        assert case[0] in REFUSED and "layer" in str(error)
        return
    check(quantized)  # what it writes can be read again
    for name in quantized.weights:
        assert SHIFT_CUT_RANGE[0] <= quantized.shift_cut(name) <= SHIFT_CUT_RANGE[1]
        if name in quantized.biases:
            assert SHIFT_BIAS_RANGE[0] <= quantized.shift_bias(name) <= SHIFT_BIAS_RANGE[1]
        if quantized.network[name].attrs["activation"] == "RELU6":
            assert quantized.fix_points[name] >= RELU6_FIX_POINT
    assert no_worse_than_kept(outcome.steps)
    # integers close to the float network, on the calibration images and on others of their kind
    others = scale_pixels(case[4](np.random.default_rng(99), 24), run.input_scaling)
    for x in (run.x[:], others):
        floats = engine.run_float(quantized.network, x, run.ends)[run.ends[0]]
        grid = to_grid(x, quantized.fix_points[quantized.network.input.name])
        integers = engine.run_integer(quantized, grid, run.ends)[run.ends[0]]
        noise = np.square(floats - dequantize(integers, quantized.fix_points[run.ends[0]])).sum()
        assert noise <= 0.1 * np.square(floats, dtype=np.float64).sum()
    # and the same integers from the xmodel
    graph = lower(quantized, get_target("kv260"))
    with Emulator(graph) as emulator:
        tensors = emulator.run(to_grid(run.x[:], quantized.fix_points["x"]).astype(np.int8), dump=True)
    grid = engine.run_integer(quantized, to_grid(run.x[:], quantized.fix_points["x"]), run.ends)[run.ends[0]]
    np.testing.assert_array_equal(tensors[run.ends[0]].reshape(grid.shape), grid)


def no_worse_than_kept(steps):
    """Whether each step that is measured by the divergence was kept only if that did not rise."""
    current = steps[0]["divergence"]
    for step in steps[1:]:
        if step["step"] != "logits_position" and step["kept"] != (step["divergence"] <= current):
            return step["step"] == "equalization" and step["divergence"] == current
        current = step["divergence"] if step["kept"] else current
    return True


# -- one cause each --------------------------------------------------------------------------


def dense(name, source, weights, bias=None, activation="NONE"):
    weights = np.asarray(weights, np.float32)
    bias = None if bias is None else np.asarray(bias, np.float32)
    return Layer(name, "dense", [source], (len(weights),), {"activation": activation}, weights, bias)


def chain(*layers):
    return Network("n", [Layer("x", "input", [], (layers[0].weights.shape[1],)), *layers])


def test_what_is_zero_on_all_images_takes_a_position_at_which_nothing_saturates():
    network = chain(
        dense("dead", "x", [[3.0, -1.0]], [-5.0], "RELU"),
        dense("behind", "dead", [[2.0]]),
        dense("y", "behind", [[1.0]]),
    )
    positions = {"x": 6, "dead": ANY_FIX_POINT, "behind": ANY_FIX_POINT, "y": ANY_FIX_POINT}
    changes = alignment.place_silent(network, positions)
    # 4 * 128/64 + 5 = 13 fits 2**-3 * 127.5; from there the float layers may double what the grid holds
    assert positions == {"x": 6, "dead": 3, "behind": 1, "y": 0}
    assert {change["why"] for change in changes} == {"zero on all calibration images"}


def test_a_dead_branch_does_not_coarsen_what_it_is_joined_with():
    network = Network("n", [
        Layer("x", "input", [], (4, 4, 1)),
        *(Layer(n, "conv", ["x"], (4, 4, 1), CONV | {"activation": "RELU"}) for n in ("dead", "alive")),
        Layer("cat", "concat", ["dead", "alive"], (4, 4, 2), {"axis": 3}),
    ])  # fmt: skip
    positions = {"x": 7, "dead": ANY_FIX_POINT, "alive": 5, "cat": 5}
    alignment.share_fix_points(network, positions)
    assert positions == {"x": 7, "dead": 5, "alive": 5, "cat": 5}


def test_batches_on_which_a_layer_is_silent_have_no_vote():
    network = chain(dense("y", "x", [[1.0]], [-0.5], "RELU"))
    weights = {"y": (np.array([[64]], np.int8), 6)}
    biases = {"y": (np.array([-64], np.int8), 7)}
    x = np.array([[0.1], [0.2], [0.3], [1.0]], np.float32)
    positions, votes = vote(network, weights, biases, x, "non_overflow", 1)
    assert votes["y"] == {7: 1, ANY_FIX_POINT: 3}
    assert positions["y"] == 7


CONV = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}


def fitted(network, positions):
    """positions, weights and biases after fit_shifts, all at their finest."""
    weights = {
        layer.name: (on_grid(layer.weights), finest(layer.weights))
        for layer in network.layers
        if layer.op == "dense"
    }
    biases = {
        layer.name: (on_grid(layer.bias), finest(layer.bias))
        for layer in network.layers
        if layer.bias is not None
    }
    changes = alignment.fit_shifts(network, positions, weights, biases)
    return weights, biases, changes


def finest(values):
    return non_overflow(values.min(), values.max())


def on_grid(values):
    return np.rint(values * 2.0 ** finest(values)).astype(np.int8)


def test_an_output_finer_than_its_sums_is_lowered_and_no_weight_saturates():
    network = chain(dense("a", "x", [[100.0, -60.0]]), dense("b", "a", [[1.0]]))
    positions = {"x": 2, "a": 9, "b": 9}
    weights, _, changes = fitted(network, positions)
    assert weights["a"] == (pytest.approx(np.array([[100, -60]])), 0)  # not 127, -127
    assert positions == {"x": 2, "a": 2, "b": 8}  # a in steps of 2**-(2 + 0), b of 2**-(2 + 6)
    assert [change["tensor"] for change in changes] == ["a", "b"]


def test_a_bias_far_above_its_weights_stays_whole():
    network = chain(dense("a", "x", [[1e-6]], [1.0]))
    positions = {"x": 6, "a": 6}
    weights, biases, _ = fitted(network, positions)
    assert biases["a"] == (64, 6)
    assert 6 + weights["a"][1] - biases["a"][1] == SHIFT_BIAS_RANGE[1]  # the weights gave way


def test_relu6_joined_with_something_large_is_refused():
    network = Network("n", [
        Layer("x", "input", [], (4, 4, 1)),
        Layer("six", "conv", ["x"], (4, 4, 1), CONV | {"activation": "RELU6"}),
        Layer("large", "conv", ["x"], (4, 4, 1), CONV | {"activation": "NONE"}),
        Layer("cat", "concat", ["six", "large"], (4, 4, 2), {"axis": 3}),
    ])  # fmt: skip
    twice = dict.fromkeys(("six", "large", "cat"), 3) | {"x": 7}
    alignment.raise_relu6(network, twice)
    assert twice["cat"] == RELU6_FIX_POINT
    message = (
        "'six': its ReLU6 shares one scale with large, cat, which reach 512; .* ends at 8: use ReLU there"
    )
    with pytest.raises(UserError, match=message):
        alignment.raise_relu6(network, dict.fromkeys(("x", "six", "large", "cat"), -2))


@pytest.mark.parametrize("value", [np.inf, np.nan, 2.0**65])
def test_values_beyond_all_positions_are_refused(value):
    with pytest.raises(UserError, match="has diverged in training"):
        non_overflow(-1.0, value)
    assert non_overflow(0, 127 * 2.0**-COARSEST) == COARSEST


def test_images_that_are_all_of_one_value_are_refused(tmp_path):
    path = plain_network(tmp_path / "g.pb")
    with pytest.raises(
        UserError, match="calibration images: every pixel of all 96 is 7, which tells nothing"
    ):
        quantize(read_network(path), np.full_like(images(), 7))


def test_a_norm_in_front_of_two_readers_with_padding_stays_a_layer():
    """Its offset would take a constant channel, of which the other reader knows nothing."""
    rng = np.random.default_rng(3)
    maker = NetworkMaker(rng)
    x = maker.pool(
        maker.batch_norm(maker.emit("relu", [conv := maker.conv(maker.layers[0], 4)], conv.shape)), "max_pool"
    )
    joined = maker.emit("concat", [maker.conv(x, 3), maker.conv(x, 2, 1)], (4, 4, 5), axis=3)
    network = Network("n", maker.layers)
    folded, _ = fold(network)
    assert [layer.op for layer in folded.layers].count("depthwise_conv") == 1
    x = rng.normal(size=(2, 9, 8, 2)).astype(np.float32)
    expected, found = (engine.run_float(n, x)[joined.name] for n in (network, folded))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_norm_without_effect_on_its_padded_reader_needs_no_finite_constant():
    """All weights zero where the norm has an offset: the constant channel would have been 0/0."""
    maker = NetworkMaker(np.random.default_rng(3))
    x = maker.emit("relu", [conv := maker.conv(maker.layers[0], 4)], conv.shape)
    norm = maker.batch_norm(x)
    norm.bias[1:] = 0
    last = maker.conv(norm, 3)
    last.weights[..., 0] = 0
    folded, _ = fold(Network("n", maker.layers))
    assert all(np.isfinite(layer.weights).all() for layer in folded.layers if layer.weights is not None)


def test_the_divergence_of_equal_answers_is_zero_and_not_less():
    logits = np.random.default_rng(1).normal(size=(40, 10)).astype(np.float32) * 1e-8
    distance = LogitDistance(logits)
    assert all(distance(logits + np.float32(shift)) >= 0 for shift in np.linspace(0, 1e-7, 20))
    assert distance(logits) == 0
