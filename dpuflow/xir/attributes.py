"""Attributes of graphs, ops, tensors and subgraphs: a mapping of name to Python value.

XIR reads an attribute with an exact C++ type, so the kind that is written matters: a list of
int64 where a list of int32 is expected is an error on the board (docs/reference/xmodel.md).
"""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from dpuflow.xir.schema import KINDS, message

_AttrValue = message("AttrValue")

_INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}
_UNAMBIGUOUS = {bool: "bool", str: "string", bytes: "bytes"}


def kind_of(value: Any) -> str | None:
    """Kind of an AttrValue message, for instance "int32_vec", or None when it is unset."""
    field = value.WhichOneof("value")
    return field.removesuffix("_value") if field else None


def decode(value: Any) -> Any:
    """Python value of an AttrValue message: number, str, bytes, list or dict; None when unset."""
    field = value.WhichOneof("value")
    if field is None:
        return None
    content = getattr(value, field)
    if not hasattr(content, "DESCRIPTOR"):
        return content
    content = content.value
    if isinstance(content, bytes):
        return content
    if not field.startswith("map_"):
        return list(content)
    return {key: _unwrap(content[key]) for key in sorted(content)}


def _unwrap(item):
    """Value of one map entry: a scalar, or a wrapper message around bytes or a list."""
    if not hasattr(item, "DESCRIPTOR"):
        return item
    return item.value if isinstance(item.value, bytes) else list(item.value)


def encode(target: Any, value: Any, kind: str) -> None:
    """Store `value` as `kind` in the AttrValue `target`; TypeError or ValueError if it does not fit."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is not a kind of attribute; one of {', '.join(KINDS)}")
    target.Clear()
    field = f"{kind}_value"
    if kind.startswith("map_"):
        wrapper, item_kind = getattr(target, field), kind.removeprefix("map_string_2_")
        wrapper.SetInParent()
        for key, item in value.items():
            if item_kind == "bytes" or item_kind.endswith("_vec"):
                _fill_wrapper(wrapper.value[key], item, item_kind)
            else:
                wrapper.value[key] = _scalar(item, item_kind)
    elif kind == "bytes" or kind.endswith("_vec"):
        _fill_wrapper(getattr(target, field), value, kind)
    else:
        setattr(target, field, _scalar(value, kind))


def _fill_wrapper(wrapper, value, kind):
    wrapper.SetInParent()
    if kind == "bytes":
        wrapper.value = _scalar(value, kind)
        return
    if isinstance(value, str | bytes):
        raise TypeError(f"expected a list for {kind}, got {value!r}")
    wrapper.value.extend(_scalar(item, kind.removesuffix("_vec")) for item in value)


def _scalar(value, kind):
    """`value` as the Python type that protobuf takes for a scalar of `kind`."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"expected an integer for {kind}, got {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{value} does not fit {kind}")
        return value
    expected = {"bool": bool, "string": str, "bytes": bytes}.get(kind, float | int)
    if not isinstance(value, expected) or (kind in ("float", "double") and isinstance(value, bool)):
        raise TypeError(f"expected a {kind}, got {value!r}")
    return value


class Attributes(MutableMapping[str, Any]):
    """View of one map<string, AttrValue>: read, write and delete by name, in name order.

    ``attrs[name] = value`` writes the kind that the definition tables give to `name` (see
    `dpuflow.xir.opdefs`), else the kind the attribute already has, else the only one that
    fits (bool, string, bytes); for anything else say the kind: ``attrs.set(name, value, "int32_vec")``.
    """

    def __init__(self, messages: Any, kinds: Mapping[str, str] | None = None) -> None:
        self._messages = messages
        self._kinds = kinds or {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._messages:
            raise KeyError(name)
        return decode(self._messages[name])

    def __setitem__(self, name: str, value: Any) -> None:
        kind = self._kinds.get(name) or self.kind(name) or _UNAMBIGUOUS.get(type(value))
        if kind is None:
            raise TypeError(f"attribute {name!r} has no definition: use set(name, value, kind)")
        self.set(name, value, kind)

    def set(self, name: str, value: Any, kind: str) -> None:
        """Write `value` as `kind` (one of `schema.KINDS`)."""
        if kind == "bytes" and isinstance(value, bytes):  # perhaps a layer's weights: copied once
            encode(self._messages[name], value, kind)
            return
        encoded = _AttrValue()
        try:
            encode(encoded, value, kind)
        except (TypeError, ValueError) as error:
            raise type(error)(f"attribute {name!r}: {error}") from None
        self._messages[name].CopyFrom(encoded)

    def kind(self, name: str) -> str | None:
        """Kind of the stored attribute, None when it is absent or its value is unset."""
        return kind_of(self._messages[name]) if name in self._messages else None

    def __delitem__(self, name: str) -> None:
        if name not in self._messages:
            raise KeyError(name)
        del self._messages[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._messages))

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, name: object) -> bool:
        return name in self._messages

    def __repr__(self) -> str:
        return repr(dict(self))
