"""Large constants that TensorFlow is fed instead of holding them (`tfgraph.large_graph`)."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.tfgraph import freeze, large_graph
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_def import (
    DT_DOUBLE,
    DT_FLOAT,
    add_constant,
    add_node,
    new_graph,
    parse_graph_def,
    write_graph_def,
)

RANDOM = np.random.default_rng(3)
WEIGHTS = RANDOM.normal(size=(40, 30)).astype(np.float32)
DOUBLES = RANDOM.normal(size=(30, 25))
BIAS = RANDOM.normal(size=30).astype(np.float32)


@pytest.fixture
def graph(tmp_path):
    """Two matrices, the second in float64, and a small bias."""
    graph, real = new_graph(), ("type", DT_FLOAT)
    add_node(graph, "Placeholder", "x", dtype=real, shape=("shape", [-1, 40]))
    add_constant(graph, "weights", WEIGHTS)
    add_node(graph, "MatMul", "hidden", ["x", "weights"], T=real)
    add_constant(graph, "bias", BIAS)
    add_node(graph, "BiasAdd", "sum", ["hidden", "bias"], T=real)
    add_node(graph, "Cast", "double", ["sum"], SrcT=real, DstT=("type", DT_DOUBLE))
    add_constant(graph, "doubles", DOUBLES)
    add_node(graph, "MatMul", "last", ["double", "doubles"], T=("type", DT_DOUBLE))
    add_node(graph, "Cast", "out", ["last"], SrcT=("type", DT_DOUBLE), DstT=real)
    path = tmp_path / "graph.pb"
    write_graph_def(path, graph)
    return path


def test_large_constants_become_aligned_arrays(graph, monkeypatch):
    monkeypatch.setattr(large_graph, "LARGE_CONSTANT", 2048)
    encoded, values = large_graph.split(graph)
    assert set(values) == {"weights", "doubles"}
    np.testing.assert_array_equal(values["weights"], WEIGHTS)
    np.testing.assert_array_equal(values["doubles"], DOUBLES)
    assert [array.ctypes.data % large_graph.ALIGNMENT for array in values.values()] == [0, 0]
    before, after = parse_graph_def(graph.read_bytes(), graph), parse_graph_def(encoded, graph)
    assert [node.name for node in before.node] == [node.name for node in after.node]
    changed = {new.name: new for old, new in zip(before.node, after.node, strict=True) if old.op != new.op}
    assert set(changed) == set(values)
    assert [d.size for d in changed["doubles"].attr["shape"].shape.dim] == [30, 25]
    assert changed["doubles"].attr["dtype"].type == DT_DOUBLE
    assert len(encoded) < 2048 < len(graph.read_bytes())


def test_fed_constants_give_the_same_answers(graph, monkeypatch):
    x = RANDOM.normal(size=(7, 40)).astype(np.float32)
    expected = FrozenGraph(graph, "x", "out").run(x)
    monkeypatch.setattr(freeze, "LARGE_BYTES", 1000)
    monkeypatch.setattr(large_graph, "LARGE_CONSTANT", 2048)
    found = FrozenGraph(graph, "x", "out")
    assert sorted(tensor.name for tensor in found._constants) == ["doubles:0", "weights:0"]
    np.testing.assert_allclose(found.run(x, batch=3), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expected, (x @ WEIGHTS + BIAS) @ DOUBLES, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("damaged", ["cut", "not protobuf", "endless number"])
def test_another_file_is_refused(graph, damaged):
    data = graph.read_bytes()
    graph.write_bytes(
        {"cut": data[:-1], "not protobuf": b"\x0b" + data, "endless number": b"\xff" * 99}[damaged]
    )
    with pytest.raises(UserError, match="not a binary GraphDef"):
        large_graph.split(graph)
