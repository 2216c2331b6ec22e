"""ONNX models by hand: a few nodes, weights from a fixed seed, written as a file."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx
from dpuflow.onnx_graph.runtime import OnnxModel
from dpuflow.quantize.engine import run_float

SHAPE = (12, 10, 3)
"""(H, W, C) of the images; ONNX has them as (3, 12, 10)."""


class Model:
    """Nodes of one graph; `write` makes the file.

    shape : of the input behind the batch; batch : a number, or a name for an open one.
    """

    def __init__(self, shape, batch="N", opset=17, seed=5):
        self.shape, self.batch, self.opset = shape, batch, opset
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.last = [], [], "input"

    def constant(self, array, name=None):
        """An initializer; returns its name."""
        name = name or f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def numbers(self, *shape, scale=None):
        """Weights that keep the size of what goes through them."""
        fan = np.prod(shape[1:]) if len(shape) > 1 else 4
        values = self.random.normal(0, scale or 1 / np.sqrt(fan), shape)
        return self.constant(values.astype(np.float32))

    def node(self, op, inputs=None, outputs=1, name=None, **attrs):
        """Append a node that reads the last output (or `inputs`); returns its first output."""
        name = name or f"{op}_{len(self.nodes)}"
        made = [f"{name}_out{k}" for k in range(outputs)]
        inputs = [self.last] if inputs is None else inputs
        self.nodes.append(helper.make_node(op, inputs, made, name, **attrs))
        self.last = made[0]
        return self.last if outputs == 1 else made

    def conv(self, channels_in, channels, kernel=3, source=None, groups=1, bias=True, **attrs):
        """A convolution, padded to the same size unless told otherwise."""
        attrs = {"pads": [kernel // 2] * 4, **attrs}
        weights = self.numbers(channels, channels_in // groups, kernel, kernel)
        inputs = [source or self.last, weights, *([self.numbers(channels, scale=0.3)] if bias else [])]
        return self.node("Conv", inputs, group=groups, kernel_shape=[kernel, kernel], **attrs)

    def proto(self, output_shape=None, kind=TensorProto.FLOAT, output_kind=TensorProto.FLOAT):
        """The ModelProto."""
        graph = helper.make_graph(
            self.nodes,
            "by_hand",
            [helper.make_tensor_value_info("input", kind, [self.batch, *self.shape])],
            [helper.make_tensor_value_info(self.last, output_kind, output_shape)],
            self.weights,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8, producer_name="tests"
        )

    def write(self, path, **options):
        """Write the model; returns the path."""
        onnx.save(self.proto(**options), str(path))
        return path


def small_classifier(path, shape=(1, 28, 28), classes=25, batch="N"):
    """conv - relu - pool - flatten - gemm, in NCHW."""
    channels, height, width = shape
    model = Model(shape, batch)
    model.conv(channels, 8, strides=[2, 2])
    model.node("Relu")
    model.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    model.node("Flatten")
    inner = 8 * (-(-height // 2) // 2) * (-(-width // 2) // 2)
    model.node("Gemm", [model.last, model.numbers(classes, inner), model.numbers(classes)], transB=1)
    return model.write(path)


def finish(model, channels, classes=5):
    """Global pooling and a dense layer, so that the network answers classes."""
    model.node("GlobalAveragePool")
    model.node("Flatten")
    model.node("Gemm", [model.last, model.numbers(classes, channels), model.numbers(classes)], transB=1)


def start(**options):
    """A model for images of SHAPE."""
    return Model((3, 12, 10), **options)


def proven_reading(model, folder, tolerance=2e-6):
    """Read the model, compare it with onnxruntime; returns the Network."""
    path = model.write(folder / "m.onnx")
    opened = open_model(path, SHAPE)
    network = read_onnx(opened, SHAPE, "net")
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    expected = OnnxModel(opened).run(x)
    found = run_float(network, x)[network.output.name]
    size = np.abs(expected).max()
    assert size > 1e-3 and np.abs(expected - expected[0]).max() > 1e-4 * size
    np.testing.assert_allclose(found, expected, atol=tolerance * size)
    return network
