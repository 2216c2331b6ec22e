"""Checkpoint and freezing: equal to Keras, old-release clean, deterministic."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.keras_models.keras_file import save_model
from dpuflow.tfgraph.checkpoint import CHECKPOINT_FILES, convert
from dpuflow.tfgraph.freeze import FrozenGraph, compare_with_keras, freeze
from dpuflow.tfgraph.graph_def import read_graph_def
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
