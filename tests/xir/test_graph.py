"""Reading, changing and writing graphs; nothing is lost, nothing half-written, nothing crashes."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graph import small_graph

from dpuflow.base import protobuf_seal as seal
from dpuflow.base.errors import UserError
from dpuflow.xir import Graph, schema, validate
from dpuflow.xir.describe import describe
from dpuflow.xir.difference import differences
from dpuflow.xir.svg import draw

VENDOR = ("zcu102_mnist_3.0", "zcu102_mnist_2.5", "voxelnet_quantized_2.0")
UNKNOWN = b"\xf2\x3e\x09something"  # field 1006, length-delimited: no schema knows it


def test_attributes_keep_value_and_kind():
    graph = small_graph()
    conv = graph.op("conv")
    assert conv.attrs["kernel"] == [2, 3]
    assert conv.attrs.kind("kernel") == "int32_vec"
    assert conv.tensor.attrs.kind("fix_point") == "int32"
    dpu = graph.subgraphs("DPU")[0]
    assert dpu.attrs.kind("dpu_fingerprint") == "uint64"
    assert dpu.attrs["runner"] == {"run": "a.so"}
    assert graph.op("w").attrs.kind("data") == "bytes"
    assert conv.attr("dilation") == [1, 1]
    assert conv.attr("group") == 1
    with pytest.raises(KeyError, match=r"'down' .* no attribute 'kernel'"):
        graph.op("down").attr("kernel")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("bool", True), ("int32", -5), ("uint32", 2**32 - 1), ("int64", -(2**63)), ("uint64", 2**64 - 1)),
        *(
            ("float", 0.5),
            ("double", 0.1),
            ("string", "é"),
            ("bytes", b"\xff\0"),
            ("bool_vec", [True, False]),
        ),
        *(("int32_vec", []), ("uint32_vec", [1]), ("int64_vec", [2**40]), ("uint64_vec", [2**63])),
        *(
            ("float_vec", [0.25]),
            ("double_vec", [0.1]),
            ("string_vec", ["a", ""]),
            ("bytes_vec", [b"a", b""]),
        ),
        *(
            ("map_string_2_int32", {"a": 1}),
            ("map_string_2_uint32", {"a": 1}),
            ("map_string_2_int64", {"a": -1}),
        ),
        *(("map_string_2_uint64", {"a": 1}), ("map_string_2_string", {"b": "x", "a": ""})),
        *(("map_string_2_bytes", {"a": b"\0"}), ("map_string_2_int32_vec", {"a": [1, 2]})),
        *(("map_string_2_uint32_vec", {"a": [1]}), ("map_string_2_int64_vec", {"a": [1]})),
        *(("map_string_2_uint64_vec", {"a": []}), ("map_string_2_string_vec", {"a": ["b"]})),
    ],
)
def test_every_kind_survives_the_file(kind, value):
    graph = small_graph()
    graph.attrs.set("it", value, kind)
    again = Graph.from_bytes(graph.to_bytes())
    assert again.attrs["it"] == value
    assert again.attrs.kind("it") == kind


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("int32", 2**31), ("uint32", -1), ("int32", 1.0), ("int32", True), ("bool", 1), ("string", b"a")),
        *(("bytes", "a"), ("int32_vec", "12"), ("int32_vec", [2**31]), ("float", "1"), ("nonsense", 1)),
    ],
)
def test_values_that_do_not_fit_are_refused_and_leave_no_trace(kind, value):
    graph = small_graph()
    before = graph.to_bytes()
    with pytest.raises((TypeError, ValueError)):
        graph.attrs.set("origin", value, kind)
    assert graph.to_bytes() == before


def test_an_attribute_without_definition_needs_its_kind():
    graph = small_graph()
    with pytest.raises(TypeError, match="'mine' has no definition"):
        graph.op("conv").attrs["mine"] = 3
    graph.op("conv").attrs.set("mine", 3, "uint64")
    graph.op("conv").attrs["mine"] = 4  # keeps the kind it has
    assert graph.op("conv").attrs.kind("mine") == "uint64"
    del graph.op("conv").attrs["mine"]
    assert "mine" not in graph.op("conv").attrs


@pytest.mark.parametrize(
    ("type_", "inputs", "attrs", "error"),
    [
        ("download", {"input": "nothing"}, {}, KeyError),
        ("download", {}, {}, ValueError),
        ("Mylayer", {}, {}, ValueError),
        ("reshape-fix", {"input": "conv"}, {"shape": [1, 55]}, ValueError),
        ("reshape-fix", {"input": "conv"}, {"shape": "flat"}, TypeError),
        ("conv", {}, {}, ValueError),
    ],
)
def test_an_op_that_does_not_fit_leaves_the_graph_as_it_was(type_, inputs, attrs, error):
    graph = small_graph()
    before = graph.to_bytes()
    with pytest.raises(error):
        graph.add_op("conv" if type_ == "conv" else "more", type_, inputs, attrs)
    assert graph.to_bytes() == before
    assert len(graph.ops) == 7 and "more" not in graph


def test_walking_the_graph():
    graph = small_graph()
    assert [op.name for op in graph.ops] == ["x", "up", "w", "b", "conv", "down", "out"]
    assert graph.op("conv").inputs == {"input": ["up"], "weights": ["w"], "bias": ["b"]}
    assert graph.op("conv").tensor.shape == (1, 3, 6, 3)
    assert [op.name for op in graph.consumers("up")] == ["conv"]
    walked = [(depth, subgraph.name) for depth, subgraph in graph.root.walk()]
    assert walked[:3] == [(0, "root"), (1, "subgraph_x"), (1, "subgraph_conv")]
    assert walked[3] == (2, "subgraph_up")
    assert graph.subgraphs("DPU")[0].op_names == ["up", "w", "b", "conv", "down"]
    np.testing.assert_array_equal(graph.op("w").array(), np.arange(36, dtype=np.int8).reshape(3, 3, 2, 2))


@pytest.mark.parametrize("name", VENDOR)
def test_vendor_files_survive_reading_and_writing(shared, tmp_path, name):
    path = shared(f"golden/vendor/{name}.xmodel")
    graph = Graph.load(path)
    graph.save(tmp_path / "again.xmodel", check=False)
    original = schema.message("Graph").FromString(path.read_bytes())
    again = schema.message("Graph").FromString((tmp_path / "again.xmodel").read_bytes()[: -seal.SIZE])
    assert again == original
    # the same number of bytes: map entries may move, nothing may vanish
    assert (tmp_path / "again.xmodel").stat().st_size == path.stat().st_size + seal.SIZE
    assert differences(graph, Graph.load(tmp_path / "again.xmodel")) == []


def _messages(message):
    """A message and all below it, map values included."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            values = value.values() if field.message_type.fields_by_name["value"].message_type else []
        else:
            values = value if field.is_repeated else [value]
        for below in list(values):
            yield from _messages(below)


@pytest.mark.parametrize("name", VENDOR)
def test_unknown_fields_survive_at_every_level(shared, name):
    graph = Graph.load(shared(f"golden/vendor/{name}.xmodel"))
    messages = list(_messages(graph.proto))
    kinds = {message.DESCRIPTOR.name for message in messages}
    assert {"Graph", "OPNode", "OpArg", "Tensor", "SubGraph", "AttrValue", "Int32Vec", "OpDef"} <= kinds
    for message in messages:
        message.MergeFromString(UNKNOWN)
    written = Graph.from_bytes(graph.to_bytes()).to_bytes()
    assert written.count(UNKNOWN) == len(messages)


def test_bytes_do_not_depend_on_the_order_of_writing_attributes(tmp_path):
    one, two = small_graph(), small_graph()
    for graph, names in ((one, "abcdef"), (two, "fedcba")):
        for name in names:
            graph.attrs.set(name, {key: key for key in names}, "map_string_2_string")
    assert one.to_bytes() == two.to_bytes()
    one.save(tmp_path / "a.xmodel")
    two.save(tmp_path / "b.xmodel")
    written = (tmp_path / "a.xmodel").read_bytes()
    assert written == (tmp_path / "b.xmodel").read_bytes() == seal.sealed(one.to_bytes())


@pytest.mark.fault("xmodel", "invalid graph about to be written", "refused")
def test_an_invalid_graph_is_not_written(tmp_path):
    graph = small_graph()
    graph.op("conv").tensor.shape = (1, 3, 6, 4)
    with pytest.raises(UserError, match=r"net\.xmodel: not a valid xmodel:\n  - op 'conv': output is stored"):
        graph.save(tmp_path / "net.xmodel")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("xmodel", "file that is no xmodel", "refused")
def test_foreign_files_are_named(tmp_path):
    def refused(name, content, message):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as info:
            Graph.load(path)
        assert str(path) in str(info.value)

    refused("empty.xmodel", b"", "empty file")
    refused("text.xmodel", b"Hello, this is not a model at all.\n", "not an .xmodel")
    refused("zero.xmodel", bytes(500), "not an .xmodel")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.txt", "content")
    refused("zip.xmodel", (tmp_path / "z.zip").read_bytes(), "not an .xmodel")
    # a TensorFlow GraphDef: nodes in field 1, versions in field 4
    node = b"\x0a\x05input\x12\x0bPlaceholder"
    refused("frozen.xmodel", b"\x0a" + bytes([len(node)]) + node + b"\x22\x03\x08\x87\x0e", "not an .xmodel")
    with pytest.raises(UserError, match="no such file"):
        Graph.load(tmp_path / "absent.xmodel")
    with pytest.raises(UserError, match="cannot be read"):
        Graph.load(tmp_path)


@pytest.mark.fault("xmodel", "xmodel truncated at every byte", "refused")
def test_every_truncation_is_refused():
    data = small_graph().to_bytes()
    for length in range(len(data)):
        # a cut between two ops parses, but then the subgraph tree is missing
        with pytest.raises(UserError, match=r"truncated|no ops in it|empty file"):
            Graph.from_bytes(data[:length])


SEED = small_graph().to_bytes()


@st.composite
def damaged(draw_value):
    """Bytes of the small graph with bits flipped, pieces cut out or repeated."""
    data = bytearray(SEED)
    for _ in range(draw_value(st.integers(1, 4))):
        at = draw_value(st.integers(0, len(data) - 1))
        match draw_value(st.integers(0, 3)):
            case 0 | 1:
                data[at] ^= 1 << draw_value(st.integers(0, 7))
            case 2:
                del data[at : at + draw_value(st.integers(1, 8))]
            case 3:
                data[at:at] = data[at : at + draw_value(st.integers(1, 40))]
        if not data:
            break
    return bytes(data)


@settings(max_examples=500)
@given(damaged())
def test_damaged_files_never_crash(data):
    try:
        described = Graph.from_bytes(data, check=False)
    except UserError:
        return
    describe(described)
    try:
        graph = Graph.from_bytes(data)
    except UserError:
        return
    validate.validate(graph, strict=True)
    draw(graph)
    differences(small_graph(), graph)
    assert Graph.from_bytes(graph.to_bytes()).proto == graph.proto


@pytest.mark.fault("xmodel", "hostile nesting", "refused")
def test_hostile_nesting_is_refused():
    message = schema.message("SubGraph")
    node = message(subgraph_name="deep", op_name=["x"])
    data = node.SerializeToString()
    for _ in range(200):
        length, size = len(data), b""
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        data = b"\x52" + size + bytes([length]) + data
    with pytest.raises(UserError, match=r"not an \.xmodel"):
        Graph.from_bytes(SEED + data)
