"""Small CSV tables, column by column, with the standard library: pandas costs half a second to import."""

import csv
import io

import numpy as np

INT64 = range(-(2**63), 2**63)


def table_csv(columns):
    """CSV text of {name: values of equal number}; floats have six significant digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_texts(values) for values in columns.values()), strict=True))
    return stream.getvalue()


def _texts(values):
    values = np.asarray(values)
    return [f"{value:.6g}" for value in values.tolist()] if values.dtype.kind == "f" else values.tolist()


def read_table(path):
    """{name: [text of each row]} of a CSV file with a header.

    OSError when it cannot be read, ValueError when it is no such table.
    """
    with open(path, encoding="utf-8", newline="") as stream:
        try:
            header, *rows = [row for row in csv.reader(stream, strict=True) if row]
        except csv.Error as error:
            raise ValueError(str(error)) from None
        except ValueError:  # of unpacking, or bytes that are not UTF-8 (a UnicodeDecodeError)
            raise ValueError("no text with a header") from None
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} fields, the header {len(header)}")
    return {name: [row[index] for row in rows] for index, name in enumerate(header)}


def whole_numbers(texts):
    """Array int64 of texts; ValueError for anything but whole numbers of 64 bits."""
    values = [int(text) for text in texts]
    if outside := next((value for value in values if value not in INT64), None):
        raise ValueError(f"{outside} is out of range")
    return np.array(values, np.int64)
