"""Quantized graphs of the vendor and our own are read back: fix_points and integers stay."""

import json

import numpy as np
import pytest
from hand_network import hand_network

from dpuflow.base.errors import UserError
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.quantized_reading import is_compiled, read_quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.emulator import Emulator
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.network.check import check
from dpuflow.quantize.engine import run_integer
from dpuflow.xir import Graph

SCALING = {"subtract": 0, "divide": 255}


def written(graph, tmp_path):
    graph.save(tmp_path / "q.xmodel")
    return tmp_path / "q.xmodel"


def images(network, count=3):
    rng = np.random.default_rng(5)
    return rng.integers(-128, 128, (count, *network.input.shape), dtype=np.int8)


def test_a_network_comes_back_as_it_was(tmp_path):
    quantized = hand_network()
    graph = quantized_graph(quantized)
    found = read_quantized_graph(written(graph, tmp_path), "hand", None)
    assert [(la.op, la.shape, la.attrs) for la in found.network.layers] == [
        (la.op, la.shape, la.attrs) for la in quantized.network.layers
    ]
    assert list(found.fix_points.values()) == list(quantized.fix_points.values())
    assert found.input_scaling == quantized.input_scaling
    x, name = images(quantized.network), quantized.network.output.name
    np.testing.assert_array_equal(run_integer(found, x)[name], run_integer(quantized, x)[name])


@pytest.mark.parametrize(
    "file",
    ["lenet_32_pt_int", "efficientnetv2_136x14_136_k3_hswish_se_pt_int"],
    ids=["lenet", "efficientnet"],
)
def test_the_vendor_s_graphs_give_the_vendor_s_integers(shared, tmp_path, file):
    """Read, written as our uncompiled graph, and compiled: each gives what the vendor's runner gives."""
    quantized = read_quantized_graph(shared(f"golden/wild/{file}.xmodel"), "net", SCALING)
    vectors = np.load(shared(f"golden/wild/{file}.npz"))
    meta = json.loads(str(vectors["meta"]))
    assert quantized.fix_points[quantized.network.input.name] == meta["cpu_input_fix_point"]
    x, compared = vectors["cpu_input"], 0
    integers = run_integer(quantized, x, keep=[layer.name for layer in quantized.network.layers])
    for end in meta["cpu"]:
        wanted = vectors[f"cpu_output_{end['op']}"]
        layer = next(n for n in integers if end["op"].removesuffix("_fix").endswith(n))
        assert quantized.fix_points[layer] == end["fix_point"]
        np.testing.assert_array_equal(integers[layer].reshape(wanted.shape), wanted)
        compared += wanted.size
    assert compared == sum(vectors[n].size for n in vectors.files if n.startswith("cpu_output_"))
    again = Graph.from_bytes(quantized_graph(quantized).to_bytes())
    assert again.attrs["input_divide"] == 255
    last = quantized.network.output
    for graph in (again, lower(quantized, get_target("DPUCZDX8G_ISA1_B4096"), on_cpu=())):
        found = Emulator(graph).run(x)
        found = found if found.dtype == np.int8 else np.ldexp(found, quantized.fix_points[last.name])
        np.testing.assert_array_equal(found.reshape(integers[last.name].shape), integers[last.name])


def edited(op, **attributes):
    """A change of a graph: attributes of an op."""

    def change(graph):
        for key, value in attributes.items():
            graph.op(op).attrs[key] = value

    return change


def untyped(op, kind):
    def change(graph):
        graph.op(op).proto.op_type = kind

    return change


def unrounded(graph):
    """fc1 is read without its fix."""
    graph.op("fc2").set_input("input", ["fc1_leaky-relu", graph.op("fc2").inputs["input"][1]])
    nodes, names = graph.proto.op_node, graph.proto.subg_root.op_name
    del nodes[next(k for k, node in enumerate(nodes) if node.op_name == "fc1_leaky-relu_fix")]
    names.remove("fc1_leaky-relu_fix")


REFUSED = {
    "an unknown op": (untyped("pool1", "wonder"), r"op 'pool1' \(wonder\): is not among the ops"),
    "four bits": (edited("conv1_relu_fix", bit_width=4), "rounds to 4 bits, expected 8 with sign"),
    "another slope": (edited("fc1_leaky-relu", alpha=0.3), r"'fc1_leaky-relu' .*its slope is 0\.3"),
    "groups": (
        edited("conv1", group=2),
        r"op 'conv1' \(conv2d\): weights \[8, 3, 3, 3\] in 2 groups",
    ),
    "another factor": (edited("avg_i1", data=np.float32([0.7]).tobytes()), r"its factor is 0\.7, the DPU's"),
    "no rounding": (unrounded, "op 'fc1': no fix op rounds its values before 'fc2'"),
    "another rounding": (edited("cat_fix", round_mode="X"), "round_mode 'X' is unknown"),
    "far fix_point": (edited("conv1_relu_fix", fix_point=1000), "fix_point 1000 is beyond 64"),
    "an activation apart": (untyped("pool1", "relu"), r"op 'pool1' \(relu\): does not stand right behind"),
}


@pytest.mark.fault("models", "quantized graph that has no layers here", "refused")
@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_layer_is_refused_by_its_op(tmp_path, what):
    change, message = REFUSED[what]
    graph = quantized_graph(hand_network())
    change(graph)
    graph.save(tmp_path / "q.xmodel", check=False)
    with pytest.raises(UserError, match=message) as raised:
        read_quantized_graph(tmp_path / "q.xmodel", "net", None)
    assert "q.xmodel" in str(raised.value) and "\n" not in str(raised.value)


def test_a_compiled_file_is_told_apart(tmp_path):
    compiled = lower(hand_network(), get_target("DPUCZDX8G_ISA1_B4096"))
    assert is_compiled(compiled) and not is_compiled(quantized_graph(hand_network()))
    with pytest.raises(UserError, match=r"is a compiled xmodel; name it with models\.NAME\.xmodel"):
        read_quantized_graph(written(compiled, tmp_path), "net", SCALING)


def test_the_scaling_is_the_file_s_or_the_configuration_s(shared, tmp_path):
    path = written(quantized_graph(hand_network()), tmp_path)
    recorded = hand_network().input_scaling
    assert read_quantized_graph(path, "net", recorded).input_scaling == recorded
    with pytest.raises(UserError, match=r"records the input scaling .*, models\.NAME\.input says"):
        read_quantized_graph(path, "net", {"subtract": 1, "divide": 77})
    with pytest.raises(UserError, match=r"does not say how pixels become its input; .*models\.NAME\.input"):
        read_quantized_graph(shared("golden/wild/lenet_32_pt_int.xmodel"), "net", None)


@pytest.mark.fault("models", "cut or flipped quantized xmodel", "refused or a whole network")
def test_damage_is_refused(tmp_path):
    data, rng = quantized_graph(hand_network()).to_bytes(), np.random.default_rng(3)
    path, refused = tmp_path / "q.xmodel", 0
    for number in range(120):
        broken = bytearray(data)
        position = int(rng.integers(len(data)))
        if number % 6:
            broken[position] ^= 1 << int(rng.integers(8))
        else:
            del broken[position:]
        path.write_bytes(broken)
        try:
            quantized = read_quantized_graph(path, "net", SCALING)
        except UserError as error:
            assert "q.xmodel" in str(error)
            refused += 1
        else:
            assert quantized.network.output.shape and quantized.fix_points
    assert refused > 30


def test_gates_transposed_convolutions_and_shuffles_come_back(tmp_path):
    """What the hand-made network lacks; written again, the file is the same byte for byte."""
    rng = np.random.default_rng(8)

    def integers(*shape):
        return rng.integers(-90, 91, shape).astype(np.int8)

    window = {"dilation": (1, 1), "activation": "RELU"}
    twice = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0)}
    layers = [
        Layer("x", "input", [], (4, 6, 3)),
        Layer("up", "transposed_conv", ["x"], (8, 12, 8), {**twice, **window}),
        Layer("wide", "transposed_depthwise_conv", ["up"], (16, 24, 8), {**twice, **window}),
        Layer("gate", "hard_sigmoid", ["wide"], (16, 24, 8), {}),
        Layer("swish", "multiply", ["wide", "gate"], (16, 24, 8), {}),
        Layer("down", "pixel_shuffle", ["swish"], (8, 12, 32), {"scale": 2, "upscale": False}),
        Layer("nearest", "upsample", ["down"], (16, 24, 32), {"factor": (2, 2)}),
        Layer("half", "downsample", ["nearest"], (8, 12, 32), {"factor": (2, 2)}),
        Layer("same", "add", ["half", "down"], (8, 12, 32), {"activation": "NONE"}),
        Layer("mean", "avg_pool", ["same"], (1, 1, 32), {**twice, "kernel": (12, 8), "stride": (1, 1)}),
    ]
    fixes = {"x": 5, "up": 4, "wide": 4, "gate": 7, "swish": 3, "down": 3, "nearest": 3, "half": 3, "same": 2}
    weights = {"up": (integers(8, 2, 2, 3), 6), "wide": (integers(1, 2, 2, 8), 6)}
    network = Network("more", layers)
    quantized = QuantizedNetwork(network, fixes | {"mean": 2}, weights, {"up": (integers(8), 7)}, SCALING)
    check(quantized)
    graph = quantized_graph(quantized)
    found = read_quantized_graph(written(graph, tmp_path), "more", SCALING)
    assert [layer.op for layer in found.network.layers] == [layer.op for layer in layers]
    assert found.fix_points == quantized.fix_points
    assert quantized_graph(found).to_bytes() == graph.to_bytes()
