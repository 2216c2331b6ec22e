"""Operators x tables: every table is whole, and what a table does not know never passes in silence."""

import ast
import importlib
import pkgutil

import numpy as np
import pytest
from hand_network import hand_network

import dpuflow
from dpuflow.base import totality
from dpuflow.base.errors import UserError
from dpuflow.base.totality import Total
from dpuflow.compiler import quantized_graph, reference, representable, target_check, workload
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g import cost_model
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.dpuczdx8g.native.operations import KINDS
from dpuflow.emulator import Emulator
from dpuflow.emulator.operations import NONLINEAR
from dpuflow.network import WEIGHTED, folded_ops
from dpuflow.network import check as network_check
from dpuflow.network.quantized_file import read_quantized, write_quantized
from dpuflow.ops import ACTIVATIONS, OPERATORS
from dpuflow.ops.activations import Activation
from dpuflow.ops.pooling import MaxPool
from dpuflow.quantize import (
    alignment,
    calibration,
    diagnosis,
    engine,
    equalization,
    eval_graph,
    folding,
    output_search,
    position_search,
    reconstruction,
    rounding,
)
from dpuflow.quantize.compat_vai_q import choose_fix_points
from dpuflow.report.diagnosis import model_layers
from dpuflow.xir import Graph, shapes, validate
from dpuflow.xir.opdefs import TABLE

MADE_UP = "made_up"
IMAGES = np.random.default_rng(0).normal(size=(2, 13, 11, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def tables():
    """All tables of the package."""
    for module in pkgutil.walk_packages(dpuflow.__path__, "dpuflow."):
        if "virtual_board" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [table for table in totality.TABLES if not table.where.startswith("tests.")]


def test_every_table_has_an_entry_for_every_name(tables):
    assert totality.gaps() == []
    whole = {
        frozenset(words): [] for words in (OPERATORS, folded_ops(), WEIGHTED, ACTIVATIONS, NONLINEAR, KINDS)
    }
    for table in tables:
        whole.setdefault(frozenset(table.vocabulary), []).append(table.where)
        for name in table.vocabulary:
            table[name]  # raises if it is missing
    assert len(whole[frozenset(OPERATORS)]) >= 1
    assert len(whole[frozenset(folded_ops())]) >= 4
    assert len(whole[frozenset(ACTIVATIONS)]) >= 2


@pytest.mark.parametrize(("vocabulary", "extra"), [(OPERATORS, MaxPool), (ACTIVATIONS, ACTIVATIONS["NONE"])])
def test_a_new_name_is_missed_in_every_table_by_name(tables, monkeypatch, vocabulary, extra):
    wholes = [set(vocabulary), *([set(folded_ops())] if vocabulary is OPERATORS else [])]
    concerned = {table.where for table in tables if table.vocabulary in wholes}
    monkeypatch.setitem(vocabulary, MADE_UP, extra)
    needed = {table.where for table in tables if table.where in concerned and not table.optional}
    assert set(totality.gaps()) == {f"{where}: no entry for {MADE_UP!r}" for where in needed}
    for table in tables:
        with pytest.raises(UserError, match=f"'{MADE_UP}': unknown to dpuflow.{table.where.split(':')[0]}"):
            table[MADE_UP]
        with pytest.raises(UserError, match=MADE_UP):
            table.get(MADE_UP)


def test_a_name_too_many_is_a_gap_as_well(monkeypatch):
    monkeypatch.setattr(totality, "TABLES", [])
    Total("tests.here: meaning", ["a", "b"], {"b": 1, "c": 2})
    assert totality.gaps() == [
        "tests.here: meaning: no entry for 'a'",
        "tests.here: meaning: 'c' is no name of its vocabulary",
    ]


# -- the rooms -------------------------------------------------------------------------------


def quantized_with(change):
    """The hand-made network, float parameters included, after `change(layers by name)`."""
    quantized = hand_network()
    for name, (values, fix) in quantized.weights.items():
        quantized.network[name].weights = np.ldexp(values.astype(np.float32), -fix)
    for name, (values, fix) in quantized.biases.items():
        quantized.network[name].bias = np.ldexp(values.astype(np.float32), -fix)
    change({layer.name: layer for layer in quantized.network.layers})
    return quantized


def through_a_file(quantized, path):
    write_quantized(path / "q.h5", quantized)
    try:
        read_quantized(path / "q.h5")
    except ValueError as error:
        raise UserError(str(error)) from None


def target():
    return get_target("kv260")


def run_integer(quantized):
    return engine.run_integer(quantized, IMAGES)


def each(function):
    """`function(network, layer, ...)` for the layer that is made up."""

    def call(quantized, path):
        network = quantized.network
        layer = next(
            layer for layer in network.layers if MADE_UP in (layer.op, layer.attrs.get("activation"))
        )
        return function(network, layer)

    return call


ANY_OP = {
    "folding": lambda q, path: folding.fold(q.network),
    "target_check": lambda q, path: target_check.check(q, target()),
    "workload": each(lambda network, layer: workload.layer_workload(network, layer, target())),
    "cycles": each(lambda network, layer: cost_model.layer_cycles(network, layer, target())),
    "estimate": lambda q, path: cost_model.estimate(q, target()),
    "activation memory": lambda q, path: cost_model.activation_memory(q.network),
    "a layer in float": lambda q, path: engine.run_float(q.network, IMAGES),
    "a layer in integers": lambda q, path: run_integer(q),
    "network_check": lambda q, path: network_check.check(q),
    "quantized_file": through_a_file,
    "representable": lambda q, path: representable.require_representable(q),
    "reference": lambda q, path: reference.lower(q, target()),
    "quantized_graph": lambda q, path: quantized_graph.quantized_graph(q),
    "vote": lambda q, path: calibration.vote(q.network, q.weights, q.biases, IMAGES, "min_diffs", 2),
    "vai_q": lambda q, path: choose_fix_points(q.network, IMAGES, "min_diffs", 2),
    "groups": lambda q, path: alignment.fix_point_groups(q.network),
    "shared positions": lambda q, path: alignment.share_fix_points(q.network, dict(q.fix_points)),
    "the vendor's alignment": lambda q, path: alignment.align_as_vendor(q.network, dict(q.fix_points)),
    "equalization": lambda q, path: equalization.equalize(q.network),
    "output error": lambda q, path: output_search.search_by_output_error(
        position_search.Candidate(q, "min_diffs"), IMAGES
    ),
    "fine-tuning": lambda q, path: reconstruction.fast_finetune(
        q, IMAGES, {"rows": 10, "sweeps": 1, "reach": 1, "ridge": 0.1}
    ),
    "bias correction": lambda q, path: reconstruction.correct_biases(q, IMAGES),
    "diagnosis": lambda q, path: diagnosis.diagnose(q, IMAGES),
    "evaluation graph": lambda q, path: eval_graph.write_eval_graph(path / "eval.pb", q),
    "report": lambda q, path: model_layers(q),
}


BORDERS = ("target_check", "reference", "quantized_graph", "evaluation graph")
"""Rooms that know for themselves what an operator becomes there; the others ask its class."""


def made_up_pool(layers):
    layers["pool1"].op = MADE_UP


@pytest.mark.parametrize("room", ANY_OP)
def test_a_made_up_operator_stops_every_room(room, tmp_path):
    with pytest.raises((UserError, ValueError), match=MADE_UP):
        ANY_OP[room](quantized_with(made_up_pool), tmp_path)


@pytest.mark.parametrize("room", ANY_OP)
def test_an_operator_with_a_class_of_its_own_is_missed_at_the_borders_only(room, tmp_path, monkeypatch):
    """Arithmetic, shapes and traits come with the class; what a stage makes of it does not."""
    monkeypatch.setitem(OPERATORS, MADE_UP, type("MadeUp", (MaxPool,), {"kind": MADE_UP}))
    if room in BORDERS:
        with pytest.raises(UserError, match=f"'{MADE_UP}': unknown to dpuflow"):
            ANY_OP[room](quantized_with(made_up_pool), tmp_path)
    else:
        ANY_OP[room](quantized_with(made_up_pool), tmp_path)


def rounding_of(network, layer):
    rows, bias = np.zeros((10, layer.weights[0].size), np.int8), (np.zeros(8, np.int8), 6)
    settings = {"sweeps": 1, "reach": 1, "ridge": 0.1}
    weights = (np.zeros(layer.weights.shape, np.int8), 7)
    rounding.refine_layer(layer, rows, 6, weights, bias, 4, np.zeros((10, 8), np.float32), settings)


ACTIVATION_ROOMS = (
    *("a layer in float", "a layer in integers", "network_check", "quantized_file", "representable"),
    *("reference", "quantized_graph", "vote", "vai_q", "equalization", "output error", "fine-tuning"),
    *("diagnosis", "evaluation graph", "bias correction"),
)


def made_up_activation(layers):
    layers["conv1"].attrs["activation"] = MADE_UP


@pytest.mark.parametrize("room", [*ACTIVATION_ROOMS, "rounding"])
def test_a_made_up_activation_stops_every_room(room, tmp_path):
    rooms = {**ANY_OP, "rounding": each(rounding_of)}
    with pytest.raises((UserError, ValueError), match=MADE_UP):
        rooms[room](quantized_with(made_up_activation), tmp_path)


@pytest.mark.parametrize(
    ("room", "missing"),
    [
        ("reference", f"'{MADE_UP}': unknown to dpuflow.compiler.reference"),
        ("quantized_graph", f"'{MADE_UP}': unknown to dpuflow.compiler.quantized_graph"),
        ("evaluation graph", "'bend': unknown to dpuflow.quantize.eval_nodes"),
        ("a layer in integers", "'bend': unknown to dpuflow.ops.arithmetic"),
    ],
)
def test_an_activation_of_its_own_is_missed_where_it_has_no_rule(room, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, MADE_UP, Activation("x", lambda x: x, "bend"))
    with pytest.raises(UserError, match=missing):
        ANY_OP[room](quantized_with(made_up_activation), tmp_path)


def test_an_activation_that_a_target_does_not_have_is_found():
    def change(layers):
        layers["conv1"].attrs["activation"] = layers["add"].attrs["activation"] = MADE_UP

    findings = target_check.check(quantized_with(change), target())
    assert [(f.layer, f.limit, f.value) for f in findings] == [
        ("conv1", "activation", MADE_UP),
        ("add", "activation", MADE_UP),
    ]


# -- XIR -------------------------------------------------------------------------------------


def graph_with(type_):
    """data-fix -> upload -> op of this type -> download, with what a pool needs."""
    graph = Graph("made up")
    attrs = {"shape": [1, 4, 4, 2], "data_type": "XINT8"}
    fixed = {"fix_point": 4, "bit_width": 8, "round_mode": "DPU_ROUND", "if_signed": True}
    graph.add_op("x", "data-fix", {}, attrs).tensor.attrs.update(fixed)
    graph.add_op("u", "upload", {"input": ["x"]}, {}).tensor.attrs.update(fixed)
    attrs = {"kernel": [1, 1], "stride": [1, 1], "pad": [0, 0, 0, 0], "type": "MAX"}
    graph.add_op("y", "pool-fix", {"input": ["u"]}, attrs).tensor.attrs.update(fixed)
    graph.op("y").proto.op_type = type_
    return graph


def test_an_op_type_that_does_not_exist_has_no_shape():
    graph = graph_with(MADE_UP)
    with pytest.raises(shapes.ShapeError, match=MADE_UP):
        shapes.infer(graph, graph.op("y"))


def test_an_op_type_that_does_not_exist_is_a_finding():
    graph = reference.lower(quantized_with(lambda layers: None), target())
    assert validate.validate(graph, strict=True) == []
    graph.op("pool1").proto.op_type = MADE_UP
    assert f"op 'pool1': unknown type '{MADE_UP}' without attribute 'shape' (int32_vec)" in validate.validate(
        graph
    )


def test_an_op_type_that_does_not_exist_has_no_machine_code():
    graph = reference.lower(quantized_with(lambda layers: None), target())
    graph.op("pool1").proto.op_type = MADE_UP
    with pytest.raises(UserError, match=f"'pool1'.*{MADE_UP}"):
        compile_graph(graph)


def test_what_the_emulator_does_not_execute_it_refuses_by_name():
    """Every type of XIR's table is executed, or named in an error, and nothing between."""
    refused = set()
    for type_ in {*TABLE, MADE_UP} - {"data", "data-fix"}:
        try:
            Emulator(graph_with(type_)).run(np.zeros((1, 4, 4, 2), np.int8))
        except UserError as error:
            assert type_ in str(error), type_
            refused.add(type_)
        except (KeyError, IndexError, ValueError):
            pass  # known, but with other inputs and attributes than a pool has
    assert {MADE_UP, "threshold", "hard-softmax"} <= refused
    assert not refused & {"pool-fix", "upload", "download", "identity"}


# -- the source ------------------------------------------------------------------------------

ROOMS = ("compiler", "quantize", "report", "training", "network", "dpuczdx8g/cost_model.py")
ENDS = {"input", "softmax", "flatten"}
"""Where a network begins and ends, and what moves nothing: any stage may ask for these by name."""


def _two_ways(node):
    """`a if layer.op == "conv" else b`: whatever is no conv counts as the other."""
    if not (isinstance(node, ast.IfExp) and isinstance(node.test, ast.Compare)):
        return False
    asked, named = node.test.left, node.test.comparators[0]
    literals = {n.value for n in ast.walk(named) if isinstance(n, ast.Constant)}
    return isinstance(asked, ast.Attribute) and asked.attr == "op" and bool(literals - ENDS)


def _silent_look_up(node):
    """`table.get(layer.op)`: what the table does not have passes."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and any(isinstance(argument, ast.Attribute) and argument.attr == "op" for argument in node.args)
    )


def test_no_room_decides_by_operator_outside_of_a_table(repo):
    found = [
        f"{path.relative_to(repo)}: {ast.unparse(node)}"
        for room in ROOMS
        for path in sorted((repo / "dpuflow").glob(room if room.endswith(".py") else f"{room}/**/*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if _two_ways(node) or _silent_look_up(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("a if layer.op == 'conv' else b", True),
        ("a if layer.op in ('conv', 'dense') else b", True),
        ("a if layer.op == 'input' else b", False),
        ("TABLE.get(layer.op)", True),
        ("TABLE[layer.op]", False),
    ],
)
def test_the_search_of_the_source_finds_what_it_is_for(code, found):
    nodes = list(ast.walk(ast.parse(code)))
    assert any(_two_ways(node) or _silent_look_up(node) for node in nodes) == found


def test_what_the_vocabularies_say_of_each_other():
    assert set(folded_ops()) < set(OPERATORS)
    assert set(WEIGHTED) < set(folded_ops())
    assert set(ACTIVATIONS) < set(NONLINEAR)
