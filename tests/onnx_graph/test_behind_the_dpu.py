"""What an ONNX file computes behind the DPU's last layers: read as the CPU's, right in float and in INT8."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import SHAPE, start

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import scale_pixels
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx_and_layouts
from dpuflow.onnx_graph.runtime import OnnxModel
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.reference import quantize

SCALING = {"subtract": 127.5, "divide": 64}
SETTINGS = {"calibration": {"images": 2}, "diagnosis": False, "fast_finetune": False}


def whole(model, *numbers):
    return model.constant(np.array(numbers, np.int64))


def silu(model, source=None):
    """x sigmoid(x), inside a network whose end is the CPU's."""
    x = source or model.last
    return model.node("Mul", [x, model.node("Sigmoid", [x])])


def yolo(model):
    """Two heads as YOLOv5 exports them: reshaped, transposed, a sigmoid, cut unevenly, scaled, joined."""
    x = silu(model, model.conv(3, 6))
    maps = [(x, 12, 10), (silu(model, model.conv(6, 6, source=x, strides=[2, 2])), 6, 5)]
    heads = []
    for source, height, width in maps:
        head = model.conv(6, 2 * 6, kernel=1, source=source)
        model.node("Reshape", [head, whole(model, 1, 2, 6, height, width)])
        model.node("Transpose", perm=[0, 1, 3, 4, 2])
        model.node("Sigmoid")
        place, size, rest = model.node("Split", [model.last, whole(model, 2, 2, 2)], outputs=3, axis=4)
        grid = model.constant(model.random.normal(size=(1, 2, height, width, 2)).astype(np.float32))
        place = model.node("Add", [model.node("Mul", [place, model.constant(np.float32(2))]), grid])
        size = model.node("Pow", [size, model.constant(np.float32(2))])
        size = model.node("Mul", [model.constant(model.random.random((1, 2, 1, 1, 2), np.float32)), size])
        model.node("Concat", [place, size, rest], axis=4)
        heads.append(model.node("Reshape", [model.last, whole(model, 1, 2 * height * width, 6)]))
    model.node("Concat", heads, axis=1)


def distributions(model):
    """The mean of a distribution over 4 places for each side of a box, as YOLOv8's head computes it."""
    x = model.conv(3, 16)
    model.node("Reshape", [x, whole(model, 1, 4, 4, 120)])
    model.node("Transpose", perm=[0, 2, 1, 3])
    model.node("Softmax", axis=1)
    places = model.constant(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1))
    model.node("Conv", [model.last, places], kernel_shape=[1, 1])
    model.node("Reshape", [model.last, whole(model, 1, 4, 120)])
    low = model.node("Slice", [model.last, *(whole(model, n) for n in (0, 2, 1))])
    high = model.node("Gather", [model.nodes[-2].output[0], whole(model, 3, 2)], axis=1)
    model.node("Concat", [model.node("Sub", [high, low]), model.node("Neg", [low])], axis=1)


def distributions_of_pixels(model):
    """The same over the last axis, as PaddleDetection's heads have it, by a vector."""
    model.node("Transpose", [model.conv(3, 8)], perm=[0, 2, 3, 1])
    model.node("Softmax", [model.node("Reshape", [model.last, whole(model, 0, 240, 4)])], axis=-1)
    model.node("MatMul", [model.last, model.constant(np.arange(4, dtype=np.float32))])
    model.node("Reshape", [model.last, whole(model, 0, 120, 2)])


def flat_heads(model):
    """SSD: heads flattened pixel by pixel, joined, cut into boxes, a softmax over each one's classes."""
    x = model.conv(3, 6)
    parts = []
    for source, places in ((x, 120), (model.conv(6, 6, source=x, strides=[2, 2]), 30)):
        model.node("Transpose", [model.conv(6, 9, source=source)], perm=[0, 2, 3, 1])
        parts.append(model.node("Reshape", [model.last, whole(model, 1, places * 9)]))
    model.node("Concat", parts, axis=1)
    model.node("Reshape", [model.last, whole(model, 1, -1, 3)])
    model.node("Softmax", axis=2)


def disparity(model):
    """1 / (a + b sigmoid(x)), a tanh beside it, weighed by their means."""
    model.node("Sigmoid", [model.conv(3, 2)])
    model.node("Mul", [model.last, model.constant(np.float32(9.9))])
    one = model.node("Reciprocal", [model.node("Add", [model.last, model.constant(np.float32(0.1))])])
    other = model.node("Tanh", [model.conv(3, 2, source="input")])
    model.node("Div", [other, model.node("Exp", [model.node("ReduceMean", [one], axes=[1])])])
    total = model.node("ReduceSum", [model.last, whole(model, 2)], keepdims=0)
    model.node("Mul", [total, model.node("Expand", [model.numbers(1, 1, 10), whole(model, 1, 2, 10)])])


TAILS = (yolo, distributions, distributions_of_pixels, flat_heads, disparity)


def read(build, folder, **options):
    """(Network, its layout's only one, onnxruntime's answers to two pictures, those)."""
    model = start(opset=13)
    build(model)
    opened = open_model(model.write(folder / "m.onnx", **options), SHAPE)
    network, layouts = read_onnx_and_layouts(opened, SHAPE, "net")
    (layout,) = layouts.values()
    images = np.random.default_rng(1).integers(0, 256, (2, *SHAPE), np.uint8)
    (expected,) = OnnxModel(opened).run_all(scale_pixels(images, SCALING)).values()
    return network, layout.arranged(expected), images


@pytest.mark.parametrize("build", TAILS, ids=lambda build: build.__name__)
def test_it_is_read_and_emulated_as_the_engine_and_onnxruntime_have_it(build, tmp_path):
    network, expected, images = read(build, tmp_path)
    found = run_float(network, scale_pixels(images, SCALING))[network.output.name]
    size = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * size
    np.testing.assert_allclose(found, expected, atol=1e-5 * size)

    quantized, _ = quantize(network, images, SETTINGS, SCALING)
    compiled = compile_native(quantized, get_target("kv260"), calibration=images)
    assert len(compiled.report["programs"]) == 1 and not compiled.report["findings"]
    with Emulator(compiled.graph) as emulator:
        emulated = emulator.run(emulator.quantize_input(images))
    assert emulated.dtype == np.float32
    assert np.abs(emulated.reshape(expected.shape) - expected).mean() < 0.1 * expected.std()


@pytest.mark.parametrize("keepdims", [0, 1])
def test_the_greatest_class_of_each_pixel_is_the_network_s_end(keepdims, tmp_path):
    def build(model):
        model.conv(3, 5)
        model.node("ArgMax", axis=1, keepdims=keepdims)
        model.node("Cast", to=TensorProto.INT32)

    network, expected, images = read(build, tmp_path, output_kind=TensorProto.INT32)
    assert network.output.op == "argmax" and len(np.unique(expected)) == 5
    found = run_float(network, scale_pixels(images, SCALING))[network.output.name]
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def tanh_inside(model):
    model.node("Tanh", [model.conv(3, 6)], name="/act/Tanh")
    model.conv(6, 6)


def unknown_behind(model):
    model.node("Softmax", [model.node("Reshape", [model.conv(3, 6), whole(model, 1, 2, 3, 120)])], axis=2)
    model.node("Hardmax", name="/Hardmax", axis=2)


def power_behind(model):
    model.node("Pow", [model.node("Exp", [model.conv(3, 6)]), model.constant(np.float32(3))], name="/Pow")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (tanh_inside, r"node '/act/Tanh' \(op Tanh\): not supported on the DPU path: train with ReLU"),
        (unknown_behind, r"node '/Hardmax' \(op Hardmax\): not supported .* end the network in front of it"),
        (power_behind, r"\(op Exp\): not supported on the DPU path"),
    ],
)
def test_what_neither_has_is_refused_by_its_node(build, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(build, tmp_path)
