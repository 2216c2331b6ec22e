"""Folding keeps the function and says what it did (equality with TensorFlow: test_graph_reader)."""

import copy

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.network import Layer, Network
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.folding import LONGEST_DIAGONAL, fold
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import GraphMaker, images, plain_network, residual_network


def outputs(network, x):
    return run_float(network, x)[network.output.name]


@pytest.mark.parametrize("after", [False, True])
def test_folded_network_equals_the_float_one(tmp_path, after):
    network = read_network(plain_network(tmp_path / "g.pb", after))
    x = images().astype(np.float32) / 255
    folded, notes = fold(network)
    np.testing.assert_allclose(outputs(folded, x), outputs(network, x), atol=1e-5)
    ops = [layer.op for layer in folded.layers]
    assert ops == ["input", "conv", "max_pool", "conv", "max_pool", "flatten", "dense", "dense", "softmax"]
    assert sum("batch normalisation" in note["how"] for note in notes) == 2


def test_offset_in_front_of_padding_takes_one_constant_channel(tmp_path):
    network = read_network(plain_network(tmp_path / "g.pb", after=True))
    folded, notes = fold(network)
    first, second = (layer for layer in folded.layers if layer.op == "conv")
    assert first.shape == (12, 12, 9)
    assert not first.weights[-1].any()
    assert first.bias[-1] == 2 ** round(np.log2(first.bias[-1]))
    assert second.weights.shape == (12, 3, 3, 9)
    # the new weights do not widen the range of the old ones
    assert np.abs(second.weights[..., -1]).max() <= np.abs(second.weights[..., :-1]).max()
    assert any("constant channel of conv2" in note["how"] for note in notes)


def test_depthwise_choice_keeps_the_shapes(tmp_path):
    network = read_network(plain_network(tmp_path / "g.pb", after=True))
    folded, _ = fold(network, "depthwise")
    x = images().astype(np.float32) / 255
    np.testing.assert_allclose(outputs(folded, x), outputs(network, x), atol=1e-5)
    norms = [layer for layer in folded.layers if layer.op == "depthwise_conv"]
    assert [layer.attrs["kernel"] for layer in norms] == [(1, 1), (1, 1)]


def test_reading_network_is_left_untouched(tmp_path):
    network = read_network(residual_network(tmp_path / "g.pb"))
    before = [(layer.name, layer.op, tuple(layer.inputs)) for layer in network.layers]
    fold(network)
    assert [(layer.name, layer.op, tuple(layer.inputs)) for layer in network.layers] == before


def leaky_network(path, alpha):
    g = GraphMaker()
    x = g.op("LeakyRelu", g.batch_norm(g.conv(g.input, 1, 2), 2), alpha=alpha)
    return read_network(g.write(path, g.dense(g.flatten(x, 288), 288, 3)))


@pytest.mark.fault("models", "leaky ReLU of a slope that the DPU does not have", "refused")
def test_leaky_slopes_from_one_on_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"slope 1\.3.*26/256.*train with slope 0\.1"):
        fold(leaky_network(tmp_path / "g.pb", 1.3))


@pytest.mark.parametrize("alpha", [0.3, 0.01, -0.5, 0.0])
def test_other_leaky_slopes_are_two_shares_and_a_sum(tmp_path, alpha):
    network = leaky_network(tmp_path / "g.pb", alpha)
    folded, notes = fold(network)
    x = images().astype(np.float32) / 255
    np.testing.assert_allclose(outputs(folded, x), outputs(network, x), atol=1e-5)
    ops = [layer.op for layer in folded.layers if layer.op in ("conv", "depthwise_conv", "add")]
    assert ops == ["conv", "depthwise_conv", "depthwise_conv", "add"]
    activations = [layer.attrs["activation"] for layer in folded.layers if layer.op == "depthwise_conv"]
    assert sorted(activations) == ["NONE", "RELU"]
    assert any("the DPU fuses 26/256 only" in note["how"] for note in notes)


def test_folding_shares_the_weights_that_stay_and_leaves_those_it_was_given(tmp_path):
    """Copies of VGG16's would be half a gigabyte each."""
    network = read_network(plain_network(tmp_path / "g.pb"))
    given = {layer.name: (layer.weights, copy.deepcopy(layer.weights)) for layer in network.layers}
    folded, _ = fold(network)
    for name, (weights, before) in given.items():
        assert network[name].weights is weights
        np.testing.assert_array_equal(weights, before)
    last = folded.last_quantized[0].name
    assert folded[last].weights is network[last].weights
    folded[last].attrs["activation"] = "RELU"
    folded[last].inputs[0] = "other"
    assert network[last].attrs["activation"] != "RELU" and "other" not in network[last].inputs


def test_a_norm_of_a_long_vector_is_refused_before_it_takes_all_memory():
    length = LONGEST_DIAGONAL + 1
    norm = Layer("norm", "batch_norm", ["flat"], (length,), {})
    norm.weights, norm.bias = np.ones(length, np.float32), np.ones(length, np.float32)
    layers = [Layer("x", "input", [], (1, 1, length)), Layer("flat", "flatten", ["x"], (length,)), norm]
    with pytest.raises(UserError, match="layer 'norm': batch_norm of a vector of 8193 values finds no layer"):
        fold(Network("n", layers))


@pytest.mark.parametrize("grid", ["half_pixel", "asymmetric", "align_corners"])
def test_resizing_one_pixel_and_to_the_size_that_is_there(grid):
    """As behind the mean of a map, and with sizes that a network asks of another map."""
    window = {"kernel": (6, 4), "stride": (6, 4), "pad": (0, 0, 0, 0)}
    layers = [
        Layer("x", "input", [], (4, 6, 3)),
        Layer("soft", "relu6", ["x"], (4, 6, 3), {}),
        Layer("same", "resize_bilinear", ["soft"], (4, 6, 3), {"size": (6, 4), "grid": grid}),
        Layer("mean", "avg_pool", ["same"], (1, 1, 3), window),
        Layer("wide", "resize_bilinear", ["mean"], (4, 6, 3), {"size": (6, 4), "grid": grid}),
        Layer("sum", "add", ["same", "wide"], (4, 6, 3), {"activation": "NONE"}),
        Layer("twice", "resize_bilinear", ["sum"], (8, 12, 3), {"size": (12, 8), "grid": grid}),
        Layer("end", "resize_bilinear", ["twice"], (8, 12, 3), {"size": (12, 8), "grid": grid}),
    ]
    network = Network("resized", layers)
    folded, notes = fold(network)
    assert [layer.op for layer in folded.layers].count("resize_bilinear") == 1
    assert folded["wide"].op == "upsample" and folded["sum"].inputs[1] == "wide"
    assert [note["layer"] for note in notes if "resizing" in note["how"]] == ["same", "wide", "end"]
    x = np.random.default_rng(4).uniform(-3, 7, (2, 4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(outputs(folded, x), outputs(network, x))
