"""Which ops are a graph's outputs."""

import numpy as np
from small_graph import small_graph

from dpuflow.xir.ends import outputs


def names(graph):
    return [op.name for op in outputs(graph)]


def test_what_nobody_reads_is_an_output_but_no_constant():
    graph = small_graph()
    (last,) = names(graph)
    zeros = {"data": np.zeros(3, np.float32).tobytes(), "shape": [3], "data_type": "FLOAT32"}
    graph.add_op("unread", "const", {}, zeros)
    assert names(graph) == [last]


def test_named_outputs_are_taken_in_their_order_if_all_are_there():
    graph = small_graph()
    (last,) = names(graph)
    graph.attrs["return_ops"] = [last, "conv"]  # which is read, too
    assert names(graph) == [last, "conv"]
    graph.attrs["return_ops"] = ["conv", "of another form of this graph"]
    assert names(graph) == [last]
    graph.attrs["return_ops"] = []
    assert names(graph) == [last]
