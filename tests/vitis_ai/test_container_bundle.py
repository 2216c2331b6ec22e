"""What a container is handed."""

import shlex
import sys

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.npy import write_npy
from dpuflow.base.pixels import MODES, scale_pixels
from dpuflow.vitis_ai.bundle import arguments_text, batches, chosen_images, module_text
from dpuflow.vitis_ai.outputs import read_outputs

NODES = {
    "input": {"name": "a model/input", "shape": [None, 28, 20, 1]},
    "output": {"name": "probabilities/Softmax"},
}


def test_every_image_is_shown_once():
    assert [batches(n, 32) for n in (1, 32, 33, 480)] == [1, 1, 2, 15]


def test_arguments_are_quoted_for_the_shell():
    lines = [shlex.split(line) for line in arguments_text(NODES, 70, 32).splitlines()]
    assert [word for line in lines for word in line] == [
        "input_node=a model/input", "input_shape=?,28,20,1", "compile_shape=1,28,20,1",
        "output_node=probabilities/Softmax", "calib_iter=3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "scaling",
    [{"subtract": 33.3, "divide": 58.1}, MODES["torch"], MODES["caffe"]],
    ids=["one", "each", "bgr"],
)
def test_the_module_feeds_what_the_chain_feeds(tmp_path, monkeypatch, scaling):
    images = np.random.default_rng(1).integers(0, 256, (7, 5, 4, 3), np.uint8)
    write_npy(tmp_path / "calibration_images.npy", images)
    (tmp_path / "calibration_input.py").write_text(module_text(7, 3, "x", scaling))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "calibration_input", raising=False)
    module = __import__("calibration_input")
    fed = [module.calibration_input(step)["x"] for step in range(module.BATCHES)]
    assert [len(batch) for batch in fed] == [3, 3, 1] and fed[0].dtype == np.float32
    np.testing.assert_array_equal(np.concatenate(fed), scale_pixels(images, scaling))
    np.testing.assert_array_equal(module.network_input(), scale_pixels(images, scaling))
    for step in (-1, 3):
        with pytest.raises(IndexError, match="set --calib_iter to 3"):
            module.calibration_input(step)


def test_the_module_has_no_absolute_path_and_nothing_of_ours():
    text = module_text(480, 32, "input", {"subtract": 128, "divide": 128})
    assert "import dpuflow" not in text and '"/' not in text and "'/" not in text
    assert text == module_text(480, 32, "input", {"subtract": 128.0, "divide": 128.0})


def test_more_images_than_there_are():
    images = np.zeros((10, 2, 2, 1), np.uint8)
    assert len(chosen_images(images, {"images": 4})) == 4 and len(chosen_images(images, {})) == 10
    with pytest.raises(UserError, match=r"calibration\.images: 11 wanted, but .* holds 10"):
        chosen_images(images, {"images": 11})


def test_images_are_written_in_the_oldest_form(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    write_npy(tmp_path / "i.npy", images)
    data = (tmp_path / "i.npy").read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    np.testing.assert_array_equal(np.load(tmp_path / "i.npy"), images)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.zeros((3, 5), np.float32), "one row for each of the 4 test images"),
        (np.zeros(4, np.float32), "one row for each"),
        (np.full((4, 5), np.nan, np.float32), "not finite"),
    ],
)
def test_outputs_that_do_not_fit(tmp_path, outputs, message):
    np.save(tmp_path / "y.npy", outputs)
    with pytest.raises(UserError, match=message):
        read_outputs(tmp_path / "y.npy", 4)


def test_outputs_that_are_no_array(tmp_path):
    (tmp_path / "y.npy").write_text("nothing")
    with pytest.raises(UserError, match=r"y\.npy: not an \.npy file"):
        read_outputs(tmp_path / "y.npy", 4)
