"""What YAML 1.1 makes of what a user wrote: 1e-3 is a text to it, no is false."""

import math
import re
from collections.abc import Iterable
from typing import Any

from jsonschema import ValidationError

_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+")
"""With an exponent, as YAML 1.2, JSON and everybody else write it; YAML 1.1 wants a point and a sign."""


def read_numbers(config: dict[str, Any], errors: Iterable[ValidationError]) -> bool:
    """Replace texts such as "1e-3" where the schema wants a number; returns whether there were any.

    errors : of jsonschema's validation of `config`.
    """
    found = False
    for error in errors:
        for part in _leaves(error):
            value = _number(part)
            if value is not None:
                node = config
                *parents, last = part.absolute_path
                for key in parents:
                    node = node[key]
                node[last], found = value, True
    return found


def _leaves(error):
    yield error
    for part in error.context or ():
        yield from _leaves(part)


def _number(error):
    """The number that a text of the wrong type stands for, or None."""
    wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
    text = error.instance
    if error.validator != "type" or not isinstance(text, str) or not {"number", "integer"} & set(wanted):
        return None
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace("_", ""))
    return int(value) if math.isfinite(value) and value.is_integer() else value


def wrong_type(value: Any, wanted: str | list[str]) -> str:
    """End of a message: what to write instead of a value whose type YAML decided; "" if unknown."""
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if isinstance(value, bool) and "string" in wanted:
        return "; YAML reads yes, no, on and off as true and false: put it in quotes"
    if isinstance(value, int | float) and "string" in wanted:
        return f'; put it in quotes: "{value}"'
    if isinstance(value, str) and {"number", "integer"} & set(wanted):
        return "; write a number without quotes" if value.strip() else "; write a number"
    if value is None:
        return "; nothing stands behind the colon"
    if "array" in wanted:
        return "; write a list: [a, b], or a line that begins with - for each"
    if "object" in wanted:
        return "; write keys with values: {key: value}, or a line for each, indented"
    return ""
