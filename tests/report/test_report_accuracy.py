"""The accuracy report as files: numbers, honesty, tolerance, determinism."""

import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import pytest
from made_up_runs import LETTERS, board_record, make_run, report_of, write_toy_report

from dpuflow.accuracy import gate
from dpuflow.accuracy.evaluation import accuracy_record, wilson_interval
from dpuflow.base.errors import UserError
from dpuflow.base.files import read_json, write_json
from dpuflow.base.hdf5 import seal
from dpuflow.report.accuracy import write_report
from dpuflow.report.inputs import load_run
from dpuflow.report.partial import write_partial_report
from dpuflow.report.provenance import provenance
from dpuflow.report.results import run_results
from dpuflow.report.summary import summary

VOID = {"meta", "link", "input", "img", "br", "wbr"}


class Checker(HTMLParser):
    """Collects ids, links and images, and complains about unbalanced tags."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.sources = [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else near line {self.getpos()[0]}"


def test_page_is_well_formed_and_self_contained(toy_report):
    html = (toy_report / "accuracy.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(link.startswith(("#", "data:")) for link in checker.links)
    assert {link[1:] for link in checker.links if link.startswith("#")} <= set(checker.ids)
    assert checker.sources and all(source.startswith("data:image/png;base64,") for source in checker.sources)
    assert "url(" not in html and "@import" not in html


def test_every_stage_has_its_numbers(toy_report):
    data = read_json(toy_report / "accuracy.json")
    signnet = data["runs"][0]
    assert [stage["correct"] for stage in signnet["stages"]] == [471, 471, 468, 468]
    assert [stage["images"] for stage in signnet["stages"]] == [480] * 4
    quantized = signnet["stages"][2]
    assert quantized["interval95"] == list(wilson_interval(468, 480))
    assert quantized["agreement_with_previous"]["equal"] == 477
    assert [(c["before"], c["after"], c["lost"], c["gained"]) for c in signnet["comparisons"]] == [
        ("keras", "frozen", 0, 0),
        ("frozen", "quantized", 3, 0),
        ("quantized", "board", 0, 0),
        ("keras", "board", 3, 0),
    ]
    html = (toy_report / "accuracy.html").read_text(encoding="utf-8").replace("\xa0", " ")
    for shown in ("98.12 %", "97.50 %", "468 of 480", "−0.62 pp", "3 lost, 0 gained"):
        assert shown in html


@pytest.mark.parametrize(
    ("runner", "label", "kind"),
    [
        ("emulator", "Emulated board", "emulated"),
        ("isa_simulator", "Machine code (simulated)", "simulated"),
        ("virtual_board", "Virtual board", "emulated"),
        ("ssh", "Board", "measured"),
    ],
)
def test_the_board_column_says_what_it_is(tmp_path, runner, label, kind):
    html, markdown, data = report_of([make_run(tmp_path, runner=runner)], tmp_path)
    stage = data["runs"][0]["stages"][-1]
    assert (stage["label"], stage["how"]) == (label, kind)
    assert f"| {label} |" in markdown
    assert f"- **{kind}**" in markdown
    # what was measured on a device is claimed only for a device
    assert ("measured on the device" in html) == (runner == "ssh")
    assert ("badge emulated" in html) == (kind == "emulated")


def test_the_record_names_the_runner_whatever_the_config_calls_it(tmp_path):
    entry = make_run(tmp_path) | {"runner": "my_runner"}
    html, _, data = report_of([entry], tmp_path)
    assert data["runs"][0]["stages"][-1]["label"] == "Emulated board"
    assert "Emulated: test text." in html


def test_a_login_to_a_virtual_board_is_no_measurement(tmp_path):
    entry = make_run(tmp_path, runner="ssh")
    record = read_json(entry["files"]["board_accuracy"])
    # the words are for people: what they begin with means nothing
    record |= {"origin": "emulated", "how": "measured on nothing but a PC", "unstable_images": [4, 7, 9]}
    write_json(entry["files"]["board_accuracy"], record)
    html, _, data = report_of([entry], tmp_path)
    stage = data["runs"][0]["stages"][-1]
    assert (stage["label"], stage["how"]) == ("Virtual board", "emulated")
    assert "measured on the device" not in html
    assert "<dt>unstable images</dt><dd>3</dd>" in html


def cut_board(entry, count):
    """Let the board of a run stop after the first `count` images."""
    with h5py.File(entry["files"]["dataset"]) as file:
        labels = file["labels"][()][file["split/test"][()]][:count]
    given = read_json(entry["files"]["board_accuracy"])["predictions"][:count]
    record = board_record(accuracy_record("board", "test", labels, given, LETTERS))
    write_json(entry["files"]["board_accuracy"], record)


def test_a_board_that_stops_early_is_compared_on_what_it_saw(tmp_path):
    entry = make_run(tmp_path)
    cut_board(entry, 100)
    html, _, data = report_of([entry], tmp_path)
    run = data["runs"][0]
    assert [stage["images"] for stage in run["stages"]] == [480, 480, 480, 100]
    assert [c["images"] for c in run["comparisons"]] == [480, 480, 100, 100]
    assert run["comparisons"][2]["agreement"] == 1.0
    assert "first 100 images only" in html
    assert ": not run" in html


@pytest.mark.fault("results", "board record of other images", "refused")
def test_a_board_that_saw_other_images_is_refused(tmp_path):
    entry = make_run(tmp_path)
    cut_board(entry, 100)
    record = read_json(entry["files"]["board_accuracy"])
    write_json(entry["files"]["board_accuracy"], {**record, "labels_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"board_accuracy.json: its 100 images are not the first of the 480"):
        load_run(entry)


def test_gates_are_shown(tmp_path):
    entry = make_run(tmp_path)
    records = {stage: read_json(entry["files"][f"{stage}_accuracy"]) for stage in ("keras", "board")}
    limits = [{"from_stage": "keras", "to_stage": "board", "max_drop": 0.5}]
    write_json(tmp_path / "gate.json", gate.evaluate(records, limits))
    entry["files"]["gate"] = str(tmp_path / "gate.json")
    html, _, data = report_of([entry], tmp_path)
    assert data["runs"][0]["gates_passed"] is False
    assert "failed</span> accuracy fell by 0.625 points, allowed 0.5" in html


def test_reports_are_byte_identical_and_free_of_paths(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write_toy_report(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one/report").iterdir())
    assert files == ["accuracy.html", "accuracy.json", "accuracy.md"]
    for name in files:
        content = (tmp_path / "one/report" / name).read_bytes()
        assert content == (tmp_path / "two/report" / name).read_bytes()
        assert str(tmp_path).encode() not in content
    checksums = read_json(tmp_path / "one/report/accuracy.json")["runs"][0]["files"]
    assert checksums[0]["path"] == "toy/dataset.h5"


@pytest.mark.fault("results", "report without {id}", "right")
@pytest.mark.parametrize(
    ("absent", "gone"),
    [
        ("history", "Training</h3>"),
        ("quantization", "Quantization</h3>"),
        ("compile", "Target fit</h3>"),
        ("dataset", "Confusion matrix</h3>"),
        ("frozen_accuracy", 'Frozen <span class="nowrap">→'),
    ],
)
def test_a_missing_file_drops_its_section_only(tmp_path, absent, gone):
    entry = make_run(tmp_path)
    assert gone in report_of([entry], tmp_path)[0]
    del entry["files"][absent]
    html, _, data = report_of([entry], tmp_path)
    assert gone not in html
    assert "Stage to stage" in html and data["runs"][0]["stages"][0]["accuracy"] == 471 / 480


def test_one_stage_alone_makes_a_report(tmp_path):
    entry = make_run(tmp_path, full=False)
    entry["files"] = {"keras_accuracy": entry["files"]["keras_accuracy"]}
    html, _, data = report_of([entry], tmp_path)
    assert "Only one stage was measured." in html
    assert data["runs"][0]["comparisons"] == []


def test_a_history_without_curves_drops_the_section(tmp_path):
    entry = make_run(tmp_path)
    Path(entry["files"]["history"]).write_text("epoch\n1\n")
    assert "Training</h3>" not in report_of([entry], tmp_path)[0]


@pytest.mark.fault("results", "stages measured on different images", "refused")
def test_stages_on_other_images_are_refused(tmp_path):
    entry, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=5)
    record = read_json(other["files"]["board_accuracy"])
    write_json(other["files"]["board_accuracy"], {**record, "labels_sha256": "0" * 64})
    entry["files"]["board_accuracy"] = other["files"]["board_accuracy"]
    with pytest.raises(UserError, match=r"keras_accuracy.json and .*board_accuracy.json were not measured"):
        load_run(entry)


@pytest.mark.fault("results", "dataset.h5 with other labels than the records", "refused")
def test_a_dataset_with_other_labels_is_refused(tmp_path):
    entry = make_run(tmp_path / "a")
    other = make_run(tmp_path / "b")
    for stage in ("keras", "frozen", "quantized", "board"):
        record = read_json(other["files"][f"{stage}_accuracy"])
        write_json(other["files"][f"{stage}_accuracy"], {**record, "labels_sha256": "0" * 64})
    other["files"]["dataset"] = entry["files"]["dataset"]
    with pytest.raises(
        UserError, match=r"dataset.h5: the labels of split 'test' are not those that stage 'keras'"
    ):
        load_run(other)


def test_mistaken_entries_name_the_key(tmp_path):
    entry = make_run(tmp_path, full=False)
    with pytest.raises(UserError, match="unknown file key 'keras_acuracy', expected one of dataset"):
        load_run({**entry, "files": {**entry["files"], "keras_acuracy": "x"}})
    with pytest.raises(UserError, match="names no accuracy record"):
        load_run({"model": "m", "files": {}})
    with pytest.raises(UserError, match="no runs"):
        write_report([], "a", "b", "c", {})
    with pytest.raises(UserError, match=r"gone.h5: no such file"):
        load_run({**entry, "files": {**entry["files"], "dataset": str(tmp_path / "gone.h5")}})


def test_class_names_are_escaped(tmp_path):
    entry = make_run(tmp_path, model="<script>alert(1)</script>", full=False)
    html, _, _ = report_of([entry], tmp_path)
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html


def test_training_images_in_the_test_split_raise_a_warning(tmp_path):
    entry = make_run(tmp_path, full=False)
    assert "are also test images" not in report_of([entry], tmp_path)[0]
    with h5py.File(entry["files"]["dataset"], "r+") as file:
        file.attrs["train_images_in_test"] = 31
    seal(entry["files"]["dataset"])
    assert "31 training images of toy are also test images" in report_of([entry], tmp_path)[0]


def test_a_stage_that_guesses_raises_its_warning_once(tmp_path):
    entry = make_run(tmp_path, full=False)
    for stage in ("keras", "frozen"):
        path = entry["files"][f"{stage}_accuracy"]
        write_json(path, read_json(path) | {"warning": f"{stage}: hardly better than guessing"})
    html = report_of([entry, entry], tmp_path)[0]
    assert html.count("keras: hardly better than guessing") == 1 and "frozen: hardly" not in html


def test_letters_k_to_y_are_not_shifted(tmp_path):
    # label 10 is K although J (9) never occurs
    run = load_run(make_run(tmp_path, full=False))
    assert run.class_names == LETTERS
    assert run_results(run)["stages"][0]["images"] == 480
    from dpuflow.report.details import classes

    names = [row["name"] for row in classes(run)]
    assert names == [letter for letter in LETTERS if letter != "J"]


def test_summary_for_the_terminal(toy_report):
    text = summary(read_json(toy_report / "accuracy.json"), "results/report/accuracy.html")
    lines = text.splitlines()
    assert lines[0] == "signnet on toy (reference / zcu104 / emulator)"
    assert re.search(r"Quantized +97\.50 % +95\.68–98\.56 % +468 of 480 +3 answers differ from Keras", text)
    assert re.search(r"Frozen .* answers as Keras", text)
    assert lines[-1] == "report: results/report/accuracy.html"
    assert max(map(len, lines)) <= 100


ODD = [None, 3, "x", [], {}, [1], ["x"], [{"a": 1}], {"a": {"b": [1]}}, {"layers": 3}]


@pytest.mark.fault("results", "odd value in a record: {id}", "refused")
@pytest.mark.parametrize("key", ["quantization", "compile", "freeze", "gate", "board_accuracy"])
def test_a_record_with_an_odd_value_is_refused_by_file_and_key(tmp_path, key):
    entry = make_run(tmp_path, full=key != "board_accuracy")
    entry["files"].setdefault("gate", str(tmp_path / "gate.json"))
    write_json(tmp_path / "gate.json", {"passed": True, "stages": [], "gates": []})
    path = Path(entry["files"][key])
    whole = read_json(path)
    load_run(entry)
    for part, value in whole.items():
        for odd in ODD:
            # of its own type a value may be right; test_schemas.py looks closer
            if type(odd) is type(value) or (isinstance(value, float) and odd == 3):
                continue
            if part == "board" and odd is None:  # a target without one
                continue
            write_json(path, {**whole, part: odd})
            with pytest.raises(UserError, match=rf"{path.name}: (top level: )?.*{part}"):
                load_run(entry)
    for part in whole:
        write_json(path, {name: value for name, value in whole.items() if name != part})
        if part == "diagnosis":  # may be switched off
            load_run(entry)
            continue
        with pytest.raises(UserError, match=rf"{path.name}: .*{part}|{path.name}: .* does not belong here"):
            load_run(entry)
    write_json(path, [])
    with pytest.raises(UserError, match=rf"{path.name}: top level: \[\] is not of type 'object'"):
        load_run(entry)


def test_one_failed_job_that_costs_several_runs_is_told_once(tmp_path):
    entry = make_run(tmp_path)
    ids = {"dataset": "photos", "quantizer": "reference", "runner": "emulator"}
    failures = [
        {"model": model, "target": target, "rule": rule, "message": message} | ids
        for model, target, rule, message in (
            ("bad", "kv260", "import_onnx", "bad.onnx: node 'x' cannot be read"),
            ("bad", "zcu104", "import_onnx", "bad.onnx: node 'x' cannot be read"),
            ("good", "zcu104", "run_ssh", "no board"),
        )
    ]
    text = write_partial_report([entry], failures, tmp_path / "out", provenance())
    assert [line for line in text.splitlines() if line.startswith("failed: ")] == [
        "failed: bad on photos (reference / kv260 / emulator, reference / zcu104 / emulator), import_onnx: "
        "bad.onnx: node 'x' cannot be read",
        "failed: good on photos (reference / zcu104 / emulator), run_ssh: no board",
    ]
    html = (tmp_path / "out/accuracy.html").read_text()
    assert html.count("cannot be read") == 1 and "<td>as above</td>" in html and "no board" in html
