"""Read and write CSV files of images: ``label,pixel1..pixelN``, one image a row.

Pixels are whole numbers 0..255, row-major, channels last; labels whole numbers 0..255.
Blocks of lines are parsed by `csv_parser`, so time is linear, memory does not grow
with the number of rows (beyond the arrays asked for), and every field is checked. A
fault is handed to `csv_faults`, which names line and column.
"""

import gzip
import logging
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.files import atomic_path
from dpuflow.datasets.csv_faults import raise_first_fault, shown
from dpuflow.datasets.csv_parser import BlockParser

log = logging.getLogger(__name__)

Stream = IO[bytes] | gzip.GzipFile
Source = Path | str | Callable[[], IO[bytes]]
"""A file, or a function that opens one (a member of an archive)."""
Block = tuple[np.ndarray, np.ndarray]
"""Images uint8 (n, H, W, C) and their labels uint8 (n,)."""

BLOCK_BYTES = 1 << 18
"""The parser's scratch for a block of this size fits the second-level cache (measured: 64 KiB to 1 MiB)."""
HEADER_LIMIT = 16 << 20
BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True)
class ImageShape:
    """Height, width, channels of every image in a file."""

    height: int
    width: int
    channels: int = 1

    @property
    def pixels(self) -> int:
        """Values per image."""
        return self.height * self.width * self.channels

    def as_tuple(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    @classmethod
    def of_config(cls, image: Mapping[str, Any] | None) -> "ImageShape | None":
        """From a dataset entry's `image` mapping, or None if there is none."""
        if image is None:
            return None
        return cls(int(image["height"]), int(image["width"]), int(image.get("channels", 1)))


@contextmanager
def _errors_of_gzip(name):
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{name}: damaged gzip file ({error}); obtain it again") from None


@contextmanager
def open_csv(path: Source, name: Path | str | None = None) -> Iterator[Stream]:
    """Open a .csv or .csv.gz (told by content, not by name) as a binary stream.

    path : of a file, or a function that opens one (a member of an archive); name : see `image_blocks`.
    """
    name = name or str(path)
    try:
        with path() if callable(path) else open(path, "rb") as raw:
            magic = raw.read(4)
            raw.seek(0)
            if magic == ZIP_MAGIC:
                raise UserError(f"{name}: a zip file; give it as `zip`, not as a CSV file")
            if magic[:2] == GZIP_MAGIC:
                with _errors_of_gzip(name), gzip.open(raw) as stream:
                    yield stream
            else:
                yield raw
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; expected a .csv or .csv.gz file") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied") from None


def read_header(stream: Stream, name: Any, shape: ImageShape | None = None) -> ImageShape:
    """Read and check the header line; return the ImageShape.

    Without a `shape` the images are square and grey: N must be a perfect square.
    """
    line = stream.readline(HEADER_LIMIT)
    if not line:
        raise UserError(f"{name}: empty file; expected a header line label,pixel1,...")
    text = line.removeprefix(BOM).rstrip(b"\r\n")
    if b"\0" in text or len(line) >= HEADER_LIMIT:
        raise UserError(f"{name}: a binary file; expected a CSV that starts with label,pixel1,...")
    fields = text.split(b",")
    if fields[0] != b"label" and all(re.fullmatch(rb"\s*[-+0-9.eE]+\s*", field) for field in fields):
        raise UserError(
            f"{name}: line 1: the header is missing, found a row of numbers; expected label,pixel1,pixel2,..."
        )
    count = shape.pixels if shape else len(fields) - 1
    for index, field in enumerate(fields[: count + 1]):
        expected = b"pixel%d" % index if index else b"label"
        if field != expected:
            raise UserError(
                f"{name}: line 1, column {index + 1}: found {shown(field)}, expected {expected.decode()!r}"
            )
    if len(fields) != count + 1 or not count:
        raise UserError(
            f"{name}: line 1: found {len(fields) - 1} pixel columns, expected {count or 'at least 1'}"
        )
    if shape:
        return shape
    side = math.isqrt(count)
    if side * side != count:
        raise UserError(
            f"{name}: line 1: {count} pixel columns are not a square image; "
            "give the dataset's image: {height, width, channels}"
        )
    return ImageShape(side, side)


def _line_blocks(stream, columns, block_bytes):
    """Yield (bytes of whole lines, is_last); the last block may lack its line end."""
    longest = max(block_bytes, 6 * columns)
    pending = b""
    while chunk := stream.read(block_bytes):
        pending += chunk
        end = pending.rfind(b"\n") + 1
        if end:
            block, pending = pending[:end], pending[end:]
            yield block, False
        elif len(pending) > longest:
            break  # no line can be that long: let the parser complain
    if pending:
        yield pending, True


def image_blocks(
    path: Source,
    shape: ImageShape | None = None,
    labels_allowed: Iterable[int] | None = None,
    *,
    name: Path | str | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Block]:
    """Yield (images uint8 (n, H, W, C), labels uint8 (n,)) block by block.

    Parameters
    ----------
    path : a .csv or .csv.gz with LF or CRLF line ends, with or without UTF-8 BOM (or see `open_csv`).
    shape : ImageShape, or None for square grey images as wide as the header says.
    labels_allowed : iterable of int within 0..255; None allows all of them.
    name : what error messages call the file (default: its path).

    Raises UserError that names file, line and column of the first fault.
    """
    name = name or str(path)
    allowed = set(range(256) if labels_allowed is None else labels_allowed)
    label_table = np.zeros(256, bool)
    label_table[sorted(allowed)] = True
    with open_csv(path, name) as stream:
        shape = read_header(stream, name, shape)
        columns, line = shape.pixels + 1, 2
        parse = BlockParser(columns, label_table)
        for block, last in _line_blocks(stream, columns, block_bytes):
            whole = block if block.endswith(b"\n") else block + b"\n"
            table = parse(whole)
            if table is None and b"\r\n" in whole:  # mixed line ends
                table = parse(whole.replace(b"\r\n", b"\n"))
            if table is None:
                raise_first_fault(block, line, columns, allowed, name, last)
            if last:
                log.warning(
                    "%s: the last line has no line end; if the file was cut off, obtain it again", name
                )
            line += len(table)
            yield np.ascontiguousarray(table[:, 1:]).reshape(-1, *shape.as_tuple()), table[:, 0].copy()
        if line == 2:
            raise UserError(f"{name}: a header but no rows; expected at least one image")


def read_image_csv(
    path: Source,
    *,
    height: int | None = None,
    width: int | None = None,
    channels: int = 1,
    labels_allowed: Iterable[int] | None = None,
    name: Path | str | None = None,
) -> Block:
    """Read a whole file: images uint8 (N, H, W, C), labels uint8 (N,).

    Parameters and errors: see `image_blocks`. Without height and width, the images
    are square and grey and the header tells how large.
    """
    shape = ImageShape(height, width, channels) if height and width else None
    # bytearrays grow in place: no list of blocks next to their concatenation
    images, labels = bytearray(), bytearray()
    size: tuple[int, ...] = ()
    for block, block_labels in image_blocks(path, shape, labels_allowed, name=name):
        images += block.data
        labels += block_labels.data
        size = block.shape[1:]
    return np.frombuffer(images, np.uint8).reshape(-1, *size), np.frombuffer(labels, np.uint8)


def count_rows(
    path: Source,
    shape: ImageShape | None = None,
    labels_allowed: Iterable[int] | None = None,
    *,
    name: Path | str | None = None,
) -> tuple[int, ImageShape]:
    """Check every row of a file; return (number of rows, ImageShape of the images)."""
    rows = 0
    for images, _ in image_blocks(path, shape, labels_allowed, name=name):
        rows += len(images)
        size = images.shape[1:]
    return rows, ImageShape(*size)


_BYTES = np.zeros((256, 4), np.uint8)
for _value in range(256):
    _text = b"%d," % _value
    _BYTES[_value, : len(_text)] = np.frombuffer(_text, np.uint8)
_FIELD = _BYTES.view(np.uint32).ravel()


def csv_text(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Rows as CSV bytes with LF line ends. images (n, H, W, C) uint8, labels (n,) uint8."""
    table = np.concatenate(
        [np.asarray(labels, np.uint8)[:, None], np.asarray(images).reshape(len(labels), -1)], axis=1
    )
    fields = _FIELD[table].view(np.uint8).reshape(len(table), -1, 4)
    last = fields[:, -1]
    last[last == 44] = 10
    fields = fields.reshape(-1)
    return np.take(fields, np.flatnonzero(fields)).tobytes()


def write_image_csv(
    path: Path | str, images: np.ndarray, labels: np.ndarray, *, rows_per_block: int = 1024
) -> None:
    """Write images uint8 (N, H, W, C) and labels (N,) in 0..255; LF, atomic, deterministic."""
    write_image_blocks(
        path,
        (
            (images[start : start + rows_per_block], labels[start : start + rows_per_block])
            for start in range(0, len(images), rows_per_block)
        ),
        math.prod(np.shape(images)[1:]),
    )


def write_image_blocks(path: Path | str, blocks: Iterable[Block], pixels: int) -> None:
    """Write an iterable of (images, labels) blocks; `pixels` is H * W * C."""
    header = "label," + ",".join(f"pixel{i}" for i in range(1, pixels + 1)) + "\n"
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(header.encode())
        for images, labels in blocks:
            stream.write(csv_text(images, labels))
