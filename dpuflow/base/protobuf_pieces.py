"""A large protobuf message as bytes, piece by piece: the same bytes as all at once, without a second copy.

Serialized at once, a message of 553 MB (VGG16's weights as floats) takes as much again, and twice that while
the library's buffer grows.
"""

from collections.abc import Iterable, Iterator
from typing import Any

WHOLE = 1 << 20
"""Bytes of a message that is serialized at once."""
_LENGTH_DELIMITED = 2

Part = tuple[bytes, Any]
"""(what comes first, and behind it bytes or a message)."""


def pieces(message: Any) -> Iterator[bytes]:
    """`message.SerializeToString(deterministic=True)` in pieces."""
    size = message.ByteSize()
    parts = [] if size <= WHOLE else list(_parts(message))
    if sum(len(head) + _size(body) for head, body in parts) != size:
        # small, or with fields that the schema does not know: those are of no list
        yield message.SerializeToString(deterministic=True)
        return
    for head, body in parts:
        yield head
        if isinstance(body, bytes):
            yield body
        else:
            yield from pieces(body)


def _parts(message: Any) -> Iterator[Part]:
    """The fields of a message in the order of their numbers, maps by their keys."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            yield from _entries(message, field, value)
        elif kind is not None:
            for each in value if hasattr(value, "add") else [value]:
                yield _head(field.number, each.ByteSize()), each
        elif isinstance(value, bytes):
            yield _head(field.number, len(value)), value
        else:
            yield _alone(message, field, value)


def _entries(message: Any, field: Any, values: Any) -> Iterator[Part]:
    """Entries of a map: a key, field 1, and a value, field 2."""
    if field.message_type.fields_by_name["value"].message_type is None:
        yield _alone(message, field, values)
        return
    for key in _in_order(message, field, values):
        value = values[key]
        yield _entry(field, key, value.ByteSize()), value


def _entry(field: Any, key: str, size: int) -> bytes:
    """What comes before the value of an entry, so many bytes of it."""
    name = key.encode()
    head = _head(1, len(name)) + name + _head(2, size)
    return _head(field.number, len(head) + size) + head


def _in_order(message: Any, field: Any, keys: Iterable[str]) -> list[str]:
    """Keys as the library orders them, which is its own affair ("ab" before "a"): asked of it."""
    one = type(message)()
    for key in keys:
        getattr(one, field.name)[key].SetInParent()
    ordered = one.SerializeToString(deterministic=True)
    return sorted(keys, key=lambda key: ordered.index(_entry(field, key, 0)))


def _alone(message: Any, field: Any, value: Any) -> Part:
    """A field of numbers or text, serialized as a message with this field only."""
    one = type(message)()
    if isinstance(value, str | int | float):
        setattr(one, field.name, value)
    else:
        getattr(one, field.name).MergeFrom(value)
    return b"", one.SerializeToString(deterministic=True)


def _size(body: Any) -> int:
    return len(body) if isinstance(body, bytes) else body.ByteSize()


def _head(number: int, length: int) -> bytes:
    """Tag and length of a field of bytes, text or a message."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
