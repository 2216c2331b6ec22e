"""Fields of CSV files in other than the plain form: cut a line into them, and what number one stands for.

A field is a whole number 0..255 in any usual spelling: digits, 217.0, 2.17e+02, with spaces or in quotes.
Each spelling is worked out once and then looked up, so that a row costs two passes of C code.
"""

import csv
import re
from collections.abc import Collection
from decimal import Decimal, InvalidOperation

from dpuflow.datasets.csv_faults import LETTERS, NUMBER, expected_label, shown
from dpuflow.datasets.labels import Labels

PIXEL = "a pixel, a whole number 0 to 255"
LONGEST = 64
"""Characters of a number; what is longer is none."""
SHOWN_NAMES = 5
"""Class names in a message."""
KEPT = 1 << 14
"""Spellings that are remembered."""
SPELLING = re.compile(rb'[ \t]*("?)[ \t]*(.*?)[ \t]*\1[ \t]*', re.DOTALL)


class FieldError(Exception):
    """Why a field is none, in words."""


def fields_of(line: bytes, separator: bytes) -> list[bytes]:
    """The fields of a line without its end. Quotes that hold a separator are taken off."""
    if b'"' not in line:
        return line.split(separator)
    text = line.decode("latin-1")
    try:
        return [
            field.encode("latin-1")
            for field in next(
                csv.reader([text], delimiter=separator.decode(), skipinitialspace=True, strict=True)
            )
        ]
    except (csv.Error, StopIteration):
        return line.split(separator)  # a faulty field is then named as such


def number(field: bytes, expected: str) -> int:
    """The whole number that a field stands for; FieldError if it is none. Any size, as short as `LONGEST`."""
    text = SPELLING.fullmatch(field)[2]  # type: ignore[index]  # matches anything
    if not text:
        raise FieldError(f"empty field; expected {expected}")
    exact = _exact(text)
    if exact is None:
        hint = "; write a decimal point, not a comma" if re.fullmatch(rb"[0-9]+,[0-9]+", text) else ""
        raise FieldError(f"found {shown(field)}, which is not a number; expected {expected}{hint}")
    if abs(exact) > 255:
        raise FieldError(f"found {shown(field)}; expected {expected}")
    if exact != int(exact):
        raise FieldError(f"found {shown(field)}, which is not a whole number; expected {expected}")
    return int(exact)


def _exact(text):
    """The number that a text without spaces and quotes stands for, or None."""
    if len(text) > LONGEST or not NUMBER.match(text):
        return None
    try:
        return Decimal(text.decode())
    except InvalidOperation:  # an exponent beyond all bounds
        return None


class PixelValues(dict[bytes, int]):
    """Field -> its value in 0..255; looking up another field raises `FieldError`."""

    def __missing__(self, field: bytes) -> int:
        """Work a new spelling out."""
        value = number(field, PIXEL)
        if value < 0:
            raise FieldError(f"found {shown(field)}; expected {PIXEL}")
        if len(self) < KEPT:
            self[field] = value
        return value


class LabelValues:
    """The same for labels, of which only some are allowed: a number means itself, a text a class's name."""

    def __init__(self, classes: Collection[int] | Labels) -> None:
        names: dict[bytes, int] = {}
        if isinstance(classes, Labels):
            names = {classes.name(label).encode(): label for label in classes.present}
            classes = classes.present
        self.allowed = frozenset(classes)
        # one that looks like a number would be taken for a label in one file and for a name in the next
        self.names = {name: label for name, label in names.items() if not NUMBER.match(name)}
        self.expected = expected_label(self.allowed)

    def __call__(self, field: bytes) -> int:
        """The label; `FieldError` if it is none of the data set."""
        text = SPELLING.fullmatch(field)[2]  # type: ignore[index]  # matches anything
        if text in self.names:
            return self.names[text]
        if self.names and text and not NUMBER.match(text):
            some = ", ".join(name.decode() for name in list(self.names)[:SHOWN_NAMES])
            more = ", ..." if len(self.names) > SHOWN_NAMES else ""
            raise FieldError(f"found {shown(field)}; expected {self.expected}, or a name: {some}{more}")
        value = number(field, self.expected)
        if value not in self.allowed:
            hint = ""
            if 0 in self.allowed != LETTERS and value == max(self.allowed) + 1:
                hint = "; if labels count from 1, write class_names: [null, ...]: the first is of label 0"
            raise FieldError(f"found {shown(field)}; expected {self.expected}{hint}")
        return value

    def get(self, field: bytes) -> int | None:
        """The label, or None if it is none."""
        try:
            return self(field)
        except FieldError:
            return None


def scaled(fields: list[bytes]) -> bool:
    """Whether all these fields are numbers from -1 to 1, as of pixels that were divided by 255."""
    numbers = [_exact(SPELLING.fullmatch(field)[2]) for field in fields]  # type: ignore[index]
    return all(value is not None and abs(value) <= 1 for value in numbers)
