"""A large protobuf message as bytes, piece by piece: the same bytes as all at once, without a second copy.

Serialized at once, a message of 553 MB (VGG16's weights as floats) takes as much again, and twice that while
the library's buffer grows; to ask the library for a message's size serializes it, too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

LARGE = 1 << 20
"""Bytes of a field that is a piece of its own."""
_LENGTH_DELIMITED = 2


@dataclass(frozen=True)
class Later:
    """The many bytes of a field, to be read when their turn comes.

    read : gives them; size : how many they are.
    """

    size: int
    read: Callable[[], bytes | memoryview]


NOTHING: Mapping[bytes, Later] = MappingProxyType({})


def pieces(message: Any, instead: Mapping[bytes, Later] = NOTHING) -> Iterator[bytes | memoryview]:
    """`message.SerializeToString(deterministic=True)` in pieces.

    instead : {content of a field of bytes: what stands there in its place}, for what is in no message.
    """
    _, parts = _encoded(message, instead)
    small = bytearray()
    for part in parts:
        if isinstance(part, bytes):
            small += part
            continue
        yield bytes(small)
        small.clear()
        yield part.read()
    yield bytes(small)


def _encoded(message: Any, instead: Mapping[bytes, Later]) -> tuple[int, list[bytes | Later]]:
    """(bytes of a message, what it consists of): its fields by their numbers, maps by their keys."""
    if len(UnknownFieldSet(message)):  # of which the library gives no list with the others
        whole = message.SerializeToString(deterministic=True)
        if any(content in whole for content in instead):
            raise ValueError("what is to be replaced stands beside fields that the schema does not know")
        return len(whole), [whole]
    size, parts = 0, list[bytes | Later]()

    def take(*found: bytes | Later) -> None:
        nonlocal size
        parts.extend(found)
        size += sum(len(part) if isinstance(part, bytes) else part.size for part in found)

    for field, value in message.ListFields():
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry and kind.fields_by_name["value"].message_type:
            for key in _in_order(message, field, value):
                length, inner = _encoded(value[key], instead)
                take(_entry(field, key, length), *inner)
        elif kind is not None and not kind.GetOptions().map_entry:
            for each in value if hasattr(value, "add") else [value]:
                length, inner = _encoded(each, instead)
                take(_head(field.number, length), *inner)
        elif isinstance(value, bytes) and value in instead:
            take(_head(field.number, instead[value].size), instead[value])
        elif isinstance(value, bytes) and len(value) >= LARGE:
            take(_head(field.number, len(value)), Later(len(value), partial(getattr, message, field.name)))
        else:
            take(_alone(message, field, value))
    return size, parts


def _entry(field: Any, key: str, size: int) -> bytes:
    """What comes before the value of a map's entry, so many bytes of it: the key is field 1, the value 2."""
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


def _alone(message: Any, field: Any, value: Any) -> bytes:
    """A field without messages, serialized as a message with this field only."""
    one = type(message)()
    if isinstance(value, str | int | float | bytes):
        setattr(one, field.name, value)
    else:
        getattr(one, field.name).MergeFrom(value)
    return one.SerializeToString(deterministic=True)


def _head(number: int, length: int) -> bytes:
    """Tag and length of a field of bytes, text or a message."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
