"""Lowering to the compiled form: structure, bytes, exactness, and what is refused."""

import copy

import numpy as np
import pytest
from hand_network import INPUT_SHAPE, hand_network, window

from dpuflow.base.errors import UserError
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.emulator.emulator import Emulator
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.quantize.engine import run_integer
from dpuflow.xir import Graph, validate


@pytest.fixture(scope="module")
def target():
    return get_target("zcu104")


@pytest.fixture(scope="module")
def graph(target):
    return lower(hand_network(), target)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(-128, 128, (20, *INPUT_SHAPE)).astype(np.int8)


def test_ops_and_devices(graph):
    assert [(op.name, op.type, op.device) for op in graph.ops if not op.type.startswith("const")] == [
        ("x", "data-fix", "USER"),
        ("x_upload_0", "upload", "DPU"),
        ("conv1", "conv2d-fix", "DPU"),
        ("pool1", "pool-fix", "DPU"),
        ("dw", "depthwise-conv2d-fix", "DPU"),
        ("add", "eltwise-fix", "DPU"),
        ("cat", "concat-fix", "DPU"),
        ("avg", "pool-fix", "DPU"),
        ("fc1", "conv2d-fix", "DPU"),
        ("fc2", "conv2d-fix", "DPU"),
        ("fc2_reshaped", "reshape-fix", "DPU"),
        ("fc2_reshaped_download_0", "download", "DPU"),
        ("fc2_fix2float", "fix2float", "CPU"),
        ("prob", "softmax", "CPU"),
    ]
    assert validate.validate(graph, strict=True) == []


def test_a_dense_layer_is_a_convolution_over_the_whole_map(graph):
    network = hand_network()
    fc1, fc2 = graph.op("fc1"), graph.op("fc2")
    assert fc1.inputs["input"] == ["avg"]
    assert (fc1.attrs["kernel"], fc1.tensor.shape) == ([2, 2], (1, 1, 1, 12))
    assert (fc2.attrs["kernel"], fc2.tensor.shape) == ([1, 1], (1, 1, 1, 5))
    weights = graph.op("fc1_weights").array()
    np.testing.assert_array_equal(weights, network.weights["fc1"][0].reshape(12, 2, 2, 16))
    assert set(fc2.inputs) == {"input", "weights"}
    assert graph.op("fc2_reshaped").tensor.shape == (1, 5)


def test_attributes_of_ops_and_tensors(graph):
    conv = graph.op("conv1")
    assert dict(conv.attrs) == {
        **{"kernel": [3, 3], "stride": [1, 1], "dilation": [1, 1], "pad": [1, 1, 1, 1]},
        **{"pad_mode": "FLOOR", "group": 1, "nonlinear": "RELU", "device": "DPU"},
        **{"hsigmoid_in": -128, "shift_hsigmoid": -128, "shift_hswish": -128},
        **{"channel_augmentation": 1, "workload": 13 * 11 * 8 * (2 * 9 * 3 + 1)},
        **{"workload_on_arch": 16 * 11 * 16 * (2 * 3 * 16 + 1)},
    }
    assert conv.tensor.name == "conv1_fix"
    expected = {"fix_point": 4, "bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}
    assert dict(conv.tensor.attrs) == expected
    weights = graph.op("conv1_weights").tensor
    assert dict(weights.attrs) == {**expected, "fix_point": 8, "round_mode": "PY3_ROUND"}
    assert weights.attrs.kind("fix_point") == "int32"
    leaky = graph.op("fc1").attrs
    assert (leaky["nonlinear"], leaky["LEAKYRELU_alpha"]) == ("LEAKYRELU", 0.1015625)
    assert leaky.kind("LEAKYRELU_alpha") == "float"  # as on all 98 leaky convolutions of YOLOv5n and v8n
    average = 2 * 2 * 2 * 16 * np.prod(graph.op("avg").attrs["kernel"])
    assert graph.op("avg").attrs["workload"] == average
    added = graph.op("add")
    assert added.attrs["workload"] == len(added.input_names) * np.prod(added.tensor.shape)
    assert graph.op("avg").attrs["type"] == "AVG"
    assert graph.op("avg").attrs["stride"] == [2, 3]
    # what is downloaded keeps the name, the tensor in DDR gets one of its own
    assert graph.op("fc2_reshaped").tensor.name == "fc2_reshaped_download_0"
    assert graph.op("fc2_reshaped_download_0").tensor.name == "fc2_reshaped"


def test_subgraph_tree(graph, target):
    user, dpu, cpu = graph.root.children
    assert [(s.name, s.device) for s in (user, dpu, cpu)] == [
        ("subgraph_x", "USER"),
        ("subgraph_conv1", "DPU"),
        ("subgraph_fc2_fix2float", "CPU"),
    ]
    assert user.op_names == ["x"] and cpu.op_names == ["fc2_fix2float", "prob"]
    assert [child.op_names for child in dpu.children] == [
        ["x_upload_0"],
        ["conv1_weights", "conv1_bias", "conv1", "pool1"],
        ["dw_weights", "dw_bias", "dw"],
        ["add"],
        ["cat"],
        ["avg"],
        ["fc1_weights", "fc1_bias", "fc1"],
        ["fc2_weights", "fc2"],
        ["fc2_reshaped"],
        ["fc2_reshaped_download_0"],
    ]
    names = [f"subgraph_{op}" for op in ("conv1", "dw", "add", "cat", "avg", "fc1", "fc2", "fc2_reshaped")]
    assert dpu.attrs["children_topological_sort"] == names
    assert dpu.attrs["dpu_name"] == target.dpu == "DPUCZDX8G_ISA1_B4096"
    assert dpu.attrs["dpu_fingerprint"] == 0x101000056010407
    assert dpu.attrs.kind("dpu_fingerprint") == "uint64"
    assert dpu.attrs["runner"]["run"] == "libvart-dpu-runner.so"
    assert cpu.attrs["runner"]["run"] == "libvart-cpu-runner.so"
    assert dpu.children[0].attrs["skip_code_gen"] is True
    assert "mc_code" not in dpu.attrs
    for name in ("workload", "workload_on_arch"):
        total = sum(op.attrs.get(name, 0) for op in graph.ops)
        assert graph.root.attrs[name] == dpu.attrs[name] == total > 0
        assert sum(child.attrs[name] for child in dpu.children) == total
        assert user.attrs[name] == cpu.attrs[name] == 0


def test_graph_attributes_are_honest(graph):
    assert graph.attrs["origin"] == "dpuflow"
    assert "no mc_code: not executable on a board; hand hand.quantized.xmodel" in graph.attrs["dpuflow_note"]
    assert (graph.attrs["input_subtract"], graph.attrs["input_divide"]) == (127.5, 127.5)
    assert graph.attrs["class_count"] == 5


def test_bytes_are_the_same_every_time(target, tmp_path):
    for name in ("a", "b"):
        lower(hand_network(), target).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_computes_what_the_quantized_network_does(graph, images, tmp_path):
    graph.save(tmp_path / "hand.xmodel")
    names = ["conv1", "pool1", "dw", "add", "cat", "avg", "fc1", "fc2", "prob"]
    expected = run_integer(hand_network(), images, names)
    found = Emulator(tmp_path / "hand.xmodel").run(images, dump=True)
    for name in names:
        np.testing.assert_array_equal(found[name].reshape(expected[name].shape), expected[name], name)
    assert len(np.unique(expected["fc2"])) > 5  # not a constant network


def test_the_vendors_structure(shared, target):
    """The vendor-compiled network without its custom op, lowered: same ops, attributes and workloads."""
    vendor = Graph.load(shared("golden/vendor/zcu102_mnist_3.0.xmodel"))
    quantized, theirs = vendor_network(vendor)
    ours = lower(quantized, target)
    for name, counterpart in theirs.items():
        mine, other = ours.op(name), vendor.op(counterpart)
        assert mine.type == other.type
        attrs = {key: value for key, value in other.attrs.items() if not key.startswith("quant_")}
        assert dict(mine.attrs) == attrs, name
        assert {k: mine.attrs.kind(k) for k in attrs} == {k: other.attrs.kind(k) for k in attrs}
        assert mine.tensor.shape == other.tensor.shape
        for key in ("fix_point", "bit_width", "if_signed", "round_mode"):
            assert mine.tensor.attrs[key] == other.tensor.attrs[key]
    mine, other = ours.subgraphs("DPU")[0], vendor.subgraphs("DPU")[0]
    assert [child.attrs for child in mine.children[:4]] == [child.attrs for child in other.children[:4]]
    assert [len(child.op_names) for child in mine.children[:4]] == [1, 3, 4, 4]
    shared_keys = ("device", "dpu_name", "dpu_fingerprint", "runner")
    assert all(mine.attrs[key] == other.attrs[key] for key in shared_keys)
    assert ours.root.attrs["workload"] == vendor.root.attrs["workload"] == 28885386
    assert ours.root.attrs["workload_on_arch"] == vendor.root.attrs["workload_on_arch"] == 32854656


def vendor_network(vendor):
    """QuantizedNetwork with the vendor file's layers (weights zero), and {our op: its op}."""
    names = {
        "c1": "quant_conv2d",
        "c2": "quant_conv2d_1",
        "p1": "quant_max_pooling2d_fix",
        "c3": "quant_conv2d_2",
        "p2": "quant_max_pooling2d_1_fix",
        "fc": "quant_dense(TransferMatMulToConv2d)",
    }
    layers = [Layer("x", "input", [], (28, 28, 1))]
    weights, biases, fixes = {}, {}, {"x": -2}
    for name, other in names.items():
        op = vendor.op(other)
        fixes[name] = op.tensor.fix_point
        attrs = {
            "kernel": tuple(op.attrs["kernel"]),
            "stride": tuple(op.attrs["stride"]),
            "pad": (0, 0, 0, 0),
        }
        shape, kind = op.tensor.shape[1:], "max_pool"
        if op.type == "conv2d-fix":
            kind = "dense" if name == "fc" else "conv"
            attrs = {**attrs, "dilation": (1, 1), "activation": "NONE"}
            data, bias = (vendor.op(op.inputs[argument][0]).tensor for argument in ("weights", "bias"))
            weights[name] = (np.zeros(data.shape, np.int8), data.fix_point)
            biases[name] = (np.zeros(bias.shape, np.int8), bias.fix_point)
        if kind == "dense":
            layers.append(Layer("flat", "flatten", [layers[-1].name], (256,)))
            fixes["flat"], shape, attrs = fixes["p2"], (10,), {"activation": "NONE"}
            weights[name] = (weights[name][0].reshape(10, 256), weights[name][1])
        layers.append(Layer(name, kind, [layers[-1].name], tuple(shape), attrs))
    network = Network("vendor", layers)
    return QuantizedNetwork(network, fixes, weights, biases, {"subtract": 0.0, "divide": 1.0}), names


def test_layers_beyond_the_target_go_to_the_cpu(images, target):
    network = hand_network()
    network.network["add"].attrs["activation"] = "LEAKYRELU"  # no engine fuses that
    graph = lower(network, target)
    assert [(s.device, s.op_names[0]) for s in graph.root.children] == [
        ("USER", "x"),
        ("DPU", "x_upload_0"),
        ("CPU", "add"),
        ("DPU", "add_upload_0"),
        ("CPU", "fc2_fix2float"),
    ]
    assert graph.op("add").inputs["input"] == ["pool1_download_0", "dw_download_0"]
    assert graph.op("cat").inputs["input"] == ["add_upload_0", "dw_download_0_upload_0"]
    assert "workload" not in graph.op("add").attrs
    assert validate.validate(graph, strict=True) == []
    expected = run_integer(network, images, ["fc2"])["fc2"]
    found = Emulator(graph).run(images, dump=True)["fc2"]
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_flatten_in_front_of_an_addition_becomes_a_reshape(target, images):
    layers = [
        Layer("x", "input", [], INPUT_SHAPE),
        Layer("p", "max_pool", ["x"], (2, 2, 3), window((6, 5), (5, 6))),
        Layer("flat", "flatten", ["p"], (12,)),
        Layer("fc", "dense", ["flat"], (12,), {"activation": "NONE"}),
        Layer("sum", "add", ["flat", "fc"], (12,), {"activation": "NONE"}),
    ]
    weights = {"fc": (np.arange(-72, 72, dtype=np.int8).reshape(12, 12), 7)}
    fixes = {"x": 6, "p": 6, "flat": 6, "fc": 4, "sum": 4}
    network = QuantizedNetwork(Network("n", layers), fixes, weights, {}, {"subtract": 0.0, "divide": 255.0})
    graph = lower(network, target)
    assert graph.op("flat").tensor.shape == (1, 1, 1, 12)
    assert graph.op("fc").inputs["input"] == ["p"]
    assert graph.op("sum").inputs["input"] == ["flat", "fc"]
    assert graph.ops[-1].type == "fix2float"
    expected = run_integer(network, images)["sum"]
    np.testing.assert_array_equal(Emulator(graph).run(images), expected / 16)


def test_what_the_cpu_reads_as_a_vector_stays_a_map_for_the_others(target, images):
    """A sigmoid on the CPU and, behind it there, an addition that the DPU has no instruction for."""
    layers = [
        Layer("x", "input", [], INPUT_SHAPE),
        Layer("p", "max_pool", ["x"], (2, 2, 3), window((6, 5), (5, 6))),
        Layer("flat", "flatten", ["p"], (12,)),
        Layer("fc", "dense", ["flat"], (12,), {"activation": "NONE"}),
        Layer("share", "float_sigmoid", ["fc"], (12,)),
        Layer("sum", "add", ["fc", "fc"], (12,), {"activation": "LEAKYRELU"}),
    ]
    weights = {"fc": (np.arange(-72, 72, dtype=np.int8).reshape(12, 12), 7)}
    fixes = {"x": 6, "p": 6, "flat": 6, "fc": 4, "sum": 3}
    network = QuantizedNetwork(Network("n", layers), fixes, weights, {}, {"subtract": 0.0, "divide": 255.0})
    graph = lower(network, target, {"sum"})
    shape = graph.op(graph.op("sum").inputs["input"][0]).tensor.shape
    assert shape == graph.op("sum").tensor.shape == (1, 1, 1, 12)
    assert validate.validate(graph, strict=True) == []
    expected = run_integer(network, images, ["fc", "sum"])
    found = Emulator(graph).run(images, dump=True)
    np.testing.assert_array_equal(found["sum"].reshape(-1, 12), expected["sum"])
    np.testing.assert_allclose(found["share"], 1 / (1 + np.exp(-expected["fc"] / 16.0)), rtol=1e-6)


def test_names_give_way_to_layer_names(target):
    network = hand_network()
    network.network["pool1"].name = "conv1_weights"
    network.network["dw"].inputs = ["conv1_weights"]
    network.network["add"].inputs = ["conv1_weights", "dw"]
    network.fix_points["conv1_weights"] = network.fix_points.pop("pool1")
    graph = lower(network, target)
    assert graph.op("conv1_weights").type == "pool-fix"
    assert graph.op("conv1").inputs["weights"] == ["conv1_weights_1"]


def _layer(name, **changes):
    def change(network):
        for key, value in changes.items():
            setattr(network.network[name], key, value)

    return change


def _fix(name, value):
    return lambda network: network.fix_points.__setitem__(name, value)


def _weights(name, array):
    return lambda network: network.weights.__setitem__(name, (array, 7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_layer("add", op="batch_norm"), r"layer 'add' \(batch_norm\): this op cannot be written"),
        (_layer("dw", inputs=["later"]), "layer 'dw' .* reads 'later', which is not defined"),
        (_fix("conv1", -3), "layer 'conv1' .* shift_cut is 17, allowed 0 to 16"),
        (_fix("x", -5), "layer 'conv1' .* shift_cut is -1"),
        (
            lambda n: n.biases.__setitem__("dw", (n.biases["dw"][0], 28)),
            "'dw' .* shift_bias is -17, allowed -16",
        ),
        (
            lambda n: n.biases.__setitem__("fc1", (n.biases["fc1"][0] | 1, 13)),
            "'fc1' .* shift_bias is -2, in front of a leaky ReLU only -1 or more is exact",
        ),
        (_fix("pool1", 3), "layer 'pool1' .* fix_point is 3 but that of its input 'conv1' is 4"),
        (_fix("avg", 2), "layer 'avg' .* fix_point is 2 but that of its input 'cat' is 3"),
        (_fix("add", 2), "layer 'cat' .* fix_point is 3 but that of its input 'add' is 2"),
        (
            _layer("add", attrs={"activation": "RELU6"}),
            "layer 'add' .* ReLU6 has fix_point 3, where the DPU's clamp means 12; quantize",
        ),
        (lambda n: n.fix_points.pop("dw"), "layer 'dw' .* has no fix_point"),
        (lambda n: n.weights.pop("fc1"), "layer 'fc1' .* has no int8 weights"),
        (_weights("fc1", np.zeros((12, 63), np.int8)), r"'fc1' .* int8 \[12, 63\], expected int8 \[12, 64\]"),
        (_weights("dw", np.zeros((2, 3, 3, 8), np.int8)), r"expected int8 \[1, 3, 3, 8\]"),
        (_weights("conv1", np.zeros((8, 3, 3, 3), np.float32)), "weights are float32"),
        (lambda n: n.biases.__setitem__("fc1", (np.zeros(11, np.int8), 6)), r"'fc1' .* expected int8 \[12\]"),
        (_layer("fc1", attrs={"activation": "TANH"}), "'fc1' .* activation 'TANH' is unknown"),
        (_layer("add", inputs=["pool1"]), "layer 'add' .* has 1 input"),
        (_layer("add", inputs=["pool1", "conv1"]), "layer 'add' .* inputs of shapes"),
        (_layer("avg", shape=(2, 3, 16)), "layer 'fc1' .* expected int8"),
        (_layer("pool1", shape=(6, 6, 8)), "layer 'add' .* inputs of shapes"),
        (
            _layer("conv1", shape=(12, 11, 8)),
            r"layer 'conv1' .* output is \[1, 13, 11, 8\], the network says",
        ),
        (_layer("fc2", op="softmax", attrs={}), r"layer 'fc2' .* its output is \[1, 12\]"),
        (_layer("cat", attrs={"axis": 1}), "layer 'cat'"),
    ],
)
def test_what_cannot_be_represented_names_its_layer(change, message, target):
    network = copy.deepcopy(hand_network())
    change(network)
    with pytest.raises(UserError, match=message):
        lower(network, target)
