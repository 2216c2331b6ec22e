"""ONNX models, node by node: what is read gives what onnxruntime gives."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import SHAPE, finish, proven_reading, start

from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx, read_onnx_and_layouts
from dpuflow.onnx_graph.runtime import OnnxModel
from dpuflow.quantize.engine import run_float


def kinds(network):
    return [layer.op for layer in network.layers]


def pads_of_all_sides(model):
    model.node("Pad", ["input", model.constant(np.array([0, 0, 1, 2, 0, 0, 3, 0]))])
    model.conv(3, 6, pads=[0, 1, 1, 0], strides=[2, 1])
    finish(model, 6)


def old_pad_and_clip(model):
    model.node("Pad", pads=[0, 0, 0, 0, 0, 0, 1, 1], mode="constant")
    model.conv(3, 6, pads=[0] * 4)
    model.node("Clip", min=0.0, max=6.0)
    finish(model, 6)


def clip_of_inputs(model):
    model.conv(3, 6)
    low, high = (model.constant(np.array(n, np.float32)) for n in (0, 6))
    model.node("Clip", [model.last, low, high])
    model.conv(6, 6)
    model.node("Clip", [model.last, low])
    finish(model, 6)


def same_upper_and_lower(model):
    model.node("Conv", ["input", model.numbers(4, 3, 4, 4)], auto_pad="SAME_UPPER", strides=[2, 3])
    model.node("Relu")
    model.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER")
    finish(model, 4)


def groups_and_depthwise(model):
    model.conv(3, 6, dilations=[2, 2], pads=[2] * 4)
    model.conv(6, 6, groups=6, dilations=[1, 2], pads=[1, 2, 1, 2])
    model.conv(6, 12, groups=6)
    model.conv(12, 8, groups=2)
    finish(model, 8)


def batch_norms_anywhere(model):
    def norm(channels):
        model.node("BatchNormalization", [
            model.last, *(model.constant(model.random.uniform(0.5, 2, channels).astype(np.float32))
                          for _ in range(4)),
        ])  # fmt: skip

    norm(3)
    model.conv(3, 6)
    norm(6)
    model.node("Relu")
    norm(6)
    model.node("GlobalAveragePool")
    norm(6)
    model.node("Flatten")
    norm(6)
    model.node("Gemm", [model.last, model.numbers(6, 5)], alpha=0.5)


def flattened_map(model):
    model.conv(3, 4, strides=[3, 2])
    model.node("Relu")
    model.node("Reshape", [model.last, model.constant(np.array([0, -1]))])
    model.node("MatMul", [model.last, model.numbers(4 * 4 * 5, 7)])
    model.node("Add", [model.last, model.numbers(7)])


def flattened_with_an_affine_per_value(model):
    model.conv(3, 4, strides=[3, 2])
    model.node("Flatten")
    model.node("Mul", [model.last, model.numbers(80)])
    model.node("Gemm", [model.last, model.numbers(80, 5), model.numbers(1, 5)])


def transposed_to_nhwc_and_back(model):
    model.node("Transpose", perm=[0, 2, 3, 1])
    model.node("Mul", [model.last, model.numbers(3)])
    model.node("MatMul", [model.last, model.numbers(3, 6)])
    model.node("Add", [model.numbers(6), model.last])
    model.node("Transpose", perm=[0, 3, 1, 2])
    model.node("Relu")
    finish(model, 6)


def means_of_all_forms(model):
    model.conv(3, 6)
    first = model.node("ReduceMean", axes=[2, 3], keepdims=1)
    model.node("Squeeze", [first, model.constant(np.array([2, 3]))])
    model.node("Gemm", [model.last, model.numbers(6, 5)])


def mean_over_pixels_in_a_row(model):
    model.conv(3, 6)
    model.node("Reshape", [model.last, model.constant(np.array([0, 6, -1]))])
    model.node("ReduceMean", axes=[2], keepdims=0)
    model.node("Gemm", [model.last, model.numbers(6, 5)])


def ceil_mode(model):
    model.conv(3, 4)
    model.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    model.node("AveragePool", kernel_shape=[2, 2], strides=[2, 1], pads=[1, 1, 1, 1], count_include_pad=1)
    finish(model, 4)


def shortcut_without_weights(model):
    """Slices of pixels and channels padded with zeros, as ResNet for CIFAR has them."""
    x = model.conv(3, 4)
    pixels = model.node("Slice", [x, *(model.constant(np.array(n)) for n in (
        [0, 0], [2**31, 2**31], [2, 3], [2, 2]))])  # fmt: skip
    shortcut = model.node("Pad", [pixels, model.constant(np.array([0, 2, 0, 0, 0, 2, 0, 0]))])
    y = model.conv(4, 8, source=x, strides=[2, 2])
    model.node("Add", [y, shortcut])
    finish(model, 8)


def focus(model):
    """Every second pixel four times, side by side, as YOLOv5 begins."""
    parts = []
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        ends = [np.array(n) for n in ([row, column], [2**31, 2**31], [2, 3], [2, 2])]
        parts.append(model.node("Slice", ["input", *map(model.constant, ends)]))
    model.node("Concat", parts, axis=1)
    model.conv(12, 6)
    finish(model, 6)


def pieces_of_channels(model):
    x = model.conv(3, 9)
    a, b, c = model.node("Split", [x, model.constant(np.array([2, 3, 4]))], outputs=3, axis=1)
    d = model.node("Gather", [x, model.constant(np.array([3, 1, 0]))], axis=1)
    model.node("Concat", [c, model.node("Relu", [b]), a, d], axis=1)
    model.conv(12, 6)
    finish(model, 6)


def transposed_convolutions(model):
    model.conv(3, 6, strides=[2, 2])
    weights, bias = model.numbers(6, 4, 3, 3), model.numbers(4)
    model.node("ConvTranspose", [model.last, weights, bias], strides=[2, 2], pads=[1, 0, 1, 1],
               output_padding=[1, 0])  # fmt: skip
    model.node("ConvTranspose", [model.last, model.numbers(4, 1, 4, 2)], group=4, strides=[2, 1])
    model.node(
        "ConvTranspose", [model.last, model.numbers(4, 5, 3, 3)], strides=[2, 2], auto_pad="SAME_UPPER"
    )
    finish(model, 5)


def zeros_beside_channels(model):
    model.conv(3, 4)
    model.node("Concat", [model.constant(np.zeros((1, 2, 12, 10), np.float32)), model.last], axis=1)
    model.conv(6, 6)
    finish(model, 6)


def shuffled_channels(model):
    model.conv(3, 6)
    model.node("Reshape", [model.last, model.constant(np.array([0, 2, 3, 12, 10]))])
    model.node("Transpose", perm=[0, 2, 1, 3, 4])
    model.node("Reshape", [model.last, model.constant(np.array([0, 6, 12, 10]))])
    model.node("Relu")
    model.conv(6, 6, groups=6)
    finish(model, 6)


def space_to_depth(model):
    model.conv(3, 4)
    model.node("SpaceToDepth", blocksize=2)
    model.conv(16, 6)
    finish(model, 6)


def depth_to_space(model):
    """In both orders, and written out as PyTorch exports it."""
    model.conv(3, 12)
    model.node("DepthToSpace", blocksize=2, mode="CRD")
    model.conv(3, 16)
    model.node("DepthToSpace", blocksize=2, mode="DCR")
    model.conv(4, 6)
    model.node("SpaceToDepth", blocksize=2)
    model.node("ReduceMean", axes=[2, 3], keepdims=1)
    finish(model, 24)


def sums(model):
    a = model.conv(3, 6)
    b = model.conv(3, 6, source="input")
    model.node("Sum", [a, b, a])
    model.node("Sub", [model.last, model.numbers(6, 1, 1)])
    model.node("Neg")
    model.node("Div", [model.last, model.constant(np.float32(0.5))])
    model.node("LeakyRelu", alpha=0.1015625)
    model.node("PRelu", [model.last, model.constant(np.full((6, 1, 1), 0.1015625, np.float32))])
    model.node("PRelu", [model.last, model.numbers(6, 1, 1)])
    model.node("LeakyRelu", alpha=0.3)
    finish(model, 6)


def softmax_at_the_end(model):
    model.conv(3, 6)
    finish(model, 6)
    model.node("Softmax", axis=1)


def no_dense_layer(model):
    model.conv(3, 6)
    model.node("GlobalMaxPool")
    model.node("Flatten")


def averages_inside(model):
    model.conv(3, 4)
    model.node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    model.node("Pad", [model.last, model.constant(np.array([0, 0, 1, 0, 0, 0, 2, 1]))])
    model.node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1], ceil_mode=1)
    finish(model, 4)


def zeros_before_a_pool_and_a_sum(model):
    x = model.conv(3, 4)
    zeros = model.constant(np.array([0, 0, 1, 0, 0, 0, 0, 2]))
    a = model.node("MaxPool", [model.node("Pad", [x, zeros])], kernel_shape=[2, 2])
    b = model.node("MaxPool", [model.node("Pad", [x, zeros])], kernel_shape=[2, 2])
    model.node("Add", [model.node("Pad", [a, zeros]), model.node("Pad", [b, zeros])])
    finish(model, 4)


def squeeze_and_excitation(model):
    x = model.conv(3, 6)
    model.node("GlobalAveragePool")
    model.conv(6, 3, kernel=1)
    model.node("Relu")
    model.conv(3, 6, kernel=1)
    model.node("HardSigmoid", alpha=1 / 6, beta=0.5)
    model.node("Mul", [model.last, x])
    model.node("HardSwish")
    y = model.conv(6, 6)
    flat = model.node("ReduceMean", axes=[2, 3], keepdims=0)
    model.node("Gemm", [flat, model.numbers(6, 6)])
    model.node("Sigmoid")
    model.node("Reshape", [model.last, model.constant(np.array([0, 6, 1, 1]))])
    model.node("Mul", [y, model.last])
    finish(model, 6)


def hard_swish_written_out(model):
    x = model.conv(3, 6)
    low, six = (model.constant(np.float32(n)) for n in (0, 6))
    model.node("Add", [x, model.constant(np.float32(3))])
    model.node("Clip", [model.last, low, six])
    model.node("Mul", [x, model.last])
    model.node("Div", [model.last, six])
    finish(model, 6)


def resized(model):
    model.conv(3, 4)
    none = model.constant(np.zeros(0, np.float32))
    twice = model.constant(np.array([1, 1, 2, 3], np.float32))
    model.node("Resize", [model.last, none, twice], mode="nearest", nearest_mode="floor",
               coordinate_transformation_mode="asymmetric")  # fmt: skip
    size = model.constant(np.array([1, 4, 48, 60]))
    model.node("Resize", [model.last, none, none, size], mode="linear",
               coordinate_transformation_mode="pytorch_half_pixel")  # fmt: skip
    model.node("Resize", [model.last, none, model.constant(np.array([1, 1, 0.5, 0.5], np.float32))],
               mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")  # fmt: skip
    finish(model, 4)


CASES = {
    **{build.__name__: (build, 17) for build in (
        pads_of_all_sides, clip_of_inputs, same_upper_and_lower, groups_and_depthwise, batch_norms_anywhere,
        flattened_map, flattened_with_an_affine_per_value, transposed_to_nhwc_and_back, means_of_all_forms,
        mean_over_pixels_in_a_row, ceil_mode, shortcut_without_weights, focus, pieces_of_channels,
        averages_inside, zeros_before_a_pool_and_a_sum, squeeze_and_excitation, hard_swish_written_out,
        transposed_convolutions,
        resized, zeros_beside_channels, shuffled_channels, space_to_depth, depth_to_space, sums,
        softmax_at_the_end, no_dense_layer,
    )},
    "old_pad_and_clip": (old_pad_and_clip, 9),
    "softmax_of_opset_11": (softmax_at_the_end, 11),
    "newest": (flattened_map, 21),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_answers_as_onnxruntime_does(name, tmp_path):
    build, opset = CASES[name]
    model = start(opset=opset)
    build(model)
    proven_reading(model, tmp_path)


def test_no_transpose_and_no_useless_layer_is_left(tmp_path):
    model = start()
    transposed_to_nhwc_and_back(model)
    wanted = ["input", "batch_norm", "conv", "relu", "avg_pool", "flatten", "dense"]
    assert kinds(proven_reading(model, tmp_path)) == wanted
    model = start()
    pieces_of_channels(model)
    assert (
        kinds(proven_reading(model, tmp_path)).count("conv") == 6
    )  # two of its own, four choices of channels


def test_one_sigmoid_becomes_two_classes(tmp_path):
    model = start()
    model.conv(3, 6)
    finish(model, 6, classes=1)
    model.node("Sigmoid")
    opened = open_model(model.write(tmp_path / "m.onnx"), SHAPE)
    network = read_onnx(opened, SHAPE, "net")
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    expected = OnnxModel(opened).run(x)
    found = run_float(network, x)[network.output.name]
    np.testing.assert_allclose(found, np.concatenate([1 - expected, expected], axis=1), atol=1e-6)


def test_one_sigmoid_beside_other_outputs_becomes_two_classes(tmp_path):
    model = start()
    trunk = model.conv(3, 6)
    heat = model.conv(6, 4, kernel=1)
    model.last = trunk
    finish(model, 6, classes=1)
    model.node("Sigmoid")
    proto = model.proto()
    proto.graph.output.append(helper.make_tensor_value_info(heat, TensorProto.FLOAT, None))
    onnx.save(proto, str(tmp_path / "m.onnx"))
    opened = open_model(tmp_path / "m.onnx", SHAPE)
    network, layouts = read_onnx_and_layouts(opened, SHAPE, "net")
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    found = run_float(network, x)
    shapes = {name: layer.shape for name, layer in network.outputs.items()}
    assert sorted(map(len, shapes.values())) == [1, 3] and (2,) in shapes.values()
    for name, values in OnnxModel(opened).run_all(x).items():
        expected = layouts[name].arranged(values)
        np.testing.assert_allclose(found[network.outputs[name].name], expected, atol=1e-5)
