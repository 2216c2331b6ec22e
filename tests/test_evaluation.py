"""Accuracy records, intervals and agreement."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpuflow.accuracy import evaluation
from dpuflow.base.errors import UserError
from dpuflow.base.files import write_json

NAMES = ["A", "B", "C"]


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), p. 857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published_values(correct, total, low, high):
    assert evaluation.wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_estimate_and_is_symmetric(case):
    correct, total = case
    low, high = evaluation.wilson_interval(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert low < high
    mirrored = evaluation.wilson_interval(total - correct, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_nonsense(correct, total):
    with pytest.raises(ValueError, match="correct"):
        evaluation.wilson_interval(correct, total)


@pytest.mark.parametrize(
    ("freedom", "t"),
    # the usual table of two-sided 95 % quantiles
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (5, 2.5706),
        (9, 2.2622),
        (30, 2.0423),
        (120, 1.9799),
    ],
)
def test_student_t_table(freedom, t):
    assert evaluation.student_t(0.95, freedom) == pytest.approx(t, abs=6e-5)


def test_mean_interval_over_seeds():
    mean, (low, high) = evaluation.mean_interval([0.97, 0.98, 0.99])
    assert mean == pytest.approx(0.98)
    assert high - mean == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)
    assert evaluation.mean_interval([0.5]) == (0.5, None)


def test_accuracy_record_counts_every_image():
    record = evaluation.accuracy_record("keras", "test", [0, 1, 2, 2, 1], np.array([0, 1, 2, 1, 1]), NAMES)
    assert tuple(record) == evaluation.RECORD_KEYS
    assert (record["images"], record["correct"], record["accuracy"]) == (5, 4, 0.8)
    assert record["interval95"] == list(evaluation.wilson_interval(4, 5))
    assert record["predictions"] == [0, 1, 2, 1, 1]
    assert record["per_class"][2] == {"class": "C", "images": 2, "correct": 1}
    json.dumps(record)


def test_labels_digest_ignores_the_integer_type():
    assert evaluation.labels_digest(np.array([1, 2], np.uint8)) == evaluation.labels_digest([1, 2])
    assert evaluation.labels_digest([1, 2]) != evaluation.labels_digest([2, 1])


@pytest.mark.fault("results", "predictions and labels that do not fit each other", "refused")
@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0], "1 predictions for 2 images"),
        ([], [], "no images"),
        ([0, 3], [0, 0], "image 1 .* label 3"),
        ([0, 1], [0, 7], "image 1 .* prediction 7"),
    ],
)
def test_accuracy_record_refuses(labels, predictions, message):
    with pytest.raises(UserError, match=message):
        evaluation.accuracy_record("frozen", "test", labels, predictions, NAMES)


def test_accuracy_record_refuses_probabilities():
    with pytest.raises(ValueError, match="integers"):
        evaluation.accuracy_record("frozen", "test", [0, 1], [0.2, 0.9], NAMES)


def test_agreement_finds_the_first_difference():
    result = evaluation.agreement([0, 1, 2, 2], [0, 1, 1, 0])
    assert result == {
        "images": 4,
        "equal": 2,
        "agreement": 0.5,
        "interval95": list(evaluation.wilson_interval(2, 4)),
        "first_difference": 2,
    }
    assert evaluation.agreement([1, 1], [1, 1])["first_difference"] is None


@pytest.mark.fault("results", "records of different images compared", "refused")
def test_agreement_refuses_different_images():
    a = evaluation.accuracy_record("keras", "test", [0, 1], [0, 1], NAMES)
    b = evaluation.accuracy_record("board", "test", [0, 2], [0, 1], NAMES)
    with pytest.raises(UserError, match=r"keras and board .* labels_sha256"):
        evaluation.agreement(a, b)
    with pytest.raises(UserError, match="2 and 1"):
        evaluation.agreement([0, 1], [0])


def test_accuracy_change_of_a_worked_example():
    # 7,172 images, 20 lost and 5 gained: b = 5, c = 20
    labels = np.zeros(7172, int)
    before, after = labels.copy(), labels.copy()
    before[:5] = 1
    after[100:120] = 1
    change = evaluation.accuracy_change(labels, before, after)
    assert (change["lost"], change["gained"]) == (20, 5)
    assert change["change"] == pytest.approx(-15 / 7172)
    expected = 2 * sum(math.comb(25, k) for k in range(6)) / 2**25
    assert change["p_value"] == pytest.approx(expected)
    low, high = change["interval95"]
    assert low < -15 / 7172 < high < 0


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 9), (7, 7), (300, 341), (1100, 1000)])
def test_mcnemar_is_the_sum_of_all_coefficients(gained, lost):
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    assert evaluation.mcnemar_exact(gained, lost) == min(1.0, 2 * tail / 2**n)


def test_newcombe_paired_published_values():
    # R. G. Newcombe, Statistics in Medicine 17 (1998), p. 2635, method 10
    assert evaluation._newcombe_paired(36, 12, 2, 0, 0.95) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert evaluation._newcombe_paired(54, 0, 0, 0, 0.95) == pytest.approx((-0.0664, 0.0664), abs=5e-5)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_accuracy_change_is_antisymmetric(rows):
    labels, a, b = np.array(rows).T
    there, back = evaluation.accuracy_change(labels, a, b), evaluation.accuracy_change(labels, b, a)
    assert there["change"] == -back["change"]
    assert there["p_value"] == back["p_value"] <= 1
    low, high = there["interval95"]
    assert -1 <= low <= there["change"] + 1e-12 and there["change"] - 1e-12 <= high <= 1
    assert back["interval95"] == pytest.approx([-high, -low], abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_confusion_matrix_rows_are_labels(pairs):
    labels, predictions = np.array(pairs).T
    matrix = evaluation.confusion_matrix(labels, predictions, 5)
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (labels, predictions), 1)
    assert np.array_equal(matrix, expected)


def test_per_class_accuracy_leaves_absent_classes_open():
    rows = evaluation.per_class_accuracy(evaluation.confusion_matrix([0, 0, 2], [0, 1, 2], 3))
    assert [row["accuracy"] for row in rows] == [0.5, None, 1.0]
    assert rows[1] == {"images": 0, "correct": 0, "accuracy": None, "interval95": None}


@pytest.mark.fault("results", "damaged or foreign accuracy record", "refused")
def test_read_accuracy_round_trip_and_refusals(tmp_path):
    path = tmp_path / "keras_accuracy.json"
    record = evaluation.accuracy_record("keras", "test", [0, 1], [0, 2], NAMES)
    write_json(path, record)
    assert evaluation.read_accuracy(path) == record

    write_json(path, {**record, "images": 3})
    with pytest.raises(UserError, match=r"keras_accuracy.json: 2 predictions, but images says 3"):
        evaluation.read_accuracy(path)
    write_json(path, {"accuracy": 1})
    with pytest.raises(UserError, match=r"keras_accuracy.json: top level: misses the keys stage, split"):
        evaluation.read_accuracy(path)
    write_json(path, {**record, "predictions": [0, "B"]})
    with pytest.raises(UserError, match=r"accuracy.json: predictions\[1\]: 'B' is not of type 'integer'"):
        evaluation.read_accuracy(path)
    write_json(path, [])
    with pytest.raises(UserError, match=r"keras_accuracy.json: top level: \[\] is not of type 'object'"):
        evaluation.read_accuracy(path)


def test_check_same_images_names_the_files():
    a = evaluation.accuracy_record("keras", "test", [0, 1], [0, 1], NAMES)
    b = evaluation.accuracy_record("frozen", "validation", [0, 1], [0, 1], NAMES)
    evaluation.check_same_images([a, a])
    with pytest.raises(UserError, match=r"x.json and y.json .* split is 'test' .* 'validation'"):
        evaluation.check_same_images([a, b], ["x.json", "y.json"])


@pytest.mark.parametrize(
    ("right", "classes", "guess"), [(5, 4, "25.0%"), (13, 4, None), (11, 2, "50.0%"), (12, 2, None)]
)
def test_a_network_that_guesses_gets_a_hint_at_its_input(right, classes, guess):
    labels = np.arange(20) % classes
    predictions = np.where(np.arange(20) < right, labels, (labels + 1) % classes)
    record = evaluation.accuracy_record("keras", "test", labels, predictions, list("abcd")[:classes])
    hint = evaluation.guessing_hint(record, {"subtract": 0, "divide": 255})
    if guess is None:
        assert hint is None
    else:
        assert f"guessing ({guess})" in hint and "models.NAME.input: it sees (pixel - 0) / 255 now" in hint


def test_always_the_commonest_class_is_guessing_too():
    labels = np.array([0] * 9 + [1])
    record = evaluation.accuracy_record("frozen", "test", labels, np.zeros(10, int), ["a", "b"])
    assert "guessing (90.0%)" in evaluation.guessing_hint(record, {"subtract": 0, "divide": 1})
