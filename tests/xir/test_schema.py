"""The protobuf schema: field numbers on the wire, the .proto text, TensorFlow beside it."""

import importlib.util
import subprocess
import sys

import pytest
from google.protobuf import descriptor_pb2

from dpuflow.xir import schema


def test_bytes_on_the_wire():
    graph = schema.message("Graph")(graph_name="n")
    op = graph.op_node.add(op_name="a", op_type="b")
    op.op_attr["k"].int32_vec_value.value.extend([1, 300])
    op.args.add(arg_name="input", arg_ops=["c"])
    op.output_tensor.tensor_name = "t"
    op.output_tensor.tensor_dim.extend([1, 2])
    op.output_tensor.data_type = 2
    op.output_tensor.tensor_bit_width = 8
    value = bytes([14 << 3 | 2, 5 - 0]) + bytes([1 << 3 | 2, 3, 1, 0xAC, 0x02])  # packed list
    entry = b"\x0a\x01k" + b"\x12" + bytes([len(value)]) + value
    tensor = b"\x0a\x01t" + b"\x12\x02\x01\x02" + b"\x28\x02" + b"\x30\x08"
    args = b"\x0a\x05input" + b"\x12\x01c"
    node = (
        *(b"\x0a\x01a", b"\x12\x01b", b"\x1a" + bytes([len(entry)]) + entry),
        *(b"\x22" + bytes([len(args)]) + args, b"\x2a" + bytes([len(tensor)]) + tensor),
    )
    body = b"".join(node)
    assert graph.SerializeToString() == b"\x0a\x01n" + b"\x2a" + bytes([len(body)]) + body


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        *(("bool", 4), ("int32", 5), ("uint64", 8), ("double", 10), ("string", 11), ("bytes", 12)),
        *(("bool_vec", 13), ("int32_vec", 14), ("float_vec", 18), ("string_vec", 20), ("bytes_vec", 21)),
        *(("map_string_2_int32", 22), ("map_string_2_string", 26), ("map_string_2_string_vec", 32)),
    ],
)
def test_kinds_have_their_field_numbers(kind, number):
    fields = schema.message("AttrValue").DESCRIPTOR.fields_by_name
    assert fields[f"{kind}_value"].number == number
    assert fields[f"{kind}_value"].containing_oneof.name == "value"


def test_proto_text_compiles_to_the_same_schema(tmp_path):
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("needs grpcio-tools")
    (tmp_path / "xmodel.proto").write_text(schema.proto_text())
    out = tmp_path / "out.pb"
    # in a process of its own: protoc's protobuf library beside TensorFlow's crashes the interpreter
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"--descriptor_set_out={out}"]
    subprocess.run([*protoc, "xmodel.proto"], check=True)
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    for message in compiled.message_type:
        for field in [*message.field, *(f for nested in message.nested_type for f in nested.field)]:
            field.ClearField("json_name")
    assert compiled == schema.DESCRIPTOR


def test_tensorflow_lives_in_the_same_process():
    program = (
        "from dpuflow.xir import Graph, schema\n"
        "graph = Graph('g'); graph.attrs['origin'] = 'a'\n"
        "import tensorflow as tf\n"
        "node = tf.compat.v1.NodeDef(name='n', op='Const')\n"
        "assert tf.compat.v1.NodeDef.FromString(node.SerializeToString()).name == 'n'\n"
        "again = schema.message('Graph').FromString(graph.to_bytes())\n"
        "assert again.graph_attr['origin'].string_value == 'a'\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
