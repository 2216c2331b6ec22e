"""Large constants that TensorFlow is fed instead of holding them (`tfgraph.large_graph`)."""

import numpy as np
import pytest

from dpuflow.base.aligned import ALIGNMENT
from dpuflow.base.errors import UserError
from dpuflow.tfgraph import large_graph
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
from dpuflow.tfgraph.graph_reader import read_network

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
    assert [array.ctypes.data % ALIGNMENT for array in values.values()] == [0, 0]
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
    monkeypatch.setattr(large_graph, "LARGE_BYTES", 1000)
    monkeypatch.setattr(large_graph, "LARGE_CONSTANT", 2048)
    found = FrozenGraph(graph, "x", "out")
    assert sorted(tensor.name for tensor in found._constants) == ["doubles:0", "weights:0"]
    np.testing.assert_allclose(found.run(x, batch=3), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expected, (x @ WEIGHTS + BIAS) @ DOUBLES, rtol=1e-3, atol=1e-4)


def test_an_array_that_holds_the_same_is_not_read_again(graph, monkeypatch):
    monkeypatch.setattr(large_graph, "LARGE_CONSTANT", 2048)
    monkeypatch.setattr(large_graph, "PIECE", 1000)
    other = WEIGHTS.copy()
    other[-1, -1] += 1
    _, values = large_graph.split(graph, [other, WEIGHTS.T, WEIGHTS, DOUBLES + 1])
    assert values["weights"] is WEIGHTS
    np.testing.assert_array_equal(values["doubles"], DOUBLES)


@pytest.fixture
def outlined(graph, monkeypatch):
    """The graph, of which the large constants are read when they are wanted."""
    monkeypatch.setattr(large_graph, "LARGE_BYTES", 1000)
    monkeypatch.setattr(large_graph, "LARGE_CONSTANT", 2048)
    return graph


def test_an_outline_is_written_as_the_graph_itself(outlined, tmp_path):
    found, contents = large_graph.read_outline(outlined)
    assert len(contents) == 2 and found.ByteSize() < 2048
    assert "".join(node.name[0] for node in found.node) == "xwhbsddlo"
    write_graph_def(tmp_path / "again.pb", found, contents)
    assert (tmp_path / "again.pb").read_bytes() == outlined.read_bytes()


def test_an_outline_is_read_as_the_graph_itself(graph, monkeypatch):
    expected = read_network(graph, output_name="sum", input_shape=(40,))
    monkeypatch.setattr(large_graph, "LARGE_BYTES", 1000)
    monkeypatch.setattr(large_graph, "LARGE_CONSTANT", 2048)
    found = read_network(graph, output_name="sum", input_shape=(40,))
    assert [layer.op for layer in found.layers] == ["input", "dense"]
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.name, one.op, one.inputs, one.shape) == (other.name, other.op, other.inputs, other.shape)
    np.testing.assert_array_equal(found["hidden"].weights, WEIGHTS.T)
    np.testing.assert_array_equal(found["hidden"].bias, BIAS)


def test_contents_that_do_not_fit_their_shape_are_refused(outlined):
    graph, contents = large_graph.read_outline(outlined)
    graph.node[1].attr["value"].tensor.tensor_shape.dim[0].size = 41
    write_graph_def(outlined, graph, contents)
    with pytest.raises(UserError, match=r"node 'weights': 1200 values do not fit the shape \[41, 30\]"):
        read_network(outlined, output_name="sum", input_shape=(40,))
    with pytest.raises(UserError, match=r"graph\.pb: not a binary GraphDef \(4800 bytes of values do not"):
        large_graph.split(outlined)


@pytest.mark.parametrize("damaged", ["cut", "not protobuf", "endless number"])
def test_another_file_is_refused(graph, damaged, monkeypatch):
    data = graph.read_bytes()
    graph.write_bytes(
        {"cut": data[:-1], "not protobuf": b"\x0b" + data, "endless number": b"\xff" * 99}[damaged]
    )
    with pytest.raises(UserError, match="not a binary GraphDef"):
        large_graph.split(graph)
    monkeypatch.setattr(large_graph, "LARGE_BYTES", 100)
    with pytest.raises(UserError, match=r"not a binary GraphDef|holds no graph nodes"):
        large_graph.read_outline(graph)
