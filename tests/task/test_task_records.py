"""Records of detection and segmentation: made, written, read, compared, judged by gates, shown."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))

from annotated_pictures import ENTRY, mask, pack, pictures, png, voc
from PIL import Image

from dpuflow.accuracy.gate import evaluate, table
from dpuflow.base.errors import UserError
from dpuflow.base.files import read_json
from dpuflow.command.compare import compared, words
from dpuflow.datasets.annotated_dataset import build_annotated_dataset
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.datasets.picture_files import read_pictures
from dpuflow.network import Layer, Network
from dpuflow.predict.found import FINDERS, found_page
from dpuflow.records import write_record
from dpuflow.report.accuracy import write_report
from dpuflow.report.summary import summary
from dpuflow.report.sweep import write_sweep
from dpuflow.task import detection, segmentation
from dpuflow.task.judging import judge_of
from dpuflow.task.measuring import schema_of, stage_record, with_quantized
from dpuflow.task.tasks import read_stage
from dpuflow.workflow.board_runs import JUDGED

BOX, OTHER = (8, 4, 24, 20), (40, 8, 60, 28)
DECODE = {"kind": "none", "form": "corners", "max_boxes": 10}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """A data set of 64 x 32 pictures in 32 x 32: a cat in each, a dog in those for the test."""
    folder = tmp_path_factory.mktemp("boxes")
    files = pictures("{part}/images/")
    for name in list(files):
        objects = [("cat", BOX, False), *([("dog", OTHER, False)] if "test" in name else [])]
        files[name.replace("images", "labels").replace("png", "xml")] = voc(objects)
    source = pack(folder / "set.zip", files)
    build_annotated_dataset(folder / "d.h5", ENTRY | {"source": source, "annotations": {"format": "voc"}})
    return read_dataset(folder / "d.h5")


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A data set of masks: class 1 in the left half."""
    folder = tmp_path_factory.mktemp("masks")
    drawn = np.zeros((32, 64), np.uint8)
    drawn[:, :32] = 1
    files = pictures("{part}/images/")
    files |= {name.replace("images", "masks"): mask(drawn) for name in files}
    entry = ENTRY | {
        "task": "segmentation",
        "annotations": {"format": "masks"},
        "class_names": ["ground", "hand"],
    }
    build_annotated_dataset(folder / "d.h5", entry | {"source": pack(folder / "set.zip", files)})
    return read_dataset(folder / "d.h5")


class FoundBoxes:
    """A stage that gives the boxes [x1, y1, x2, y2, cat, dog] (rows) for each picture."""

    def __init__(self, *rows):
        self.rows = np.array(rows, np.float32).reshape(-1, 6)

    @property
    def shapes(self):
        return {"output": self.rows.shape}

    def __call__(self, images):
        return {"output": np.repeat(self.rows[None], len(images), axis=0)}


class Halves:
    """A stage that says class 1 left of a column, in maps of half the size."""

    def __init__(self, column=8):
        self.column, self.shapes = column, {"logits": (16, 16, 2)}

    def __call__(self, images):
        scores = np.zeros((len(images), 16, 16, 2), np.float32)
        scores[..., 0] = 0.5
        scores[:, :, : self.column, 1] = 1
        return {"logits": scores}


# in the prepared picture the cat is at (4, 10, 12, 18), the dog at (20, 12, 30, 22)
CAT, DOG = (4, 10, 12, 18, 0.9, 0), (20, 12, 30, 22, 0, 0.8)


def of_boxes(data, *rows, stage="keras"):
    return stage_record(stage, FoundBoxes(*rows), data, {"answer": "none", "decode": DECODE})


def on_board(record, quantized):
    return (
        record
        | {"runner": "emulator", "origin": "emulated", "how": "emulated"}
        | with_quantized(record, quantized)
    )


def test_outputs_that_are_none_of_the_task_are_said_before_quantization(boxes, masked):
    layers = [Layer("input", "input", [], (32, 32, 3)), Layer("head", "conv", ["input"], (8, 8, 24))]
    network = Network("mine-s3", layers)
    anchored = {"kind": "yolov5", "anchors": [[[4, 4], [8, 8], [9, 9]]]}
    with pytest.raises(UserError, match=r"models\.mine\.decode\.anchors: output has 24 channels; .* = 21"):
        judge_of(boxes, "validation", network, anchored)
    with pytest.raises(UserError, match=r"models\.mine: task segmentation needs one output \(height"):
        judge_of(masked, "validation", network, {})


def test_a_detector_s_record(boxes, tmp_path):
    record = of_boxes(boxes, CAT, DOG)
    assert record["map50"] == pytest.approx(1) and record["map"] == pytest.approx(1)
    assert [(c["class"], c["objects"]) for c in record["per_class"]] == [("cat", 2), ("dog", 2)]
    half = of_boxes(boxes, CAT)
    assert half["map50"] == pytest.approx(0.5) and half["per_class"][1]["ap50"] == 0
    shifted = of_boxes(boxes, (6, 10, 14, 18, 0.9, 0), DOG)  # an overlap of 0.6 with the cat
    assert shifted["map50"] == pytest.approx(1) and shifted["map"] == pytest.approx((1 + 0.3) / 2)
    write_record(tmp_path / "a.json", schema_of(record), record)
    assert read_stage(tmp_path / "a.json") == read_json(tmp_path / "a.json")
    assert detection.line(record).startswith("keras: mAP@0.5 1.0000 (95 % interval")
    text = detection.predictions(boxes, record).splitlines()
    assert text[0] == "image,class,score,x1,y1,x2,y2" and len(text) == 5
    assert text[1] == "0,cat,0.899999976,8,4,24,20"  # in pixels of the picture as it was


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("map50", 0.75, "map50 0.75 is not the mean of the classes' ap50"),
        ("images", 7, "answers for 2 pictures, but images says 7"),
        ("task", "guessing", "task 'guessing', expected one of classification, detection, segmentation"),
        (
            "answers",
            [{"boxes": [[0, 0, 1, 1]], "scores": [0.5], "classes": [9]}] * 2,
            "outside the 2 classes",
        ),
        (
            "answers",
            [{"boxes": [[0, 0, 1, "x"]], "scores": [0.5], "classes": [0]}] * 2,
            "do not fit each other",
        ),
        ("answers", [{"boxes": [[0, 0, 1]], "scores": [0.5], "classes": [0]}] * 2, "do not fit each other"),
        ("answers", [{"boxes": [], "scores": [0.5], "classes": [0]}] * 2, "do not fit each other"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(boxes, tmp_path, key, value, message):
    record = of_boxes(boxes, CAT, DOG)
    write_record(tmp_path / "a.json", schema_of(record), record)
    (tmp_path / "a.json").write_text(__import__("json").dumps(record | {key: value}))
    with pytest.raises(UserError, match=message):
        read_stage(tmp_path / "a.json")


def test_what_a_board_changed(boxes):
    quantized = of_boxes(boxes, CAT, DOG, stage="quantized")
    same = with_quantized(of_boxes(boxes, CAT, DOG, stage="board"), quantized)
    assert same["agreement_with_quantized"]["identical"] == 2
    assert same["outputs_with_quantized"]["output"]["equal"] == 2
    other = with_quantized(of_boxes(boxes, CAT, (20, 12, 30, 22, 0, 0.2), stage="board"), quantized)
    assert {k: other["agreement_with_quantized"][k] for k in ("kept", "lost", "gained", "equal")} == {
        "kept": 2,
        "lost": 2,  # the dogs, which are too weak to be shown
        "gained": 0,
        "equal": 0,
    }
    assert other["outputs_with_quantized"]["output"]["equal"] == 0
    change = detection.change(boxes, quantized, of_boxes(boxes, CAT, stage="board"))
    assert change["change"] == pytest.approx(-0.5) and change["lost"] == 2


def test_without_decode_there_are_no_boxes(boxes):
    with pytest.raises(UserError, match=r"task detection needs models.NAME.decode"):
        stage_record("keras", FoundBoxes(CAT), boxes, {"answer": "none", "decode": {}}, where="net.h5")


def test_a_gate_in_points_of_map(boxes):
    records = {"keras": of_boxes(boxes, CAT, DOG), "board": of_boxes(boxes, CAT, stage="board")}
    limits = [{"from_stage": "keras", "to_stage": "board", "max_drop": 1.0, "min_agreement": 0.5}]
    result = evaluate(records, limits, None, detection)
    assert not result["passed"] and result["gates"][0]["drop"] == pytest.approx(50)
    assert result["gates"][0]["reasons"] == ["mAP@0.5 fell by 50.000 points, allowed 1"]
    assert result["gates"][0]["agreement"] == pytest.approx(4 / 6)
    assert "mAP@0.5" in table(result).splitlines()[0]
    limits[0]["max_drop"] = 50
    assert evaluate(records, limits, None, detection)["passed"]


def test_a_segmentation_s_record(masked, tmp_path):
    told = {"answer": "none", "decode": {}}
    right = stage_record("keras", Halves(), masked, told)
    assert right["miou"] == 1.0 and right["pixel_accuracy"] == 1.0
    # one of 16 columns of the maps, so 32 of the picture's 512 pixels, is taken for ground
    named = told | {"decode": {"kind": "none", "outputs": [["logits"]]}}
    wrong = stage_record("board", Halves(7), masked, named)
    assert wrong["pixel_accuracy"] == pytest.approx(1 - 1 / 16)
    assert wrong["miou"] == pytest.approx((7 / 8 + 8 / 9) / 2)
    assert wrong["confusion"] == [[512, 0], [64, 448]]
    write_record(tmp_path / "a.json", schema_of(wrong), on_board(wrong, right))
    again = read_stage(tmp_path / "a.json")
    assert again["agreement_with_quantized"]["changed"] == 128  # bars count: 2 pictures x 32 x 2
    np.testing.assert_array_equal(segmentation.answers_of(again)[0][:, 14], 0)
    change = segmentation.change(masked, right, wrong)
    assert change["change"] == pytest.approx(wrong["miou"] - 1) and change["lost"] == 64
    assert segmentation.predictions(masked, wrong).splitlines()[1] == "0,0.9375,576,448"
    broken = again | {"miou": 0.5}
    (tmp_path / "a.json").write_text(__import__("json").dumps(broken))
    with pytest.raises(UserError, match=r"miou 0\.5 is not that of its confusion"):
        read_stage(tmp_path / "a.json")


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_the_report_shows_every_stage(boxes, masked, task, tmp_path):
    data = boxes if task == "detection" else masked
    files = {"dataset": data.path}
    for stage in ("keras", "frozen", "quantized", "board"):
        late = stage in ("quantized", "board")
        if task == "detection":
            record = of_boxes(data, CAT, (20, 12, 30, 22, 0, 0) if late else DOG, stage=stage)
        else:
            record = stage_record(stage, Halves(7 if late else 8), data, {"decode": {}})
        record = on_board(record, record | {"stage": "quantized"}) if stage == "board" else record
        files[f"{stage}_accuracy"] = tmp_path / f"{stage}.json"
        write_record(files[f"{stage}_accuracy"], schema_of(record), record)
    about = {"commit": None, "versions": {"dpuflow": "1"}, "commands": [], "config": None}
    entry = {"dataset": "d", "model": "tiny", "runner": "emulator", "files": files}
    paths = [tmp_path / f"a.{end}" for end in ("html", "md", "json")]
    content = write_report([entry], *paths, about)
    stages = content["runs"][0]["stages"]
    measure, first, last = (
        ("mAP@0.5", 1.0, 0.5) if task == "detection" else ("mIoU", 1.0, (7 / 8 + 8 / 9) / 2)
    )
    assert [s["measure"] for s in stages] == [measure] * 4
    assert stages[0]["accuracy"] == pytest.approx(first) and stages[3]["accuracy"] == pytest.approx(last)
    assert content["runs"][0]["comparisons"][-1]["lost"] == (2 if task == "detection" else 64)
    assert f"{measure}" in summary(content, "x") and "2 pictures differ from Keras" in summary(content, "x")
    write_sweep([entry, entry | {"model": "other"}], tmp_path / "s.html", tmp_path / "s.json")
    ranked = read_json(tmp_path / "s.json")["datasets"][0]["runs"]
    assert [row["accuracy"] for row in ranked] == [stages[3]["accuracy"]] * 2
    assert ranked[0]["correct"] is None and ranked[0]["interval95"] == stages[3]["interval95"]
    page = paths[0].read_text()
    if task == "detection":
        assert page.count('class="boxes truth"') == 2 and page.count('class="boxes fourth"') == 2
        assert "cat 0.90" in page and "image 0: 2 objects; 1 box changed" in page
    else:
        assert page.count('alt="truth"') == 2 and "32 pixels changed" not in page
        assert "64 pixels changed" in page and "93.75" in page
    assert ">nan" not in page


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_two_runs_can_be_compared_picture_by_picture(boxes, masked, task, tmp_path):
    """The page's script gets what each picture's answer is worth, of the last stage of each run."""
    data, entries = (boxes if task == "detection" else masked), []
    for name, found, columns in (("good", (CAT, DOG), 8), ("poor", (CAT, (40, 40, 44, 44, 0.8, 0)), 7)):
        if task == "detection":
            record = of_boxes(data, *found, stage="quantized")
        else:
            record = stage_record("quantized", Halves(columns), data, {"decode": {}})
        path = tmp_path / f"{name}.json"
        write_record(path, schema_of(record), record)
        files = {"dataset": data.path, "quantized_accuracy": path}
        entries.append({"dataset": "d", "model": name, "files": files})
    about = {"commit": None, "versions": {"dpuflow": "1"}, "commands": [], "config": None}
    write_report(entries, tmp_path / "a.html", tmp_path / "a.md", tmp_path / "a.json", about)
    page = (tmp_path / "a.html").read_text()
    found = json.loads(re.search(r'id="answers">(.*?)</script>', page, re.DOTALL)[1])
    assert found["data"] == [{"name": "d, test split", "task": task}]
    content = compared(tmp_path / "good.json", tmp_path / "poor.json", data.path)
    text = words(content)
    if task == "detection":  # of two pictures each loses its dog and gains a box of nothing
        assert (content["lost"], content["gained"], content["equal"]) == (2, 2, 0)
        assert "A: " in text and "mAP@0.5 100.00%" in text and "boxes lost 2, gained 2" in text
    else:
        assert (content["lost"], content["gained"]) == (64, 0)
        assert content["change"] == pytest.approx((7 / 8 + 8 / 9) / 2 - 1)
        assert "equal answers: 0 of 2 of the test split" in text and "pixels lost 64, gained 0" in text
    facts = {row["name"].split(" (")[0]: row["facts"] for row in found["runs"]}
    expected = {"good": [[0, 0]] * 2, "poor": [[1, 1]] * 2}
    assert facts == (expected if task == "detection" else {"good": [[1.0]] * 2, "poor": [[0.9375]] * 2})


def test_own_pictures_with_boxes_and_masks(boxes, masked, tmp_path):
    (tmp_path / "a.png").write_bytes(png(seed=5))
    (tmp_path / "b.png").write_bytes(png(size=(32, 64), seed=6))  # upright: 16 x 32 in the middle
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    read, _ = read_pictures(paths, boxes.shape, False, boxes.resize)
    shots, names = list(read.values()), ["a.png", "b.png"]
    batch = np.stack([shot.pixels for shot in shots])
    finder = FINDERS["detection"](boxes, FoundBoxes(CAT, DOG).shapes, DECODE, "x")
    finder.add(FoundBoxes(CAT, DOG)(batch))
    rows = finder.csv(names, shots).splitlines()
    assert rows[1] == "a.png,cat,0.9,8,4,24,20" and rows[3] == "b.png,cat,0.9,0,20,8,36"
    assert finder.words(shots[0], 0) == ["1 × cat", "1 × dog"]
    page = found_page(names, shots, finder, boxes, {"model": "x"}, (), finder.threshold)
    assert page.count("cat 0.90") == 4 and "score of 0.3 or more" in page
    finder = FINDERS["segmentation"](masked, Halves().shapes, {}, "x")
    finder.add(Halves()(batch))
    assert finder.words(shots[0], 0) == ["ground 50.0%", "hand 50.0%"]
    page = found_page(names, shots, finder, masked, {"model": "x"})
    assert "hand 50.0%" in page and page.count("<article") == 2
    assert Image.open(tmp_path / "a.png").size == (64, 32)


def test_masks_of_a_board_with_other_classes_are_refused(masked, tmp_path):
    found = np.zeros((len(masked.splits["test"]), *masked.shape[:2]), np.uint8)
    np.save(tmp_path / "masks.npy", found)
    assert JUDGED["segmentation"](tmp_path, {}, masked)["confusion"] == [[512, 0], [512, 0]]
    found[-1, 0, 0] = 2
    np.save(tmp_path / "masks.npy", found)
    with pytest.raises(UserError, match=r"masks\.npy: classes beyond the 2 class names"):
        JUDGED["segmentation"](tmp_path, {}, masked)
