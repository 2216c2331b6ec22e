"""What the quantizer reads in a graph is compared with TensorFlow where the frozen graph is evaluated."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.outputs import ONLY
from dpuflow.network.network_file import load_network
from dpuflow.quantize.reading_proof import largest_difference, prove_reading
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_def import add_constant, add_node, new_graph, write_graph_def
from dpuflow.tfgraph.graph_reader import graph_to_network

NODES = {"input": {"name": "in"}, "output": {"name": "out"}}


def write(path, op="Relu", **attributes):
    graph = new_graph()
    add_node(graph, "Placeholder", "in", dtype=("type", 1), shape=("shape", [-1, 2, 2, 1]))
    add_constant(graph, "shape", np.array([-1, 4], np.int32))
    add_node(graph, op, "act", ["in"], T=("type", 1), **attributes)
    add_node(graph, "Reshape", "out", ["act", "shape"], T=("type", 1))
    write_graph_def(path, graph)
    graph_to_network(path, NODES, "net", path.with_suffix(".h5"))


def test_a_graph_that_is_read_as_another_one_stops(tmp_path):
    x = np.random.default_rng(2).normal(size=(4, 2, 2, 1)).astype(np.float32)
    write(tmp_path / "relu.pb")
    outputs = FrozenGraph(tmp_path / "relu.pb", "in", "out").run(x)
    prove_reading(tmp_path / "relu.h5", tmp_path / "relu.pb", x, {ONLY: outputs})
    write(tmp_path / "leaky.pb", "LeakyRelu", alpha=0.1)
    with pytest.raises(UserError, match=r"leaky\.pb: as dpuflow reads this graph it gives other values"):
        prove_reading(tmp_path / "leaky.h5", tmp_path / "leaky.pb", x, {ONLY: outputs})


def test_a_graph_that_cannot_be_read_is_left_to_the_vendors_tools(tmp_path):
    write(tmp_path / "sin.pb", "Sin")
    x, outputs = np.zeros((1, 2, 2, 1), np.float32), np.ones((1, 4), np.float32)
    prove_reading(tmp_path / "sin.h5", tmp_path / "sin.pb", x, {ONLY: outputs})
    with pytest.raises(UserError, match=r"sin\.pb: .*node 'act' \(op Sin\): not supported"):
        load_network(tmp_path / "sin.h5")


@pytest.mark.parametrize(
    ("off", "moved", "right"),
    [
        (0.5e-4, 0.0, True),
        (3e-4, 0.0, False),
        (3e-4, 2e-5, True),  # badly conditioned: last bits of the pixels change as much
        (0.03, 1.0, False),  # nothing excuses another network
    ],
)
def test_what_last_bits_change_is_no_other_network(tmp_path, off, moved, right):
    x = np.random.default_rng(2).normal(size=(4, 2, 2, 1)).astype(np.float32)
    write(tmp_path / "relu.pb")
    outputs = FrozenGraph(tmp_path / "relu.pb", "in", "out").run(x)
    size = np.abs(outputs).max()
    given = {ONLY: outputs + np.float32(off * size)}, {ONLY: outputs + np.float32((off + moved) * size)}
    called = load_network(tmp_path / "relu.h5"), x, given[0], "relu.pb", "somebody", 1e-4, given[1]
    if right:
        assert largest_difference(*called) == pytest.approx(off * size, rel=1e-2)
    else:
        with pytest.raises(UserError, match="gives other values than somebody"):
            largest_difference(*called)
