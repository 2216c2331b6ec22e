"""Small CSV tables: what is written is read again, and what is no table is refused."""

import numpy as np
import pytest

from dpuflow.tables import read_table, table_csv, whole_numbers


def test_a_table_has_one_row_for_each_element(tmp_path):
    text = table_csv(
        {
            "index": np.arange(2),
            "name": ["A", 'B "b", c'],
            "score": np.array([0.1, 1.0], np.float32),
            "share": [2 / 3, 1e-9],
        }
    )
    assert text == 'index,name,score,share\n0,A,0.1,0.666667\n1,"B ""b"", c",1,1e-09\n'
    path = tmp_path / "table.csv"
    path.write_text(text)
    assert read_table(path) == {
        "index": ["0", "1"],
        "name": ["A", 'B "b", c'],
        "score": ["0.1", "1"],
        "share": ["0.666667", "1e-09"],
    }


def test_columns_of_unequal_length_are_no_table():
    with pytest.raises(ValueError, match="zip"):
        table_csv({"a": [1, 2], "b": [1]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text with a header"),
        (b"a,b\n1\n", "row 1 has 1 fields, the header 2"),
        (b"a,b\n1,2\n\n1,2,3\n", "row 2 has 3 fields"),
        (b"a,b\n\xff\xfe,2\n", "no text with a header"),
        (b'a,b\n"1,2\n', "unexpected end of data"),
    ],
)
def test_anything_else_is_refused(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_whole_numbers_have_64_bits():
    assert whole_numbers(["-3", "9223372036854775807"]).tolist() == [-3, 2**63 - 1]
    for text in ("9223372036854775808", "1.5", "", "nan"):
        with pytest.raises(ValueError, match=r"out of range|invalid literal"):
            whole_numbers(["1", text])
