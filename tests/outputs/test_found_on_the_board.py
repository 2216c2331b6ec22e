"""Boxes and masks off the virtual board: those that dpuflow makes of the emulator's outputs, bit for bit."""

import csv

import numpy as np
import pytest
from output_networks import SCALING, Maker, images
from ssh_server import Server, make_keys, what_is_missing

from dpuflow.base.errors import UserError
from dpuflow.board import bundle, ssh
from dpuflow.board.bundle import Bundle
from dpuflow.board.compare import board_record
from dpuflow.board.found import read_boxes, read_masks
from dpuflow.decoding.anchors import settled
from dpuflow.decoding.decode import decode, to_original
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator.outputs import EmulatorStage
from dpuflow.network import Network
from dpuflow.quantize.reference import quantize
from dpuflow.records import read_record
from dpuflow.task.boxes import Answer, changes
from dpuflow.virtual_board.run import run

KV260, SIZE, COUNT = get_target("kv260"), (16, 24), 9
CLASSES = ["cell", "dot", "ring"]
GEOMETRY = np.array([[48, 30, 0, 0, 48, 30, 0, 1, 24, 16]] * COUNT, np.int32)


def two_heads():
    """Maps of strides 4 and 8 for two anchors and three classes each."""
    m = Maker(1)
    x = m.relu(m.conv("trunk", m.input("image", (*SIZE, 3)), 8, stride=4, kernel=4))
    large = m.conv("large", x, 2 * 8, kernel=1)
    small = m.conv("small", m.relu(m.conv("down", x, 8, stride=2)), 2 * 8, kernel=1)
    return Network("two_heads", m.layers, {"large": large, "small": small})


def one_map(channels=3):
    m = Maker(2)
    x = m.relu(m.conv("trunk", m.input("image", (*SIZE, 3)), 6, stride=2))
    return Network("one_map", m.layers, {"output": m.conv("logits", x, channels)})


def bundled(network, folder, **more):
    """(path of the model, of the bundle, test pictures)."""
    quantized, _ = quantize(network, images(network, 4), {"fast_finetune": False}, SCALING)
    compile_native(quantized, KV260).graph.save(folder / "m.xmodel")
    pixels = images(network, COUNT, seed=3)["image"]
    bundle.build(folder / "b.tar", folder / "m.xmodel", pixels, None, CLASSES, KV260, "test", **more)
    return folder / "m.xmodel", folder / "b.tar", pixels


def answers(model, pixels):
    with EmulatorStage(model, threads=1) as stage:
        return stage(pixels)


@pytest.fixture(scope="module")
def boxes_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    told = {"kind": "yolov5", "anchors": [[[5, 4], [9, 9]], [[12, 9], [20, 14]]], "score_threshold": 0.2}
    shapes = {"large": (4, 6, 16), "small": (2, 3, 16)}
    told = settled(told, 3, shapes, SIZE, np.zeros((0, 4)))
    task = {"name": "detection", "decode": told}
    model, tar, pixels = bundled(two_heads(), folder, task=task, geometry=GEOMETRY)
    run(tar, folder / "out", {"threads": 2, "runs": 1, "warmup": 0}, KV260, batch=2)
    return folder, model, tar, pixels, told


def test_boxes_off_the_board_are_those_of_the_emulators_maps(boxes_run):
    folder, model, _, pixels, told = boxes_run
    expected = decode(told, answers(model, pixels), SIZE)
    found = read_boxes(folder / "out", COUNT)
    assert sum(len(scores) for _, scores, _ in expected) > 3 * COUNT
    for one, other in zip(found, expected, strict=True):
        assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    with open(folder / "out/predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    flat = [
        (str(n), CLASSES[kind], score, *to_original(box[None], GEOMETRY[n])[0])
        for n, picture in enumerate(expected) for box, score, kind in zip(*picture, strict=True)
    ]  # fmt: skip
    assert [(row["image"], row["class"]) for row in rows] == [each[:2] for each in flat]
    figures = [[float(row[key]) for key in ("score", "x1", "y1", "x2", "y2")] for row in rows]
    np.testing.assert_allclose(figures, [each[2:] for each in flat], rtol=1e-7)
    assert np.max(figures, axis=0)[3] == 48 and np.max(figures, axis=0)[4] == 30  # in the original's pixels


def test_every_map_is_the_emulators_and_post_processing_is_timed(boxes_run):
    folder, _, tar, _, told = boxes_run
    record = board_record(folder / "out", tar, runner="virtual_board")
    assert record["images"] == COUNT and record["origin"] == "emulated" and "accuracy" not in record
    same = {"images": COUNT, "equal": COUNT, "max_difference": 0.0, "relative_error": 0.0}
    assert record["outputs_with_emulator"] == {"large": same, "small": same}
    timing = read_record(folder / "out/board.json", "board.schema.yaml")["timing"]
    assert timing["post_processing"]["images_per_second"] > 0
    assert timing["post_processing"]["latency_ms"]["p50"] > 0 and timing["images_per_second"]["median"] > 0
    meta = Bundle.open(tar).meta
    assert meta["task"]["decode"] == told and "labels" not in meta["images"]
    assert Bundle.open(tar).files["decode.py"] == (bundle.application.DECODE).read_bytes()


@pytest.mark.slow
def test_boxes_over_ssh_are_those_of_the_virtual_board(boxes_run, tmp_path):
    if missing := what_is_missing():
        pytest.skip(missing)
    folder, _, tar, _, _ = boxes_run
    server = Server(tmp_path, make_keys(tmp_path))
    try:
        ssh.run(tar, [server.board()], tmp_path / "out", options={"runs": 1, "warmup": 0})
    finally:
        server.stop()
    here, there = (read_boxes(path / "out", COUNT) for path in (folder, tmp_path))
    differing = changes([Answer(*one) for one in here], [Answer(*one) for one in there], shown=0.2)
    assert differing["identical"] == COUNT and differing["boxes"] > 3 * COUNT
    assert differing["lost"] == differing["gained"] == 0
    written = [(path / "out/predictions.csv").read_bytes() for path in (folder, tmp_path)]
    assert written[0] == written[1]
    record = board_record(tmp_path / "out", tar, runner="ssh")
    assert {entry["equal"] for entry in record["outputs_with_emulator"].values()} == {COUNT}


def test_masks_off_the_board_are_the_best_classes_of_the_emulators_map(tmp_path):
    task = {"name": "segmentation", "output": "output"}
    model, tar, pixels = bundled(one_map(), tmp_path, task=task)
    run(tar, tmp_path / "out", {"threads": 2, "runs": 1, "warmup": 0}, KV260, batch=4)
    expected = answers(model, pixels)["output"].argmax(-1).repeat(2, axis=1).repeat(2, axis=2)
    found = read_masks(tmp_path / "out", (COUNT, *SIZE))
    assert np.array_equal(found, expected) and len(np.unique(found)) == 3
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == COUNT + 1


def test_one_channel_off_the_board_is_cut_where_the_bundle_says(tmp_path):
    task = {"name": "segmentation", "output": "output", "cut": 0.0}
    model, tar, pixels = bundled(one_map(1), tmp_path, task=task)
    run(tar, tmp_path / "out", {"threads": 2, "runs": 1, "warmup": 0}, KV260, batch=4)
    values = answers(model, pixels)["output"][..., 0]
    found = read_masks(tmp_path / "out", (COUNT, *SIZE))
    assert np.array_equal(found, (values > 0).repeat(2, axis=1).repeat(2, axis=2))
    assert found.min() == 0 and found.max() == 1


def test_an_output_that_the_cpu_makes_of_the_maps_is_judged_by_no_layer():
    """A sigmoid at the end: what the diagnosis compares lies in front of it, under another name."""

    class Judge:
        name = "mIoU"

        def of(self, pictures):
            raise AssertionError("asked")

    m = Maker(2)
    logits = m.conv("logits", m.relu(m.conv("trunk", m.input("image", (*SIZE, 3)), 6)), 1)
    network = Network("share", m.layers, {"output": m.add("end", "sigmoid", [logits], (*SIZE, 1))})
    pictures = images(network, 4)
    quantized, report = quantize(
        network, pictures, {"fast_finetune": False}, SCALING,
        validation=(pictures["image"], None), judge=Judge(),
    )  # fmt: skip
    assert quantized.network["end"].op == "float_sigmoid" and "measure" not in report["diagnosis"]
    assert [row["layer"] for row in report["diagnosis"]["layers"]]


@pytest.mark.fault("board", "boxes of another run ({id})", "refused")
@pytest.mark.parametrize("how", ["missing", "no array", "other pictures", "other types"])
def test_boxes_that_are_not_of_the_run_are_refused(tmp_path, how):
    parts = {
        "boxes": np.zeros((1, 4), np.float32), "scores": np.zeros(1, np.float32),
        "classes": np.zeros(1, np.int64), "offsets": np.array([0, 1]),
    }  # fmt: skip
    np.savez(tmp_path / "boxes.npz", **parts)
    assert len(read_boxes(tmp_path, 1)) == 1
    if how == "missing":
        (tmp_path / "boxes.npz").unlink()
    elif how == "no array":
        (tmp_path / "boxes.npz").write_bytes(b"PK\x03\x04 nothing")
    elif how == "other types":
        np.savez(tmp_path / "boxes.npz", **(parts | {"scores": np.zeros(1)}))
    with pytest.raises(UserError, match=r"boxes\.npz: not the boxes of this run"):
        read_boxes(tmp_path, 2 if how == "other pictures" else 1)
    np.save(tmp_path / "masks.npy", np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(UserError, match=r"masks\.npy: not the masks of this run"):
        read_masks(tmp_path, (2, 2, 2))


@pytest.mark.parametrize("key", ["boxes", "scores"])
def test_boxes_that_are_no_numbers_are_refused(tmp_path, key):
    parts = {"boxes": np.ones((2, 4), np.float32), "scores": np.ones(2, np.float32)}
    parts[key][1] = np.nan
    np.savez(tmp_path / "boxes.npz", **parts, classes=np.zeros(2, np.int64), offsets=np.array([0, 2]))
    with pytest.raises(UserError, match=r"boxes\.npz: .*a box or score that is no number"):
        read_boxes(tmp_path, 1)
