"""The comparison of a board with the emulator, on results that were tampered with."""

import json
import shutil

import numpy as np
import pytest
from small_model import CLASSES, small_images, small_network

from dpuflow.base.errors import UserError
from dpuflow.board import bundle
from dpuflow.board.compare import board_record, compare_outputs, read_board_predictions
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.virtual_board.run import run


@pytest.fixture(scope="module")
def honest(bundle_tar, tmp_path_factory):
    """Results of the virtual board with a dump of image 4."""
    out = tmp_path_factory.mktemp("honest")
    run(bundle_tar, out, {"runs": 1, "warmup": 0, "dump": 4}, get_target("kv260"))
    return out


@pytest.fixture
def results(honest, tmp_path):
    """A copy to change."""
    return shutil.copytree(honest, tmp_path / "results")


def test_a_healthy_board(results, bundle_tar):
    labels, predictions, _ = read_board_predictions(results / "predictions.csv")
    record = board_record(results, bundle_tar, runner="virtual_board")
    assert record["predictions"] == predictions.tolist() and record["images"] == 90
    assert record["correct"] == int((labels == predictions).sum())
    assert record["how"].startswith("emulated")
    equal = record["agreement_with_emulator"]
    assert (equal["equal"], equal["different_outputs"], equal["first_different_output"]) == (90, 0, None)
    layers = record["layers"]
    assert layers["image"] == 4 and layers["first_different"] is None and layers["not_dumped"] == 0
    assert {"conv_1", "pool_1", "conv_2", "dense"} <= set(layers["compared"])


def test_agreement_with_the_quantized_stage(results, bundle_tar):
    _, predictions, _ = read_board_predictions(results / "predictions.csv")
    other = predictions.copy()
    other[[11, 30]] = (other[[11, 30]] + 1) % 5
    record = board_record(results, bundle_tar, quantized={"predictions": other.tolist()})
    alike = record["agreement_with_quantized"]
    assert (alike["equal"], alike["first_difference"]) == (88, 11)


def test_the_first_different_layer_is_found(results, bundle_tar):
    for name in ("conv_2_fix", "dense_fix"):
        (path,) = (results / "dump").rglob(f"0.{name}.bin")
        data = np.frombuffer(path.read_bytes(), np.int8).copy()
        data[50 if name == "conv_2_fix" else 2] += 1
        path.write_bytes(data.tobytes())
    first = board_record(results, bundle_tar)["layers"]["first_different"]
    assert (first["op"], first["type"]) == ("conv_2", "conv2d-fix")
    assert (first["different"], first["elements"]) == (1, 192)
    assert first["position"] == [1, 0, 2]  # element 50 of 4 x 4 x 12
    assert first["board"] == first["emulator"] + 1


def test_tensors_that_stayed_on_the_chip(results, bundle_tar):
    for path in (results / "dump").rglob("0.conv_*.bin"):
        path.unlink()
    layers = board_record(results, bundle_tar)["layers"]
    assert layers["not_dumped"] == 2 and "conv_1" not in layers["compared"]


@pytest.mark.fault("board", "truncated dump", "refused")
def test_a_truncated_dump(results, bundle_tar):
    (path,) = (results / "dump").rglob("0.conv_2_fix.bin")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="191 bytes"):
        board_record(results, bundle_tar)


def change_outputs(results, index, values):
    path = results / "predictions.csv"
    lines = path.read_text().splitlines()
    cells = lines[index + 1].split(",")
    cells[-5:] = map(str, values)
    lines[index + 1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


def test_an_output_that_differs(results, bundle_tar):
    _, predictions, outputs = read_board_predictions(results / "predictions.csv")
    index = next(
        i for i in range(90) if abs(outputs[i]).max() < 120 and predictions[i] == outputs[i].argmax()
    )
    changed = outputs[index].astype(int)
    changed[predictions[index]] += 1  # the same answer by a different value
    change_outputs(results, index, changed)
    equal = board_record(results, bundle_tar)["agreement_with_emulator"]
    assert (equal["equal"], equal["different_outputs"], equal["first_difference"]) == (90, 1, None)
    assert equal["first_different_output"] == {
        "image": index,
        "board": changed.tolist(),
        "emulator": outputs[index].tolist(),
    }


@pytest.mark.fault("board", "foreign or edited results", "refused")
def test_foreign_or_edited_results_are_refused(results, bundle_tar):
    path = results / "predictions.csv"
    good = path.read_text()
    _, predictions, _ = read_board_predictions(path)
    least = np.full(5, -128)
    least[(predictions[0] + 1) % 5] = 127
    change_outputs(results, 0, least)
    with pytest.raises(UserError, match="not the largest outputs"):
        board_record(results, bundle_tar)
    lines = good.splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(UserError, match="labels differ"):
        board_record(results, bundle_tar)
    path.write_text("index,label,prediction\n0,1,1\n")
    with pytest.raises(UserError, match="int8 columns"):
        board_record(results, bundle_tar)
    (results / "predictions.csv").unlink()
    with pytest.raises(UserError, match="not the predictions of a board"):
        board_record(results, bundle_tar)


def test_an_unemulated_report_says_measured(results, bundle_tar):
    report = json.loads((results / "board.json").read_text())
    (results / "board.json").write_text(json.dumps({**report, "emulated": False}))
    assert board_record(results, bundle_tar)["how"] == "measured on a board of target kv260"


def test_compare_outputs():
    a = np.array([[1, 2], [3, 0]], np.int8)
    b = np.array([[1, 2], [0, 3]], np.int8)
    answer = compare_outputs(a, b)
    assert (answer["images"], answer["equal"], answer["first_difference"]) == (2, 1, 1)
    assert answer["different_outputs"] == 1


def test_machine_code_keeps_maps_on_the_chip(tmp_path):
    """A model of the native compiler: the same answers, and a dump of what lies in memory only."""
    target = get_target("kv260")
    compile_native(small_network(), target).graph.save(tmp_path / "native.xmodel")
    images, labels = small_images(20)
    tar = tmp_path / "native.tar"
    bundle.build(tar, tmp_path / "native.xmodel", images, labels, CLASSES, target, "test")
    assert bundle.Bundle.open(tar).meta["instructions"] > 0
    run(tar, tmp_path / "out", {"runs": 1, "warmup": 0, "dump": 0}, target)
    record = board_record(tmp_path / "out", tar)
    assert record["agreement_with_emulator"]["different_outputs"] == 0
    assert record["layers"]["not_dumped"] == 3 and record["layers"]["first_different"] is None
    assert not {"conv_1", "pool_1", "conv_2"} & set(record["layers"]["compared"])
    assert "dense" in record["layers"]["compared"]


def test_a_tensor_that_was_written_over_is_no_difference(results, bundle_tar):
    """Of a tensor whose memory a later one took the runtime dumps the later one's bytes."""
    (path,) = (results / "dump").rglob("0.conv_2_fix.bin")
    path.write_bytes(bytes(path.stat().st_size))
    assert board_record(results, bundle_tar)["layers"]["first_different"]["op"] == "conv_2"
    layers = board_record(results, bundle_tar, gone=lambda graph: {"conv_2"})["layers"]
    assert layers["first_different"] is None and layers["not_dumped"] == 1
    assert "conv_1" in layers["compared"] and "conv_2" not in layers["compared"]
