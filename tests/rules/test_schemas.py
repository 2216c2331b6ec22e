"""JSON artifacts and their schemas: each has one, no looser and no tighter than what is written."""

import copy
import json
import re

import pytest
import yaml

from dpuflow.base.errors import UserError
from dpuflow.base.files import json_text, read_json
from dpuflow.records import FOLDER, mistakes, read_record, write_record
from dpuflow.workflow import artifacts

SCHEMAS = {
    artifacts.FINETUNE: "finetune.schema.yaml",
    artifacts.KERAS_ACCURACY: "accuracy.schema.yaml",
    artifacts.ONNX_ACCURACY: "accuracy.schema.yaml",
    artifacts.NODES: "nodes.schema.yaml",
    artifacts.KEPT_NODES: "nodes.schema.yaml",
    artifacts.FREEZE_REPORT: "freeze.schema.yaml",
    artifacts.FROZEN_ACCURACY: "accuracy.schema.yaml",
    artifacts.QUANTIZATION: "quantization.schema.yaml",
    artifacts.QUANTIZED_ACCURACY: "accuracy.schema.yaml",
    artifacts.COMPILE_REPORT: "compile.schema.yaml",
    artifacts.ARCH: "arch.schema.yaml",
    artifacts.BOARD_RECORD: "board.schema.yaml",
    artifacts.BOARD_ACCURACY: "accuracy.schema.yaml",
    artifacts.DEVIATION: "deviation.schema.yaml",
    artifacts.GATE: "gate.schema.yaml",
    artifacts.SKIPPED_PICTURES: "skipped.schema.yaml",
    artifacts.ACCEPTED_PICTURES: "accepted.schema.yaml",
    "{REPORT}/accuracy.json": "report.schema.yaml",
    "{REPORT}/sweep.json": "sweep.schema.yaml",
    "{REPORT}/provenance.json": "provenance.schema.yaml",
}
"""Path pattern of a JSON artifact -> its schema."""

OF_TASKS = ("detection.schema.yaml", "segmentation.schema.yaml")
"""What the records of accuracy of other tasks than classification have, as `dpuflow.task` tells."""

OPEN = ("settings", "config", "xdputil")
"""Keys whose content is handed on as it is; a schema says so by naming no properties."""


def test_every_json_artifact_of_the_rules_has_a_schema(repo):
    texts = [value for value in vars(artifacts).values() if isinstance(value, str)]
    patterns = {text for text in texts if text.endswith(".json")}
    rules = "\n".join(path.read_text() for path in sorted((repo / "rules").glob("*.smk")))
    named = set(re.findall(r'"((?:results|\{REPORT\})/[\w/{}]+\.json)"', rules))
    assert patterns | named == set(SCHEMAS)
    used = {*SCHEMAS.values(), *OF_TASKS, "common.schema.yaml"}
    assert used == {path.name for path in FOLDER.iterdir()}


def nodes(schema, place=()):
    """Every part of a schema that describes a value."""
    if isinstance(schema, dict):
        yield place, schema
        for key, value in schema.items():
            yield from nodes(value, (*place, key))
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from nodes(value, (*place, index))


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_objects_are_closed(path):
    for place, part in nodes(yaml.safe_load(path.read_text())):
        if "properties" in part and not {"if", "then", "else"} & set(place):
            assert part.get("additionalProperties") is False, place
            assert set(part.get("required", [])) <= set(part["properties"]), place
        elif part.get("type") == "object" and place[-1] not in OPEN:
            assert "additionalProperties" in part, place


def schema_of(path):
    """Schema file of an artifact."""
    for pattern, schema in SCHEMAS.items():
        pattern = re.escape(pattern.replace("{REPORT}", "results/report/{name}"))
        if re.fullmatch(re.sub(r"\\{\w+\\}", r"[^/]+", pattern), path):
            return schema
    raise AssertionError(f"{path}: an artifact without a schema")


def places(value, place=()):
    """Places in a record: of a list or a mapping by name its first entry only, all keys else."""
    yield place, value
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in OPEN:
                yield from places(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:1]):
            yield from places(inner, (*place, index))


def changed(data, place, value):
    """A copy of a record with another value at `place`."""
    if not place:
        return value
    data = copy.copy(data)
    data[place[0]] = changed(data[place[0]], place[1:], value)
    return data


def other_kind(value):
    """A value that no field of this value's kind may hold."""
    return {"odd": [True]} if not isinstance(value, dict) else ["odd"]


@pytest.mark.rules
def test_what_a_run_writes_fits_exactly(finished):
    paths = sorted(finished.folder.glob("results/**/*.json"))
    assert {"accuracy", "nodes", "freeze", "quantization", "compile", "report", "provenance"} <= {
        schema_of(path.relative_to(finished.folder).as_posix()).partition(".")[0] for path in paths
    }
    for path in paths:
        schema, data = schema_of(path.relative_to(finished.folder).as_posix()), read_json(path)
        assert read_record(path, schema) == data
        assert path.read_text() == json_text(data)
        for place, value in places(data):
            wrong = changed(data, place, other_kind(value))
            assert mistakes(wrong, schema), f"{path}: {place} may hold anything"
            if isinstance(value, dict) and place[-1:] not in [(key,) for key in OPEN]:
                more = changed(data, place, {**value, "unheard of": {"odd": [True]}})
                assert mistakes(more, schema), f"{path}: {place} may have any key"


@pytest.mark.fault("results", "record with another key, without one, of another type", "refused")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_layer": {}}, "input_layer: unknown key; did you mean input"),
        ({"variables": None}, "variables: None is not of type 'array'"),
        ({"variables": ["a", 3]}, r"variables\[1\]: 3 is not of type 'string'"),
        ({"input": {"name": "x", "tensor": "x:0", "dtype": "float32"}}, "input: misses the key shape"),
        ({"input": 1, "output": 2, "variables": 3, "a": 4}, "and 1 more"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_with_file_and_key(tmp_path, change, message):
    end = {"name": "x", "tensor": "x:0", "shape": [None, 4], "dtype": "float32"}
    path = tmp_path / "nodes.json"
    write_record(path, "nodes.schema.yaml", {"input": end, "output": end, "variables": []})
    path.write_text(json.dumps({**read_json(path), **change}))
    with pytest.raises(UserError, match=rf"nodes.json: .*{message}.*; remove it and run again$") as caught:
        read_record(path, "nodes.schema.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["1e999", "3.5", "3.0", "true", "1" + "0" * 400])
def test_numbers_are_whole_and_finite_where_they_should_be(tmp_path, number):
    path = tmp_path / "finetune.json"
    half = '{"loss": 1, "accuracy": 0.5}'
    text = '{"what": "float", "split": "validation", "images": %s, "before": %s, "after": %s}'
    path.write_text(text % ("3", half, half))
    assert read_record(path, "finetune.schema.yaml")["images"] == 3
    wrong = [text % (number, half, half)] if len(number) < 9 else []
    wrong += [text % ("3", half, half.replace("1", number, 1))] if number not in ("3.5", "3.0") else []
    for content in wrong:
        path.write_text(content)
        with pytest.raises(UserError, match=r"finetune.json: (images|before.loss|after.loss): "):
            read_record(path, "finetune.schema.yaml")


def test_a_record_that_this_program_gets_wrong_is_not_written(tmp_path):
    with pytest.raises(
        ValueError, match=r"arch.json would break arch.schema.yaml: top level: misses the key"
    ):
        write_record(tmp_path / "arch.json", "arch.schema.yaml", {})
    assert not list(tmp_path.iterdir())


def test_a_board_says_how_its_answers_came_about_and_no_other_stage_does():
    record = {"stage": "keras", "split": "test", "images": 1, "correct": 1, "accuracy": 1.0}
    record |= {"interval95": [0.2, 1.0], "labels_sha256": "ab" * 32, "predictions": [0]}
    record["per_class"] = [{"class": "A", "images": 1, "correct": 1}]
    board = {**record, "stage": "board", "runner": "ssh", "origin": "measured", "how": "measured"}
    assert not mistakes(record, "accuracy.schema.yaml") and not mistakes(board, "accuracy.schema.yaml")
    assert mistakes(board | {"stage": "keras"}, "accuracy.schema.yaml")[0] == "how: does not belong here"
    assert mistakes({**record, "stage": "board"}, "accuracy.schema.yaml") == [
        "top level: misses the keys runner, origin, how"
    ]
    assert mistakes({**board, "origin": "by heart"}, "accuracy.schema.yaml") == [
        "origin: 'by heart' is not one of measured, emulated, simulated"
    ]
