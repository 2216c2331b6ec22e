"""Gates from a frozen graph to integers: hard sigmoid, hard swish, sigmoid and swish, factors per channel."""

from collections import Counter

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.network import Layer, Network
from dpuflow.quantize import engine
from dpuflow.quantize.alignment import fix_point_groups
from dpuflow.quantize.calibration import to_grid
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.folding import fold
from dpuflow.quantize.gate_positions import fit_gates, hold_gates
from dpuflow.quantize.reference import quantize
from dpuflow.report.diagnosis import settings
from dpuflow.tfgraph.graph_def import add_constant
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import GraphMaker, gated_network


@pytest.fixture(scope="module")
def tf():
    from dpuflow.base.tensorflow_env import tensorflow

    return tensorflow()


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """Path of `gated_network`."""
    return gated_network(tmp_path_factory.mktemp("gated") / "gated.pb")


def run(tf, path, feeds, fetches):
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    for node in graph.node:  # GraphMaker leaves out what TensorFlow's importer asks for
        if node.op == "IdentityN":
            node.attr["T"].list.type.append(1)
        elif node.op not in ("Placeholder", "Const"):
            for key in ("T", "U") if node.op.startswith("FusedBatchNorm") else ("T",):
                node.attr[key].type = node.attr[key].type or 1
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph, name="")
        return session.run(fetches, feeds)


def test_a_graph_of_gates_is_read_as_tensorflow_computes_it(tf, gated):
    network = read_network(gated)
    counts = Counter(layer.op for layer in network.layers)
    assert (counts["hard_sigmoid"], counts["sigmoid"], counts["multiply"]) == (3, 3, 6)
    assert counts["relu6"] == 0
    assert counts["batch_norm"] == 2  # those of the graph; nothing is left of + 3 and / 6
    x = np.random.default_rng(1).normal(size=(6, 12, 12, 3)).astype(np.float32)
    (expected,) = run(tf, gated, {"images:0": x}, ["probabilities/Softmax:0"])
    np.testing.assert_allclose(engine.run_float(network, x)[network.output.name], expected, atol=1e-5)
    folded, notes = fold(network)
    counts = Counter(layer.op for layer in folded.layers)
    assert (counts["hard_sigmoid"], counts["sigmoid"], counts["batch_norm"]) == (6, 0, 0)
    assert sum("sigmoid replaced by relu6(x + 3) / 6" in note["how"] for note in notes) == 3
    assert counts["depthwise_conv"] == 1  # none stands for a batch norm or a factor that found no place


def test_integers_are_those_of_the_evaluation_graph(tf, gated, tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (24, 12, 12, 3), np.uint8)
    network = read_network(gated)
    quantized, report = quantize(network, images, {"diagnosis": False})
    gates = [layer for layer in quantized.network.layers if layer.op == "hard_sigmoid"]
    assert {quantized.fix_points[layer.name] for layer in gates} == {7}
    names = write_eval_graph(tmp_path / "q.pb", quantized)
    x = (images / 255).astype(np.float32)
    logits = quantized.network.output.inputs[0]
    grid = to_grid(x, quantized.fix_points[quantized.network.input.name])
    expected = engine.run_integer(quantized, grid, [logits])[logits]
    feeds = {f"{names['input']}:0": x}
    (found,) = run(tf, tmp_path / "q.pb", feeds, [f"{names['logits_int8']}:0"])
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 20
    floats = engine.run_float(quantized.network, x, [logits])[logits]
    noise = np.square(floats - expected * 2.0 ** -quantized.fix_points[logits]).sum()
    _cost_of_replacing(report, network, x)
    assert noise < 0.1 * np.square(floats - floats.mean(axis=0)).sum()


def _cost_of_replacing(report, network, x):
    """It is said which sigmoids are replaced, and what that alone does to the answers."""
    found = report["replacements"]
    assert found["layers"] == [layer.name for layer in network.layers if layer.op == "sigmoid"]
    assert found["how"] == "sigmoid replaced by relu6(x + 3) / 6"
    before = engine.run_float(network, x)[network.output.name]
    after = engine.run_float(fold(network)[0], x)[network.output.name]
    assert found["agreement"] == np.mean(before.argmax(axis=1) == after.argmax(axis=1))
    assert 0 < found["divergence"] < 1
    assert settings({**report, "settings": {}})["replaced layers"] == f"3: {found['how']}"


def scalar(maker, value):
    return add_constant(maker.graph, maker.name("const"), np.float32(value))


def ends_in(maker, x, width, path):
    axes = add_constant(maker.graph, "axes", np.array([1, 2], np.int32))
    maker.write(path, maker.dense(maker.op("Mean", x, axes), width, 3))
    return read_network(path)


@pytest.mark.parametrize("sixth", [1 / 6, 0.1666, 0.16667, 0.2])
def test_what_counts_as_a_sixth(tmp_path, sixth):
    g = GraphMaker((8, 8, 2))
    x = g.conv(g.input, 2, 4)
    gate = g.op("Mul", g.op("Relu6", g.op("AddV2", x, scalar(g, 3))), scalar(g, sixth))
    network = ends_in(g, gate, 4, tmp_path / "g.pb")
    ops = Counter(layer.op for layer in network.layers)
    assert (ops["hard_sigmoid"], ops["relu6"]) == ((0, 1) if sixth == 0.2 else (1, 0))


@pytest.mark.parametrize("top", [1.0, 0.5, 6.0, None])
def test_what_is_cut_between_constants_is_a_hard_sigmoid(tmp_path, top):
    """Keras's hard sigmoid: 0.2 x + 0.5, cut to 0 ... 1; without the upper end nothing but a ReLU."""
    g = GraphMaker((8, 8, 2))
    x = g.conv(g.input, 2, 4)
    y = g.op("AddV2", g.op("Mul", x, scalar(g, 0.2)), scalar(g, 0.5))
    cut = y if top is None else g.op("Minimum", y, scalar(g, top))
    network = ends_in(g, g.op("Maximum", cut, scalar(g, 0)), 4, tmp_path / "g.pb")
    ops = Counter(layer.op for layer in network.layers)
    assert (ops["hard_sigmoid"], ops["relu"]) == ((0, 1) if top is None else (1, 0))
    x = np.random.default_rng(1).normal(size=(3, 8, 8, 2)).astype(np.float32) * 9
    pooled = next(layer for layer in network.layers if layer.op == "avg_pool")
    found = engine.run_float(network, x, [pooled.inputs[0]])[pooled.inputs[0]]
    plain = GraphMaker((8, 8, 2))
    again = ends_in(plain, plain.conv(plain.input, 2, 4), 4, tmp_path / "p.pb")
    (source,) = [layer for layer in again.layers if layer.op == "conv"]
    values = engine.run_float(again, x, [source.name])[source.name]
    expected = np.clip(0.2 * values + 0.5, 0, np.inf if top is None else top)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_upper_end_alone_is_read_exactly(tmp_path):
    g = GraphMaker((8, 8, 2))
    network = ends_in(g, g.op("Minimum", g.conv(g.input, 2, 4), scalar(g, 0.25)), 4, tmp_path / "g.pb")
    x = np.random.default_rng(1).normal(size=(3, 8, 8, 2)).astype(np.float32) * 3
    name = next(layer for layer in network.layers if layer.op == "avg_pool").inputs[0]
    cut = engine.run_float(network, x, [name])[name]
    assert cut.max() == pytest.approx(0.25, abs=1e-6) and cut.min() < 0


@pytest.mark.parametrize("offset", [2.5, -3.0])
def test_another_offset_is_no_hard_sigmoid(tmp_path, offset):
    g = GraphMaker((8, 8, 2))
    x = g.conv(g.input, 2, 4)
    gate = g.op("Relu6", g.op("AddV2", x, scalar(g, offset)))
    network = ends_in(g, g.op("Mul", gate, x), 4, tmp_path / "g.pb")
    ops = Counter(layer.op for layer in network.layers)
    assert (ops["hard_sigmoid"], ops["relu6"], ops["multiply"]) == (0, 1, 1)


def test_products_of_other_shapes_are_refused_by_name(tmp_path):
    g = GraphMaker((8, 8, 2))
    wide, small = g.conv(g.input, 2, 4), g.pool(g.conv(g.input, 2, 4))
    with pytest.raises(UserError, match=r"activations of shapes \(8, 8, 4\) and \(4, 4, 4\); only maps"):
        ends_in(g, g.op("Mul", wide, small), 4, tmp_path / "g.pb")


def test_sigmoids_at_the_end_stay_sigmoids_on_the_cpu(tmp_path):
    g = GraphMaker((8, 8, 2))
    x = g.op("Sigmoid", g.dense(g.flatten(g.conv(g.input, 2, 4), 256), 256, 5))
    g.write(tmp_path / "g.pb", g.op("Identity", x))
    network = read_network(tmp_path / "g.pb", output_name=x)
    assert fold(network)[0].output.op == "float_sigmoid"


# -- fix_points -----------------------------------------------------------------------------


def gates(**fix_points):
    """x - gate - product, gate and x concatenated; fix_points of all."""
    layers = [
        Layer("x", "input", [], (4, 4, 2)),
        Layer("gate", "hard_sigmoid", ["x"], (4, 4, 2)),
        Layer("product", "multiply", ["x", "gate"], (4, 4, 2)),
    ]
    return Network("gates", layers), {"x": 4, "gate": 7, "product": 5, **fix_points}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"product": 12}, {"product": 11}),  # finer than any product
        ({"product": -6}, {"x": 2}),  # 17 bits to cut; the gate stays
        ({"x": 18, "product": 12}, {"x": 15}),
        ({"x": 18, "product": 4}, {"x": 12}),
    ],
)
def test_ranges_of_gates_are_kept_by_lowering(before, after):
    network, fix_points = gates(**before)
    started = dict(fix_points)

    def lower(name, fix_point, why):
        if name != "gate" and fix_point < fix_points[name]:
            fix_points[name] = fix_point

    fit_gates(network, fix_points, lower)
    assert fix_points == {**started, **after}
    for layer in network.layers[1:]:
        shifts = layer.operator.shifts([fix_points[name] for name in layer.inputs], fix_points[layer.name])
        assert all(least <= value <= most for value, (least, most) in shifts.values())


def test_an_average_is_no_finer_than_its_shift_can_make_it():
    attrs = {"kernel": (4, 4), "stride": (1, 1), "pad": (0, 0, 0, 0)}
    pool = Layer("pool", "avg_pool", ["x"], (1, 1, 2), attrs)
    network = Network("squeeze", [Layer("x", "input", [], (4, 4, 2)), pool])
    fix_points = {"x": 3, "pool": 30}  # 16 values: S is 4, and the field ends at -7

    def lower(name, fix_point, why):
        fix_points[name] = fix_point

    fit_gates(network, fix_points, lower)
    assert fix_points == {"x": 3, "pool": 14}
    fit_gates(network, fix_points, lambda name, fix_point, why: None)
    assert fix_points == {"x": 3, "pool": 14}


def test_what_is_fixed_is_held_and_what_cannot_be_is_refused():
    network, fix_points = gates(gate=9)
    report = hold_gates(network, fix_point_groups(network), fix_points)
    assert fix_points["gate"] == 7 and [change["from"] for change in report] == [9]
    network, fix_points = gates(x=-2)
    with pytest.raises(UserError, match="its values reach 512, but the hard sigmoid 'gate' reads up to 128"):
        hold_gates(network, fix_point_groups(network), fix_points)
    network.layers[2] = Layer("product", "multiply", ["gate", "gate"], (4, 4, 2))
    hold_gates(network, fix_point_groups(network), fix_points)
    assert fix_points["x"] == 0  # saturation is as flat as the gate
    joined = Layer("joined", "concat", ["x", "gate"], (4, 4, 4), {"axis": 3})
    network = Network("joined", [*network.layers[:2], joined])
    with pytest.raises(UserError, match=r"'gate': a hard sigmoid .* shares one scale with x, joined"):
        hold_gates(network, fix_point_groups(network), {"x": 3, "gate": 3, "joined": 3})


def test_the_search_leaves_a_gate_and_what_is_joined_with_it_where_the_dpu_has_it():
    """The convolution, first of those that share a scale, would like steps of 1/64: it reaches 1.5."""
    random = np.random.default_rng(6)
    window = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0,) * 4, "activation": "NONE"}
    weights = random.uniform(-1, 1, (4, 1, 1, 3)).astype(np.float32)
    first = Layer("first", "conv", ["x"], (6, 6, 4), dict(window))
    first.weights, first.bias = weights * 1.5 / np.abs(weights).sum(axis=3, keepdims=True), None
    layers = [
        Layer("x", "input", [], (6, 6, 3)),
        first,
        Layer("gate", "hard_sigmoid", ["x"], (6, 6, 3), {}),
        Layer("both", "concat", ["first", "gate"], (6, 6, 7), {"axis": 3}),
        Layer("last", "conv", ["both"], (6, 6, 2), dict(window)),
    ]
    layers[-1].weights = random.uniform(-1, 1, (2, 1, 1, 7)).astype(np.float32)
    images = random.integers(0, 256, (8, 6, 6, 3), np.uint8)
    search = {"position_search": {"criterion": "output_error"}, "fast_finetune": False, "diagnosis": False}
    scaling = {"subtract": 127.5, "divide": 127.5}
    quantized, _ = quantize(Network("joined", layers), images, search, scaling)
    assert [quantized.fix_points[name] for name in ("first", "gate", "both")] == [7, 7, 7]
