"""Positions read from the vendor's files."""

import h5py
import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.tfgraph.graph_def import DT_FLOAT, add_constant, add_node, new_graph, write_graph_def
from dpuflow.vitis_ai.positions import graph_layers, keras_layers

FLOAT = ("type", DT_FLOAT)


def fix(graph, name, x, position):
    return add_node(graph, "FixNeuron", name, [x], T=FLOAT, quantize_pos=position, bit_width=8)


def conv(graph, name, x, weights, bias, out, activation=True):
    kernel = fix(
        graph,
        f"{name}/kernel/wquant",
        add_constant(graph, f"{name}/kernel", np.zeros((3, 3, 1, 1), np.float32)),
        weights,
    )
    y = add_node(graph, "Conv2D", f"{name}/Conv2D", [x, kernel], T=FLOAT)
    b = fix(graph, f"{name}/bias/wquant", add_constant(graph, f"{name}/bias", np.zeros(1, np.float32)), bias)
    y = add_node(graph, "BiasAdd", f"{name}/BiasAdd", [y, b], T=FLOAT)
    if activation:
        y = add_node(graph, "Relu", f"{name}/Relu", [y], T=FLOAT)
    return fix(graph, f"{y}/aquant", y, out)


@pytest.fixture
def residual(tmp_path):
    """input -> conv1 -> conv2 -> add(conv1) -> pad -> max pool -> reshape -> dense without bias."""
    graph = new_graph()
    x = fix(graph, "input/aquant", add_node(graph, "Placeholder", "input", dtype=FLOAT), 7)
    a = conv(graph, "block/conv1", x, 8, 9, 4)
    b = conv(graph, "block/conv2", a, 6, 5, 3, activation=False)
    y = add_node(graph, "AddV2", "sum/add", [a, b], T=FLOAT)
    y = fix(graph, "sum/add/aquant", y, 2)
    y = add_node(
        graph, "Pad", "pad/Pad", [y, add_constant(graph, "pad/sizes", np.zeros((4, 2), np.int32))], T=FLOAT
    )
    y = add_node(graph, "MaxPool", "pool/MaxPool", [y], T=FLOAT)
    y = fix(graph, "pool/MaxPool/aquant", y, 2)
    y = add_node(
        graph,
        "Reshape",
        "flat/Reshape",
        [y, add_constant(graph, "flat/shape", np.zeros(2, np.int32))],
        T=FLOAT,
    )
    kernel = fix(
        graph, "fc/kernel/wquant", add_constant(graph, "fc/kernel", np.zeros((4, 2), np.float32)), 10
    )
    y = add_node(graph, "MatMul", "fc/MatMul", [y, kernel], T=FLOAT)
    y = fix(graph, "fc/MatMul/aquant", y, 1)
    add_node(graph, "Softmax", "probabilities/Softmax", [y], T=FLOAT)
    path = tmp_path / "quantize_eval_model.pb"
    write_graph_def(path, graph)
    return path


def test_layers_of_a_graph(residual):
    rows = {row["layer"]: row for row in graph_layers(residual)}
    assert list(rows) == ["input", "block/conv1", "block/conv2", "sum", "pool", "fc"]
    assert rows["block/conv1"] == {
        "layer": "block/conv1", "op": "conv", "input_fix_point": 7, "weights_fix_point": 8,
        "bias_fix_point": 9, "fix_point": 4, "shift_cut": 11, "shift_bias": 6,
    }  # fmt: skip
    assert rows["block/conv2"]["input_fix_point"] == 4 and rows["block/conv2"]["fix_point"] == 3
    assert rows["sum"] == {"layer": "sum", "op": "add", "input_fix_point": 4, "fix_point": 2}
    assert rows["pool"] == {"layer": "pool", "op": "max_pool", "input_fix_point": 2, "fix_point": 2}
    # through the reshape; without a bias there is neither its position nor its shift
    assert rows["fc"] == {
        "layer": "fc", "op": "dense", "input_fix_point": 2, "weights_fix_point": 10, "fix_point": 1,
        "shift_cut": 11,
    }  # fmt: skip


def test_a_graph_that_is_not_quantized(tmp_path):
    graph = new_graph()
    add_node(graph, "Placeholder", "input", dtype=FLOAT)
    write_graph_def(tmp_path / "float.pb", graph)
    with pytest.raises(UserError, match=r"float\.pb: holds no FixNeuron"):
        graph_layers(tmp_path / "float.pb")


def test_layers_of_a_keras_model(tmp_path):
    path = tmp_path / "quantized_model.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights/quant_conv1/quant_conv1")
        group["kernel:0"] = np.zeros((3, 3, 1, 1), np.float32)
        group["kernel_pos:0"], group["bias_pos:0"] = np.float32(8), np.float32(9)
        group["kernel_min:0"], group["kernel_max:0"] = np.float32(-1), np.float32(1)
        file["model_weights/quant_relu/quant_relu/post_activation_pos:0"] = np.float32(4)
    assert keras_layers(path) == [
        {"layer": "conv1", "bias_fix_point": 9, "weights_fix_point": 8},
        {"layer": "relu", "fix_point": 4},
    ]


def test_a_keras_model_that_is_not_quantized(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["model_weights/conv1/kernel:0"] = np.zeros(3, np.float32)
    with pytest.raises(UserError, match=r"m\.h5: holds no positions"):
        keras_layers(tmp_path / "m.h5")
