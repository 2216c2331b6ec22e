"""A model of our own that was flipped or cut is refused before it answers; one of the user's is theirs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dpuflow.base import hdf5
from dpuflow.base.errors import UserError
from dpuflow.base.protobuf_seal import SIZE, sealed
from dpuflow.keras_models.keras_file import load_model, save_model
from dpuflow.network import Layer, Network
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_def import read_graph_def, write_graph_def
from dpuflow.tfgraph.network_graph import write_network_graph

PLACES = 200
SHAPE = (3, 3, 2)


def keras_model(path):
    """A trained model as `train` writes it."""
    from dpuflow.base.tensorflow_env import keras

    K = keras()
    layers = K.layers
    save_model(K.Sequential([layers.Input(SHAPE), layers.Flatten(), layers.Dense(4)]), path)


def frozen_graph(path):
    """A frozen graph as `freeze` and `import_onnx` write it."""
    weights = np.random.default_rng(1).normal(size=(4, 18)).astype(np.float32)
    layers = [
        Layer("x", "input", [], SHAPE),
        Layer("flat", "flatten", ["x"], (18,)),
        Layer("y", "dense", ["flat"], (4,), {"activation": "NONE"}, weights, np.ones(4, np.float32)),
    ]
    write_network_graph(path, Network("small", layers))


def onnx_model(path):
    """An ONNX model as `import_onnx` writes it."""
    weights = np.random.default_rng(1).normal(size=(18, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    path.write_bytes(sealed(helper.make_model(graph).SerializeToString(deterministic=True)))


MODELS = {
    "keras_trained_model.h5": (keras_model, load_model),
    "frozen_graph.pb": (frozen_graph, lambda path: FrozenGraph(path, "x", "y/BiasAdd", own=True)),
    "trained_model.onnx": (onnx_model, lambda path: open_model(path, SHAPE, own=True)),
}
"""Artifact -> what makes one, what reads it before it answers images."""


def damaged(data, random):
    """(what was done, bytes): flips at many places, the seal's among them, and cuts."""
    places = {*random.integers(0, len(data), PLACES).tolist(), *range(len(data) - SIZE, len(data), 5)}
    for place in sorted(places):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        yield f"byte {place}", bytes(changed)
    for length in (0, 1, len(data) // 2, len(data) - SIZE, len(data) - 1, *random.integers(0, len(data), 40)):
        yield f"cut to {length}", data[: int(length)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.fault("models", "{id}: one bit flipped at 200 places, cut at 45", "refused")
def test_a_damaged_model_of_our_own_is_refused(name, tmp_path):
    make, read = MODELS[name]
    path = tmp_path / name
    make(path)
    read(path)
    for what, data in damaged(path.read_bytes(), np.random.default_rng(2)):
        path.write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: "):
            pytest.fail(f"{what}: {read(path)}")


def test_a_file_without_its_seal_is_named_as_cut_off(tmp_path):
    path = tmp_path / "f.pb"
    frozen_graph(path)
    path.write_bytes(path.read_bytes()[:-SIZE])
    with pytest.raises(UserError, match=r"checksum at its end is missing .is the file cut.*run again"):
        FrozenGraph(path, "x", "y/BiasAdd", own=True)


def test_what_a_user_changed_in_a_file_of_ours_is_theirs(tmp_path):
    """Protobuf keeps the field that it does not know, so the seal of the old content ends the new one."""
    onnx_model(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    model.graph.name = "another"
    onnx.save(model, tmp_path / "m.onnx")
    assert open_model(tmp_path / "m.onnx", SHAPE).model.graph.name == "another"
    with pytest.raises(UserError, match=r"m.onnx: damaged"):
        open_model(tmp_path / "m.onnx", SHAPE, own=True)
    frozen_graph(tmp_path / "f.pb")
    graph = read_graph_def(tmp_path / "f.pb")
    write_graph_def(tmp_path / "again.pb", graph)
    assert (tmp_path / "again.pb").read_bytes() == (tmp_path / "f.pb").read_bytes()


def test_a_large_model_is_compared_in_full(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "LARGE", 1000)
    path = tmp_path / "keras_trained_model.h5"
    keras_model(path)
    load_model(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"keras_trained_model.h5: damaged .* \(bytes 0 to"):
        load_model(path)
