"""Every operator's integers are those of the loops in `naive`, and its reals those of the formula."""

import numpy as np
import pytest
from cases import random_case
from naive import INTEGER

from dpuflow.ops import ACTIVATIONS, OPERATORS, kinds, make
from tests.made_up_operator import Negate

COMPUTED = kinds(lambda o: o.survives_folding and o.quantized and o.kind != "input")
CASES = 24


@pytest.mark.parametrize("kind", COMPUTED)
def test_integers_are_those_of_the_loops(kind):
    for seed in range(CASES):
        case = random_case(kind, np.random.default_rng([seed, 1]))
        got = case.integer()
        expected = [INTEGER[kind](case, *images, case.shape) for images in zip(*case.inputs, strict=True)]
        assert got.dtype == np.float32 and got.shape == (2, *case.shape)
        np.testing.assert_array_equal(got, np.array(expected), f"{seed}: {case.operator}")


def test_the_cases_reach_what_goes_wrong():
    """Clamps at both ends, zeros of ReLU, and halves that are rounded."""
    seen = set()
    for kind in COMPUTED:
        for seed in range(CASES):
            case = random_case(kind, np.random.default_rng([seed, 1]))
            results, out = case.unrounded(), case.integer()
            if results is None:
                continue
            seen |= {(kind, name) for name, hit in {
                "low": (out == -128).any(),
                "high": (out == 127).any(),
                "half": (results - np.floor(results) == 0.5).any(),
            }.items() if hit}  # fmt: skip
    for kind in ("conv", "depthwise_conv", "add", "avg_pool"):
        assert {(kind, name) for name in ("low", "high", "half")} <= seen


@pytest.mark.parametrize("kind", [kind for kind in COMPUTED if not OPERATORS[kind].moves_bytes])
def test_reals_are_the_integers_before_rounding(kind):
    """`real` of the numbers that the integers stand for, up to the DPU's own factors."""
    for seed in range(CASES):
        case = random_case(kind, np.random.default_rng([seed, 2]))
        reals = [x * np.float32(2.0**-fix) for x, fix in zip(case.inputs, case.fix_in, strict=True)]
        weights, bias = (p if p is None else p[0] * np.float32(2.0 ** -p[1]) for p in case.parameters)
        real = case.operator.real(reals, weights, bias)
        inputs = [x.astype(np.float32) for x in case.inputs]
        grid = case.operator.before_rounding(inputs, case.fix_in, *case.parameters)
        # the average's M / 2**S is up to 1/64 off
        # and a hard sigmoid's 2731 / 2**14 for a sixth 1 / 8192
        np.testing.assert_allclose(grid, real, rtol=1 / 63 if "avg_pool" in kind else 2e-4, atol=1e-4)


X = np.array([[[[-2.0, 8.0], [0.5, -1.0]]]], np.float32)


@pytest.mark.parametrize(
    ("kind", "attrs", "expected"),
    [
        ("relu", {}, [0, 8, 0.5, 0]),
        ("relu6", {}, [0, 6, 0.5, 0]),
        ("leaky_relu", {"alpha": 0.25}, [-0.5, 8, 0.5, -0.25]),
        ("flatten", {}, [-2, 8, 0.5, -1]),
        ("sigmoid", {}, 1 / (1 + np.exp([2, -8, -0.5, 1]))),
        ("hard_sigmoid", {}, [1 / 6, 1, 3.5 / 6, 2 / 6]),
    ],
)
def test_reals_of_what_has_no_integers_of_its_own(kind, attrs, expected):
    np.testing.assert_allclose(make(kind, attrs).real([X]).reshape(-1), np.float32(expected), rtol=1e-6)


def test_reals_of_a_batch_norm():
    scale, offset = np.float32([2, -1]), np.float32([1, 0.5])
    got = make("batch_norm", {}).real([X], scale, offset)
    np.testing.assert_array_equal(got.reshape(-1), [-3, -7.5, 2, 1.5])


def test_softmax_of_integers_is_that_of_their_values():
    q = np.array([[-128, 0, 127]], np.float32)
    got = make("softmax", {}).integer([q], [5], 0)
    exact = np.exp(q.astype(np.float64) / 32)
    np.testing.assert_allclose(got, exact / exact.sum(), rtol=1e-5)
    assert got.dtype == np.float32


def test_softmax_does_not_overflow():
    got = make("softmax", {}).real([np.array([[1000.0, 1000.0, -1000.0]], np.float32)])
    np.testing.assert_array_equal(got, [[0.5, 0.5, 0]])


@pytest.mark.parametrize("kind", kinds(lambda operator: operator.fuses_as))
def test_an_activation_is_what_it_fuses_as(kind):
    attrs = {"alpha": 26 / 256} if kind == "leaky_relu" else {}
    x = np.linspace(-9, 9, 101, dtype=np.float32)
    expected = ACTIVATIONS[OPERATORS[kind].fuses_as].real(x.copy())
    np.testing.assert_allclose(make(kind, attrs).real([x]), expected, rtol=1e-6)


@pytest.mark.parametrize("coarser", [0, 1, 3, -2])
def test_a_class_that_says_its_reals_alone_is_rounded_and_saturated_once(coarser):
    """What a new operator inherits: exact wherever float32 holds its result."""
    x = np.arange(-128, 128, dtype=np.float32)[None]
    got = Negate().integer([x], [5], 5 - coarser)
    expected = np.clip(np.floor(-x * 2.0**-coarser + 0.5), -128, 127)
    np.testing.assert_array_equal(got, expected)
