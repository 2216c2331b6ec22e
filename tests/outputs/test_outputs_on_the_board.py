"""Every output of a network on the virtual board, bit for bit the emulator's."""

import numpy as np
import pytest
from output_networks import SCALING, Maker, detector, images, two_outputs

from dpuflow.accuracy.outputs import OutputsSummary
from dpuflow.accuracy.stages import outputs_record
from dpuflow.base.errors import UserError
from dpuflow.board import bundle
from dpuflow.board.bundle import Bundle
from dpuflow.board.compare import board_record
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network import Network
from dpuflow.quantize.outputs import EngineStage
from dpuflow.quantize.reference import quantize
from dpuflow.records import write_record
from dpuflow.virtual_board.run import run

KV260 = get_target("kv260")
CLASSES = ["a", "b", "c", "d", "e"]


def compiled(network, path):
    quantized, _ = quantize(network, images(network, 4), {"fast_finetune": False}, SCALING)
    compile_native(quantized, KV260).graph.save(path)


def test_a_class_and_a_map_off_the_board(tmp_path):
    network, (model, tar) = two_outputs(), (tmp_path / "m.xmodel", tmp_path / "b.tar")
    compiled(network, model)
    pixels, labels = images(network, 24, seed=3)["image"], np.arange(24) % 5
    with pytest.raises(UserError, match=r"2 outputs: 'class' \[5\], 'mask' \[6, 5, 4\]; say with"):
        bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test")
    with pytest.raises(UserError, match=r"no output is called 'kind' .*; it has 'class' \[5\]"):
        bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test", answer="kind")
    bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test", answer="class")
    out = tmp_path / "out"
    run(tar, out, {"threads": 2, "runs": 1, "warmup": 0, "save": 10}, KV260, batch=4)
    record = board_record(out, tar, runner="virtual_board")
    assert record["images"] == 24
    assert record["agreement_with_emulator"]["different_outputs"] == 0
    emulator = Emulator(model, threads=1)
    expected = emulator.run(emulator.quantize_input(pixels[:10]))
    assert_every_output_is_the_emulators(record, {"class": [5], "mask": [6, 5, 4]}, 24)
    told = Bundle.open(tar).meta["outputs"]
    with np.load(out / "outputs.npz") as found:
        assert sorted(found) == ["class", "mask"]
        for name in found:
            assert found[name].dtype == np.float32 and found[name].shape[1:] == tuple(told[name]["shape"])
            np.testing.assert_array_equal(found[name], expected[told[name]["value"]])
    assert len(np.unique(expected[told["mask"]["value"]])) > 50


def assert_every_output_is_the_emulators(record, shapes, count):
    assert {name: output["shape"] for name, output in record["outputs"].items()} == shapes
    assert record["unstable_images"] == []
    for name, found in record["outputs_with_emulator"].items():
        same = {"images": count, "equal": count, "max_difference": 0.0, "relative_error": 0.0}
        assert found == same, name
        assert len(set(record["outputs"][name]["digests"])) > count // 2


def test_without_a_class_every_output_comes_off_the_board(tmp_path):
    """Boxes, scores and classes of a detector, made on the CPU; compared with emulator and another stage."""
    model, tar, out = tmp_path / "m.xmodel", tmp_path / "b.tar", tmp_path / "out"
    network = detector()
    quantized, _ = quantize(network, images(network, 4), {"fast_finetune": False}, SCALING)
    compile_native(quantized, KV260).graph.save(model)
    pixels, labels = images(network, 11, seed=3)["image"], np.arange(11) % 5
    bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test", answer="none")
    meta = Bundle.open(tar).meta
    assert "output" not in meta and list(meta["outputs"]) == ["boxes", "scores", "classes"]
    engine = EngineStage(quantized)
    summary = OutputsSummary(engine.shapes, 11)
    summary.add(engine(pixels))
    stage = outputs_record("quantized", "test", labels, summary.record())
    run(tar, out, {"threads": 2, "runs": 2, "warmup": 0, "limit": 9}, KV260, batch=2)
    record = board_record(out, tar, quantized=stage, runner="virtual_board")
    assert "accuracy" not in record and record["images"] == 9
    write_record(tmp_path / "r.json", "accuracy.schema.yaml", record)
    assert_every_output_is_the_emulators(record, {"boxes": [4, 84], "scores": [84, 3], "classes": [84]}, 9)
    assert all(found["relative_error"] < 1e-6 for found in record["outputs_with_quantized"].values())
    rows = (out / "predictions.csv").read_text().splitlines()
    assert rows[0] == "index,label,label_name,sha256 of boxes,sha256 of scores,sha256 of classes"
    assert rows[3].split(",")[:3] == ["2", "2", "c"]
    assert rows[3].split(",")[3] == record["outputs"]["boxes"]["digests"][2]


def test_a_detector_has_no_class_of_the_image(tmp_path):
    compiled(detector(), tmp_path / "m.xmodel")
    pixels = images(detector(), 4)["image"]
    for answer in ("boxes", "scores", "classes"):
        with pytest.raises(UserError, match="makes the answers in floats"):
            bundle.build(tmp_path / "b.tar", tmp_path / "m.xmodel", pixels, np.zeros(4, int), CLASSES, KV260,
                         "test", answer=answer)  # fmt: skip


def test_a_sigmoid_for_each_class_changes_no_answer(tmp_path):
    m = Maker(7)
    logits = m.dense("logits", m.relu(m.conv("trunk", m.input("image", (6, 6, 1)), 6)), 5)
    m.add("shares", "sigmoid", [logits], (5,))
    network, (model, tar) = Network("shares", m.layers), (tmp_path / "m.xmodel", tmp_path / "b.tar")
    compiled(network, model)
    pixels, labels = images(network, 20, seed=3)["image"], np.arange(20) % 5
    bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test")
    run(tar, tmp_path / "out", {"runs": 1, "warmup": 0, "save": 20}, KV260)
    record = board_record(tmp_path / "out", tar, runner="virtual_board")
    assert record["agreement_with_emulator"]["different_outputs"] == 0
    emulator = Emulator(model, threads=1)
    assert emulator.outputs[0].type == "sigmoid"
    shares = emulator.run(emulator.quantize_input(pixels))
    with np.load(tmp_path / "out" / "outputs.npz") as found:
        np.testing.assert_array_equal(found["output"], shares)
    assert record["predictions"] == shares.argmax(axis=1).tolist() and len(set(record["predictions"])) > 1
