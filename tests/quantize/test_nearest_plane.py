"""Rounding weights in turn, each making good the errors of those before it."""

import numpy as np
import pytest

from dpuflow.network import Layer
from dpuflow.quantize import nearest_plane as planes
from dpuflow.quantize import rounding
from dpuflow.quantize.settings import DEFAULTS

OPTIONS = DEFAULTS["fast_finetune"]
WIDE = -128.0, 127.0


def plane(inputs, real, start, mask=None, penalty=0.0, bias_step=None, ends=WIDE, shared=None):
    """`nearest_plane` for outputs inputs @ real that are to be met from integers `start`."""
    mask = np.ones((len(inputs), real.shape[1]), np.float32) if mask is None else mask
    weights = start if bias_step is None else start[1:]
    out = inputs @ weights + (0 if bias_step is None else bias_step * start[0])
    low, high = (np.full(weights.shape, end, np.float32) for end in ends)
    penalties = np.full(real.shape[1], penalty)
    residual = ((inputs @ real - out) * mask).astype(np.float32)
    return planes.nearest_plane(
        inputs, mask, residual, penalties, bias_step, start, real, (low, high), shared
    )


def alike(count, samples=400, seed=1):
    """Inputs of which each is nearly the one before, as pixels side by side are."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 30, (samples, 1)) + rng.normal(0, 3, (samples, count)).cumsum(axis=1)
    return np.clip(np.rint(common), -128, 127).astype(np.float32)


def test_of_two_inputs_that_are_alike_one_makes_good_what_the_other_lost():
    inputs = np.float32([[100, 99], [-50, -50], [20, 21], [7, 8]])
    real = np.array([[0.45], [0.45]])
    found = plane(inputs, real, np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(found, [[0], [1]])  # 0.9 of either; to nearest both would be 0


def test_a_bias_makes_good_what_weights_cannot():
    inputs = np.float32([[10], [10], [10], [11]])
    start = np.float32([[0], [0]])
    found = plane(inputs, np.array([[1.3]]), start, bias_step=4.0)
    np.testing.assert_array_equal(found, [[0], [1]])
    # with the weight held at its real value 0.6 -> 1, the bias takes what that is too much
    held = plane(inputs, np.array([[0.6]]), start, penalty=1e9, bias_step=4.0)
    np.testing.assert_array_equal(held, [[0], [1]])


def test_samples_that_do_not_count_decide_nothing():
    inputs = np.float32([[10, 0], [0, 10], [10, 10]])
    real = np.array([[3.0, 3.0], [-2.0, -2.0]])
    mask = np.float32([[1, 1], [1, 1], [1, 0]])
    target = inputs @ real
    target[2, 1] = 1e4  # nothing to the second channel
    start = np.float32([[1, 1], [1, 1]])
    residual = ((target - inputs @ start) * mask).astype(np.float32)
    ends = np.full((2, 2), -128, np.float32), np.full((2, 2), 127, np.float32)
    found = planes.nearest_plane(inputs, mask, residual, np.zeros(2), None, start, real, ends)
    np.testing.assert_array_equal(found, real)


def test_nothing_leaves_its_ends():
    inputs = alike(6)
    real = np.random.default_rng(2).normal(0, 3, (6, 3))
    found = plane(inputs, real, np.rint(real).astype(np.float32), ends=(-1, 2))
    assert found.min() == -1 and found.max() == 2


def test_it_is_far_nearer_than_rounding_each_weight_for_itself():
    inputs, unseen = alike(9), alike(9, seed=2)
    real = np.random.default_rng(3).normal(0, 2, (9, 16))
    nearest = np.rint(real).astype(np.float32)
    found = plane(inputs, real, nearest)
    errors = [float(np.square(unseen @ (weights - real)).mean()) for weights in (found, nearest)]
    assert errors[0] < 0.3 * errors[1]


def test_moments_that_channels_share_find_what_their_own_find():
    inputs = alike(20)
    real = np.random.default_rng(4).normal(0, 2, (20, 5))
    start = np.concatenate([np.zeros((1, 5)), np.rint(real)]).astype(np.float32)
    own = plane(inputs, real, start, penalty=50.0, bias_step=16.0)
    shared = plane(inputs, real, start, penalty=50.0, bias_step=16.0, shared=planes.moments(inputs))
    np.testing.assert_array_equal(own, shared)


def test_moments_are_exact():
    rng = np.random.default_rng(5)
    inputs = rng.integers(-128, 128, (3000, 7)).astype(np.float32)
    mask = rng.integers(0, 2, 3000).astype(np.float32)
    whole = inputs.astype(np.int64)
    np.testing.assert_array_equal(planes.moments(inputs), whole.T @ whole)
    np.testing.assert_array_equal(planes.moments(inputs, mask), (whole * mask[:, None].astype(int)).T @ whole)


@pytest.mark.parametrize(("count", "given"), [(64, False), (65, True), (1280, True), (1281, False)])
def test_which_layers_share_moments(count, given):
    assert (planes.shared_moments(np.ones((2, count), np.float32)) is not None) == given


def test_inputs_that_are_always_zero_keep_their_weights():
    inputs = np.concatenate([alike(3), np.zeros((400, 1), np.float32)], axis=1)
    real = np.array([[1.2], [0.7], [-0.4], [5.3]])
    found = plane(inputs, real, np.rint(real).astype(np.float32), penalty=1.0)
    assert found[3, 0] == 5


def windows(rng):
    """int8 (1500, 9): 3 x 3 pixels of smooth pictures."""
    pictures = rng.normal(0, 160, (40, 24, 24))
    for axis in (1, 2):
        pictures = np.mean([np.roll(pictures, shift, axis) for shift in range(4)], axis=0)
    pictures = np.clip(np.rint(pictures), -128, 127).astype(np.int8)
    found = np.lib.stride_tricks.sliding_window_view(pictures, (3, 3), axis=(1, 2)).reshape(-1, 9)
    return found[rng.choice(len(found), 1500, replace=False)]


@pytest.mark.parametrize("kind", ["dense", "depthwise_conv"])
def test_layers_lose_much_less_than_by_single_steps(kind, monkeypatch):
    rng = np.random.default_rng(0)
    channels, taps = 8, 9
    rows = windows(rng)
    real = rng.normal(0, 0.3, (channels, taps)).astype(np.float32)
    target = (rows.astype(np.float32) / 64) @ real.T
    shape, weights, attrs = (channels,), real, {"activation": "NONE"}
    if kind == "depthwise_conv":
        shape, weights = (4, 4, channels), real.T.reshape(1, 3, 3, channels)
        rows = np.repeat(rows, channels, axis=1)
        attrs |= {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (0,) * 4}
    layer = Layer("l", kind, ["x"], shape, attrs, weights, np.zeros(channels, np.float32))
    start = np.rint(weights * 2**4).astype(np.int8), 4
    bias = np.zeros(channels, np.int8), 8

    def loss():
        return rounding.refine_layer(layer, rows, 6, start, bias, 5, target, OPTIONS)[3]

    with_it = loss()
    monkeypatch.setattr(rounding, "MOST_INPUTS", 0)
    assert with_it < 0.8 * loss()


@pytest.mark.parametrize("bias_step", [None, 2.0**15])
def test_inputs_that_tell_nothing_change_nothing(bias_step):
    inputs, start = np.zeros((30, 4), np.float32), np.float32([[3], [2], [-1], [0], [7]])
    start = start if bias_step else start[1:]
    mask = np.zeros((30, 1), np.float32)
    found = plane(inputs, start[-4:].astype(float), start, mask, bias_step=bias_step)
    np.testing.assert_array_equal(found, start)
