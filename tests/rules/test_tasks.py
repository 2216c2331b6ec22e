"""A detector and a segmentation, trained here and carried to the emulated board by configuration alone."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from workflow_copy import TINY

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.task import detection
from dpuflow.task.tasks import read_stage

pytestmark = pytest.mark.rules
SIDE, TRAIN, TEST = 32, 24, 8
NORM = {"batch_norm": "before_activation", "activation": "relu"}
INPUT = {"subtract": 128, "divide": 128}
TRAINING = {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 8}
IMAGE = {"height": SIDE, "width": SIDE, "channels": 3}
CONFIG = TINY | {
    "datasets": TINY["datasets"]
    | {
        "balls": {
            "task": "detection",
            "source": {"kind": "pictures", "folder": "balls"},
            "annotations": {"format": "yolo"},
            "class_names": ["ball", "bar"],
            "image": IMAGE,
        },
        "shapes": {
            "task": "segmentation",
            "source": {"kind": "pictures", "folder": "shapes"},
            "annotations": {"format": "masks"},
            "class_names": ["ground", "ball", "bar"],
            "image": IMAGE,
        },
    },
    "models": {
        "yolo": {
            "input": INPUT,
            "layers": [
                {"conv": {"filters": 16, "stride": 2, **NORM}},
                {"conv": {"filters": 32, "stride": 2, **NORM}},
                {"conv": {"filters": 32, **NORM}},
                {"head": {"anchors": 2}},
            ],
            "training": TRAINING | {"epochs": 12},
        },
        "unet": {
            "input": INPUT,
            "layers": [
                {"conv": {"filters": 12, **NORM}},
                {
                    "concat": {
                        "branches": [
                            [],
                            [{"max_pool": 2}, {"conv": {"filters": 16, **NORM}}, {"upsample": 2}],
                        ]
                    }
                },
                {"conv": {"filters": 12, **NORM}},
            ],
            "training": TRAINING | {"epochs": 8},
        },
    },
    "gates": [{"from_stage": "quantized", "to_stage": "board", "max_drop": 0, "min_agreement": 1}],
    "runs": [
        {"dataset": data, "model": model, "quantizer": "reference", "target": "zcu104", "runner": "emulator"}
        for data, model in (("balls", "yolo"), ("shapes", "unet"))
    ],
}
STAGES = ("keras_accuracy.json", "frozen_accuracy.json", "reference/quantized_accuracy.json")


def drawn(seed):
    """(picture, mask, lines of YOLO): a red ball and a blue bar on noise."""
    g = np.random.default_rng(seed)
    picture = Image.fromarray(g.integers(60, 120, (SIDE, SIDE, 3), np.uint8))
    mask, lines = Image.new("L", (SIDE, SIDE)), []
    left = bool(g.integers(2))
    for kind, (width, height), colour in ((0, (10, 10), "#e03020"), (1, (6, 14), "#2040e0")):
        x = int(g.integers(0, SIDE // 2 - width + 1)) + (SIDE // 2 if (kind == 0) == left else 0)
        y = int(g.integers(0, SIDE - height + 1))
        place = (x, y, x + width - 1, y + height - 1)
        for image, fill in ((picture, colour), (mask, kind + 1)):
            brush = ImageDraw.Draw(image)
            (brush.ellipse if kind == 0 else brush.rectangle)(place, fill=fill)
        shares = (x + width / 2, y + height / 2, width, height)
        lines.append(" ".join(map(str, (kind, *(value / SIDE for value in shares)))))
    return picture, mask, "\n".join(lines)


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def draw_sets(flow):
    for number in range(TRAIN + TEST):
        part = "train" if number < TRAIN else "test"
        picture, mask, text = drawn(number)
        for path, content in (
            (f"balls/{part}/images/{number}.png", png(picture)),
            (f"balls/{part}/labels/{number}.txt", text.encode()),
            (f"shapes/{part}/images/{number}.png", png(picture)),
            (f"shapes/{part}/masks/{number}.png", png(mask)),
        ):
            flow.path(path).parent.mkdir(parents=True, exist_ok=True)
            flow.path(path).write_bytes(content)


def test_boxes_and_masks_from_pictures_to_the_emulated_board(fresh):
    draw_sets(fresh)
    training = TRAINING | {"epochs": 1, "learning_rate": 1e-4}
    further = {"starts_from": "yolo", "qat": True, "training": training}
    models = CONFIG["models"] | {"further": further}
    runs = [*CONFIG["runs"], CONFIG["runs"][0] | {"model": "further"}]
    text = fresh.run("all", config=CONFIG | {"models": models, "runs": runs}).stdout
    gain = json.loads(fresh.path("results/balls/further/finetune.json").read_text())
    assert gain["what"] == "INT8 in the forward pass"
    assert gain["before"].keys() == {"loss"} and gain["before"] != gain["after"]
    sets = (("balls/yolo", "map50", 0.5), ("shapes/unet", "miou", 0.7), ("balls/further", "map50", 0.5))
    for folder, key, least in sets:
        paths = [*STAGES, "reference/zcu104/emulator/board_accuracy.json"]
        keras, frozen, quantized, board = (read_stage(fresh.path(f"results/{folder}/{p}")) for p in paths)
        assert keras[key] > least and frozen[key] == pytest.approx(keras[key], abs=1e-6)
        assert quantized[key] > keras[key] - 0.05 and board[key] == quantized[key]
        # every value of every output, to the last bit
        assert {entry["equal"] for entry in board["outputs_with_quantized"].values()} == {TEST}
        assert board["answers"] == quantized["answers"]
        diagnosis = json.loads(fresh.path(f"results/{folder}/reference/quantization.json").read_text())[
            "diagnosis"
        ]
        assert diagnosis["measure"] == {"map50": "mAP@0.5", "miou": "mIoU"}[key]
        assert all("accuracy_change" in layer["alone"] for layer in diagnosis["layers"])
        gate = json.loads(fresh.path(f"results/{folder}/reference/zcu104/emulator/gate.json").read_text())
        assert gate["passed"] and gate["gates"][0]["drop"] == 0
    assert "mAP@0.5" in text and "mIoU" in text
    data = read_dataset(fresh.path("results/balls/dataset.h5"))
    again = detection.measured(
        data, "test", detection.answers_of(read_stage(fresh.path(f"results/balls/yolo/{STAGES[0]}")))
    )
    assert again.half == read_stage(fresh.path(f"results/balls/yolo/{STAGES[0]}"))["map50"]
    page = fresh.path("results/report/test/accuracy.html").read_text()
    assert "Average precision per class" in page and "Intersection over union per class" in page
    predicted = fresh.run("predict", "--config", "images=balls/test/images", config=CONFIG).stdout
    assert "ball" in predicted
    rows = fresh.path("results/predict/balls/yolo/reference/zcu104/predictions.csv").read_text()
    assert rows.startswith("image,class,score,x1,y1,x2,y2\n") and rows.count("\n") > TEST
    board = CONFIG["runs"][0] | {"runner": "virtual_board"}
    fresh.run("diagnose", config=CONFIG | {"runs": [board]})
    deviation = fresh.path("results/balls/yolo/reference/zcu104/virtual_board/deviation.json")
    stages = json.loads(deviation.read_text())["stages"]
    assert len(stages) > 2 and all(stage["first"] is None for stage in stages)
