"""Networks of other people under fuzz: valid files of each kind, and how one is read up to its answers."""

import functools
import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from fuzz_seeds import REPO, xmodel_seeds

for folder in (REPO / "tests/onnx_graph", REPO / "tests/training"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

SHAPE, CLASSES = (6, 6, 2), 4
LARGE = 2**18
"""Values of an accepted network's maps up to which it is also run."""


def files(*writers):
    """The bytes that writers (function of a path) write."""
    found = []
    for write in writers:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            write(path)
            found.append(path.read_bytes())
    return found


def noise(*shape):
    """Float images."""
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def small(network):
    """Whether a network is quick to run."""
    return sum(np.prod(layer.shape, dtype=float) for layer in network.layers) < LARGE


# -- ONNX -------------------------------------------------------------------------------------


@functools.cache
def onnx_seeds():
    from onnx_models import Model, small_classifier

    def shapes(path):
        """What exporters write about shapes, a resize, a pad, a sum, a gate."""
        m = Model((2, 6, 6))
        x = m.conv(2, 4)
        m.node("Sigmoid")
        m.node("Mul", [x, m.last])
        m.node("Pad", [m.last, m.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))])
        m.node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
        empty = m.constant(np.zeros(0, np.float32))
        m.node("Resize", [m.last, empty, m.constant(np.float32([1, 1, 2, 2]))], mode="nearest")
        y = m.last
        m.node("Add", [y, m.node("Relu", [y])])
        x = m.node("GlobalAveragePool")
        first = m.node("Gather", [m.node("Shape", [x]), m.constant(np.int64(0))], axis=0)
        first = m.node("Unsqueeze", [first, m.constant(np.array([0], np.int64))])
        shape = m.node("Concat", [first, m.constant(np.array([-1], np.int64))], axis=0)
        m.node("Reshape", [x, shape])
        m.node("Gemm", [m.last, m.numbers(CLASSES, 4), m.numbers(CLASSES)], transB=1)
        m.node("Softmax", axis=-1)
        m.write(path)

    def folded(path):
        """Constants that onnxruntime folds, a batch norm, a transposed convolution."""
        m = Model((2, 6, 6))
        m.conv(2, 3, groups=1)
        m.node("BatchNormalization", [m.last, *(m.constant(np.abs(noise(3)) + 0.1) for _ in range(4))])
        x = m.last
        m.node("Add", [x, m.node("Mul", [m.constant(noise(3, 1, 1)), m.constant(np.float32(0.5))])])
        m.node("ConvTranspose", [m.last, m.numbers(3, 2, 2, 2)], strides=[2, 2], kernel_shape=[2, 2])
        m.node("Clip", [m.last, m.constant(np.float32(0)), m.constant(np.float32(6))])
        m.node("MaxPool", kernel_shape=[3, 3], strides=[3, 3])
        m.node("Flatten")
        m.node("MatMul", [m.last, m.numbers(32, CLASSES)])
        m.write(path)

    return files(lambda path: small_classifier(path, (2, 6, 6), CLASSES), shapes, folded)


def read_onnx_model(path):
    """As `import_onnx` and `evaluate_onnx` do."""
    from dpuflow.base.errors import about
    from dpuflow.onnx_graph.model_file import open_model
    from dpuflow.onnx_graph.reader import read_onnx
    from dpuflow.onnx_graph.runtime import OnnxModel
    from dpuflow.quantize import engine

    opened = open_model(path, SHAPE)
    with about(path):
        network = read_onnx(opened, SHAPE, "fuzzed")
    if not small(network):
        return
    x = noise(2, *SHAPE)
    found = engine.run_float(network, x)[network.output.name]
    wanted = OnnxModel(opened).run(x)
    if found.size == wanted.size and np.abs(wanted).max() < 1e4 and np.isfinite(found).all():
        wanted = wanted.reshape(found.shape)
        np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-2 * (np.abs(wanted).max() + 0.1))


# -- quantized and compiled networks ----------------------------------------------------------


@functools.cache
def qdq_seeds():
    from test_qdq import network

    return files(network)


def answers(path, graph, scaling=None):
    """What a quantized graph computes, if it is small."""
    from dpuflow.compiler.quantized_reading import quantized_network
    from dpuflow.quantize import engine

    quantized = quantized_network(path, graph, "fuzzed", scaling)
    if small(quantized.network):
        x = np.random.default_rng(1).integers(-128, 128, (2, *quantized.network.input.shape))
        engine.run_integer(quantized, x.astype(np.float32))


def read_qdq(path):
    from dpuflow.onnx_graph.qdq import qdq_graph

    answers(path, qdq_graph(path)[0], {"subtract": 0, "divide": 255})


def quantized_xmodel_seeds():
    return xmodel_seeds()[2:]


def read_quantized_xmodel(path):
    from dpuflow.xir import Graph

    answers(path, Graph.load(path))


@functools.cache
def foreign_xmodel_seeds():
    """Compiled graphs without what only dpuflow writes into them."""
    from dpuflow.xir import Graph

    graph = Graph.from_bytes(xmodel_seeds()[1])
    for name in ("input_subtract", "input_divide", "return_ops", "class_count"):
        if name in graph.attrs:
            del graph.attrs[name]
    return [graph.to_bytes()]


def read_foreign_xmodel(path):
    """As `take_xmodel` and `run_emulator` do."""
    from dpuflow.compiler.own_xmodel import prepared
    from dpuflow.device.targets import load_targets
    from dpuflow.emulator import Emulator

    scaling = {"subtract": 127.5, "divide": 127.5}
    graph, _ = prepared(path, (13, 11, 3), 5, scaling, load_targets()["kv260"])
    if sum(np.prod(op.tensor.shape, dtype=float) for op in graph.ops) < LARGE:
        with Emulator(graph, threads=1) as emulator:
            emulator.run(emulator.quantize_input(np.zeros((2, 13, 11, 3), np.uint8)))


# -- SavedModel -------------------------------------------------------------------------------


@functools.cache
def saved_model_seeds():
    from saved_models import small_saved_model

    with tempfile.TemporaryDirectory() as folder:
        small_saved_model(folder, SHAPE, CLASSES)
        return [Path(folder, "saved_model.pb").read_bytes()]


def read_saved_model(path):
    from dpuflow.base.errors import UserError
    from dpuflow.tfgraph.graph_reader import read_network
    from dpuflow.tfgraph.saved_model import freeze_saved_model

    try:
        graph, first, ends, _ = freeze_saved_model(path.parent)
        (path.parent / "frozen.pb").write_bytes(graph)
        read_network(path.parent / "frozen.pb", first, next(iter(ends.values())), SHAPE)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from None


# -- Keras ------------------------------------------------------------------------------------


@functools.cache
def keras_h5_seeds():
    from dpuflow.base.tensorflow_env import keras

    K = keras()
    layers = K.layers

    def functional(path):
        x = inputs = K.Input(SHAPE)
        x = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x))
        y = layers.ReLU(6.0)(x)
        x = layers.MaxPooling2D()(layers.Add()([x, y]))
        x = layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x))
        K.Model(inputs, x).save(path, save_format="h5")

    return files(functional)


@functools.cache
def keras3_seeds():
    """A .keras archive by hand: the form that Keras 3 writes."""
    import h5py

    def layer(kind, **config):
        config |= {"dtype": "float32"}
        return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}

    inputs = layer("InputLayer", batch_shape=[None, *SHAPE], name="input", sparse=False)
    flat = layer("Flatten", name="flatten", data_format="channels_last")
    dense = layer("Dense", name="dense", units=CLASSES, activation="softmax", use_bias=True)
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "small", "trainable": True, "dtype": "float32", "layers": [inputs, flat, dense]},
        "registered_name": None,
        "build_config": {"input_shape": [None, *SHAPE]},
    }
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        variables = file.create_group("layers/dense/vars")
        variables["0"], variables["1"] = noise(72, CLASSES), noise(CLASSES)
        file.create_group("layers/flatten/vars")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0", "date_saved": "x"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights.getvalue())
    return [stream.getvalue()]


def read_keras(path):
    """As `import_keras` does."""
    from dpuflow.keras_models.keras_import import import_model
    from dpuflow.keras_models.prediction import predictor

    model, _ = import_model(path, SHAPE, CLASSES)
    assert predictor(model)(noise(2, *SHAPE)).shape == (2, CLASSES)
