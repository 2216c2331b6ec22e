"""network.h5: what was written comes back, equal contents have equal bytes, anything else is refused."""

import h5py
import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import seal
from dpuflow.network import Layer, Network
from dpuflow.network.network_file import load_network, refusal, save_network, save_refusal

WINDOW = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}


@pytest.fixture
def network():
    rng = np.random.default_rng(1)

    def numbers(*shape):
        return rng.normal(size=shape).astype(np.float32)

    layers = [
        Layer("input", "input", [], (4, 4, 3)),
        Layer("conv", "conv", ["input"], (4, 4, 2), WINDOW | {"activation": "NONE"}, numbers(2, 3, 3, 3)),
        Layer("norm", "batch_norm", ["conv"], (4, 4, 2), {}, numbers(2), numbers(2)),
        Layer("leaky", "leaky_relu", ["norm"], (4, 4, 2), {"alpha": 0.1015625}),
        Layer("flat", "flatten", ["leaky"], (32,)),
        Layer("dense", "dense", ["flat"], (3,), {"activation": "NONE"}, numbers(3, 32), numbers(3)),
        Layer("softmax", "softmax", ["dense"], (3,)),
    ]
    return Network("net", layers)


def test_round_trip(network, tmp_path):
    save_network(tmp_path / "n.h5", network)
    back = load_network(tmp_path / "n.h5")
    assert refusal(tmp_path / "n.h5") is None
    assert back.name == "net"
    for layer, wanted in zip(back.layers, network.layers, strict=True):
        assert (layer.name, layer.op, layer.inputs) == (wanted.name, wanted.op, wanted.inputs)
        assert (layer.shape, layer.attrs) == (wanted.shape, wanted.attrs)
        for values, expected in ((layer.weights, wanted.weights), (layer.bias, wanted.bias)):
            assert (values is None) == (expected is None)
            np.testing.assert_array_equal(values, expected)
    save_network(tmp_path / "again.h5", back)
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "n.h5").read_bytes()


def test_a_refusal_is_what_a_reader_gets(tmp_path):
    save_refusal(tmp_path / "n.h5", UserError("graph.pb: node 'x' (op Tanh): not supported"))
    assert refusal(tmp_path / "n.h5") == "graph.pb: node 'x' (op Tanh): not supported"
    with pytest.raises(UserError, match=r"^graph\.pb: node 'x' \(op Tanh\): not supported$"):
        load_network(tmp_path / "n.h5")


@pytest.mark.parametrize("cut", [0, 10, 500, -1])
def test_truncated_files_are_refused_by_name(network, tmp_path, cut):
    save_network(tmp_path / "n.h5", network)
    content = (tmp_path / "n.h5").read_bytes()
    (tmp_path / "n.h5").write_bytes(content[:cut])
    with pytest.raises(UserError, match=r"n\.h5"):
        load_network(tmp_path / "n.h5")


@pytest.mark.parametrize(
    ("layer", "attribute", "value", "problem"),
    [
        (1, "op", "convolution", "unknown op"),
        (1, "shape", [4, 4, 5], r"shape \(4, 4, 5\), must be \(4, 4, 2\)"),
        (4, "inputs", '["dense"]', "it reads 'dense', which is not defined before it"),
        (3, "settings", "{}", "alpha"),
        (5, "op", "flatten", "no weights, or weights on a layer that has none|activation"),
    ],
)
def test_a_sealed_file_whose_layers_do_not_fit_is_refused(
    network, tmp_path, layer, attribute, value, problem
):
    path = tmp_path / "n.h5"
    save_network(path, network)
    with h5py.File(path, "r+") as file:
        file[f"layers/{layer:05d}"].attrs[attribute] = value
    seal(path)
    with pytest.raises(UserError, match=rf"n\.h5: .*({problem})"):
        load_network(path)


def test_parameters_that_do_not_fit_are_refused(network, tmp_path):
    network["norm"].bias = np.zeros(3, np.float32)
    save_network(tmp_path / "n.h5", network)
    with pytest.raises(
        UserError, match=r"layer 'norm' \(batch_norm\): .* two numbers for each of 2 channels"
    ):
        load_network(tmp_path / "n.h5")
    network["norm"].bias = np.array([1, np.inf], np.float32)
    save_network(tmp_path / "n.h5", network)
    with pytest.raises(UserError, match="bias that are not finite"):
        load_network(tmp_path / "n.h5")
