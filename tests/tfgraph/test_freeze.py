"""Checkpoint and freezing: equal to Keras, old-release clean, deterministic."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import scale_pixels
from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras_file import save_model
from dpuflow.network.network_file import load_network
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.outputs import FloatStage
from dpuflow.tfgraph.checkpoint import CHECKPOINT_FILES, convert
from dpuflow.tfgraph.freeze import FrozenGraph, compare_with_keras, freeze
from dpuflow.tfgraph.freeze_proof import Compared
from dpuflow.tfgraph.graph_def import read_graph_def
from dpuflow.tfgraph.graph_reader import graph_to_network, read_network
from dpuflow.tfgraph.outputs import GraphStage
from dpuflow.training.model_builder import build_model
from dpuflow.training.trainer import compile_model, seed_everything

SCALING = {"subtract": 128, "divide": 128}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """An untrained model with non-trivial batch norm, converted and frozen."""
    folder = tmp_path_factory.mktemp("chain")
    seed_everything(1)
    layers = [
        {"conv": {"filters": 4, "activation": "relu", "batch_norm": "after_activation"}},
        {"max_pool": 2},
        {"dropout": 0.4},
        "flatten",
    ]
    model = build_model(layers, (8, 8, 1), 3, "tiny")
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape).astype(np.float32) for w in model.get_weights()])
    compile_model(model, {"optimizer": "adam", "learning_rate": 1e-3})
    save_model(model, folder / "m.h5")
    nodes = convert(folder / "m.h5", folder / "tf")
    report = freeze(folder / "tf", nodes, folder / "frozen_graph.pb")
    return folder, nodes, report


def test_nodes_are_discovered(chain):
    _, nodes, _ = chain
    assert nodes["input"] == {
        "name": "input",
        "tensor": "input:0",
        "shape": [None, 8, 8, 1],
        "dtype": "float32",
    }
    assert nodes["output"]["name"] == "probabilities/Softmax" and nodes["output"]["shape"] == [None, 3]


def test_every_variable_is_frozen_and_training_nodes_are_gone(chain):
    folder, _, report = chain
    assert report["variables_frozen"] == 8  # conv 2, batch norm 4, logits 2
    graph = read_graph_def(folder / "frozen_graph.pb")
    ops = {node.op for node in graph.node}
    assert not ops & {"VarHandleOp", "ReadVariableOp", "RestoreV2", "SaveV2", "Identity", "RandomUniform"}
    assert ops >= {"Placeholder", "Const", "Conv2D", "FusedBatchNormV3", "MaxPool", "MatMul", "Softmax"}


def test_no_attribute_that_tensorflow_1_15_refuses(chain):
    folder, _, _ = chain
    for node in read_graph_def(folder / "frozen_graph.pb").node:
        assert "exponential_avg_factor" not in node.attr
        assert not any(name.startswith("_") for name in node.attr) and node.device == ""


def test_frozen_output_equals_keras(chain):
    folder, nodes, _ = chain
    images = np.random.default_rng(4).integers(0, 256, (300, 8, 8, 1), np.uint8)
    result = compare_with_keras(folder / "frozen_graph.pb", nodes, folder / "m.h5", images, SCALING, 1e-5)
    assert result["images_compared"] == 300 and result["max_difference"] <= 1e-5


def test_a_graph_of_another_model_is_noticed(chain, tmp_path):
    folder, nodes, _ = chain
    seed_everything(9)
    other = build_model([{"max_pool": 2}, "flatten"], (8, 8, 1), 3, "other")
    save_model(other, tmp_path / "other.h5")
    images = np.random.default_rng(4).integers(0, 256, (50, 8, 8, 1), np.uint8)
    with pytest.raises(UserError, match="not the trained model"):
        compare_with_keras(folder / "frozen_graph.pb", nodes, tmp_path / "other.h5", images, SCALING, 1e-5)


def test_the_allowed_difference_goes_with_the_size_of_the_outputs(tmp_path):
    """Rounding that a deep network's float32 sums leave is no other network; a changed weight is one."""
    K = keras()
    images = np.random.default_rng(4).integers(0, 256, (64, 4, 4, 1), np.uint8)
    x = K.Input((4, 4, 1))
    model = K.Model(x, K.layers.Dense(3, name="logits")(K.layers.Flatten()(x)))
    kernel = np.random.default_rng(5).normal(0, 200, (16, 3)).astype(np.float32)
    model.set_weights([kernel, np.zeros(3, np.float32)])
    nodes = convert_and_freeze(model, tmp_path)
    model.set_weights([kernel * np.float32(1 + 2e-6), np.zeros(3, np.float32)])
    save_model(model, tmp_path / "m.h5")
    result = compare_with_keras(tmp_path / "g.pb", nodes, tmp_path / "m.h5", images, SCALING, 1e-5)
    assert result["max_difference"] > 1e-3 and result["predictions_equal"]
    model.set_weights([kernel * np.float32(1 + 1e-4), np.zeros(3, np.float32)])
    save_model(model, tmp_path / "m.h5")
    with pytest.raises(
        UserError, match=r"image \d+ .* output \d: .*1\.0e-04 of the largest output.* in 0 of 64"
    ):
        compare_with_keras(tmp_path / "g.pb", nodes, tmp_path / "m.h5", images, SCALING, 1e-5)


def convert_and_freeze(model, folder):
    save_model(model, folder / "m.h5")
    nodes = convert(folder / "m.h5", folder / "tf")
    freeze(folder / "tf", nodes, folder / "g.pb")
    return nodes


def test_layers_that_keras_writes_in_several_nodes_are_read_as_one(tmp_path):
    """Grouped and dilated convolutions, and a dense layer on a map: from H5 to the network."""
    K = keras()
    seed_everything(3)
    x = K.Input((7, 7, 4))
    y = K.layers.Conv2D(6, 3, groups=2, activation="relu")(x)
    y = K.layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation="relu", name="dilated")(y)
    y = K.layers.Dense(5, activation="relu", name="on_map")(y)
    model = K.Model(x, K.layers.Dense(3)(K.layers.GlobalMaxPooling2D()(y)))
    rng = np.random.default_rng(6)
    model.set_weights([rng.normal(0, 0.4, w.shape).astype(np.float32) for w in model.get_weights()])
    images = rng.integers(0, 256, (9, 7, 7, 4), np.uint8)
    expected = model(scale_pixels(images, SCALING)).numpy()
    nodes = convert_and_freeze(model, tmp_path)
    compare_with_keras(tmp_path / "g.pb", nodes, tmp_path / "m.h5", images, SCALING, 1e-6)
    network = read_network(tmp_path / "g.pb")
    assert [layer.op for layer in network.layers if layer.weights is not None] == ["conv"] * 3 + ["dense"]
    assert network["dilated"].attrs["dilation"] == (2, 2)
    got = run_float(network, scale_pixels(images, SCALING))[network.output.name]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_conversion_and_freezing_repeat_to_the_byte(chain, tmp_path):
    folder, nodes, _ = chain
    assert convert(folder / "m.h5", tmp_path / "tf") == nodes
    freeze(tmp_path / "tf", nodes, tmp_path / "frozen_graph.pb")
    for name in (*CHECKPOINT_FILES, "tf_complete_model.pb"):
        assert (tmp_path / "tf" / name).read_bytes() == (folder / "tf" / name).read_bytes(), name
    assert (tmp_path / "frozen_graph.pb").read_bytes() == (folder / "frozen_graph.pb").read_bytes()


def test_checkpoint_restores_with_the_exact_weights(chain):
    from dpuflow.base.tensorflow_env import tensorflow

    folder, nodes, _ = chain
    reader = tensorflow().train.load_checkpoint(str(folder / "tf" / "tfchkpt.ckpt"))
    assert sorted(reader.get_variable_to_shape_map()) == nodes["variables"]
    first = (folder / "tf" / "checkpoint").read_text().splitlines()[0]
    assert first == 'model_checkpoint_path: "tfchkpt.ckpt"'


@pytest.mark.fault("models", "checkpoint missing, graph broken", "refused")
def test_a_missing_checkpoint_or_a_broken_graph_is_named(tmp_path, chain):
    _, nodes, _ = chain
    with pytest.raises(UserError, match=r"tfchkpt\.ckpt: cannot be restored"):
        freeze(tmp_path, nodes, tmp_path / "f.pb")
    (tmp_path / "broken.pb").write_bytes(b"\x0a\xff\xff\xff")
    with pytest.raises(UserError, match=r"broken\.pb"):
        FrozenGraph(tmp_path / "broken.pb", "input", "out")


def write_pooled(path, size):
    """A graph whose largest tensor is 32 channels of `size` x `size`."""
    from dpuflow.base.tensorflow_env import tensorflow

    tf, rng = tensorflow(), np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, size, size, 1), name="images")
        weights = tf.constant(rng.normal(size=(3, 3, 1, 32)), tf.float32)
        x = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, weights, 1, "SAME")), axis=(1, 2))
        tf.matmul(x, tf.constant(rng.normal(size=(32, 5)), tf.float32), name="out")
        path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def test_a_batch_is_as_large_as_the_graph_allows(tmp_path, monkeypatch):
    path = write_pooled(tmp_path / "g.pb", 256)
    graph = FrozenGraph(path, "images", "out")
    assert graph.batch == (1 << 24) // (256 * 256 * 32)
    pictures = np.random.default_rng(0).random((10, 256, 256, 1), np.float32)
    one_by_one = np.concatenate([graph.run(pictures[i : i + 1]) for i in range(10)])
    np.testing.assert_allclose(graph.run(pictures), one_by_one, rtol=1e-5)
    monkeypatch.setattr("dpuflow.tfgraph.large_graph.LARGE_BYTES", 0)  # without TensorFlow's rewriting
    np.testing.assert_allclose(FrozenGraph(path, "images", "out").run(pictures), one_by_one, rtol=1e-5)
    assert FrozenGraph(write_pooled(path, 16), "images", "out").batch == 256


def test_a_model_with_several_outputs_is_frozen_and_proven_output_by_output(tmp_path):
    K = keras()
    seed_everything(5)
    x = K.Input((8, 6, 3))
    y = K.layers.Conv2D(6, 3, activation="relu", name="trunk")(x)
    mask = K.layers.Conv2D(2, 1, name="mask")(y)
    scores = K.layers.Dense(4, activation="softmax", name="class")(K.layers.GlobalAveragePooling2D()(y))
    model = K.Model(x, [mask, scores])
    images = np.random.default_rng(4).integers(0, 256, (20, 8, 6, 3), np.uint8)
    nodes = convert_and_freeze(model, tmp_path)
    assert {name: end["shape"][1:] for name, end in nodes["outputs"].items()} == {
        "mask": [6, 4, 2],
        "class": [4],
    }
    result = compare_with_keras(tmp_path / "g.pb", nodes, tmp_path / "m.h5", images, SCALING, 1e-5)
    assert set(result["differences"]) == {"mask", "class"}
    assert result["max_difference"] == max(result["differences"].values()) <= 1e-5
    graph_to_network(tmp_path / "g.pb", nodes, "net", tmp_path / "n.h5")
    network = load_network(tmp_path / "n.h5")
    assert list(network.outputs) == ["mask", "class"]
    read = FloatStage(network, SCALING)(images)
    for name, values in GraphStage(tmp_path / "g.pb", nodes, SCALING)(images).items():
        np.testing.assert_allclose(read[name], values, rtol=1e-4, atol=1e-5)
    kernel, bias = model.get_layer("mask").get_weights()
    model.get_layer("mask").set_weights([kernel, bias + 0.01])
    save_model(model, tmp_path / "m.h5")
    with pytest.raises(UserError, match=r"output \d+ of 'mask': .*; the frozen graph is not the trained"):
        compare_with_keras(tmp_path / "g.pb", nodes, tmp_path / "m.h5", images, SCALING, 1e-5)


def test_a_value_that_is_no_number_is_no_proof_whatever_follows():
    expected = np.ones((2, 3), np.float32)
    frozen = expected.copy()
    frozen[1, 2] = np.nan
    compared = Compared("output", (None, 3), 1e-4)
    compared.add(frozen, expected)
    compared.add(expected, expected)
    with pytest.raises(
        UserError, match=r"f\.pb: differs from k\.h5 by up to nan \(image 1 .*, output 2: nan "
    ):
        compared.require("f.pb", "k.h5", False)
