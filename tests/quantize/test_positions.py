"""Positions of single tensors, groups, and their repairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import quantize
from dpuflow.network import Layer, Network
from dpuflow.quantize.alignment import (
    bound_adds,
    fit_shifts,
    fix_point_groups,
    raise_relu6,
    repair_shifts,
    share_fix_points,
)
from dpuflow.quantize.calibration import quantize_parameters, to_grid, vote
from dpuflow.quantize.fix_points import (
    ANY_FIX_POINT,
    choose_activation,
    choose_weights,
    non_overflow,
    squared_error,
)

TENSORS = arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-100, 100, width=32).filter(lambda v: v == 0 or abs(v) > 1e-6),
)


def test_known_positions():
    assert non_overflow(0.0, 1.0) == 6  # 1.0 * 2**7 would be 128
    assert non_overflow(-1.0, 127 / 128) == 7
    assert non_overflow(0.0, 127.5 / 128) == 7  # half a step of guard
    assert non_overflow(-300.0, 3.0) == -2
    assert non_overflow(0.0, 0.0) == ANY_FIX_POINT


@given(TENSORS)
def test_non_overflow_is_the_finest_that_does_not_saturate(x):
    position = non_overflow(x.min(), x.max())
    if position == ANY_FIX_POINT:
        assert not x.any()
        return
    scaled = np.ldexp(x.astype(np.float64), position)
    assert scaled.max() <= 127.5 and scaled.min() >= -128.5
    finer = np.ldexp(x.astype(np.float64), position + 1)
    assert finer.max() > 127.5 - 1e-4 or finer.min() < -128.5 + 1e-4


@given(TENSORS)
def test_min_diffs_has_the_least_error_of_the_five(x):
    base, chosen = non_overflow(x.min(), x.max()), choose_activation(x, "min_diffs")
    if base == ANY_FIX_POINT:
        return
    assert base <= chosen <= base + 4
    errors = [
        float(np.square(np.ldexp(quantize(x, p).astype(np.float64), -p) - x).sum())
        for p in range(base, base + 5)
    ]
    assert errors[chosen - base] <= min(errors) * (1 + 1e-3) + 1e-9


@given(TENSORS)
def test_squared_error_is_that_of_the_quantizer(x):
    expected = float(np.square(np.ldexp(quantize(x, 3).astype(np.float64), -3) - x).sum())
    assert np.isclose(squared_error(x, 3), expected, rtol=1e-3, atol=1e-6)


def test_weights_round_half_away_from_zero():
    assert choose_weights(np.array([1.0]), "non_overflow") == 6
    weights, _ = quantize_parameters(
        Network("n", [Layer("x", "input", [], (2,)), dense("d", "x", np.array([[2.5, -127.0]], np.float32))]),
        "non_overflow",
    )
    np.testing.assert_array_equal(weights["d"][0], [[3, -127]])


def dense(name, source, weights, bias=None):
    return Layer(name, "dense", [source], (len(weights),), {"activation": "NONE"}, weights, bias)


def test_most_batches_win_and_ties_go_to_the_smaller_position():
    network = Network("n", [Layer("x", "input", [], (1,)), dense("d", "x", np.ones((1, 1), np.float32))])
    weights, biases = quantize_parameters(network, "non_overflow")
    batches = [[0.9], [0.9], [3.0], [3.0]]
    positions, votes = vote(network, weights, biases, np.array(batches, np.float32), "non_overflow", 1)
    assert votes["x"] == {5: 2, 7: 2}
    assert positions["x"] == 5
    positions, _ = vote(network, weights, biases, np.array(batches[:3], np.float32), "non_overflow", 1)
    assert positions["x"] == 7


def conv(activation):
    """Attributes of a 1x1 convolution."""
    one = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}
    return {**one, "activation": activation}


def test_groups_share_one_position():
    window = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0)}
    layers = [
        Layer("x", "input", [], (4, 4, 1)),
        Layer("a", "conv", ["x"], (4, 4, 1), conv("NONE")),
        Layer("b", "conv", ["x"], (4, 4, 1), conv("NONE")),
        Layer("cat", "concat", ["a", "b"], (4, 4, 2), {"axis": 3}),
        Layer("max", "max_pool", ["cat"], (2, 2, 2), window),
        Layer("gap", "avg_pool", ["max"], (1, 1, 2), window),
        Layer("flat", "flatten", ["gap"], (2,)),
    ]
    network = Network("n", layers)
    assert fix_point_groups(network) == [["x"], ["a", "b", "cat", "max"], ["gap", "flat"]]
    positions = {"x": 7, "a": 5, "b": 3, "cat": 4, "max": 4, "gap": 6, "flat": 6}
    changes = share_fix_points(network, positions)
    assert positions == {"x": 7, "a": 3, "b": 3, "cat": 3, "max": 3, "gap": 6, "flat": 6}
    assert {change["tensor"] for change in changes} == {"a", "cat", "max"}


def test_relu6_never_lies_below_the_position_where_its_clamp_means_6():
    layers = [
        Layer("x", "input", [], (4, 4, 1)),
        Layer("a", "conv", ["x"], (4, 4, 1), conv("RELU6")),
        Layer("b", "conv", ["x"], (4, 4, 1), conv("NONE")),
        Layer("cat", "concat", ["a", "b"], (4, 4, 2), {"axis": 3}),
        Layer("c", "conv", ["cat"], (4, 4, 1), conv("RELU6")),
    ]
    positions = {"x": 1, "a": 3, "b": 3, "cat": 3, "c": 6}
    changes = raise_relu6(Network("n", layers), positions)
    assert positions == {"x": 1, "a": 4, "b": 4, "cat": 4, "c": 6}
    assert [(c["tensor"], c["from"], c["to"]) for c in changes] == [("a", 3, 4), ("b", 3, 4), ("cat", 3, 4)]


def add_network(*inputs, group=()):
    """Convolutions a, b, ... of the input, an addition of them, a pool behind each name in `group`."""
    layers = [Layer("x", "input", [], (4, 4, 1))]
    layers += [Layer(name, "conv", ["x"], (4, 4, 1), conv("RELU")) for name in inputs]
    window = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0)}
    layers += [Layer(f"{name}_pool", "max_pool", [name], (2, 2, 1), window) for name in group]
    layers.append(Layer("sum", "add", list(inputs), (4, 4, 1), {"activation": "NONE"}))
    return Network("n", layers)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 3, "b": 5, "sum": 9}, {}),  # no bit is lost
        ({"a": 3, "b": 9, "sum": 4}, {}),  # exact although 6 apart
        ({"a": 3, "b": 9, "sum": 5}, {"sum": 4}),
        ({"a": 3, "b": 5, "c": 9, "sum": 4}, {}),
        ({"a": 3, "b": 7, "c": 9, "sum": 3}, {"b": 5}),  # two that lose bits may carry
        ({"a": 3, "b": 7, "c": 9, "d": 8, "sum": 6}, {"b": 5, "d": 5, "sum": 4}),
        ({"a": -2, "b": 127, "sum": -2}, {"b": 13}),  # a branch of zeros
    ],
)
def test_additions_are_brought_close_enough_to_be_exact(before, after):
    positions = {"x": 7, **before}
    changes = bound_adds(add_network(*list(before)[:-1]), positions)
    assert positions == {"x": 7, **before, **after}
    assert {change["tensor"] for change in changes} == set(after)
    assert all(change["why"] == "addition sum is exact so" for change in changes)


def test_a_group_moves_as_one_and_relu6_stays():
    network = add_network("a", "b", "c", group=("b",))
    positions = {"x": 7, "a": 1, "b": 8, "b_pool": 8, "c": 6, "sum": 1}
    network["c"].attrs["activation"] = "RELU6"
    bound_adds(network, positions)
    assert positions == {"x": 7, "a": 1, "b": 3, "b_pool": 3, "c": 6, "sum": 1}


@pytest.mark.parametrize(
    ("activation", "before", "after"),
    [
        ("RELU6", {"a": -8, "b": -8, "sum": 11}, 7),  # the shift of 15 that the instruction has
        ("RELU6", {"a": -8, "b": 3, "sum": 11}, 4),  # -7 would be exact; below 4 the clamp means no 6
        ("NONE", {"a": -8, "b": -8, "sum": 11}, 7),  # sums that cancel each other on all pictures
        ("NONE", {"a": -8, "b": 3, "sum": 11}, -7),
    ],
)
def test_an_output_far_finer_than_its_sums_comes_down(activation, before, after):
    network = add_network("a", "b")
    network["sum"].attrs["activation"] = activation
    positions = {"x": 7} | before
    bound_adds(network, positions)
    assert positions["sum"] == after


def test_a_relu6_of_sums_too_coarse_for_it_is_refused():
    inputs = [Layer(name, "input", [], (4, 4, 1)) for name in ("a", "b")]
    network = Network("n", [*inputs, Layer("sum", "add", ["a", "b"], (4, 4, 1), {"activation": "RELU6"})])
    with pytest.raises(UserError, match="layer 'sum': adds values in steps of 4096, too coarse for a ReLU6"):
        fit_shifts(network, {"a": -12, "b": -12, "sum": 11}, {}, {})


def test_shifts_are_brought_into_range_and_reported():
    layer = dense("d", "x", np.array([[0.5]], np.float32), np.array([0.001], np.float32))
    network = Network("n", [Layer("x", "input", [], (1,)), layer])
    for fix_out, weight_position in ((20, 13), (-5, 4), (6, 7)):
        weights, biases = {"d": (np.array([[64]], np.int8), 7)}, {"d": (np.array([66], np.int8), 16)}
        changes = repair_shifts(network, {"x": 7, "d": fix_out}, weights, biases)
        shift_cut = 7 + weights["d"][1] - fix_out
        shift_bias = 7 + weights["d"][1] - biases["d"][1]
        assert 0 <= shift_cut <= 16 and 0 <= shift_bias <= 16
        assert weights["d"][1] == weight_position
        assert ("d/weights" in [change["tensor"] for change in changes]) == (weight_position != 7)
        np.testing.assert_array_equal(weights["d"][0], quantize(layer.weights, weight_position, "STD_ROUND"))


def test_activations_round_half_up():
    np.testing.assert_array_equal(to_grid(np.array([-2.5, 2.5, -0.5, 300.0], np.float32), 0), [-2, 3, 0, 127])
