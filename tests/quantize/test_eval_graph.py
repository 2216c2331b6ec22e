"""quantize_eval_model.pb in TensorFlow gives the same integers as the integer engine, bit for bit."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from dpuflow.network import Layer, Network
from dpuflow.quantize import engine, eval_weighted
from dpuflow.quantize.calibration import to_grid
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.tfgraph.graph_def import read_graph_def
from tests.hand_network import hand_network, window

TF_1_15_OPS = {
    "Add", "BiasAdd", "Cast", "ClipByValue", "ConcatV2", "Const", "Conv2D", "Conv2DBackpropInput",
    "DepthwiseConv2dNative", "Floor", "GatherV2", "Identity", "MatMul", "MaxPool", "Maximum", "Minimum",
    "Mul", "Pad", "PadV2", "Placeholder", "Reshape", "Shape", "Slice", "Softmax", "Sub", "Sum",
}  # fmt: skip
TF_1_15_ATTRIBUTES = {
    "T", "dtype", "shape", "value", "strides", "padding", "dilations", "ksize", "N", "SrcT",
    "DstT", "keep_dims", "Taxis", "Tindices", "Tparams", "Index", "out_type",
}  # fmt: skip


def resized(quantized):
    """Bilinear, every n-th pixel, nearest, and back to the size of the pool."""
    network = quantized.network
    pool = network["pool1"]
    insert = [
        Layer("up", "resize_bilinear", ["pool1"], (9, 15, 8), {"size": (15, 9), "grid": "align_corners"}),
        Layer("down", "downsample", ["up"], (5, 5, 8), {"factor": (3, 2)}),
        Layer("near", "upsample", ["down"], (5, 10, 8), {"factor": (2, 1)}),
        Layer(
            "back",
            "resize_bilinear",
            ["near"],
            pool.shape,
            {"size": pool.shape[1::-1], "grid": "half_pixel"},
        ),
    ]
    at = network.layers.index(pool) + 1
    for layer in network.layers[at:]:
        layer.inputs[:] = ["back" if name == "pool1" else name for name in layer.inputs]
    layers = [*network.layers[:at], *insert, *network.layers[at:]]
    quantized = replace(quantized, network=Network(network.name, layers))
    fix = quantized.fix_points["pool1"]
    quantized.fix_points |= {"up": fix + 1, "down": fix + 1, "near": fix - 1, "back": fix}
    return quantized


def transposed(quantized):
    """A transposed convolution for the first one, and one of channels each alone behind the pool."""
    network = quantized.network
    layer = network["conv1"]
    layer.op, layer.attrs["stride"], layer.attrs["pad"] = "transposed_conv", (1, 2), (1, 1, 2, 1)
    layer.shape = (24, 11, 8)
    network["pool1"].attrs, network["pool1"].shape = window((3, 4), (2, 4)), (6, 5, 8)
    pool = network["pool1"]
    more = {
        "kernel": (2, 3),
        "stride": (3, 2),
        "pad": (1, 0, 0, 1),
        "dilation": (1, 1),
        "activation": "RELU",
    }
    at = network.layers.index(pool) + 1
    deep = Layer("deep", "transposed_depthwise_conv", ["pool1"], (12, 13, 8), more)
    back = Layer("back", "max_pool", ["deep"], (6, 5, 8), window((5, 2), (2, 2)))
    for later in network.layers[at:]:
        later.inputs[:] = ["back" if name == "pool1" else name for name in later.inputs]
    layers = [*network.layers[:at], deep, back, *network.layers[at:]]
    quantized = replace(quantized, network=Network(network.name, layers))
    weights = np.random.default_rng(3).integers(-90, 91, (1, 3, 2, 8)).astype(np.int8)
    quantized.weights["deep"] = (weights, 7)
    quantized.fix_points |= {"deep": 3, "back": 4}
    return quantized


def variant(kind):
    """hand_network with one part changed to reach another branch of the writer."""
    quantized = hand_network()
    network = quantized.network
    if kind == "wide accumulators":  # more than float32 holds exactly
        quantized.weights["conv1"] = (np.full((8, 3, 3, 3), 127, np.int8), 8)
        quantized.biases["conv1"] = (np.full(8, 127, np.int8), -1)
        quantized.fix_points["conv1"] = quantized.fix_points["pool1"] = -1
    elif kind == "half of a bias step":
        quantized.biases["conv1"] = (quantized.biases["conv1"][0], 15)
    elif kind == "padded pooling":
        network["pool1"].attrs = window((3, 3), (2, 2), (2, 0, 1, 0))
        network["pool1"].shape = (6, 6, 8)
        for name, channels in (("dw", 8), ("add", 8), ("cat", 16)):
            network[name].shape = (6, 6, channels)
        network["avg"].attrs = window((3, 3), (3, 3))
    elif kind == "global average":
        network["avg"].attrs, network["avg"].shape = window((5, 6)), (1, 1, 16)
        network["flat"].shape = (16,)
        quantized.weights["fc1"] = (quantized.weights["fc1"][0][:, :16].copy(), 8)
        quantized.fix_points["avg"] = quantized.fix_points["flat"] = 5
    elif kind == "relu6":
        network["conv1"].attrs["activation"] = "RELU6"
        network["add"].attrs["activation"] = "RELU6"
    elif kind == "requantized":  # as compat: vai_q may leave them
        quantized.fix_points["pool1"] = 5
        quantized.fix_points["cat"] = 2
    elif kind == "dilated, no softmax":
        network["dw"].attrs |= {"dilation": (2, 1), "pad": (2, 2, 1, 1)}
        network.layers = [layer for layer in network.layers if layer.op != "softmax"]
    elif kind == "dilated in float64":
        network["dw"].attrs |= {"dilation": (2, 1), "pad": (2, 2, 1, 1), "activation": "LEAKYRELU"}
    elif kind in ("resized", "transposed"):
        quantized = {"resized": resized, "transposed": transposed}[kind](quantized)
    elif kind == "add of far positions":
        quantized.fix_points["dw"] = quantized.fix_points["pool1"] + 9
        quantized.weights["dw"] = (quantized.weights["dw"][0], 12)
        quantized.fix_points["cat"] = quantized.fix_points["add"] = 4
        network["add"].attrs["activation"] = "LEAKYRELU"
    return quantized


KINDS = (
    "plain", "wide accumulators", "half of a bias step", "padded pooling", "global average", "relu6",
    "requantized",
    "dilated, no softmax", "dilated in float64", "add of far positions", "resized", "transposed",
)  # fmt: skip


@pytest.fixture(scope="module")
def tf():
    from dpuflow.base.tensorflow_env import tensorflow

    return tensorflow()


@pytest.mark.parametrize("kind", ("plain", "wide accumulators", "transposed"))
def test_weights_that_are_cast_when_the_graph_runs_give_the_same_integers(tf, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_weighted, "MANY_WEIGHTS", 300)
    monkeypatch.setattr(eval_weighted, "AT_ONCE", 300)
    test_tensorflow_gives_the_same_integers(tf, kind, tmp_path)
    nodes = {node.name: node for node in read_graph_def(tmp_path / "q.pb").node}
    quantized, parts, constants = variant(kind), 0, 0
    for name, (weights, _) in quantized.weights.items():
        if weights.size < 300:
            constants += nodes[f"quantized/{name}/weights"].op == "Const"
            continue
        scopes = [f"quantized/{name}/"]
        if quantized.network[name].op == "dense":  # in parts, one after the other
            each = max(1, 300 // weights.shape[1])
            scopes = [f"quantized/{name}/part{start}/" for start in range(0, len(weights), each)]
            parts = max(parts, len(scopes))
        for scope, before in zip(scopes, [None, *scopes], strict=False):
            cast, constant = nodes[f"{scope}weights"], nodes[f"{scope}weights_int8"]
            assert cast.op == "Cast" and constant.attr["value"].tensor.dtype == 6
            assert before is None or f"^{before}MatMul" in cast.input
    assert parts > 1 and constants


@pytest.mark.parametrize("kind", KINDS)
def test_tensorflow_gives_the_same_integers(tf, kind, tmp_path):
    quantized = variant(kind)
    path = tmp_path / "q.pb"
    names = write_eval_graph(path, quantized, "prob/Softmax")
    rng = np.random.default_rng(1)
    x = rng.uniform(-2.2, 2.2, (20, 13, 11, 3)).astype(np.float32)
    x[0, 0, 0, 0] = np.float32(0.49999997) / 64  # just below half a step: must go down
    logits = quantized.network["fc2"]
    grid = to_grid(x.astype(np.float64), quantized.fix_points["x"])
    expected = engine.run_integer(quantized, grid, [logits.name])[logits.name]
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph, name="")
        keys = ("logits_int8", "logits", "output")
        got = session.run([f"{names[key]}:0" for key in keys], {f"{names['input']}:0": x})
    np.testing.assert_array_equal(got[0], expected)
    assert len(np.unique(expected)) >= 9
    np.testing.assert_array_equal(got[1], expected * 2.0 ** -quantized.fix_points["fc2"])
    if kind.endswith("no softmax"):
        np.testing.assert_array_equal(got[2], got[1])
    else:
        np.testing.assert_allclose(got[2].sum(axis=1), 1, atol=1e-6)
    assert names["input"] == "x" and names["output"] == "prob/Softmax"


def test_only_what_tensorflow_1_15_knows(tmp_path):
    for kind in KINDS:
        write_eval_graph(tmp_path / "q.pb", variant(kind))
        graph = read_graph_def(tmp_path / "q.pb")
        assert {node.op for node in graph.node} <= TF_1_15_OPS
        assert {key for node in graph.node for key in node.attr} <= TF_1_15_ATTRIBUTES


def test_bytes_do_not_change(tmp_path):
    quantized = variant("plain")
    write_eval_graph(tmp_path / "a.pb", quantized)
    write_eval_graph(tmp_path / "b.pb", copy.deepcopy(quantized))
    assert (tmp_path / "a.pb").read_bytes() == (tmp_path / "b.pb").read_bytes()


@pytest.mark.parametrize("limit, convolutions", [(1 << 20, 1), (1 << 18, 3), (1 << 8, 1)])
def test_sums_that_float32_does_not_hold_are_exact(tf, limit, convolutions, tmp_path, monkeypatch):
    """A convolution in float32, in float32 by input channels, in float64."""
    monkeypatch.setattr(eval_weighted, "EXACT_FLOAT32", limit)
    test_tensorflow_gives_the_same_integers(tf, "wide accumulators", tmp_path)
    made = [
        node
        for node in read_graph_def(tmp_path / "q.pb").node
        if node.name.startswith("quantized/conv1/") and node.op == "Conv2D"
    ]
    types = {node.attr["T"].type for node in made}
    assert len(made) == convolutions and types == {2 if limit == 1 << 8 else 1}
    (rounded,) = (n for n in read_graph_def(tmp_path / "q.pb").node if n.name == "quantized/conv1/round")
    assert rounded.attr["T"].type == 2  # the bias is too wide for float32 at any of these limits


def test_a_dilated_convolution_by_channel_in_float64_has_zeros_between_its_weights(tf, tmp_path, monkeypatch):
    monkeypatch.setattr(eval_weighted, "EXACT_FLOAT32", 1 << 8)
    test_tensorflow_gives_the_same_integers(tf, "dilated in float64", tmp_path)
    nodes = {node.name: node for node in read_graph_def(tmp_path / "q.pb").node}
    made = nodes["quantized/dw/DepthwiseConv2dNative"]
    assert made.attr["T"].type == 2 and "dilations" not in made.attr
