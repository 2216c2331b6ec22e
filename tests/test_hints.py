from dpuflow.base.hints import did_you_mean, nearest

NAMES = ["seed", "runs", "ZCU104", "zcu102", "kv260"]


def test_the_nearest_name_in_its_own_case():
    assert nearest("sed", NAMES) == ["seed"]
    assert nearest("zcu104", NAMES) == ["ZCU104"]
    assert nearest("zcu10", NAMES, 3) == ["ZCU104", "zcu102"]
    assert nearest(7, NAMES) == []


def test_a_message_ends_with_a_question_or_with_all_names():
    assert did_you_mean("Seeds", NAMES) == "did you mean seed?"
    assert did_you_mean("zcu104x", NAMES, 2) == "did you mean ZCU104 or zcu102?"
    assert did_you_mean("q", ["a", "b"]) == "expected one of a, b"
