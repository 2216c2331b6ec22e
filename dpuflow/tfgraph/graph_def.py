"""TensorFlow's GraphDef without TensorFlow: read and write `.pb` files in milliseconds.

Importing TensorFlow takes longer than quantizing a small network (measured: 2-7 s), and a GraphDef is an
ordinary protobuf. The messages here declare the fields
that a frozen inference graph uses, with TensorFlow's field numbers; fields that are
not declared survive a read-write round trip as protobuf unknown fields. They live in
a descriptor pool of their own, so that TensorFlow may be loaded in the same process.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import check_may_be_graph
from dpuflow.base.protobuf_pieces import NOTHING, Later, pieces
from dpuflow.base.protobuf_seal import length_without_seal, sealed_file

Message = Any
"""A message of the classes here (GraphDef, NodeDef, TensorProto): made at run time, without types."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "int64": _FIELD.TYPE_INT64,
    "int32": _FIELD.TYPE_INT32,
    "float": _FIELD.TYPE_FLOAT,
    "double": _FIELD.TYPE_DOUBLE,
    "bool": _FIELD.TYPE_BOOL,
}

# message -> (field, number, type, repeated). DataType enums travel as int32: the same varint.
_MESSAGES = {
    "GraphDef": [("node", 1, "NodeDef", True), ("versions", 4, "VersionDef", False)],
    "VersionDef": [("producer", 1, "int32", False), ("min_consumer", 2, "int32", False)],
    "NodeDef": [
        ("name", 1, "string", False),
        ("op", 2, "string", False),
        ("input", 3, "string", True),
        ("device", 4, "string", False),
        ("attr", 5, "AttrEntry", True),
    ],
    "AttrEntry": [("key", 1, "string", False), ("value", 2, "AttrValue", False)],
    "AttrValue": [
        ("list", 1, "ListValue", False),
        ("s", 2, "bytes", False),
        ("i", 3, "int64", False),
        ("f", 4, "float", False),
        ("b", 5, "bool", False),
        ("type", 6, "int32", False),
        ("shape", 7, "TensorShapeProto", False),
        ("tensor", 8, "TensorProto", False),
    ],
    "ListValue": [
        ("s", 2, "bytes", True),
        ("i", 3, "int64", True),
        ("f", 4, "float", True),
        ("b", 5, "bool", True),
        ("type", 6, "int32", True),
        ("shape", 7, "TensorShapeProto", True),
    ],
    "TensorShapeProto": [("dim", 2, "Dim", True), ("unknown_rank", 3, "bool", False)],
    "Dim": [("size", 1, "int64", False), ("name", 2, "string", False)],
    "TensorProto": [
        ("dtype", 1, "int32", False),
        ("tensor_shape", 2, "TensorShapeProto", False),
        ("tensor_content", 4, "bytes", False),
        ("half_val", 13, "int32", True),
        ("float_val", 5, "float", True),
        ("double_val", 6, "double", True),
        ("int_val", 7, "int32", True),
        ("string_val", 8, "bytes", True),
        ("int64_val", 10, "int64", True),
        ("bool_val", 11, "bool", True),
    ],
}

DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT8, DT_INT64, DT_BOOL = 1, 2, 3, 6, 9, 10
DTYPES = {
    DT_FLOAT: (np.float32, "float_val"),
    DT_DOUBLE: (np.float64, "double_val"),
    DT_INT32: (np.int32, "int_val"),
    4: (np.uint8, "int_val"),
    5: (np.int16, "int_val"),
    DT_INT8: (np.int8, "int_val"),
    DT_INT64: (np.int64, "int64_val"),
    DT_BOOL: (np.bool_, "bool_val"),
    19: (np.float16, "half_val"),
}
_DT_OF = {
    np.dtype(t): code
    for code, (t, _) in DTYPES.items()
    if code in (DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT8, DT_INT64, DT_BOOL)
}
PRODUCER = 134
"""GraphDef version of TensorFlow 1.15: any later reader accepts it."""


@cache
def _classes():
    file = descriptor_pb2.FileDescriptorProto(
        name="dpuflow_graph_def.proto", package="dpuflow", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        # A map entry keeps attributes keyed by name and serializes them sorted (deterministic).
        for field, number, kind, repeated in fields:
            entry = message.field.add(name=field, number=number)
            entry.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if kind in _TYPES:
                entry.type = _TYPES[kind]
            else:
                entry.type = _FIELD.TYPE_MESSAGE
                entry.type_name = f".dpuflow.NodeDef.{kind}" if kind == "AttrEntry" else f".dpuflow.{kind}"
    _nest_map_entry(file)
    _make_oneof(file)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"dpuflow.{name}"))
        for name in _MESSAGES
        if name != "AttrEntry"
    }


def _nest_map_entry(file):
    """`map<string, AttrValue> attr` is a nested entry message with the map option."""
    index = next(i for i, message in enumerate(file.message_type) if message.name == "AttrEntry")
    entry = file.message_type[index]
    entry.options.map_entry = True
    node = next(message for message in file.message_type if message.name == "NodeDef")
    node.nested_type.add().CopyFrom(entry)
    del file.message_type[index]


def _make_oneof(file):
    """AttrValue's fields exclude each other, and a set zero must stay distinguishable from unset."""
    value = next(message for message in file.message_type if message.name == "AttrValue")
    value.oneof_decl.add(name="value")
    for field in value.field:
        field.oneof_index = 0


def message(name: str) -> Message:
    """The class of a message declared here: GraphDef, NodeDef, TensorProto, ..."""
    return _classes()[name]


def new_graph() -> Message:
    """An empty GraphDef message."""
    graph = _classes()["GraphDef"]()
    graph.versions.producer = PRODUCER
    return graph


def read_graph_def(path: Path | str) -> Message:
    """Parse a binary GraphDef file; UserError when it is missing, text, empty or something else."""
    check_may_be_graph(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(length_without_seal(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return parse_graph_def(data, path)


def parse_graph_def(data: bytes, path: Path | str) -> Message:
    """Parse the bytes of a GraphDef; `path` names it in errors."""
    graph = _classes()["GraphDef"]()
    try:
        graph.ParseFromString(data)
    except DecodeError:
        raise UserError(
            f"{path}: not a binary GraphDef; give the frozen .pb file (text .pbtxt is not accepted)"
        ) from None
    if not graph.node or not all(node.op for node in graph.node):
        raise UserError(f"{path}: holds no graph nodes; is it a SavedModel? Give a frozen GraphDef")
    return graph


def encoded(graph: Message) -> bytes:
    """The bytes of a GraphDef, equal for equal content; of graphs with one part of the nodes each, one behind
    the other, those of the whole."""
    return graph.SerializeToString(deterministic=True)


def write_graph_def(path: Path | str, graph: Message, instead: Mapping[bytes, Later] = NOTHING) -> None:
    """Write a GraphDef atomically and sealed, byte-identical for equal content; instead : as for `pieces`."""
    with sealed_file(path) as write:
        for piece in pieces(graph, instead):
            write(piece)


def tensor_to_array(
    tensor: Message, what: str = "constant", spend: Callable[[int], None] | None = None
) -> np.ndarray:
    """TensorProto -> NumPy array.

    what : names the tensor in the UserError for types without a number, and for values that do
        not fit its shape. spend(elements) : called before memory is taken for values that the
        file does not hold (a repeated tail); it may refuse.
    """
    if tensor.dtype not in DTYPES:
        raise UserError(f"{what}: tensor of data type {tensor.dtype} has no numeric value")
    dtype, field = DTYPES[tensor.dtype]
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    count = math.prod(shape)
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise UserError(f"{what}: a constant needs a known shape, found {list(shape)}")
    try:
        if tensor.tensor_content:
            array = np.frombuffer(tensor.tensor_content, dtype=np.dtype(dtype).newbyteorder("<"))
            array = array.astype(dtype)
        elif field == "half_val":
            array = np.array(list(tensor.half_val), np.uint16).view(np.float16)
        else:
            array = np.array(list(getattr(tensor, field)), dtype)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{what}: {error}") from None
    if len(array) > count or (tensor.tensor_content and len(array) != count):
        raise UserError(f"{what}: {len(array)} values do not fit the shape {list(shape)}")
    if len(array) < count:  # TensorFlow leaves out a repeated tail
        if spend is not None:
            spend(count)
        tail = array[-1] if len(array) else dtype(0)
        array = np.concatenate([array, np.full(count - len(array), tail, dtype)])
    return array.reshape(shape)


def stored_array(tensor: Message, content: Later, what: str) -> np.ndarray:
    """As `tensor_to_array` of a tensor whose content lies elsewhere."""
    dtype, shape = np.dtype(DTYPES[tensor.dtype][0]), [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise UserError(f"{what}: a constant needs a known shape, found {shape}")
    if math.prod(shape) * dtype.itemsize != content.size:
        raise UserError(f"{what}: {content.size // dtype.itemsize} values do not fit the shape {shape}")
    return np.frombuffer(content.read(), dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def add_node(graph: Message, op: str, name: str, inputs: Iterable[str] = (), **attributes: Any) -> str:
    """Append a node; returns its name.

    Attribute values: str -> s, bool -> b, int -> i, float -> f, list of int -> list(i),
    NumPy array -> tensor, ("type", code) -> type, ("shape", dims) -> shape with -1 unknown.
    """
    node = graph.node.add(name=name, op=op)
    node.input.extend(inputs)
    for key, value in attributes.items():
        _set_attribute(node.attr[key], value)
    return name


def _set_attribute(attribute, value):
    if isinstance(value, str):
        attribute.s = value.encode()
    elif isinstance(value, bool):
        attribute.b = value
    elif isinstance(value, int):
        attribute.i = value
    elif isinstance(value, float):
        attribute.f = value
    elif isinstance(value, list):
        attribute.list.i.extend(value)
    elif isinstance(value, tuple) and value[0] == "type":
        attribute.type = value[1]
    elif isinstance(value, tuple) and value[0] == "shape":
        for size in value[1]:
            attribute.shape.dim.add(size=size)
    else:
        tensor = attribute.tensor
        tensor.dtype = _DT_OF[value.dtype]
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        # tensor_content of one scalar or of a zero-length array must be written all the same
        tensor.tensor_content = value.tobytes()  # in C order, whatever the array's is


def set_constant(node: Message, array: np.ndarray) -> None:
    """Make `node` a Const that holds `array` (types as `add_constant`), under its name."""
    node.op = "Const"
    node.attr.clear()
    _set_attribute(node.attr["dtype"], ("type", _DT_OF[array.dtype]))
    _set_attribute(node.attr["value"], array)


def add_constant(graph: Message, name: str, array: np.ndarray) -> str:
    """Append a Const node holding `array` (floats, int8, int32, int64 or bool); returns its name."""
    array = np.asarray(array)
    return add_node(graph, "Const", name, dtype=("type", _DT_OF[array.dtype]), value=array)
