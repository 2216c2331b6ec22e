"""Large weights beside the model: the same network is read, and the same is answered, as with them inside."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx_models import SHAPE, Model

from dpuflow.onnx_graph import large_weights, runtime
from dpuflow.onnx_graph.model_file import open_model, write_model
from dpuflow.onnx_graph.reader import read_onnx
from dpuflow.onnx_graph.runtime import OnnxModel


def model():
    """A convolution, and dense layers as each exporter writes them; the last one's weights are turned."""
    made = Model((3, 12, 10))
    made.conv(3, 4)
    made.node("Relu")
    made.node("Flatten")
    made.node("Gemm", [made.last, made.numbers(7, 480), made.numbers(7)], transB=1)
    flat = made.last
    made.node("MatMul", [flat, made.numbers(7, 6)])
    product = made.last
    made.node("Add", [product, made.numbers(6)])
    turned = made.node("Transpose", [made.numbers(5, 6)], perm=[1, 0])
    made.nodes.insert(0, made.nodes.pop())
    made.node("Gemm", [f"Add_{len(made.nodes) - 2}_out0", turned, made.numbers(5)])
    return made


def test_the_network_is_the_same(tmp_path, monkeypatch):
    path = model().write(tmp_path / "m.onnx")
    opened = open_model(path, SHAPE)
    whole = read_onnx(opened, SHAPE, "net")
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    expected = OnnxModel(opened).run(x)
    monkeypatch.setattr(large_weights, "LARGE", 1)
    monkeypatch.setattr(runtime, "LARGE", 1)
    apart = large_weights.large_weights(opened.model)
    assert len(apart) == 3  # the convolution's, and those of two dense layers; the Transpose reads the others
    left = large_weights.without(opened.model, apart)
    assert {t.name for t in opened.model.graph.initializer} - {t.name for t in left.graph.initializer} == {
        *apart
    }
    again = read_onnx(opened, SHAPE, "net")
    assert [(a.name, a.op, a.attrs) for a in again.layers] == [(b.name, b.op, b.attrs) for b in whole.layers]
    for a, b in zip(again.layers, whole.layers, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)
        np.testing.assert_array_equal(a.bias, b.bias)
    np.testing.assert_array_equal(OnnxModel(opened).run(x), expected)


def test_weights_that_are_read_otherwise_stay(monkeypatch):
    monkeypatch.setattr(large_weights, "LARGE", 1)
    made = Model((3, 12, 10))
    kernel = made.numbers(4, 3, 3, 3)
    made.node("Conv", ["input", kernel], pads=[1] * 4, kernel_shape=[3, 3])
    proto = made.proto()
    assert set(large_weights.large_weights(proto)) == {kernel}
    proto.graph.output.append(onnx.helper.make_tensor_value_info(kernel, 1, None))
    assert not large_weights.large_weights(proto)


@pytest.mark.parametrize("large", [1, 1 << 20])
def test_a_written_model_is_the_message(tmp_path, monkeypatch, large):
    monkeypatch.setattr("dpuflow.base.protobuf_pieces.LARGE", large)
    opened = open_model(model().write(tmp_path / "m.onnx"), SHAPE)
    write_model(tmp_path / "w.onnx", opened)
    data = (tmp_path / "w.onnx").read_bytes()
    assert data.startswith(opened.model.SerializeToString(deterministic=True))
    assert open_model(tmp_path / "w.onnx", SHAPE, own=True).model == opened.model


def test_onnxruntime_reads_what_was_written(tmp_path):
    opened = open_model(model().write(tmp_path / "m.onnx"), SHAPE)
    write_model(tmp_path / "w.onnx", opened)
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    expected = OnnxModel(opened).run(x)
    found = OnnxModel(replace(opened, model=None), tmp_path / "w.onnx").run(x)
    np.testing.assert_array_equal(found, expected)
