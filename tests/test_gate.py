"""Drift gates: the edges of both limits, wrong limits, the table."""

import pytest

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.accuracy.gate import check_limits, evaluate, require, table
from dpuflow.base.errors import UserError

LABELS = [0] * 500 + [1] * 500


def record(stage, wrong):
    """A record whose images in `wrong` are answered wrongly."""
    predictions = [1 - label if index in wrong else label for index, label in enumerate(LABELS)]
    return accuracy_record(stage, "test", LABELS, predictions, ["A", "B"])


RECORDS = {
    "frozen": record("frozen", range(10)),  # 0.990
    "quantized": record("quantized", range(5, 20)),  # 0.985, 15 answers differ
    "board": record("board", range(5, 20)),
}


def gate(**limit):
    return evaluate(RECORDS, [{"from_stage": "frozen", "to_stage": "quantized", **limit}], LABELS)


def test_figures():
    result = gate(max_drop=1)
    (found,) = result["gates"]
    assert found["drop"] == pytest.approx(0.5) and found["agreement"] == 0.985
    assert found["first_difference"] == 0
    assert found["p_value"] == pytest.approx(0.3017578125)  # 5 gained, 10 lost: exact McNemar
    assert [(s["stage"], s["correct"]) for s in result["stages"]] == [
        ("frozen", 990),
        ("quantized", 985),
        ("board", 985),
    ]


@pytest.mark.parametrize(
    ("limit", "passed"),
    [
        ({"max_drop": 0.5}, True),
        ({"max_drop": 0.499}, False),
        ({"min_agreement": 0.985}, True),
        ({"min_agreement": 0.986}, False),
        ({"max_drop": 0.5, "min_agreement": 0.99}, False),
        ({"max_drop": 0}, False),
    ],
)
def test_limits_are_inclusive(limit, passed):
    assert gate(**limit)["passed"] is passed


def test_a_gain_is_no_drop():
    result = evaluate(RECORDS, [{"from_stage": "quantized", "to_stage": "frozen", "max_drop": 0}])
    assert result["passed"] and result["gates"][0]["drop"] == pytest.approx(-0.5)
    assert "p_value" not in result["gates"][0]


def test_a_failed_gate_shows_the_table():
    limits = [
        {"from_stage": "frozen", "to_stage": "quantized", "max_drop": 0.1, "min_agreement": 0.99},
        {"from_stage": "quantized", "to_stage": "board", "min_agreement": 1},
    ]
    result = evaluate(RECORDS, limits)
    with pytest.raises(UserError) as error:
        require(result)
    message = str(error.value)
    assert "accuracy fell by 0.500 points, allowed 0.1" in message
    assert "agreement is 0.9850, required 0.99" in message
    lines = table(result).splitlines()
    assert lines[0].split() == ["stage", "images", "correct", "accuracy"]
    assert lines[1].split() == ["frozen", "1000", "990", "0.9900"]
    assert lines[-2].split() == ["frozen", "->", "quantized", "0.500", "0.1", "0.9850", "0.99", "FAILED"]
    assert lines[-1].split() == ["quantized", "->", "board", "0.000", "-", "1.0000", "1", "passed"]
    require(evaluate(RECORDS, limits[1:]))
    require(evaluate(RECORDS, []))


def test_stages_must_exist_and_be_of_the_same_images():
    with pytest.raises(UserError, match="'keras' has no record; there are frozen, quantized, board"):
        evaluate(RECORDS, [{"from_stage": "keras", "to_stage": "board", "max_drop": 1}])
    other = accuracy_record("board", "validation", [0, 1], [0, 1], ["A", "B"])
    with pytest.raises(UserError, match="same images"):
        evaluate({**RECORDS, "board": other}, [])


@pytest.mark.fault("configuration", "gate limits: {id}", "refused")
@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_drop": 1}, "a list"),
        (["strict"], r"gates\[0\]"),
        ([{"from_stage": "a", "to_stage": "b"}], "max_drop"),
        ([{"from_stage": "a", "max_drop": 1}], "to_stage"),
        ([{"from_stage": "a", "to_stage": "b", "max_drop": "1 %"}], "a number"),
        ([{"from_stage": "a", "to_stage": "b", "max_drop": True}], "a number"),
        ([{"from_stage": "a", "to_stage": "b", "min_agreement": 99}], "from 0 to 1"),
        ([{"from_stage": "a", "to_stage": "b", "max_dorp": 1}], "max_dorp"),
    ],
)
def test_wrong_limits(limits, words):
    with pytest.raises(UserError, match=words):
        check_limits(limits)
