"""The uncompiled quantized graph: form, values on the grid, exactness."""

import numpy as np
import pytest
from hand_network import INPUT_SHAPE, hand_network

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import dequantize
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE
from dpuflow.emulator.emulator import Emulator
from dpuflow.quantize.engine import run_integer
from dpuflow.xir import Graph, validate


@pytest.fixture(scope="module")
def graph():
    return quantized_graph(hand_network())


def test_every_tensor_is_float_and_every_op_valid(graph):
    assert {(op.tensor.data_type, op.tensor.bit_width) for op in graph.ops} == {("FLOAT", 32)}
    assert validate.validate(graph, strict=True) == []
    assert graph.root.is_leaf
    assert graph.root.op_names == [op.name for op in graph.ops]
    assert graph.attrs["return_ops"] == ["prob"]
    assert graph.attrs["origin"] == "dpuflow"


def chain(graph, name):
    """Types from op `name` on along single readers, up to the next fix."""
    types = [graph.op(name).type]
    while types[-1] != "fix":
        (reader,) = graph.consumers(name)
        name = reader.name
        types.append(reader.type)
    return types


def test_fix_follows_the_activation(graph):
    assert chain(graph, "x") == ["data", "fix"]
    assert chain(graph, "conv1") == ["conv2d", "relu", "fix"]
    assert chain(graph, "dw") == ["depthwise-conv2d", "relu", "fix"]
    assert chain(graph, "pool1") == ["maxpool2d", "fix"]
    assert chain(graph, "avg_i0") == ["avgpool2d", "mul", "fix"]
    assert chain(graph, "fc1") == ["matmul", "leaky-relu", "fix"]
    assert chain(graph, "fc2") == ["matmul", "fix"]
    assert chain(graph, "conv1_weights") == chain(graph, "conv1_bias") == ["const", "fix"]


def test_attributes(graph):
    fix = graph.op("conv1_relu_fix").attrs
    assert dict(fix) == {"fix_point": 4, "bit_width": 8, "round_mode": "DPU_ROUND", "if_signed": True}
    conv = graph.op("conv1").attrs
    assert (conv["pad_mode"], conv["bias_term"], conv["in_dim"], conv["out_dim"]) == ("FLOOR", True, 3, 8)
    assert graph.op("fc1").attrs["transpose_b"] is True
    assert graph.op("fc1_leaky-relu").attrs["alpha"] == LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]
    # 3 x 3: 9 * 7 / 2**6 instead of 1
    np.testing.assert_array_equal(graph.op("avg_i1").array(), [np.float32(0.984375)])


def test_parameters_lie_on_the_grid(graph):
    for name, (data, fix_point) in hand_network().weights.items():
        np.testing.assert_array_equal(graph.op(f"{name}_weights").array(), dequantize(data, fix_point))
        assert graph.op(f"{name}_weights_fix").attrs["fix_point"] == fix_point


def test_form_of_the_vendors_quantizer(shared):
    """Same attributes with the same kinds on the op types that both graphs hold."""
    vendor = Graph.load(shared("golden/vendor/voxelnet_quantized_2.0.xmodel"))
    ours = quantized_graph(hand_network())
    compared = set()
    for mine in ours.ops:
        for other in vendor.ops:
            if mine.type == other.type and mine.type not in compared:
                names = set(other.attrs) & set(mine.attrs)
                assert set(mine.attrs) <= set(other.attrs), mine
                assert {n: mine.attrs.kind(n) for n in names} == {n: other.attrs.kind(n) for n in names}
                assert set(mine.inputs) <= {"input", "weights", "bias"}
                compared.add(mine.type)
    assert {"data", "fix", "const", "conv2d", "relu", "concat"} <= compared


def test_the_file_computes_what_the_quantized_network_does(graph, tmp_path):
    images = np.random.default_rng(2).integers(-128, 128, (20, *INPUT_SHAPE)).astype(np.int8)
    graph.save(tmp_path / "hand.quantized.xmodel")
    ends = {"conv1": "conv1_relu_fix", "cat": "cat_fix", "avg": "avg_fix", "fc1": "fc1_leaky-relu_fix"}
    ends["fc2"] = "fc2_fix"
    network = hand_network()
    expected = run_integer(network, images, list(ends))
    found = Emulator(tmp_path / "hand.quantized.xmodel").run(images, dump=True)
    for layer, name in ends.items():
        values = dequantize(expected[layer], network.fix_points[layer])
        np.testing.assert_array_equal(found[name].reshape(values.shape), values, name)


def test_bytes_are_the_same_every_time():
    assert quantized_graph(hand_network()).to_bytes() == quantized_graph(hand_network()).to_bytes()


def test_what_cannot_be_represented_names_its_layer():
    network = hand_network()
    network.fix_points["pool1"] = 7
    with pytest.raises(UserError, match="layer 'pool1'"):
        quantized_graph(network)
