"""The protobuf messages of an `.xmodel` file, package ``serial_v2``.

The tables below are the schema (docs/reference/xmodel.md); the message classes are built
from them at import, in a descriptor pool of their own, so they need no generated code, fit
every protobuf runtime that TensorFlow accepts, and cannot collide with another registration
of the same package. `proto_text` prints the schema in protobuf's own language.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "serial_v2"

_SCALARS = ("bool", "int32", "uint32", "int64", "uint64", "float", "double", "string", "bytes")
_VECTORS = tuple(f"{scalar}_vec" for scalar in _SCALARS)
_MAP_VALUES = (
    *("int32", "uint32", "int64", "uint64", "string", "bytes"),
    *("int32_vec", "uint32_vec", "int64_vec", "uint64_vec", "string_vec"),
)
_MAPS = tuple(f"map_string_2_{value}" for value in _MAP_VALUES)

KINDS = (*_SCALARS, *_VECTORS, *_MAPS)
"""Kinds of an AttrValue in the order of their field numbers, 4 to 32; the field of kind K is K_value."""

DATA_TYPES = ("INT", "UINT", "XINT", "XUINT", "FLOAT", "BFLOAT", "UNKNOWN")
"""Meaning of the integers in Tensor.data_type and OpArgDef.data_type."""

OCCURRENCE = ("REQUIRED", "OPTIONAL", "REPEATED", "REQUIRED_AND_REPEATED")
"""Meaning of the integers in OpArgDef.occur_type and AttrDef.occur_type."""


def _wrapper(kind):
    """Name of the message that wraps a kind protobuf has no scalar for: int32_vec -> Int32Vec."""
    return "".join(part[:1].upper() + part[1:] for part in kind.split("_"))


def _wrapped_type(kind):
    """Type of the one field `value` of a wrapper message."""
    if kind == "bytes":
        return "bytes"
    if kind.endswith("_vec") and not kind.startswith("map_"):
        return f"repeated {kind.removesuffix('_vec')}"
    value = kind.removeprefix("map_string_2_")
    return f"map {value if value in _SCALARS and value != 'bytes' else _wrapper(value)}"


_WRAPPED = [kind for kind in KINDS if kind not in _SCALARS or kind == "bytes"]

MESSAGES = {
    "Graph": [
        ("graph_name", 1, "string"),
        ("op_node", 5, "repeated OPNode"),
        ("subg_root", 10, "SubGraph"),
        ("graph_attr", 11, "map AttrValue"),
        ("op_defs", 101, "repeated OpDef"),
    ],
    "OPNode": [
        ("op_name", 1, "string"),
        ("op_type", 2, "string"),
        ("op_attr", 3, "map AttrValue"),
        ("args", 4, "repeated OpArg"),
        ("output_tensor", 5, "Tensor"),
    ],
    "OpArg": [("arg_name", 1, "string"), ("arg_ops", 2, "repeated string")],
    "Tensor": [
        ("tensor_name", 1, "string"),
        ("tensor_dim", 2, "repeated uint32"),
        ("data_type", 5, "int32"),
        ("tensor_bit_width", 6, "int32"),
        ("tensor_attr", 10, "map AttrValue"),
    ],
    "SubGraph": [
        ("subgraph_name", 1, "string"),
        ("op_name", 3, "repeated string"),
        ("subg_attr", 5, "map AttrValue"),
        ("subg_child", 10, "repeated SubGraph"),
    ],
    "OpDef": [
        ("name", 1, "string"),
        ("input_args", 2, "repeated OpArgDef"),
        ("attrs", 3, "repeated AttrDef"),
        ("annotation", 4, "string"),
    ],
    "OpArgDef": [
        ("name", 1, "string"),
        ("occur_type", 2, "int32"),
        ("data_type", 3, "int32"),
        ("annotation", 4, "string"),
    ],
    "AttrDef": [
        ("name", 1, "string"),
        ("occur_type", 3, "int32"),
        ("default_value", 4, "AttrValue"),
        ("list_length", 6, "int32"),
        ("annotation", 7, "string"),
    ],
    "AttrValue": [
        (f"{kind}_value", number, _wrapper(kind) if kind in _WRAPPED else kind)
        for number, kind in enumerate(KINDS, start=4)
    ],
    **{_wrapper(kind): [("value", 1, _wrapped_type(kind))] for kind in _WRAPPED},
}
"""message -> its fields (name, number, type); "map T" is map<string, T>. Those of AttrValue are one oneof."""


def _descriptor():
    """The schema as a FileDescriptorProto."""
    file = descriptor_pb2.FileDescriptorProto(name="xmodel.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "AttrValue":
            message.oneof_decl.add(name="value")
        for field_name, number, type_ in fields:
            _add_field(message, field_name, number, type_)
    return file


def _add_field(message, name, number, type_):
    modifier, _, base = type_.rpartition(" ")
    field = message.field.add(name=name, number=number)
    proto = descriptor_pb2.FieldDescriptorProto
    field.label = proto.LABEL_REPEATED if modifier else proto.LABEL_OPTIONAL
    if modifier == "map":
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, base)
        field.type, field.type_name = proto.TYPE_MESSAGE, f".{PACKAGE}.{message.name}.{entry_name}"
    elif base in MESSAGES:
        field.type, field.type_name = proto.TYPE_MESSAGE, f".{PACKAGE}.{base}"
    else:
        field.type = getattr(proto, f"TYPE_{base.upper()}")
    if message.name == "AttrValue":
        field.oneof_index = 0


def proto_text() -> str:
    """The schema in protobuf's language: input for protoc, for users of other languages."""
    lines = ['syntax = "proto3";', "", f"package {PACKAGE};"]
    for name, fields in MESSAGES.items():
        lines += ["", f"message {name} {{"]
        indent = "  "
        if name == "AttrValue":
            lines.append("  oneof value {")
            indent = "    "
        for field_name, number, type_ in fields:
            if type_.startswith("map "):
                type_ = f"map<string, {type_[4:]}>"
            lines.append(f"{indent}{type_} {field_name} = {number};")
        lines += ["  }", "}"] if name == "AttrValue" else ["}"]
    return "\n".join(lines) + "\n"


DESCRIPTOR = _descriptor()
_pool = descriptor_pool.DescriptorPool()
_pool.Add(DESCRIPTOR)


def message(name: str) -> Any:
    """Class of the message `name`, for instance "Graph"."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
