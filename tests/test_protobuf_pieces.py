"""A message in pieces: the bytes that the library gives at once."""

import pytest

from dpuflow.base import protobuf_pieces
from dpuflow.base.protobuf_pieces import pieces
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
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
