import random
import xml.etree.ElementTree as ET

import pytest

from dpuflow.base.errors import UserError
from dpuflow.workflow.rulegraph import draw, essential, groups, parse, rule_of

CHART = """\
---
title: DAG
---
flowchart TB
	id0[all]
	id1[train]
	id2[build_dataset]
	style id0 fill:#D95757,stroke-width:2px,color:#333333
	id1 --> id0
	id2 --> id1
	id2 --> id0
"""


def test_names_and_edges_are_read():
    names, edges = parse(CHART)
    assert names == ["all", "build_dataset", "train"]
    assert edges == [("build_dataset", "all"), ("build_dataset", "train"), ("train", "all")]


def test_text_that_is_no_chart_is_refused():
    with pytest.raises(UserError, match="rulegraph mermaid-js"):
        parse("digraph snakemake_dag {}")


def test_edges_that_a_longer_path_implies_are_left_out():
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("x", "d")]
    assert essential(edges) == [("a", "b"), ("b", "c"), ("c", "d"), ("x", "d")]


def test_the_drawing_has_a_box_per_rule_an_arrow_per_edge_and_does_not_depend_on_order():
    text = draw(CHART)
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    labels = [e.text for e in root.iter(f"{space}text")]
    assert {"all", "train", "build_dataset"} <= set(labels)
    arrows = [e for e in root.iter(f"{space}path") if e.get("class") == "edge"]
    assert len(arrows) == 2
    boxes = {box.get("fill") for box in root.iter(f"{space}rect")}
    assert {"#d7ecd9", "#d8e7f6", "#ffffff"} <= boxes  # data, training, the rest
    lines = CHART.splitlines()
    for seed in range(3):
        random.Random(seed).shuffle(lines)
        assert draw("\n".join(lines)) == text


def test_boxes_stand_below_what_they_wait_for_and_apart():
    root = ET.fromstring(draw(CHART))
    y = {e.text: float(e.get("y")) for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert y["build_dataset"] < y["train"] < y["all"]


def test_every_rule_file_tells_its_rules(repo):
    found = groups(repo / "rules")
    assert found["train"] == "train" and found["run_emulator"] == "board" and found["gate"] == "board"


def test_jobs_of_the_same_words_stay_apart():
    names, edges = parse("id0[all]\nid1[freeze]\nid2[freeze]\nid1 --> id0\nid2 --> id0\n")
    assert names == ["all", "freeze", "freeze (2)"]
    assert edges == [("freeze", "all"), ("freeze (2)", "all")]
    assert rule_of("train - model: signnet") == "train"
