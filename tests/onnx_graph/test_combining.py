"""Arithmetic of activations, what is repeated, reduced or clamped, and vectors that become maps again."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import SHAPE, Model, finish, proven_reading, start

from dpuflow.base.errors import UserError
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.number_types import check_of_bytes
from dpuflow.onnx_graph.reader import read_onnx
from dpuflow.onnx_graph.runtime import OnnxModel
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.reference import quantize

SETTINGS = {"calibration": {"images": 2}, "diagnosis": False, "fast_finetune": False}


def whole(model, *numbers):
    return model.constant(np.array(numbers, np.int64))


def one_for_many(model):
    """A number per channel, per pixel and for all, added to a map; a map of one channel to one of many."""
    x = model.conv(3, 6)
    channel = model.conv(6, 6, kernel=1, source=model.node("GlobalAveragePool", [x]))
    pixel = model.conv(6, 1, source=x)
    single = model.conv(6, 1, kernel=1, source=model.node("GlobalMaxPool", [x]))
    for other in (channel, pixel, single):
        x = model.node("Add", [x, other])
    model.node("Add", [pixel, x])
    model.node("Mul", [model.last, single])
    finish(model, 6)


def differences_and_extremes(model):
    a, b = model.conv(3, 6), model.conv(3, 6, source="input")
    halves = model.node("Split", [model.node("Sub", [a, b]), whole(model, 3, 3)], outputs=2, axis=1)
    greater = model.node("Max", halves)
    lesser = model.node("Min", [*halves, greater])
    model.node("Mean", [greater, lesser, model.node("Abs", [lesser])])
    model.node("Pow", [model.last, model.constant(np.float32(2))])
    finish(model, 3)


def clamps(model):
    """Both bounds, one, none; as two nodes; a hard sigmoid of Keras's slope."""
    low, high, none = (model.constant(np.float32(n)) for n in (-0.5, 0.75, np.inf))
    model.node("Clip", [model.conv(3, 6), low, high])
    model.node("Clip", [model.conv(6, 6), "", high])
    model.node("Clip", [model.conv(6, 6), low])
    model.node("Clip", [model.conv(6, 6), low, none])
    model.node("Min", [model.node("Max", [model.conv(6, 6), low]), high])
    model.node("HardSigmoid", [model.conv(6, 6)])
    finish(model, 6)


def means_of_rows_columns_and_channels(model):
    x = model.conv(3, 6)
    columns = model.node("ReduceMean", [x], axes=[3], keepdims=0)
    both = model.node("ReduceMean", [columns], axes=[2], keepdims=0)
    rows = model.node("ReduceMax", [x], axes=[2], keepdims=1)
    total = model.node("ReduceSum", [rows, whole(model, 3)], keepdims=1)
    attention = [model.node(op, [x], axes=[1], keepdims=1) for op in ("ReduceMean", "ReduceMax")]
    model.node("Sigmoid", [model.conv(2, 1, source=model.node("Concat", attention, axis=1))])
    model.node("Mul", [x, model.last])
    model.node("Flatten", [model.node("GlobalAveragePool", [model.node("Add", [model.last, total])])])
    model.node("Add", [both, model.last])
    model.node("Gemm", [model.last, model.numbers(4, 6)], transB=1)


def expanded(model):
    """x * y.expand_as(x), a common way to write squeeze-and-excitation; a pooled map beside the map."""
    x = model.conv(3, 6)
    y = model.node("Sigmoid", [model.conv(6, 6, kernel=1, source=model.node("GlobalAveragePool", [x]))])
    x = model.node("Mul", [x, model.node("Expand", [y, whole(model, 1, 6, 12, 10)])])
    tiled = model.node("Tile", [model.node("GlobalMaxPool", [x]), whole(model, 1, 1, 12, 10)])
    model.node("Concat", [x, tiled], axis=1)
    finish(model, 12)


def along_channels(model):
    """Efficient channel attention: a Conv1d over the channels of a pooled map."""
    x = model.conv(3, 6)
    model.node("Squeeze", [model.node("GlobalAveragePool"), whole(model, 3)])
    model.node("Transpose", perm=[0, 2, 1])
    model.node("Conv", [model.last, model.numbers(1, 1, 3), model.numbers(1)], pads=[1, 1])
    model.node("Unsqueeze", [model.node("Transpose", perm=[0, 2, 1]), whole(model, 3)])
    model.node("Mul", [x, model.node("Sigmoid")])
    finish(model, 6)


def parts_side_by_side(model):
    """Maps joined along rows, and along columns."""
    x = model.conv(3, 4)
    halves = model.node("Split", [x, whole(model, 5, 7)], outputs=2, axis=2)
    x = model.node("Concat", [halves[1], halves[0], model.node("Relu", [halves[1]])], axis=2)
    halves = model.node("Split", [x, whole(model, 4, 6)], outputs=2, axis=3)
    model.node("Concat", halves[::-1], axis=3)
    model.conv(4, 5)
    finish(model, 5)


def vector_to_map(model):
    """The middle of an autoencoder: dense layers, then a map of them."""
    model.node("Flatten", [model.conv(3, 4, strides=[4, 5])])
    model.node("Relu", [model.node("Gemm", [model.last, model.numbers(7, 24)], transB=1)])
    model.node("Gemm", [model.last, model.numbers(32, 7), model.numbers(32)], transB=1)
    model.node("Reshape", [model.node("Relu"), whole(model, -1, 8, 2, 2)])
    model.node("ConvTranspose", [model.last, model.numbers(8, 4, 2, 2)], strides=[2, 2])
    finish(model, 4)


def flattened_maps_joined(model):
    """Two scales flattened, joined and read by one dense layer; with a plain vector between them."""
    x = model.node("Relu", [model.conv(3, 4, strides=[2, 2])])
    y = model.node("Relu", [model.conv(4, 6, source=x, strides=[3, 2])])
    vector = model.node("Flatten", [model.node("GlobalAveragePool", [x])])
    parts = [model.node("Flatten", [x]), vector, model.node("Flatten", [y])]
    model.node("Dropout", [model.node("Concat", parts, axis=1)])
    model.node("Gemm", [model.last, model.numbers(5, 4 * 30 + 4 + 6 * 6), model.numbers(5)], transB=1)


def transposed_in_groups(model):
    model.conv(3, 6, strides=[2, 2])
    model.node("ConvTranspose", [model.last, model.numbers(6, 2, 2, 2)], strides=[2, 2], group=3)
    finish(model, 6)


def picked_at_the_front(model):
    """x[:, [2, 1, 0]] as the exporter of torch.export writes it."""
    model.node("Transpose", ["input"], perm=[1, 0, 2, 3])
    model.node("GatherND", [model.last, model.constant(np.array([[2], [0], [-1], [1]]))])
    model.node("Transpose", perm=[1, 0, 2, 3])
    model.conv(4, 6)
    finish(model, 6)


def counted_padding_in_ceil_mode(model):
    """Padding counts, what the last window reaches beyond it does not."""
    model.node("AveragePool", [model.conv(3, 4)], kernel_shape=[5, 3], strides=[4, 2], ceil_mode=1)
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    model.node("AveragePool", ceil_mode=1, count_include_pad=1, **window)
    model.conv(4, 4)
    finish(model, 4)


BUILDS = (
    *(one_for_many, differences_and_extremes, clamps, means_of_rows_columns_and_channels, expanded),
    *(along_channels, parts_side_by_side, vector_to_map, transposed_in_groups, flattened_maps_joined),
    *(counted_padding_in_ceil_mode, picked_at_the_front),
)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_it_answers_as_onnxruntime_does(build, tmp_path):
    model = start(opset=13 if build is means_of_rows_columns_and_channels else 17)
    build(model)
    proven_reading(model, tmp_path)


@pytest.mark.parametrize(
    "build", [means_of_rows_columns_and_channels, vector_to_map, clamps, flattened_maps_joined]
)
def test_it_comes_to_verified_code(build, tmp_path):
    model = start(opset=13)
    build(model)
    network = proven_reading(model, tmp_path)
    images = np.random.default_rng(3).integers(0, 256, (2, *SHAPE), np.uint8)
    quantized, _ = quantize(network, images, SETTINGS, {"subtract": 127.5, "divide": 64})
    compiled = compile_native(quantized, get_target("kv260"), calibration=images)
    assert len(compiled.report["programs"]) == 1 and not compiled.report["findings"]


def test_an_expand_in_front_of_a_product_makes_no_layer(tmp_path):
    model = start()
    expanded(model)
    ops = [layer.op for layer in proven_reading(model, tmp_path).layers]
    assert ops.count("multiply") == 1 and ops.count("upsample") == 1


def in_half_precision(path):
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for entry in (*proto.graph.input, *proto.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(proto, path)


def bytes_of_pixels(model):
    model.node("Cast", ["input"], to=TensorProto.FLOAT)
    model.node("Transpose", perm=[0, 3, 1, 2])
    model.node("Mul", [model.last, model.constant(np.float32(1 / 64))])
    model.conv(3, 6)
    finish(model, 6)


def test_half_precision_is_widened_and_bytes_are_taken_as_numbers(tmp_path):
    model = start()
    model.node("Relu", [model.conv(3, 6)])
    finish(model, 6)
    path = model.write(tmp_path / "half.onnx")
    in_half_precision(path)
    opened = open_model(path, SHAPE)
    assert {tensor.data_type for tensor in opened.model.graph.initializer} == {TensorProto.FLOAT}
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    network = read_onnx(opened, SHAPE, "net")
    np.testing.assert_allclose(
        run_float(network, x)[network.output.name], OnnxModel(opened).run(x), rtol=1e-5, atol=1e-5
    )

    model = Model(SHAPE)
    bytes_of_pixels(model)
    path = model.write(tmp_path / "bytes.onnx", kind=TensorProto.UINT8)
    pixels = np.random.default_rng(1).integers(0, 256, (3, *SHAPE), np.uint8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": pixels})
    opened = open_model(path, SHAPE)
    network = read_onnx(opened, SHAPE, "net")
    x = pixels.astype(np.float32)
    for found in (OnnxModel(opened).run(x), run_float(network, x)[network.output.name]):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert opened.takes_bytes
    for scaling in ("torch", {"subtract": 0, "divide": 255}, {"subtract": [1, 0, 0], "divide": 1}):
        with pytest.raises(UserError, match=r"its input takes bytes \(uint8\), .*\{subtract: 0, divide: 1\}"):
            check_of_bytes(path, opened.takes_bytes, scaling)
        check_of_bytes(path, False, scaling)
    check_of_bytes(path, opened.takes_bytes, {"subtract": 0, "divide": 1})
