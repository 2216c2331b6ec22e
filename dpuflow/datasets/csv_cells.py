"""CSV files that hold all pixels of an image in one cell, with spaces between them (fer2013 and its like)."""

import re

from dpuflow.datasets.csv_faults import shown

MOST_COLUMNS = 16
"""A file with more columns has a column for each pixel."""
CELL = re.compile(rb'[\s"\[]*[0-9]+(?:\.0*)?(?:(?:\s*,\s*|\s+)[0-9]+(?:\.0*)?){3,}[\s"\]]*\Z')
FRAME = b' \t"[]'


def pixels_of(field: bytes) -> list[bytes]:
    """The pixels in a cell: numbers with spaces, or commas within quotes, between them."""
    return field.strip(FRAME).replace(b",", b" ").split()


def cell_of(fields: list[bytes]) -> int | None:
    """The one field of a row that holds an image, or None where no field or more than one does."""
    if not 1 < len(fields) <= MOST_COLUMNS:
        return None
    cells = [index for index, field in enumerate(fields) if CELL.match(field)]
    return cells[0] if len(cells) == 1 else None


def count_fault(field: bytes, count: int) -> str:
    """What is wrong with a cell that does not hold `count` pixels, or ''."""
    found = len(pixels_of(field))
    return "" if found == count else f"found {found} pixels ({shown(field)}); expected {count}"
