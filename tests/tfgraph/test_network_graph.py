"""A float Network as a frozen graph: TensorFlow answers as NumPy does, and it is read as the network."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.network import Layer, Network
from dpuflow.ops import make
from dpuflow.quantize.engine import run_float
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.tfgraph.network_graph import write_network_graph

RANDOM = np.random.default_rng(4)


def window(kernel, stride=(1, 1), pad=(0, 0, 0, 0), **more):
    return {"kernel": kernel, "stride": stride, "pad": pad, **more}


def numbers(*shape):
    return RANDOM.normal(0, 0.4, shape).astype(np.float32)


LAYERS = [
    ("norm", "batch_norm", ["images"], {}, numbers(3), numbers(3)),
    ("a", "conv", ["norm"], window((3, 2), (2, 1), (1, 0, 2, 1), dilation=(1, 1), activation="NONE"),
     numbers(6, 2, 3, 3), numbers(6)),
    ("a/relu", "relu", ["a"], {}),
    ("pooled", "max_pool", ["a/relu"], window((3, 3), (2, 2), (1, 1, 1, 0))),
    ("dw", "depthwise_conv", ["pooled"],
     window((3, 3), (1, 1), (1, 1, 1, 1), dilation=(1, 1), activation="NONE"), numbers(1, 3, 3, 6), None),
    ("dw/leaky", "leaky_relu", ["dw"], {"alpha": 0.1015625}),
    ("step", "depthwise_conv", ["dw/leaky"], window((1, 1), (1, 2), dilation=(1, 1), activation="NONE"),
     np.ones((1, 1, 1, 6), np.float32), None),
    ("low", "max_pool", ["step"], window((2, 2), (1, 1), (1, 0, 1, 0))),
    ("mean", "avg_pool", ["step"], window((2, 2), (1, 1), (1, 0, 1, 0))),
    ("inside", "avg_pool_inside", ["mean"], window((2, 2), (1, 1), (1, 0, 1, 0))),
    ("inside/same", "avg_pool_inside", ["inside"], window((3, 3), (1, 1), (1, 1, 1, 1))),
    ("dilated", "conv", ["low"], window((3, 3), (1, 1), (2, 2, 2, 2), dilation=(2, 2), activation="NONE"),
     numbers(6, 3, 3, 6), None),
    ("clipped", "relu6", ["dilated"], {}),
    ("sum", "add", ["clipped", "inside/same"], {"activation": "NONE"}),
    ("both", "concat", ["sum", "low"], {"axis": 3}),
    ("twice", "upsample", ["both"], {"factor": (2, 3)}),
    ("third", "downsample", ["twice"], {"factor": (2, 2)}),
    ("risen", "transposed_conv", ["third"],
     window((3, 2), (2, 2), (1, 0, 0, 1), dilation=(1, 1), activation="NONE"), numbers(12, 2, 3, 12),
     numbers(12)),
    ("alone", "transposed_depthwise_conv", ["risen"],
     window((2, 3), (1, 2), (0, 1, 1, 0), dilation=(1, 1), activation="NONE"), numbers(1, 3, 2, 12), None),
    ("between", "resize_bilinear", ["alone"], {"size": (14, 9), "grid": "half_pixel"}),
    ("corners", "resize_bilinear", ["between"], {"size": (7, 9), "grid": "align_corners"}),
    ("gate", "hard_sigmoid", ["corners"], {}),
    ("gated", "multiply", ["corners", "gate"], {}),
    ("squeezed", "avg_pool", ["gated"], None),
    ("excited", "sigmoid", ["squeezed"], {}),
    ("factors", "flatten", ["excited"], {}),
    ("scaled", "multiply", ["gated", "factors"], {}),
    ("finer", "pixel_shuffle", ["scaled"], {"scale": 2, "upscale": True}),
    ("deeper", "pixel_shuffle", ["finer"], {"scale": 2, "upscale": False}),
    ("all", "avg_pool", ["deeper"], None),
    ("flat", "flatten", ["all"], {}),
    ("out", "dense", ["flat"], {"activation": "NONE"}, numbers(5, 12), numbers(5)),
    ("softmax", "softmax", ["out"], {}),
]  # fmt: skip


def network():
    layers = {"images": Layer("images", "input", [], (13, 12, 3))}
    for name, op, inputs, attrs, *parameters in LAYERS:
        weights, bias = parameters or (None, None)
        shapes = [layers[source].shape for source in inputs]
        attrs = window(shapes[0][1::-1]) if attrs is None else attrs
        shape = make(op, attrs).output_shape(shapes, None if weights is None else weights.shape)
        layers[name] = Layer(name, op, inputs, tuple(shape), attrs, weights, bias)
    return Network("net", list(layers.values()))


def test_tensorflow_answers_as_numpy_does(tmp_path):
    written = network()
    nodes = write_network_graph(tmp_path / "f.pb", written)
    x = RANDOM.normal(size=(3, 13, 12, 3)).astype(np.float32)
    expected = run_float(written, x)["softmax"]
    graph = FrozenGraph(tmp_path / "f.pb", nodes["input"]["name"], nodes["output"]["name"])
    np.testing.assert_allclose(graph.run(x), expected, atol=1e-5)
    assert nodes["input"]["shape"] == [None, 13, 12, 3] and nodes["output"]["shape"] == [None, 5]
    assert np.ptp(expected) > 0.1
    write_network_graph(tmp_path / "again.pb", written)
    assert (tmp_path / "again.pb").read_bytes() == (tmp_path / "f.pb").read_bytes()


def test_the_graph_is_read_as_the_network_that_it_was_written_from(tmp_path):
    short = network()
    short.layers = short.layers[:8]
    short.layers.append(Layer("end", "flatten", ["step"], (int(np.prod(short["step"].shape)),)))
    write_network_graph(tmp_path / "f.pb", short)
    back = read_network(tmp_path / "f.pb")
    kinds = [layer.op for layer in back.layers]
    assert kinds == ["conv" if layer.name == "step" else layer.op for layer in short.layers]
    assert [layer.shape for layer in back.layers] == [layer.shape for layer in short.layers]
    np.testing.assert_array_equal(back["a"].weights, short["a"].weights)


def test_what_has_no_nodes_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'nothing': unknown to dpuflow\.tfgraph\.network_graph"):
        write_network_graph(tmp_path / "f.pb", Network("n", [Layer("x", "nothing", [], (1,))]))
