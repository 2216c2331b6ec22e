"""Large GraphDef files for TensorFlow with their weights outside of the graph.

TensorFlow holds a constant several times (in the message, the graph, the session's graph and the
kernel; measured: 3.9 GB for VGG16's 550 MB). Here large constants become placeholders, whose values
are read from the file into arrays once and fed without a copy.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.tfgraph.graph_def import DTYPES, message

LARGE_CONSTANT = 1 << 20
"""Bytes of a constant's values from which it becomes a placeholder."""
ALIGNMENT = 64
"""Arrays that begin at a multiple of it are fed without a copy."""
_NODE, _NAME, _ATTRIBUTE, _VALUE, _TENSOR, _CONTENT = 1, 1, 5, 2, 8, 4
"""Field numbers of GraphDef.node, NodeDef.name and .attr, its entries' value, AttrValue.tensor,
TensorProto.tensor_content."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of an encoded message: its number and wire type, where it begins, its value's ends."""

    number: int
    wire: int
    begin: int
    start: int
    stop: int


def split(path: Path | str) -> tuple[bytes, dict[str, np.ndarray]]:
    """(the GraphDef with placeholders for its large constants, encoded; their values by node name).

    UserError when the file cannot be read or is no GraphDef. Takes as much memory as the values.
    """
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _split(data, stream)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: not a binary GraphDef ({error})") from None


def _split(data: mmap.mmap, stream: Any) -> tuple[bytes, dict[str, np.ndarray]]:
    parts, values = [], {}
    for field in fields(data, 0, len(data)):
        if field.number == _NODE and field.stop - field.start >= LARGE_CONSTANT:
            found = _constant(data, stream, field)
            if found is not None:
                node, array = found
                values[node.name] = array
                parts.append(message("GraphDef")(node=[node]).SerializeToString(deterministic=True))
                continue
        parts.append(data[field.begin : field.stop])
    return b"".join(parts), values


def _constant(data: mmap.mmap, stream: Any, node: Field) -> tuple[Any, np.ndarray] | None:
    """(placeholder, values) of a node that is a constant with large contents."""
    name, found = "", None
    for field in fields(data, node.start, node.stop):
        if field.number == _NAME:
            name = data[field.start : field.stop].decode()
        elif field.number == _ATTRIBUTE:
            for value in fields(data, field.start, field.stop):
                if value.number == _VALUE and value.wire == _BYTES:
                    inner = fields(data, value.start, value.stop)
                    found = next((f for f in inner if f.number == _TENSOR and f.wire == _BYTES), found)
    if found is None:
        return None
    rest, content = bytearray(), None
    for field in fields(data, found.start, found.stop):
        if field.number == _CONTENT:
            content = field
        else:
            rest += data[field.begin : field.stop]
    tensor = message("TensorProto").FromString(bytes(rest))
    if content is None or tensor.dtype not in DTYPES or content.stop - content.start < LARGE_CONSTANT:
        return None
    dtype = np.dtype(DTYPES[tensor.dtype][0])
    array = _aligned(content.stop - content.start)
    stream.seek(content.start)
    stream.readinto(array.data)
    placeholder = message("NodeDef")(name=name, op="Placeholder")
    placeholder.attr["dtype"].type = tensor.dtype
    placeholder.attr["shape"].shape.CopyFrom(tensor.tensor_shape)
    return placeholder, array.view(dtype).reshape([dim.size for dim in tensor.tensor_shape.dim])


def _aligned(size: int) -> np.ndarray:
    """uint8 (size,), uninitialised."""
    whole = np.empty(size + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + size]


def fields(data: mmap.mmap | bytes, start: int, stop: int) -> Iterator[Field]:
    """The fields of the encoded message in data[start:stop]; ValueError where it is none.

    (The encoding: protobuf.dev/programming-guides/encoding.)
    """
    while start < stop:
        begin = start
        tag, start = _varint(data, start, stop)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            end = _varint(data, start, stop)[1]
        elif wire == _BYTES:
            size, start = _varint(data, start, stop)
            end = start + size
        elif wire in (_FIXED32, _FIXED64):
            end = start + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire} at byte {begin}")
        if end > stop:
            raise ValueError(f"a field at byte {begin} is longer than what holds it")
        yield Field(number, wire, begin, start, end)
        start = end


def _varint(data: mmap.mmap | bytes, start: int, stop: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = shift = 0
    while start < stop and shift < 64:
        byte = data[start]
        value |= (byte & 0x7F) << shift
        start += 1
        if byte < 0x80:
            return value, start
        shift += 7
    raise ValueError(f"a number at byte {start} has no end")
