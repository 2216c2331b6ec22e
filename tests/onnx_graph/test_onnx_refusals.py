"""ONNX models that the DPU cannot run: refused by node and operator."""

import resource
import subprocess
import sys

import numpy as np
import pytest
from onnx_models import finish, proven_reading, small_classifier, start

from dpuflow.base.errors import UserError


def bad_tanh(model):
    model.conv(3, 6)
    model.node("Tanh", name="/act/Tanh")
    finish(model, 6)


def bad_reflection(model):
    model.node("Pad", ["input", model.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))], mode="reflect")
    model.conv(3, 6)
    finish(model, 6)


def bad_clip(model):
    model.node("Clip", [model.conv(3, 4), model.constant(np.float32(2)), model.constant(np.float32(1))])
    finish(model, 4)


def bad_attention(model):
    model.conv(3, 12)
    model.node("MatMul", [model.last, model.node("Transpose", perm=[0, 1, 3, 2])])
    finish(model, 12)


def bad_softmax(model):
    model.conv(3, 6)
    finish(model, 6, classes=5)
    model.node("Softmax")
    model.node("Gemm", [model.last, model.numbers(5, 5)])


def bad_pixels(model):
    model.node("Add", ["input", model.numbers(3, 12, 10)])
    finish(model, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (bad_tanh, r"node '/act/Tanh' \(op Tanh\): not supported on the DPU path: train with ReLU"),
        (bad_reflection, r"\(op Pad\): pads by reflect; the DPU pads with zeros"),
        (bad_clip, r"\(op Clip\): clamps to 2 \.\.\. 1, which leaves nothing"),
        (bad_attention, r"\(op MatMul\): multiplies two activations \(attention\?\)"),
        (bad_softmax, r"\(op Softmax\): a softmax inside the network"),
        (bad_pixels, r"\(op Add\): meets a constant that is not one number, or one for each channel"),
    ],
)
def test_what_the_dpu_cannot_do_is_refused_by_node_and_operator(build, message, tmp_path):
    model = start()
    build(model)
    with pytest.raises(UserError, match=rf"m\.onnx: .*{message}"):
        proven_reading(model, tmp_path)


READING = """
import sys

from dpuflow.base.errors import UserError
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx

try:
    read_onnx(open_model(sys.argv[1], (28, 28, 1)), (28, 28, 1), "name")
except UserError as error:
    sys.exit(str(error))
"""


def test_no_room_for_temporary_files_is_not_the_networks_fault(repo, tmp_path):
    small_classifier(tmp_path / "a.onnx")
    done = subprocess.run(
        [sys.executable, "-c", READING, tmp_path / "a.onnx"], capture_output=True, text=True,
        # without bytecode: Python would cut it off at the limit, too, and never read it again
        env={"PYTHONPATH": str(repo), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(
        f"{tmp_path}: onnxruntime cannot write the folded network there; free space"
    )
    assert not list(tmp_path.glob("dpuflow-*"))
