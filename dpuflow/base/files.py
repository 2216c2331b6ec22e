"""Files that are either whole or absent: atomic writes, checksums, JSON."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.writing import explained_writing, scratch_folder


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it to `path` if the block succeeds.

    The temporary name keeps the suffix, because some writers (Keras) choose the
    format by it. A failed or killed block never leaves a file under `path`. UserError
    when the place is the reason that it failed (full disk, read-only folder).
    """
    path = Path(path)
    with explained_writing(path), scratch_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        os.replace(temporary, path)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` (bytes) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


class _NumpyEncoder(json.JSONEncoder):
    def default(self, o: Any) -> Any:
        if isinstance(o, np.generic):
            return o.item()
        if isinstance(o, np.ndarray):
            return o.tolist()
        return super().default(o)


def _pack_number_lists(text):
    """Put lists of plain numbers on one line: a 7,000-entry column is unreadable."""
    return re.sub(
        r"\[\s+(-?[\d.eE+-]+(?:,\s+-?[\d.eE+-]+)*)\s+\]",
        lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]",
        text,
    )


def json_text(data: Any) -> str:
    """`data` as deterministic, readable JSON (insertion order kept, no NaN)."""
    text = json.dumps(data, indent=1, cls=_NumpyEncoder, allow_nan=False, ensure_ascii=False)
    return _pack_number_lists(text) + "\n"


def write_json(path: Path | str, data: Any) -> None:
    """Write `data` as `json_text`. An artifact has a schema: `records.write_record`."""
    write_text(path, json_text(data))


def _no_number(text):
    raise ValueError(f"{text} is no number of JSON")


def parse_json(text: str | bytes) -> Any:
    """`json.loads` by the letter of JSON: ValueError also for NaN, for endless digits and nesting."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("brackets nested too deep") from None


def read_array(path: Path | str) -> np.ndarray:
    """An .npy file of numbers as an array; UserError when it is anything else.

    The file is mapped, so a header that claims more than the file holds takes no memory.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise ValueError("no array of numbers")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    # NumPy evaluates the header as a Python literal and passes on whatever that raises
    except (
        OSError,
        EOFError,
        SyntaxError,
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        TokenError,
    ) as error:
        raise UserError(f"{path}: not an .npy file ({error}); remove it and run again") from None
    return array


def read_json(path: Path | str) -> Any:
    """Read a JSON file; UserError names the file when it is missing or malformed."""
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # also of text that is not UTF-8
        raise UserError(f"{path}: not a JSON file ({error}); remove it and run again") from None


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
