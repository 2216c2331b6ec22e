"""What the quantizer reads in a graph is compared with TensorFlow where the frozen graph is evaluated."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.quantize.reading_proof import prove_reading
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_def import add_constant, add_node, new_graph, write_graph_def

NODES = {"input": {"name": "in"}, "output": {"name": "out"}}


def write(path, op="Relu", **attributes):
    graph = new_graph()
    add_node(graph, "Placeholder", "in", dtype=("type", 1), shape=("shape", [-1, 2, 2, 1]))
    add_constant(graph, "shape", np.array([-1, 4], np.int32))
    add_node(graph, op, "act", ["in"], T=("type", 1), **attributes)
    add_node(graph, "Reshape", "out", ["act", "shape"], T=("type", 1))
    write_graph_def(path, graph)


def test_a_graph_that_is_read_as_another_one_stops(tmp_path):
    x = np.random.default_rng(2).normal(size=(4, 2, 2, 1)).astype(np.float32)
    write(tmp_path / "relu.pb")
    outputs = FrozenGraph(tmp_path / "relu.pb", "in", "out").run(x)
    prove_reading(tmp_path / "relu.pb", NODES, x, outputs)
    write(tmp_path / "leaky.pb", "LeakyRelu", alpha=0.1)
    with pytest.raises(UserError, match=r"leaky\.pb: as dpuflow reads this graph it gives other values"):
        prove_reading(tmp_path / "leaky.pb", NODES, x, outputs)


def test_a_graph_that_cannot_be_read_is_left_to_the_vendors_tools(tmp_path):
    write(tmp_path / "tanh.pb", "Tanh")
    prove_reading(
        tmp_path / "tanh.pb", NODES, np.zeros((1, 2, 2, 1), np.float32), np.ones((1, 4), np.float32)
    )
