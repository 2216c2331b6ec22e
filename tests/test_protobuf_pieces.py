"""A message in pieces: the bytes that the library gives at once."""

import pytest

from dpuflow.base import protobuf_pieces
from dpuflow.base.protobuf_pieces import Later, pieces
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.tfgraph.graph_def import new_graph
from dpuflow.xir import schema
from tests.hand_network import hand_network


@pytest.mark.parametrize("large", [1, 100, 4000, 1 << 20])
@pytest.mark.parametrize("make", [quantized_graph, lambda q: lower(q, get_target("kv260"))])
def test_pieces_are_the_bytes_of_the_whole(monkeypatch, large, make):
    monkeypatch.setattr(protobuf_pieces, "LARGE", large)
    graph = make(hand_network())
    proto = graph.proto
    proto.graph_attr["ab"].map_string_2_int32_vec_value.value["x"].value.extend([1, -2, 300])
    proto.graph_attr["a"].map_string_2_bytes_value.value["b"].value = b"123"
    proto.graph_attr["a b"].double_value = 0.25
    found = list(pieces(proto))
    assert b"".join(found) == proto.SerializeToString(deterministic=True)
    assert all(op.attrs["data"] in found for op in graph.ops if len(op.attrs.get("data", b"")) >= large)


def test_fields_that_the_schema_does_not_know_are_kept():
    proto = schema.message("Graph").FromString(b"\x0a\x01g" + bytes([0xFA, 0xFF, 0x7F, 3]) + b"abc")
    assert b"".join(pieces(proto)) == proto.SerializeToString(deterministic=True)
    assert b"abc" in b"".join(pieces(proto))


def test_what_is_given_later_stands_where_its_mark_is():
    data = bytes(range(256)) * 9
    whole, marked = new_graph(), new_graph()
    for graph, content in ((whole, data), (marked, b"mark")):
        graph.node.add(name="before", op="NoOp")
        tensor = graph.node.add(name="c", op="Const").attr["value"].tensor
        tensor.dtype, tensor.tensor_content = 4, content
        graph.node.add(name="after", op="NoOp")
    found = list(pieces(marked, {b"mark": Later(len(data), lambda: memoryview(data))}))
    assert b"".join(found) == whole.SerializeToString(deterministic=True)
    unknown = type(marked).FromString(marked.SerializeToString() + bytes([0xFA, 0xFF, 0x7F, 1]) + b"x")
    with pytest.raises(ValueError, match="stands beside fields that the schema does not know"):
        list(pieces(unknown, {b"mark": Later(len(data), lambda: data)}))
