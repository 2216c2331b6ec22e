"""Where and why a CSV of images is faulty: the slow, exact twin of the fast parser.

`image_csv` parses whole blocks with NumPy and only learns that something is wrong;
this module then walks the lines of that block and names the first fault.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NoReturn

from dpuflow.base.errors import UserError
from dpuflow.datasets.labels import sign_mnist_labels

WHOLE = re.compile(rb"[0-9]+\Z")
NUMBER = re.compile(rb"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*\Z")


def shown(field: bytes, limit: int = 24) -> str:
    """A field as it may be printed: quoted, shortened, unprintable bytes escaped."""
    text = field.decode("utf-8", "backslashreplace")
    text = text if len(text) <= limit else text[:limit] + "..."
    return repr(text)


def compact_labels(labels: Iterable[int]) -> str:
    """{0, 1, 2, 4} -> '0-2, 4'."""
    labels = sorted(labels)
    runs: list[list[int]] = []
    for label in labels:
        if runs and label == runs[-1][1] + 1:
            runs[-1][1] = label
        else:
            runs.append([label, label])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def raise_first_fault(
    data: bytes, first_line: int, columns: int, labels_allowed: Collection[int], name: Path | str, last: bool
) -> NoReturn:
    """Raise the UserError for the first faulty row in `data`.

    data : bytes of whole lines. first_line : 1-based number of the first one.
    columns : number of fields a row has. labels_allowed : set of int.
    name : what to call the file. last : True if the file ends with `data`.
    """
    lines = data.splitlines()
    for offset, line in enumerate(lines):
        fault = _row_fault(line, columns, labels_allowed)
        if fault:
            at_end = last and offset == len(lines) - 1
            hint = "; the file looks cut off: obtain it again" if at_end and "fields" in fault else ""
            raise UserError(f"{name}: line {first_line + offset}{fault}{hint}")
    raise UserError(
        f"{name}: lines {first_line} to {first_line + len(lines) - 1}: stray carriage returns between rows; "
        "expected LF or CRLF line ends"
    )


def _row_fault(line, columns, labels_allowed):
    """Text of the first fault in one row, or '' if there is none."""
    if not line:
        return f": empty line; expected {columns} fields (label and {columns - 1} pixels)"
    if b"\0" in line:
        return ": found NUL bytes; expected text (CSV), this looks like a binary file"
    fields = line.split(b",")
    if len(fields) != columns:
        return f": found {len(fields)} fields, expected {columns} (label and {columns - 1} pixels)"
    for index, field in enumerate(fields):
        limit = None if index else labels_allowed
        problem = _field_fault(field, limit)
        if problem:
            column = f"pixel{index}" if index else "label"
            return f", column {index + 1} ({column}): {problem}"
    return ""


LETTERS = frozenset(sign_mnist_labels().present)
NO_NAMES = (
    " (the letters of Sign Language MNIST, which a data set without class_names is taken for; "
    'for digits write class_names: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"])'
)


def expected_label(labels: Collection[int]) -> str:
    """What a label must be, in words."""
    return f"one of the labels {compact_labels(labels)}{NO_NAMES if set(labels) == LETTERS else ''}"


def _field_fault(field, labels_allowed):
    expected = (
        "a pixel, a whole number 0 to 255" if labels_allowed is None else expected_label(labels_allowed)
    )
    if not field.strip():
        return f"empty field; expected {expected}"
    if WHOLE.match(field):
        value = int(field[-30:]) if len(field) < 4000 else 10**30
        if len(field) > 3 and value <= 255:
            return f"found {shown(field)}, a number of more than three digits; expected {expected}"
        allowed = range(256) if labels_allowed is None else labels_allowed
        return "" if value in allowed else f"found {shown(field)}; expected {expected}"
    kind = (
        "which is not a whole number written with digits alone"
        if NUMBER.match(field)
        else "which is not a number"
    )
    return f"found {shown(field)}, {kind}; expected {expected}"
