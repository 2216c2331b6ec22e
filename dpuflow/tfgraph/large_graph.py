"""Large GraphDef files with their weights outside of the graph: read when wanted, or fed to TensorFlow.

A message with them takes three times as much while it is read. TensorFlow holds a constant several times (in
the message, the graph, the session's graph and the kernel; measured: 3.9 GB for VGG16's 550 MB). For it large
constants become placeholders, whose values are read from the file into arrays once and fed without a copy.
"""

import math
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from dpuflow.base.aligned import aligned
from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import check_may_be_graph
from dpuflow.base.protobuf_pieces import Later
from dpuflow.base.protobuf_seal import length_without_seal
from dpuflow.tfgraph.graph_def import DTYPES, Message, message, parse_graph_def, read_graph_def

LARGE_BYTES = 64 << 20
"""Size of a file whose weights stay outside of the graph."""
LARGE_CONSTANT = PIECE = 1 << 20
"""Bytes of a constant's values that may stay outside."""
_NODE, _ATTRIBUTE, _VALUE, _TENSOR, _CONTENT = 1, 5, 2, 8, 4
"""Field numbers of GraphDef.node, NodeDef.attr, its entries' value, AttrValue.tensor,
TensorProto.tensor_content."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """A field of an encoded message: its number and wire type, where it begins, its value's ends."""

    number: int
    wire: int
    begin: int
    start: int
    stop: int


def is_large(path: Path | str) -> bool:
    """Whether a graph's file is so large that its weights stay outside."""
    return os.path.isfile(path) and os.path.getsize(path) > LARGE_BYTES


def split(path: Path | str, alike: Sequence[np.ndarray] = ()) -> tuple[bytes, dict[str, np.ndarray]]:
    """(the GraphDef with placeholders for its large constants, encoded; their values by node name).

    alike : arrays that may hold the same values; one that does is given and nothing read beside it.

    UserError when the file cannot be read or is no GraphDef. Takes as much memory as the values.
    """
    parts, values = [], {}
    with _mapped(path) as (data, stream, length):
        for part in _parts(data, length):
            if not isinstance(part, _Constant):
                parts.append(part)
                continue
            dtype, shape = part.array_type
            same = (a for a in alike if (a.dtype, a.shape) == (dtype, shape) and _holds(stream, part, a))
            array = next(same, None)
            if array is None:
                array = aligned(shape, dtype)
                stream.seek(part.offset)
                stream.readinto(array.data.cast("B"))
            values[part.node.name] = array
            placeholder = message("NodeDef")(name=part.node.name, op="Placeholder")
            placeholder.attr["dtype"].type = part.tensor.dtype
            placeholder.attr["shape"].shape.CopyFrom(part.tensor.tensor_shape)
            parts.append(message("GraphDef")(node=[placeholder]).SerializeToString(deterministic=True))
    return b"".join(parts), values


def _holds(stream, constant, array):
    """Whether an array's bytes are a constant's."""
    if not array.flags.c_contiguous:
        return False
    stream.seek(constant.offset)
    content = memoryview(array).cast("B")  # bytes: NaN equals itself
    parts = (content[i : i + PIECE] for i in range(0, len(content), PIECE))
    return all(part == stream.read(len(part)) for part in parts)


def read_outline(path: Path | str) -> tuple[Message, dict[bytes, Later]]:
    """(a GraphDef with a mark in place of the contents of each large constant; what each mark stands for).

    `write_graph_def` takes both. A small file is read as it is. UserError as `split`.
    """
    if not is_large(path):
        return read_graph_def(path), {}
    check_may_be_graph(path)
    parts, contents = [], {}
    with _mapped(path) as (data, _, length):
        for part in _parts(data, length):
            if not isinstance(part, _Constant):
                parts.append(part)
                continue
            mark = b"\0contents at byte %d\0" % part.offset
            contents[mark] = Later(part.size, partial(_bytes_at, path, part.offset, part.size))
            part.tensor.tensor_content = mark
            parts.append(message("GraphDef")(node=[part.node]).SerializeToString(deterministic=True))
    return parse_graph_def(b"".join(parts), path), contents


def _bytes_at(path, offset, size):
    """So many bytes of a file, in memory that can be written."""
    found = np.empty(size, np.uint8)
    with open(path, "rb") as stream:
        stream.seek(offset)
        if stream.readinto(found.data) != size:
            raise UserError(f"{path}: has become shorter while it was read")
    return found.data


@contextmanager
def _mapped(path):
    """(a file's bytes, the open file, its length without a seal); UserError for what is no GraphDef."""
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data, stream, length_without_seal(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, IndexError, DecodeError) as error:
        raise UserError(f"{path}: not a binary GraphDef ({error})") from None


class _Constant(NamedTuple):
    """A node that is a large constant, without its contents; where in the file these lie."""

    node: Message
    tensor: Message
    offset: int
    size: int

    @property
    def array_type(self) -> tuple[np.dtype, tuple[int, ...]]:
        """(dtype, shape); ValueError when the contents are of another size."""
        dtype = np.dtype(DTYPES[self.tensor.dtype][0])
        shape = tuple(dim.size for dim in self.tensor.tensor_shape.dim)
        if math.prod(shape) * dtype.itemsize != self.size:
            raise ValueError(f"{self.size} bytes of values do not fit the shape {list(shape)}")
        return dtype, shape


def _parts(data: mmap.mmap, length: int) -> Iterator[bytes | _Constant]:
    """What an encoded GraphDef consists of: encoded fields, and its large constants."""
    for field in fields(data, 0, length):
        found = None
        if field.number == _NODE and field.stop - field.start >= LARGE_CONSTANT:
            found = _constant(data, field)
        yield data[field.begin : field.stop] if found is None else found


def _constant(data: mmap.mmap, node: Field) -> _Constant | None:
    """A node that is a constant with large contents and nothing that is unknown here."""
    kept, place = bytearray(), None
    for field in fields(data, node.start, node.stop):
        for value in fields(data, field.start, field.stop) if field.number == _ATTRIBUTE else ():
            inner = fields(data, value.start, value.stop) if _is(value, _VALUE) else ()
            place = next((f for f in inner if _is(f, _TENSOR)), place)
        if place is None or not field.start <= place.start < field.stop:
            kept += data[field.begin : field.stop]
    if place is None:
        return None
    rest, content = bytearray(), None
    for field in fields(data, place.start, place.stop):
        if field.number == _CONTENT:
            content = field
        else:
            rest += data[field.begin : field.stop]
    if content is None or content.stop - content.start < LARGE_CONSTANT:
        return None
    found = message("NodeDef").FromString(bytes(kept))
    found.attr["value"].tensor.MergeFromString(bytes(rest))
    tensor = found.attr["value"].tensor
    unknown = any(len(UnknownFieldSet(part)) for part in (found, found.attr["value"], tensor))
    if found.op != "Const" or tensor.dtype not in DTYPES or unknown:
        return None
    return _Constant(found, tensor, content.start, content.stop - content.start)


def _is(field, number):
    return field.number == number and field.wire == _BYTES


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
