import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpuflow.base.numerics import (
    Grid,
    dequantize,
    images_at_a_time,
    quantize,
    round_half_away,
    round_half_even,
    round_half_up,
)
from dpuflow.device.dpuczdx8g import average_pool_factor, is_exact_add

HALVES = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]


def test_rounding_of_halves_as_the_facts_state_them():
    assert round_half_up(HALVES).tolist() == [-2, -1, 0, 1, 2, 3]
    assert round_half_away(HALVES).tolist() == [-3, -2, -1, 1, 2, 3]
    assert round_half_even(HALVES).tolist() == [-2, -2, 0, 0, 2, 2]


def test_half_up_is_exact_where_adding_a_half_is_not():
    assert round_half_up(0.49999999999999994) == 0
    assert round_half_up(2.0**53 - 1) == 2.0**53 - 1


@given(st.integers(-(2**40), 2**40), st.integers(0, 16))
def test_half_up_equals_integer_shift(value, shift):
    expected = (value + (1 << shift >> 1)) >> shift
    assert round_half_up(value / 2**shift) == expected


@given(st.floats(-300, 300), st.integers(-6, 14), st.sampled_from(["DPU_ROUND", "STD_ROUND", "PY3_ROUND"]))
def test_quantization_error_is_at_most_half_a_step_or_saturated(x, fix_point, rounding):
    q = quantize(x, fix_point, rounding)
    assert q.dtype == np.int8
    if -128 <= x * 2.0**fix_point <= 127:
        assert abs(dequantize(q, fix_point) - x) <= 0.5 * 2.0**-fix_point
    else:
        assert q in (-128, 127)


@pytest.mark.parametrize("fix_point", [-3, 0, 5, 9])
def test_grid_values_survive(fix_point):
    q = np.arange(-128, 128)
    assert (quantize(dequantize(q, fix_point), fix_point) == q).all()


@pytest.mark.parametrize(
    ("window", "factor"),
    [
        ((3, 3), (7, 6)), ((5, 5), (10, 8)), ((6, 6), (7, 8)), ((7, 7), (21, 10)), ((14, 14), (21, 12)),
        ((2, 2), (1, 2)), ((4, 4), (1, 4)), ((8, 8), (1, 6)), ((9, 9), (101, 13)), ((28, 28), (21, 14)),
        ((3, 5), (17, 8)),
    ],
)  # fmt: skip
def test_average_pool_factors_of_the_facts(window, factor):
    assert average_pool_factor(*window) == factor


def add_results(fix_in, fix_out, guard):
    """Every int8 combination added with `guard` bits below the coarsest input's step, in naive integers."""
    least = min(fix_in)
    grids = np.meshgrid(*[np.arange(-128, 128, 1 if len(fix_in) == 2 else 5)] * len(fix_in), indexing="ij")
    total = sum((x << guard) >> (fix - least) for x, fix in zip(grids, fix_in, strict=True))
    shift = guard + least - fix_out
    half = (1 << shift) // 2 if shift > 0 else 0
    return np.clip((total + half) >> shift if shift > 0 else total << -shift, -128, 127)


def test_the_additions_called_exact_are_exact():
    """The instruction's 2 guard bits against the reference's 7; beyond the rule pairs differ."""
    for difference in range(11):
        for above in range(-3, 4):
            fix = (3, 3 + difference)
            same = np.array_equal(add_results(fix, 3 + above, 2), add_results(fix, 3 + above, 7))
            assert same or not is_exact_add(fix, 3 + above), (difference, above)
            if above <= 1:
                assert is_exact_add(fix, 3 + above)
    assert not is_exact_add((3, 6), 5)
    assert not np.array_equal(add_results((3, 6), 5, 2), add_results((3, 6), 5, 7))
    assert is_exact_add((3, 5, 9), 4) and is_exact_add((3, 4, 5, 5), 9)
    np.testing.assert_array_equal(add_results((3, 5, 9), 4, 2), add_results((3, 5, 9), 4, 7))
    assert not is_exact_add((3, 7, 9), 3)
    assert not np.array_equal(add_results((3, 7, 9), 3, 2), add_results((3, 7, 9), 3, 7))


def test_batches_shrink_for_large_images():
    shapes = ((28, 28, 1), (64, 64, 3), (96, 96, 3), (224, 224, 3), (4000, 4000, 3))
    assert [images_at_a_time(shape) for shape in shapes] == [512, 512, 303, 55, 1]


@pytest.mark.parametrize(
    ("grid", "low", "high"),
    [(Grid(3), -128, 127), (Grid(0, 8, False), 0, 255), (Grid(-2, 4), -8, 7), (Grid(1, 16), -32768, 32767)],
)
def test_a_grid_knows_its_ends_and_its_numbers(grid, low, high):
    assert (grid.low, grid.high) == (low, high)
    numbers = np.arange(low, high + 1)
    assert np.array_equal(grid.integers(grid.reals(numbers)), numbers)
    step = 2.0**-grid.fix_point
    assert grid.integers([(high + 5) * step, (low - 5) * step, 2.5 * step]).tolist() == [high, low, 3]
    assert grid.attributes("PY3_ROUND") == {
        "fix_point": grid.fix_point,
        "bit_width": grid.bits,
        "if_signed": grid.signed,
        "round_mode": "PY3_ROUND",
    }
