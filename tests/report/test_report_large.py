"""What the report does where there is much: a thousand classes, long names, networks of many layers."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from made_up_runs import make_run

from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.report import figures
from dpuflow.report.confused import LARGEST_GROUP, confused_groups, group_views
from dpuflow.report.details import classes, confusions
from dpuflow.report.inputs import load_run
from dpuflow.report.network_drawing import lanes_of, network_drawing
from dpuflow.report.overview import columns, short_names


def test_classes_taken_for_one_another_form_groups():
    matrix = np.eye(9, dtype=int) * 50
    matrix[0, 1], matrix[1, 0], matrix[1, 2] = 5, 4, 3  # 0-1: 9, 1-2: 3
    matrix[7, 8] = 6
    before = matrix.copy()
    assert [group.tolist() for group in confused_groups(matrix)] == [[0, 1, 2], [7, 8]]
    assert (matrix == before).all()
    first, second = group_views(matrix, list("abcdefghi"))
    assert (first["names"], first["mistakes"], first["images"]) == (["a", "b", "c"], 12, 162)
    assert (second["names"], second["mistakes"]) == (["h", "i"], 6)


def test_a_group_has_room_for_ten_and_there_is_none_without_mistakes():
    assert confused_groups(np.eye(500, dtype=int)) == []
    everything = np.ones((60, 60), int)
    groups = confused_groups(everything)
    assert len(groups) == 6 and all(1 < len(group) <= LARGEST_GROUP for group in groups)
    members = np.concatenate(groups)
    assert len(set(members.tolist())) == len(members)


def thousand(tmp_path):
    """A made-up run whose records are stretched to 1,000 classes."""
    run = load_run(make_run(tmp_path))
    names = [f"n{i:04} some longer name" for i in range(1000)]
    run.images.labels = np.repeat(np.arange(240) * 2, 2)  # two images of each class
    run.images.class_names = names
    for index, record in enumerate(run.records.values()):
        given = run.images.labels.copy()
        given[: 10 + index] += 1
        record["predictions"] = given.tolist()
    return run


def test_a_thousand_classes_have_no_matrix_but_groups_and_the_worst_first(tmp_path):
    run = thousand(tmp_path)
    first, *_, last = confusions(run, "run-1-matrix")
    assert first["svg"] is None and [g["mistakes"] for g in first["groups"]] == [2] * 5
    assert first["groups"][0]["names"] == ["n0000 some longer name", "n0001 some longer name"]
    assert (first["errors"], last["errors"]) == (10, 13)
    assert [g["mistakes"] for g in last["groups"]] == [2] * 6  # and no matrix for a single mistake
    rows = classes(run, 20)
    assert len(rows) == 20
    assert [row["stages"][-1]["accuracy"] for row in rows] == [0.0] * 6 + [0.5] + [1.0] * 13


def test_the_groups_of_an_equal_stage_are_drawn_by_reference(tmp_path):
    run = thousand(tmp_path)
    first, second = list(run.records.values())[:2]
    second["predictions"] = first["predictions"]
    original, copy = confusions(run, "run-1-matrix")[:2]
    assert copy["same_as"] == original["label"] and len(copy["groups"]) == 5
    assert [g["names"] for g in copy["groups"]] == [g["names"] for g in original["groups"]]
    for drawn, again in zip(original["groups"], copy["groups"], strict=True):
        anchor = ElementTree.fromstring(str(drawn["svg"]))[0].get("id")
        assert ElementTree.fromstring(str(again["svg"]))[0].get("href") == f"#{anchor}"


def test_keras_and_onnx_runs_share_the_column_of_where_they_start(tmp_path):
    runs = [load_run(make_run(tmp_path / name, model=name)) for name in ("ours", "theirs")]
    assert [c["stages"] for c in columns(runs)] == [["keras"], ["frozen"], ["quantized"], ["board"]]
    runs[1].records = {"onnx" if stage == "keras" else stage: r for stage, r in runs[1].records.items()}
    first, *rest = columns(runs)
    assert (first, len(rest)) == ({"stages": ["keras", "onnx"], "label": "Trained"}, 3)
    assert columns(runs[1:])[0] == {"stages": ["onnx"], "label": "ONNX"}


def texts(svg):
    return {node.text: node for node in ElementTree.fromstring(str(svg)).iter() if node.tag == "text"}


def test_names_are_turned_above_their_columns_and_cut_with_the_whole_one_to_point_at():
    names = ["Egyptian cat, Felis catus", "dog"]
    svg, _ = figures.confusion([[1234, 1], [0, 9]], names, "title", "anchor")
    found = texts(svg)
    assert found["Egyptian cat, Fel…"][0].text == names[0]  # its title
    turned = [
        n for n in ElementTree.fromstring(str(svg)).iter() if n.get("transform", "").startswith("rotate(-90")
    ]
    assert [node.text for node in turned] == ["Egyptian cat, Fel…", "dog"]
    assert found["1234"].get("textLength") == "17" and found["9"].get("textLength") is None
    upright, _ = figures.confusion([[1]], ["A"], "title", "anchor")
    assert all(node.get("transform") is None for node in texts(upright).values())


@pytest.mark.parametrize(
    ("inputs", "lanes"),
    [
        ({"a": [], "b": ["a"], "c": ["b"]}, {"a": 0, "b": 0, "c": 0}),
        # a shortcut keeps its lane until the addition
        ({"a": [], "b": ["a"], "c": ["b"], "sum": ["c", "a"]}, {"a": 0, "b": 1, "c": 1, "sum": 0}),
        # two inputs; the lane of a branch that ended is used again
        (
            {"a": [], "b": [], "sum": ["a", "b"], "c": ["sum"], "out": ["sum", "c"]},
            {"a": 0, "b": 1, "sum": 0, "c": 1, "out": 0},
        ),
    ],
)
def test_lanes(inputs, lanes):
    assert lanes_of(inputs) == lanes


def test_the_network_says_where_each_layer_runs(tmp_path):
    layers = [
        Layer("input", "input", [], (4,)),
        Layer("dense", "dense", ["input"], (3,), {"activation": "none"}, np.zeros((3, 4), np.float32)),
        Layer("dense_1", "dense", ["dense"], (2,), {"activation": "none"}, np.zeros((2, 3), np.float32)),
        Layer("softmax", "softmax", ["dense_1"], (2,)),
    ]
    quantized = QuantizedNetwork(Network("toy", layers), {"input": 6, "dense": 5, "dense_1": 4}, {}, {}, {})
    # the made-up compile.json finds fault with dense_1
    found = network_drawing(load_run(make_run(tmp_path)), quantized)
    assert found["rows"] == 4
    root = ElementTree.fromstring(str(found["svg"]))
    titles = [node.text for node in root.iter() if node.tag == "title"]
    assert titles[1].startswith("dense: dense 3, on the DPU, fix_point 5, ") and "estimated time" in titles[1]
    assert [node.get("class") for node in root.iter() if node.tag == "circle"] == ["dpu", "dpu", "cpu", "cpu"]
    assert "on the CPU" in titles[2] and titles[3] == "softmax: softmax 2, on the CPU"


def test_runs_that_differ_in_the_target_are_told_apart():
    run = {"dataset": "d", "model": "m", "quantizer": "q", "target": "a", "runner": "r"}
    assert short_names([run]) == ["m"]
    assert short_names([run, {**run, "target": "b"}]) == ["m / a", "m / b"]
    assert short_names([run, {**run, "dataset": "e"}]) == ["m / d", "m / e"]
