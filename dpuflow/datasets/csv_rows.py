"""Read CSV files of images in other than the plain form (`csv_forms` says which), as a stream.

Every field is checked, and a fault is named by line and column as in the plain form. Memory is
bounded by a block of rows, however long the file is.
"""

import itertools
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.datasets.csv_cells import count_fault, pixels_of
from dpuflow.datasets.csv_faults import shown
from dpuflow.datasets.csv_forms import Ends, Form, first_form
from dpuflow.datasets.csv_values import FieldError, LabelValues, PixelValues, fields_of, scaled
from dpuflow.datasets.image_csv import BLOCK_BYTES, BOM, HEADER_LIMIT, Block, ImageShape, Source, open_csv
from dpuflow.datasets.labels import Labels

log = logging.getLogger(__name__)

BLOCK_VALUES = 1 << 18
"""Pixels in a block that is handed on."""
BYTES_OF_A_FIELD = 64
"""A line of more than so many bytes for each column (and a block of them) is no row."""


def form_of(
    source: Source,
    settings: Mapping[str, Any] | None = None,
    shape: ImageShape | None = None,
    labels_allowed: Collection[int] | Labels = range(256),
    *,
    name: Any = None,
    like: Form | None = None,
) -> Form:
    """The Form of a file, its label column found.

    source : see `image_csv.open_csv`. settings : `source.csv` of the configuration. like : the form of the
    training file, for a test file: where neither names its label, both have it in the same column.
    labels_allowed : the numbers of the classes, or with their names, which rows may then give, too.
    """
    name = name or source
    with open_csv(source, name) as stream:
        form, _ = first_form(stream, name, settings, shape)
    with open_csv(source, name) as stream:
        if form.label is not None:
            return form
        if like is not None and (like.names, like.columns) == (form.names, form.columns):
            return replace(form, label=like.label)
        ends = Ends(form, labels_allowed)
        for line, fields in _rows(stream, stream.readline(HEADER_LIMIT), form, name):
            ends.see(fields, line)
        return replace(form, label=ends.label(name))


def other_blocks(
    source: Source, form: Form, labels_allowed: Collection[int] | Labels, *, name: Any = None
) -> Iterator[Block]:
    """Yield (images uint8 (n, H, W, C), labels uint8 (n,)) of a file of this form.

    Raises UserError that names file, line and column of the first fault.
    """
    name = name or source
    read = _RowReader(form, labels_allowed)
    per_block = max(1, BLOCK_VALUES // form.shape.pixels)
    with open_csv(source, name) as stream:
        rows = _rows(stream, stream.readline(HEADER_LIMIT), form, name)
        while chunk := list(itertools.islice(rows, per_block)):
            images, labels = bytearray(), bytearray()
            for line, fields in chunk:
                try:
                    label, pixels = read(fields)
                except FieldError:
                    raise UserError(f"{name}: line {line}{read.first_fault(fields, line)}") from None
                images += pixels
                labels.append(label)
            shape = (-1, *form.shape.as_tuple())
            yield np.frombuffer(images, np.uint8).reshape(shape), np.frombuffer(labels, np.uint8)


class _RowReader:
    """Fields of a row -> its label and the bytes of its pixels."""

    def __init__(self, form, labels_allowed):
        self.form = form
        self.label, self.pixels = LabelValues(labels_allowed), PixelValues()
        self.dropped = sorted({*form.ignored, form.label}, reverse=True)
        self.count = None

    def __call__(self, fields):
        """(label, pixels); `FieldError` if anything is wrong."""
        count = None
        if self.form.counting is not None:
            count = self._check_count(fields[self.form.counting])
        label = self.label(fields[self.form.label])
        if self.form.cell is not None:
            cell = fields[self.form.cell]
            if fault := count_fault(cell, self.form.shape.pixels):
                raise FieldError(fault)
            return label, bytes(map(self.pixels.__getitem__, pixels_of(cell)))
        fields = fields.copy()
        for index in self.dropped:
            del fields[index]
        pixels = bytes(map(self.pixels.__getitem__, fields))
        self.count = count
        return label, pixels

    def _check_count(self, field):
        """The number of the row: one more than that of the row before."""
        expected = None if self.count is None else self.count + 1
        text = field.strip(b' \t"').removesuffix(b".0")
        found = int(text) if text.isdigit() and len(text) < 16 else None
        if found is None or (found != expected if expected is not None else found > 1):
            raise FieldError(
                f"found {shown(field)}; expected {'0 or 1' if expected is None else expected}: "
                "with one column more than label and pixels, the first was taken to count the rows; "
                "if another one is no pixel, say source.csv.ignore: [NUMBER]"
            )
        return found

    def _check_cell(self, field):
        """`FieldError` unless a cell holds the pixels of one image."""
        for pixel in pixels_of(field):
            self.pixels[pixel]
        if fault := count_fault(field, self.form.shape.pixels):
            raise FieldError(fault)

    def first_fault(self, fields: list[bytes], line: int) -> str:
        """Column and text of the first fault in a row that has one."""
        form = self.form
        for index, field in enumerate(fields):
            try:
                if index == form.label:
                    self.label(field)
                elif index == form.counting:
                    self._check_count(field)
                elif index == form.cell:
                    self._check_cell(field)
                elif index not in form.ignored:
                    self.pixels[field]
            except FieldError as fault:
                pixels = [f for i, f in enumerate(fields) if i != form.label and i not in form.ignored]
                hint = ""
                if index != form.label and index != form.counting and scaled(pixels):
                    hint = (
                        "; all pixels of this row lie between -1 and 1: they look divided already. Multiply "
                        "them back to 0..255 and round them (x 255 if they go from 0 to 1)"
                    )
                if form.names is None and line == 1:
                    hint += "; if this line is a header, say source.csv.header: true"
                return f", {form.column(index)}: {fault}{hint}"
        raise AssertionError("a row without a fault")


def _rows(stream, first, form, name):
    """Yield (line number, fields) of the rows; empty lines at the end are none."""
    limit = BLOCK_BYTES + BYTES_OF_A_FIELD * max(form.columns, form.shape.pixels)
    lines = iter(lambda: stream.readline(limit), b"")
    if form.names is None:
        lines = itertools.chain([first.removeprefix(BOM)], lines)
    empty, ended = 0, True
    what = f"expected {form.columns} (label and {form.shape.pixels} pixels"
    what += f"; {len(form.ignored)} ignored)" if form.ignored else ")"
    rows = 0
    for number, line in enumerate(lines, 1 if form.names is None else 2):
        text = line.rstrip(b"\n").removesuffix(b"\r")
        ended = line.endswith(b"\n")
        if not text.strip(b" \t") and form.separator not in text:
            empty = empty or number
            continue
        if empty:
            raise UserError(f"{name}: line {empty}: empty line; {what}")
        if b"\0" in text:
            raise UserError(f"{name}: line {number}: found NUL bytes; this looks like a binary file")
        if len(line) >= limit and not ended:
            raise UserError(f"{name}: line {number}: longer than {limit} bytes; {what}")
        fields = fields_of(text, form.separator)
        if len(fields) == form.columns + 1 and not fields[-1].strip():
            fields.pop()
        if len(fields) != form.columns:
            hint = "" if ended else "; the file looks cut off: obtain it again"
            raise UserError(f"{name}: line {number}: found {len(fields)} fields, {what}{hint}")
        rows += 1
        yield number, fields
    if not ended:
        log.warning("%s: the last line has no line end; if the file was cut off, obtain it again", name)
    if not rows:
        raise UserError(f"{name}: a header but no rows; expected at least one image")
