"""What a library takes too long for is one error, and the process ends all the same."""

import subprocess
import sys

import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.time_limit import in_bounded_time

PROGRAM = """
import sys

import numpy as np
from onnx_models import Model

from dpuflow.base import time_limit
from dpuflow.base.errors import UserError
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx

time_limit.SECONDS = 0.5
model = Model((2, 6, 6))
model.conv(2, 3)
model.x = model.last
first = product = model.node("ConstantOfShape", [model.constant(np.array([2048, 2048]))])
for _ in range(3000):
    product = model.node("MatMul", [product, first])
model.node("Add", [model.x, model.node("ReduceMax", [product], keepdims=0)])
model.write(sys.argv[1])
try:
    read_onnx(open_model(sys.argv[1], (6, 6, 2)), (6, 6, 2), "name")
except UserError as error:
    sys.exit(str(error))
"""
"""An hour of multiplications in a file of some kilobytes."""


@pytest.mark.fault("models", "ONNX file whose constants take an hour to compute", "refused")
def test_constants_that_take_an_hour_are_refused(repo, tmp_path):
    path = tmp_path / "long.onnx"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": f"{repo}:{repo / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f"{path}: reading it takes more than 0.5 s of processor time" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.stat().st_size < 300_000


def test_what_the_work_gives_or_raises_comes_back():
    assert in_bounded_time("a file", lambda: 7, lambda: None) == 7

    def fail():
        raise MemoryError("all of it")

    with pytest.raises(MemoryError, match="all of it"):
        in_bounded_time("a file", fail, lambda: None)


def test_the_library_is_asked_to_stop(monkeypatch):
    monkeypatch.setattr("dpuflow.base.time_limit.SECONDS", 0.0)
    asked = []

    def work():
        while not asked:
            sum(range(1000))

    with pytest.raises(UserError, match=r"a file: reading it takes more than 0 s"):
        in_bounded_time("a file", work, lambda: asked.append(True))
