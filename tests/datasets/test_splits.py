"""Splits: the tutorial's, random ones, and calibration from training rows only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpuflow.base.errors import UserError
from dpuflow.datasets.splits import calibration_rows, validation_split


def test_tutorial_split():
    train, held_out = validation_split(27455, {"rows": 4000, "take": "last"})
    assert train.tolist() == list(range(23455))
    assert held_out.tolist() == list(range(23455, 27455))


def test_random_fraction_is_seeded():
    first = validation_split(1000, {"fraction": 0.1, "take": "random", "seed": 3})
    again = validation_split(1000, {"fraction": 0.1, "take": "random", "seed": 3})
    other = validation_split(1000, {"fraction": 0.1, "take": "random", "seed": 4})
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])
    assert len(first[1]) == 100
    assert sorted([*first[0], *first[1]]) == list(range(1000))


@pytest.mark.fault("data", "impossible validation split", "refused")
@pytest.mark.parametrize(
    "settings", [{}, {"rows": 5, "fraction": 0.1}, {"rows": 10}, {"rows": 0}, {"rows": 3, "take": "first"}]
)
def test_faulty_validation(settings):
    with pytest.raises(UserError, match="validation"):
        validation_split(10, settings)


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=80),
    count=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_calibration_is_even_and_inside_train(labels, count, seed):
    labels = np.array(labels)
    train = np.arange(0, len(labels), 2)
    if count > len(train):
        with pytest.raises(UserError, match=r"calibration\.images"):
            calibration_rows(train, labels, {"images": count, "seed": seed})
        return
    chosen = calibration_rows(train, labels, {"images": count, "seed": seed})
    assert len(set(chosen.tolist())) == count
    assert set(chosen.tolist()) <= set(train.tolist())
    have, got = np.bincount(labels[train], minlength=6), np.bincount(labels[chosen], minlength=6)
    # a class is behind another by more than one only if it has no image left
    assert all(got[i] >= got.max() - 1 or got[i] == have[i] for i in range(6))
