"""Every output of a network on the virtual board, bit for bit the emulator's."""

import numpy as np
import pytest
from output_networks import SCALING, Maker, detector, images, two_outputs

from dpuflow.base.errors import UserError
from dpuflow.board import bundle
from dpuflow.board.bundle import Bundle
from dpuflow.board.compare import board_record
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network import Network
from dpuflow.quantize.reference import quantize
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
    with pytest.raises(UserError, match=r"2 outputs .class, mask.; say which one is the class of an image"):
        bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test")
    with pytest.raises(UserError, match="no output is called 'kind'; it has class, mask"):
        bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test", answer="kind")
    bundle.build(tar, model, pixels, labels, CLASSES, KV260, "test", answer="class")
    out = tmp_path / "out"
    run(tar, out, {"threads": 2, "runs": 1, "warmup": 0, "save": 10}, KV260, batch=4)
    record = board_record(out, tar, runner="virtual_board")
    assert record["images"] == 24
    assert record["agreement_with_emulator"]["different_outputs"] == 0
    emulator = Emulator(model, threads=1)
    expected = emulator.run(emulator.quantize_input(pixels[:10]))
    told = Bundle.open(tar).meta["outputs"]
    with np.load(out / "outputs.npz") as found:
        assert sorted(found) == ["class", "mask"]
        for name in found:
            assert found[name].dtype == np.float32 and found[name].shape[1:] == tuple(told[name]["shape"])
            np.testing.assert_array_equal(found[name], expected[told[name]["value"]])
    assert len(np.unique(expected[told["mask"]["value"]])) > 50


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
