"""One network by two doors, ONNX and a frozen graph: the very same integers."""

import numpy as np
from onnx_models import Model

from dpuflow.network.network_file import load_network, save_network
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx
from dpuflow.quantize.reference import predict, quantize
from dpuflow.tfgraph.graph_reader import graph_to_network
from dpuflow.tfgraph.network_graph import write_network_graph

SHAPE = (12, 10, 3)


def test_the_same_integers_whatever_file_it_was(tmp_path):
    model = Model((3, 12, 10))
    x = model.conv(3, 8)
    model.node("Relu")
    y = model.conv(8, 8, groups=8)
    model.node("Add", [y, x])
    model.node("Clip", [model.last, *(model.constant(np.float32(n)) for n in (0, 6))])
    model.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    model.node("Flatten")
    model.node("Gemm", [model.last, model.numbers(5, 240), model.numbers(5)], transB=1)
    model.node("Softmax")
    network = read_onnx(open_model(model.write(tmp_path / "m.onnx"), SHAPE), SHAPE, "net")
    save_network(tmp_path / "onnx.h5", network)
    nodes = write_network_graph(tmp_path / "frozen.pb", network)
    graph_to_network(tmp_path / "frozen.pb", nodes, "net", tmp_path / "frozen.h5")
    images = np.random.default_rng(6).integers(0, 256, (40, *SHAPE), np.uint8)
    first, second = (
        quantize(load_network(tmp_path / name), images, {"diagnosis": False})[0]
        for name in ("onnx.h5", "frozen.h5")
    )
    assert list(first.fix_points.values()) == list(second.fix_points.values())
    for one, other in zip(first.weights.values(), second.weights.values(), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    answers = predict(first, images)
    np.testing.assert_array_equal(answers, predict(second, images))
    assert len(set(answers.argmax(1).tolist())) > 1
