"""A CSV file that names pictures and their classes, and the parts of the data set where it tells them.

Its columns are path, label and split, or names that mean the same; other columns do not count.
"""

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from dpuflow.base.errors import UserError

PARTS = {
    **{name: "train" for name in ("train", "training")},
    **{name: "validation" for name in ("validation", "valid", "val")},
    **{name: "test" for name in ("test", "testing")},
    "calibration": "calibration",
}
"""Name of a folder, or in the column split -> the part that it means."""
MEANT = {
    "path": (
        *("path", "paths", "filepath", "filepaths", "image_path", "img_path"),
        *("file", "filename", "file_name", "image", "image_name", "img"),
    ),
    "label": ("label", "labels", "class", "class_name", "target", "category"),
    "split": ("split", "subset", "data set", "dataset", "set"),
}
"""What a column holds -> names that are taken for it, in small letters; the first goes before all others."""


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, {"path", "label", "split" ("" without this column)}) of a list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) (datasets.*.source.list)") from None
    except ValueError:
        raise UserError(f"{path}: not a text in UTF-8; expected a CSV file with path,label") from None
    line_1 = text.partition("\n")[0]
    separator = next((byte for byte in ",;\t" if byte in line_1), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not CSV ({error})") from None
    places = _places(path, columns, rows[0][1] if rows else ())
    for line, row in rows:
        if len(row) != len(columns):
            raise UserError(f"{path}: line {line}: expected {len(columns)} fields, as in line 1")
        found = {meant: unicodedata.normalize("NFC", row[place].strip()) for meant, place in places.items()}
        if not all(found.values()):
            raise UserError(f"{path}: line {line}: an empty field")
        yield line, {"split": ""} | found


def _places(path: Path, columns: Sequence[str], first: Sequence[str]) -> dict[str, int]:
    """Meaning of a column -> its place; `first` is the first row."""
    lowered = [name.casefold() for name in columns]
    found: dict[str, list[int]] = {}
    for meant, names in MEANT.items():
        exact = [place for place, name in enumerate(columns) if name == meant]
        found[meant] = exact or [place for place, name in enumerate(lowered) if name in names]
    # by another name than split a column may hold anything
    found["split"] = [
        place
        for place in found["split"]
        if columns[place] == "split" or (place < len(first) and first[place].strip().casefold() in PARTS)
    ]
    if [len(found["path"]), len(found["label"])] != [1, 1] or len(found["split"]) > 1:
        raise UserError(
            f"{path}: line 1: found the columns {', '.join(columns) or 'none'}; expected path and label, "
            "each once, and split if it tells train from test"
        )
    return {meant: places[0] for meant, places in found.items() if places}


def listed_names(path: Path, root: Path | str) -> set[str] | None:
    """Names of the pictures in such a list; None where it cannot be read."""
    try:
        return {safe_name(row["path"], "", root) for _, row in rows_of(path)}
    except UserError:
        return None


def safe_name(text: str, place: str, root: Path | str) -> str:
    """A path of a list as a name below the folder `root`; UserError when it leads out of it."""
    pure = PurePosixPath(text.replace("\\", "/"))
    if pure.is_absolute():
        for folder in (os.path.abspath(root), os.path.realpath(root)):
            if pure.is_relative_to(folder):
                pure = pure.relative_to(folder)
                break
    if pure.is_absolute() or ".." in pure.parts:
        raise UserError(
            f"{place}: {text} leads out of the folder {root}; expected a path below it, "
            "or as folder (datasets.*.source) one that holds all pictures"
        )
    return str(pure)
