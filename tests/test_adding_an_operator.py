"""A made-up operator through every stage, place by place: docs/adding-an-operator.md is true.

Whatever the page lists as needed is needed, and it is all: with these entries a graph goes from TensorFlow
to machine code with the right numbers, with any one of them left out it stops and says which.
"""

import importlib
import re

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.board import parts
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator, kernels
from dpuflow.emulator.selfcheck import oracle_tensors
from dpuflow.quantize.engine import run_integer
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.folding_arithmetic import Parameters
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph import network_graph, node_translation
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.training import fake_quant, model_builder
from tests.made_up_operator import KIND, NODE, PLACES, TYPE, NegateOperation
from tests.quantize.frozen_networks import GraphMaker

MOST_PLACES = 10
TARGET = get_target("DPUCZDX8G_ISA1_B1152")
SCALING = {"subtract": 128, "divide": 128}
IMAGES = np.random.default_rng(2).integers(0, 256, (12, 6, 6, 1), np.uint8)


def page_rows(repo, heading):
    """[cells] of the table below a heading of the page."""
    text = (repo / "docs/adding-an-operator.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell):
    """The one piece of code in a cell, whole."""
    (code,) = re.findall("^`([^`]+)`$", cell)
    return code


@pytest.fixture(scope="module")
def needed(repo):
    """{table: message} of the places that are needed, from the page."""
    return {quoted(table): quoted(message) for _, table, _, message in page_rows(repo, "The places")}


@pytest.fixture(scope="module")
def optional(repo):
    """{table: message} of those that can wait."""
    return {quoted(table): quoted(message) for table, _, message in page_rows(repo, "Places that can wait")}


@pytest.fixture
def add(monkeypatch):
    """Function that adds the operator to all places but `missing`."""

    def to_all_but(*missing):
        # today TensorFlow's Neg is a scale of -1: here it is a node that nobody knows
        monkeypatch.delitem(node_translation.HANDLERS, NODE)
        for name, enter in PLACES.items():
            if name not in missing:
                enter(monkeypatch)

    return to_all_but


def quantized_network(folder):
    """Placeholder, convolution, Neg, dense, softmax, quantized; layer `neg1` is the operator's."""
    maker = GraphMaker((6, 6, 1))
    x = maker.op(NODE, maker.conv(maker.input, 1, 5))
    maker.write(folder / "graph.pb", maker.dense(maker.flatten(x, 180), 180, 4))
    return quantize(read_network(folder / "graph.pb"), IMAGES, {"diagnosis": False}, SCALING)[0]


def through_tensorflow(path, quantized, layer, images):
    """int8 values of `layer` and the logits as the evaluation graph computes them."""
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    names = write_eval_graph(path, quantized)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    (last,) = (n.name for n in graph.node if re.fullmatch(rf"quantized/{layer}/saturated", n.name))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph, name="")
        x = (images.astype(np.float32) - SCALING["subtract"]) / SCALING["divide"]
        fetched = [f"{last}:0", f"{names['logits_int8']}:0"]
        return session.run(fetched, {f"{names['input']}:0": x})


def every_stage(folder, quantized):
    """{stage: (the operator's int8 input, its int8 output, int8 logits)}; None: a stage does not show it."""
    operator = next(layer for layer in quantized.network.layers if layer.op == KIND)
    name, source, logits = operator.name, operator.inputs[0], quantized.network.output.inputs[0]
    values = through_tensorflow(folder / "eval.pb", quantized, name, IMAGES)
    stages = {"TensorFlow": (None, *values)}
    compiled = compile_native(quantized, TARGET, calibration=IMAGES)  # verified map by map, or there is none
    compiled.graph.save(folder / "it.xmodel")
    compiled.quantized_graph.save(folder / "it.quantized.xmodel")
    batch = Emulator(compiled.graph).quantize_input(IMAGES)
    tensors = run_integer(quantized, batch, [source, name, logits])
    stages["quantizer"] = tuple(tensors[key] for key in (source, name, logits))
    for native in (False, True):
        tensors = Emulator(folder / "it.xmodel", use_native=native).run(batch, dump=True)
        stages[f"emulator, C {native}"] = tuple(tensors[key] for key in (source, name, logits))
    tensors = oracle_tensors(compiled.graph, batch)
    stages["oracle"] = tuple(tensors[key] for key in (source, name, logits))
    floats = Emulator(folder / "it.quantized.xmodel").run(batch, dump=True)
    stages["uncompiled"] = tuple(
        np.ldexp(floats[f"{key}_fix"], quantized.fix_points[key]) for key in (source, name, logits)
    )
    simulated = IsaRunner(folder / "it.xmodel").logits(batch)
    stages["simulator"] = (None, None, simulated.reshape(len(IMAGES), -1))
    (row,) = (row for row in compiled.report["verification"]["layers"] if row["layer"] == name)
    assert row["op"] == KIND and row["reached"] and not row["not_reached"]
    return stages


def naive(x, fix_in, fix_out):
    """-x on another grid by whole numbers, value by value: half up, then int8."""
    values = []
    for value in x.reshape(-1).tolist():
        numerator = -int(value) * 2 ** max(0, fix_out - fix_in)
        divisor = 2 ** max(0, fix_in - fix_out)
        values.append(max(-128, min(127, (2 * numerator + divisor) // (2 * divisor))))
    return np.array(values).reshape(x.shape)


def naive_dense(quantized, layer, x):
    """A dense layer in int64."""
    shift, bias_shift = quantized.shift_cut(layer.name), quantized.shift_bias(layer.name)
    weights, bias = (table[layer.name][0].astype(np.int64) for table in (quantized.weights, quantized.biases))
    # twice everything, for a bias of half a step
    total = 2 * (x.reshape(len(x), -1).astype(np.int64) @ weights.T) + (bias * 2 ** (bias_shift + 1))
    return np.clip((total + 2**shift) >> (shift + 1), -128, 127)


def test_the_page_lists_the_places_that_this_test_goes_through(needed):
    assert list(needed) == list(PLACES)
    assert len(needed) <= MOST_PLACES


def test_every_table_of_the_page_exists(needed, optional):
    for name in (*needed, *optional):
        module, _, table = name.rpartition(".")
        assert len(getattr(importlib.import_module(f"dpuflow.{module}"), table)) > 2, name


@pytest.mark.parametrize("finer", [0, -2, 1])
def test_with_all_places_every_stage_gives_the_same_bits(tmp_path, add, finer):
    """`finer`: the operator's output on the grid that was chosen, on a coarser one, and on a finer one."""
    add()
    quantized = quantized_network(tmp_path)
    operator = next(layer for layer in quantized.network.layers if layer.op == KIND)
    quantized.fix_points[operator.name] = quantized.fix_points[operator.inputs[0]] + finer
    for reader in quantized.network.layers:
        if quantized.network[reader.name].op == "flatten":
            quantized.fix_points[reader.name] = quantized.fix_points[operator.name]
    fix_in, fix_out = (quantized.fix_points[name] for name in (operator.inputs[0], operator.name))
    stages = every_stage(tmp_path, quantized)
    x = stages["oracle"][0]
    expected = naive(x, fix_in, fix_out)
    assert len(np.unique(expected)) > 20
    logits = naive_dense(quantized, quantized.network[quantized.network.output.inputs[0]], expected)
    assert len(np.unique(logits)) > 10
    for stage, (given, output, answer) in stages.items():
        if given is not None:
            np.testing.assert_array_equal(given, x, stage)
        if output is not None:
            np.testing.assert_array_equal(output, expected, stage)
        np.testing.assert_array_equal(np.reshape(answer, logits.shape), logits, stage)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_is_forgotten_is_named(tmp_path, add, needed, place):
    add(place)
    with pytest.raises((UserError, TypeError)) as caught:
        every_stage(tmp_path, quantized_network(tmp_path))
    assert needed[place] in str(caught.value)
    if place != "emulator.oracle.SEMANTICS":  # which only who writes an operator can come to see
        assert isinstance(caught.value, UserError)


def test_what_can_wait_is_slow_by_name(tmp_path, add, optional, caplog):
    add()
    compiled = compile_native(quantized_network(tmp_path), TARGET)
    caplog.clear()
    Emulator(compiled.graph)
    assert optional["emulator.kernels.KERNELS"] in caplog.text
    assert NegateOperation not in kernels.KERNELS


def test_what_can_wait_refuses_by_name(tmp_path, add, optional):
    add()
    quantized = quantized_network(tmp_path)
    (name,) = (layer.name for layer in quantized.network.layers if layer.op == KIND)
    parameters = {layer.name: Parameters(layer.weights, layer.bias) for layer in quantized.network.layers}

    def forward_pass():
        return fake_quant._Forward(quantized, parameters).run(np.zeros((1, 6, 6, 1), np.float32))

    def of_layers():
        return model_builder.build_model([{KIND: {}}], (6, 6, 1), 4, "mine")

    def on_a_board():
        parts.require_known(lower(quantized, TARGET, on_cpu={name}), "it.xmodel")

    def of_onnx():
        network_graph.write_network_graph(tmp_path / "written.pb", quantized.network)

    tried = {
        "tfgraph.network_graph.LAYERS": of_onnx,
        "training.fake_quant.LAYERS": forward_pass,
        "training.model_builder.LAYERS": of_layers,
        "board.parts.DESCRIPTIONS": on_a_board,
    }
    assert {"emulator.kernels.KERNELS", *tried} == set(optional)
    for place, attempt in tried.items():
        with pytest.raises(UserError) as caught:
            attempt()
        assert optional[place] in str(caught.value), place
    assert TYPE not in parts.DESCRIPTIONS
