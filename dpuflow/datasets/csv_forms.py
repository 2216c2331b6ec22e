"""Which form a CSV of images has: separator, header, label column, columns that are no pixels.

The plain form is ``label,pixel1,...`` (`image_csv`). What other people write is recognised where only
one reading is possible; where more than one is, the message names the setting (`source.csv`) that tells:

* separator: the one of comma, semicolon and tab that line 1 holds.
* header: line 1 is one if most of its fields are no numbers, or if its numbers count upwards (by themselves
  beyond 255, so that they are no pixels); it is none if all are numbers.
* no pixels: a first column without a name, and columns called index, id or Unnamed: 0; without a header a
  first column that counts the rows from 0 or 1, where there is one column too many for the images.
* pixels in one cell: the one column of few whose first row holds numbers with spaces between them; all
  other columns but the label are no pixels.
* label: the one column with a name as labels have them (LABEL_NAMES); otherwise the first or the last
  column, if all values of exactly one of them are labels of the data set and not all equal. The other one
  must have more different values than labels have: it might be the label with a fault, or of classes
  without a name.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.datasets.csv_cells import cell_of, pixels_of
from dpuflow.datasets.csv_faults import NUMBER, shown
from dpuflow.datasets.csv_values import LONGEST, LabelValues, fields_of
from dpuflow.datasets.image_csv import BOM, HEADER_LIMIT, ImageShape, Source, Stream, open_csv
from dpuflow.datasets.labels import Labels

SEPARATORS = {"comma": b",", "semicolon": b";", "tab": b"\t"}
LABEL_NAMES = frozenset(
    {"label", "labels", "class", "target", "y", "digit", "letter", "character", "category", "emotion"}
)
INDEX_NAMES = frozenset({"index", "id", "unnamed: 0"})
DISTINCT_AT_MOST = 1000
"""Different fields of a column that are remembered."""


@dataclass(frozen=True)
class Form:
    """How the rows of one file are to be read; columns count from 0.

    Attributes
    ----------
    separator : one byte. names : of the columns, or None without a header. columns : fields of a row,
    without what follows a separator at its end. label : column of the label. ignored : columns that are
    no pixels, ascending. counting : column that counts the rows, which is checked, or None.
    shape : of the images. cell : column that holds all pixels, or None where each has a column of its own.
    """

    separator: bytes
    names: tuple[str, ...] | None
    columns: int
    label: int | None
    ignored: tuple[int, ...]
    counting: int | None
    shape: ImageShape
    cell: int | None = None

    def __str__(self) -> str:
        """What was recognised, for the log."""
        word = next(word for word, byte in SEPARATORS.items() if byte == self.separator)
        dropped = f", without {', '.join(map(self.column, self.ignored))}" if self.ignored else ""
        header = "a header" if self.names else "no header"
        if self.cell is not None:
            dropped = f", pixels in {self.column(self.cell)}{dropped}"
        return f"{self.columns} columns, {word}, {header}, label in {self.column(self.label or 0)}{dropped}"

    def column(self, index: int) -> str:
        """Column `index` as a message calls it."""
        if self.names is not None:
            return f"column {index + 1} ({self.names[index] or 'without a name'})"
        return f"column {index + 1}{' (label)' if index == self.label else ''}"


def first_form(
    stream: Stream, name: Any, settings: Mapping[str, Any] | None, shape: ImageShape | None
) -> tuple[Form, bytes]:
    """The Form as far as line 1 tells it (`label` may be None), and line 1 itself.

    stream : at its start; one line or two are read. settings : `source.csv` of the configuration.
    shape : of the images, or None for square grey ones.
    """
    settings = settings or {}
    line = stream.readline(HEADER_LIMIT)
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name}: text in UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)")
    text = line.removeprefix(BOM).rstrip(b"\r\n")
    if b"\0" in text or len(line) >= HEADER_LIMIT:
        raise UserError(f"{name}: a binary file; expected a CSV of images, for example label,pixel1,...")
    if b"\r" in text:
        raise UserError(f"{name}: lines end in carriage returns alone; save it with LF or CRLF line ends")
    if not text.strip():
        raise UserError(f"{name}: {'line 1 is empty' if line else 'empty file'}; expected a CSV of images")
    separator = _separator(text, name, settings)
    fields = fields_of(text, separator)
    while len(fields) > 1 and not fields[-1].strip():
        fields.pop()
    names = None
    if _has_header(fields, name, settings):
        names = tuple(_name(field) for field in fields)
    columns = len(fields)
    image = fields if names is None else _next_fields(stream, separator)
    cell = cell_of(image) if len(image) == columns else None
    label = _label_setting(names, columns, name, settings)
    ignored = {_place(key, names, columns, name, "ignore") for key in settings.get("ignore") or ()}
    if names is not None and "ignore" not in settings:
        # one that is named in `label` is no index, whatever it is called
        ignored = {i for i, n in enumerate(names) if n.lower() in INDEX_NAMES or not (i or n)} - {label}
    if label in ignored:
        raise UserError(f"{name}: {_key('label')} and {_key('ignore')} name the same column {label + 1}")
    if cell is not None:
        label = _label_beside(cell, label, columns, names, name)
        others = tuple(index for index in range(columns) if index not in (cell, label))
        shape = _shape(len(pixels_of(image[cell])), shape, columns, others, names, name)
        return Form(separator, names, columns, label, others, None, shape, cell), line
    rest = columns - 1 - len(ignored)
    counting = None
    if names is None and "ignore" not in settings and label != 0 and _one_too_many(rest, shape):
        counting, rest = 0, rest - 1
        ignored = {0}
    shape = _shape(rest, shape, columns, sorted(ignored), names, name)
    form = Form(separator, names, columns, label, tuple(sorted(ignored)), counting, shape)
    return form, line


def count_columns(source: Source, name: Any) -> int:
    """Fields of line 1 of a file, whatever separates them; 0 where none does."""
    with open_csv(source, name) as stream:
        text = stream.readline(HEADER_LIMIT).rstrip(b"\r\n")
    return max(len(fields_of(text, byte)) if byte in text else 0 for byte in SEPARATORS.values())


def _name(field):
    """A column's name; a file without UTF-8 is taken for one of Windows."""
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        text = field.decode("cp1252", "backslashreplace")
    return text.strip(' \t"')


def _next_fields(stream, separator):
    fields = fields_of(stream.readline(HEADER_LIMIT).rstrip(b"\r\n"), separator)
    while len(fields) > 1 and not fields[-1].strip():
        fields.pop()
    return fields


def _label_beside(cell, label, columns, names, name):
    """The label's column of a file whose pixels are all in column `cell`."""
    if label is not None:
        return label
    others = [index for index in range(columns) if index != cell]
    if len(others) == 1:
        return others[0]
    which = " or ".join(str(index + 1) if names is None else names[index] for index in others)
    raise UserError(
        f"{name}: no column is called label; column {cell + 1} holds the pixels; say which other column is "
        f"the label, {_key('label')}: {which}"
    )


def _mangled(fields):
    """Whether these are an image of the first row that pandas took for names: 0,0.1,0.2,... for 0,0,0,..."""
    seen: dict[bytes, int] = {}
    for text in fields:
        base, _, suffix = text.partition(b".")
        if not base.isdigit() or suffix != (str(seen[base]).encode() if base in seen else b""):
            return False
        seen[base] = seen.get(base, 0) + 1
    return max(seen.values(), default=0) > 3


def _key(key):
    return f"source.csv.{key}"


def _separator(text, name, settings):
    if "separator" in settings:
        return SEPARATORS[settings["separator"]]
    bare = re.sub(rb'"[^"]*"', b"", text)
    found = [word for word, byte in SEPARATORS.items() if byte in bare]
    if len(found) > 1:
        raise UserError(
            f"{name}: line 1 holds more than one of {', '.join(SEPARATORS)}: "
            f"say which separates the columns, {_key('separator')}: {' or '.join(found)}"
        )
    if not found:
        raise UserError(
            f"{name}: line 1: found {shown(text)}; "
            f"expected columns with a {', '.join(SEPARATORS)} between them"
        )
    return SEPARATORS[found[0]]


def _has_header(fields, name, settings):
    if "header" in settings:
        return settings["header"]
    bare = [field.strip(b' \t"') for field in fields]
    texts = sum(bool(field) and not NUMBER.match(field) for field in bare)
    numbers = [
        int(field) if len(field) < 10 and field.isdigit() else -1 for field in bare if NUMBER.match(field)
    ]
    counting = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    if 2 * texts > len(bare) or _mangled(bare) or (texts and counting) or (counting and numbers[-1] > 255):
        return True
    if not texts and not (counting and len(numbers) > 2):
        return False
    why = (
        f"holds {texts} texts and {len(numbers)} numbers"
        if texts
        else f"counts from {numbers[0]} to {numbers[-1]}"
    )
    raise UserError(
        f"{name}: line 1 {why}: names of columns, or an image; say which, {_key('header')}: true or false"
    )


def _place(key, names, columns, name, setting):
    """Column (from 0) that a setting names: a header's name, a number from 1, or from -1 at the end."""
    if isinstance(key, str):
        places = [index for index, other in enumerate(names or ()) if other == key]
        if len(places) == 1:
            return places[0]
        why = "the file has no header" if names is None else f"{len(places)} columns have this name"
        raise UserError(
            f"{name}: {_key(setting)}: {key!r}: {why}; name a column of line 1, or give its number"
        )
    if not 1 <= abs(key) <= columns:
        raise UserError(
            f"{name}: {_key(setting)}: column {key}: found {columns} columns in line 1; "
            "the first is 1, the last one -1"
        )
    return key - 1 if key > 0 else columns + key


def _label_setting(names, columns, name, settings):
    if "label" in settings:
        return _place(settings["label"], names, columns, name, "label")
    places = [index for index, other in enumerate(names or ()) if other.lower() in LABEL_NAMES]
    if len(places) > 1:
        both = " and ".join(names[index] for index in places)
        raise UserError(f"{name}: line 1: {both} could both be the label: say which, {_key('label')}: NAME")
    return places[0] if places else None


def _square(count):
    return count > 0 and math.isqrt(count) ** 2 == count


def _one_too_many(rest, shape):
    return rest - 1 == shape.pixels if shape else _square(rest - 1) and not _square(rest)


def _shape(rest, shape, columns, ignored, names, name):
    """The ImageShape of rows with `rest` pixels."""
    without = (
        f" without {', '.join(names[i] or 'the one without a name' for i in ignored)}"
        if names and ignored
        else ""
    )
    counted = f"{name}: line 1: {columns} columns{without} are a label and {rest} pixels"
    other = f"name the columns that are no pixels, {_key('ignore')}: [...]"
    if shape is None:
        if not _square(rest):
            raise UserError(
                f"{counted}, not a square image; "
                f"give the dataset's image: {{height, width, channels}}, or {other}"
            )
        return ImageShape(math.isqrt(rest), math.isqrt(rest))
    if rest != shape.pixels:
        size = "x".join(map(str, shape.as_tuple()))
        raise UserError(
            f"{counted}, expected {shape.pixels} ({size}); correct the dataset's image: "
            f"{{height, width, channels}}, or {other}"
        )
    return shape


class Ends:
    """Watches the first and the last column that could be the label, row by row."""

    def __init__(self, form: Form, labels_allowed: Collection[int] | Labels) -> None:
        columns = [index for index in range(form.columns) if index not in form.ignored]
        self.form = form
        self.values = LabelValues(labels_allowed)
        self.ends = tuple(_End(place, form.column(place)) for place in (columns[0], columns[-1]))
        self.rows = 0

    def see(self, fields: list[bytes], line: int) -> None:
        """One row."""
        self.rows += 1
        for end in self.ends:
            text = fields[end.place]
            if text in end.seen:
                continue
            if len(end.seen) < DISTINCT_AT_MOST:
                end.seen.add(text[:LONGEST])
            value = self.values.get(text)
            if value is not None:
                end.labels.add(value)
            elif not end.wrong:
                end.wrong = (
                    f"{end.name} holds {shown(text)} in line {line}, which is no label of this data set"
                )

    def label(self, name: Any) -> int:
        """The column that alone can be the label; UserError where none or both can."""
        possible = [end for end in self.ends if not end.wrong and len(end.labels) > 1]
        first, last = self.ends
        say = f"say which column is the label, {_key('label')}: {first.place + 1} or {last.place + 1}"
        if len(possible) == 2:
            why = f"{first.name} and {last.name} could both be it"
        elif not possible:
            why = "; ".join(end.wrong or f"{end.name} is the same in all rows" for end in self.ends)
        else:
            other = last if possible[0] is first else first
            if not (other.wrong and self._few_values(other)):
                return possible[0].place
            why = (
                f"{possible[0].name} could be it, but {other.wrong}, and few different values, as a label has"
            )
        raise UserError(f"{name}: no column is called label; {why}; {say}")

    def _few_values(self, end):
        """Whether a column that is none of labels looks like labels with faults, or without their names."""
        names = len(self.values.allowed)
        return len(end.seen) <= max(3 * names // 2, names + 10) and 2 * len(end.seen) <= self.rows


@dataclass
class _End:
    place: int
    name: str
    seen: set[bytes] = field(default_factory=set)
    """Different fields, up to DISTINCT_AT_MOST."""
    labels: set[int] = field(default_factory=set)
    wrong: str = ""
    """The first field that is no label, in words."""
