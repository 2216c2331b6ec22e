"""CSV files as other people write them: the same images and labels, or a message that names the setting."""

import gzip
from decimal import Decimal, InvalidOperation

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpuflow.base.errors import UserError
from dpuflow.datasets import csv_rows
from dpuflow.datasets.csv_rows import form_of, other_blocks
from dpuflow.datasets.csv_values import FieldError, number
from dpuflow.datasets.first_look import image_shape
from dpuflow.datasets.image_csv import csv_text, write_image_csv
from dpuflow.datasets.sources import obtain

LABELS = [3, 0, 1, 2, 0, 3]
IMAGES = np.random.default_rng(4).integers(100, 256, (6, 4))
IMAGES[:, 3] = 0  # the last pixel is the same in all pictures, as at the edge of MNIST's digits
IMAGES[0] = [107, 0, 217, 0]
CLASSES = ["a", "b", "c", "d"]
PLAIN = b"label,pixel1,pixel2,pixel3,pixel4\n" + csv_text(IMAGES, np.array(LABELS))


def text(rows, header=None, separator=",", end="\n"):
    """Rows of anything as CSV."""
    lines = [separator.join(map(str, row)) for row in ([header] if header else []) + list(rows)]
    return (end.join(lines) + end).encode()


def first(change=lambda label, pixels: [label, *pixels]):
    """Rows made out of label and pixels."""
    return [change(label, row.tolist()) for label, row in zip(LABELS, IMAGES, strict=True)]


LAST = first(lambda label, row: [*row, label])
INDEXED = [[index, *row] for index, row in enumerate(first())]
SHUFFLED = [[index, *row] for index, row in zip([901, 17, 4, 300, 2, 8], first(), strict=True)]
PIXELS = ["pixel0", "pixel1", "pixel2", "pixel3"]

FORMS = {
    "no header, label first": text(first()),
    "no header, label last": text(LAST),
    "pixel0...": text(first(), ["label", *PIXELS]),
    "1x1, 1x2, ...": text(first(), ["label", "1x1", "1x2", "2x1", "2x2"]),
    "label last and named": text(LAST, [*PIXELS, "class"]),
    "label in the middle, Target": text(
        first(lambda n, p: [*p[:2], n, *p[2:]]), ["a", "b", "Target", "c", "d"]
    ),
    "no column called label": text(first(), ["digit", "p1", "p2", "p3", "p4"]),
    "numbers as names, as pandas writes them": text(INDEXED, ["", "label", 0, 1, 2, 3]),
    "index without a name": text(SHUFFLED, ["", "y", *PIXELS]),
    "Unnamed: 0": text(INDEXED, ["Unnamed: 0", "label", *PIXELS]),
    "id, label last": text([[7 * n, *row] for n, row in enumerate(LAST)], ["id", *PIXELS, "label"]),
    "no header, index from 0": text(INDEXED),
    "no header, index from 1": text([[row[0] + 1, *row[1:]] for row in INDEXED]),
    "semicolons": text(first(), ["label", *PIXELS], ";"),
    "tabs, no header": text(first(), separator="\t"),
    "quotes around names": text(first(), ['"label"', *(f'"{name}"' for name in PIXELS)]),
    "quotes around all": text(
        first(lambda n, p: [f'"{v}"' for v in (n, *p)]), ['"label"', '"a,b"', *PIXELS[1:]]
    ),
    "217.0": text(first(lambda n, p: [float(v) for v in (n, *p)]), ["label", *PIXELS]),
    "217.0 under the plain header": PLAIN.replace(b"217", b"217.0"),
    "numpy.savetxt": text(first(lambda n, p: [f"{v:.18e}" for v in (n, *p)])),
    "spaces": text(first(lambda n, p: [n, *(f" {v} " for v in p)]), ["label", *(f" {n}" for n in PIXELS)]),
    "trailing comma": text(first(lambda n, p: [n, *p, ""]), ["label", *PIXELS, ""]),
    "trailing comma in the rows alone": text(first(lambda n, p: [n, *p, ""]), ["label", *PIXELS]),
    "an empty last line": PLAIN + b"\n",
    "CRLF, an empty last line, BOM": b"\xef\xbb\xbf" + text(first(), end="\r\n") + b"\r\n",
    "no last line end": text(LAST)[:-1],
    "gzip": gzip.compress(text(LAST), mtime=0),
}


@pytest.fixture
def fetch(tmp_path):
    """fetch(train bytes, test bytes or None for the same, csv=settings, **entry) -> (train, test) bytes."""

    def call(train, test=None, csv=None, **entry):
        paths = {part: tmp_path / f"{part}_in.csv" for part in ("train", "test")}
        for part, data in (("train", train), ("test", test or train)):
            paths[part].write_bytes(data)
        source = {"kind": "files"} | {part: str(path) for part, path in paths.items()}
        source |= {"csv": csv} if csv else {}
        entry = {"source": source, "class_names": CLASSES} | entry
        obtain(entry, tmp_path / "train.csv", tmp_path / "test.csv")
        return (tmp_path / "train.csv").read_bytes(), (tmp_path / "test.csv").read_bytes()

    return call


@pytest.mark.fault("data", "CSV form of other people: {id}", "right")
@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_other_forms_become_the_plain_one(fetch, data):
    assert fetch(data) == (PLAIN, PLAIN)


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_line_1_tells_the_shape_of_the_images(tmp_path, data):
    (tmp_path / "x.csv").write_bytes(data)
    assert image_shape({"source": {"kind": "files", "train": str(tmp_path / "x.csv")}}) == (2, 2, 1)


@pytest.mark.parametrize(
    ("data", "csv"),
    [
        (text(LAST), {"label": -1}),
        (text(LAST), {"label": 5, "header": False}),
        (text(first(), ["0", "1", "2", "3", "4"]), {"header": True}),
        (text(first(), ["y", "label", *PIXELS[1:]]), {"label": "y"}),
        (text([["x,y.png", *row] for row in LAST], ["file", *PIXELS, "digit"]), {"ignore": ["file"]}),
        (text([['"x,y.png"', *row, 9] for row in first()]), {"ignore": [1, -1], "label": 2, "header": False}),
        (text(first(), ["label;", *PIXELS]), {"separator": "comma", "label": 1}),
        (text(first(), ["index", *PIXELS]), {"label": "index"}),
    ],
)
def test_the_configuration_says_what_is_ambiguous(fetch, data, csv):
    if b"x,y.png" in data and b'"' not in data:
        data = data.replace(b"x,y.png", b"x y.png")
    assert fetch(data, csv=csv) == (PLAIN, PLAIN)


def test_a_test_file_has_its_label_where_the_training_file_has_it(fetch):
    """In three rows both ends can be the label: the training file tells."""
    rows = [[0, 5, 6, 7, 1], [1, 5, 6, 7, 0], [2, 5, 6, 7, 3]]
    assert fetch(text(LAST), text(rows))[1].splitlines()[1:] == [b"1,0,5,6,7", b"0,1,5,6,7", b"3,2,5,6,7"]
    assert fetch(text(first()), text(rows))[1].splitlines()[1:] == [b"0,5,6,7,1", b"1,5,6,7,0", b"2,5,6,7,3"]


NAMED = text(first(), ["digit", *PIXELS])
FAULTS = {
    "217.5": (
        FORMS["217.0"].replace(b"217.0", b"217.5"),
        "line 2, column 4 (pixel2): found '217.5', which is not a whole number; expected a pixel, "
        "a whole number 0 to 255",
    ),
    "256": (text(LAST).replace(b"217", b"256"), "line 1, column 3: found '256'; expected a pixel"),
    "-1": (text(LAST, end="\r\n").replace(b"217", b"-1"), "line 1, column 3: found '-1'; expected a pixel"),
    "nan": (NAMED.replace(b"217", b"nan"), "line 2, column 4 (pixel2): found 'nan', which is not a number"),
    "empty field": (NAMED.replace(b"217", b""), "line 2, column 4 (pixel2): empty field; expected a pixel"),
    "decimal comma": (
        text(first(), ["label", *PIXELS], ";").replace(b"217", b"217,0"),
        "found '217,0', which is not a number; expected a pixel, a whole number 0 to 255; "
        "write a decimal point, not a comma",
    ),
    "row too short": (NAMED + b"1,2,3\n", "line 8: found 3 fields, expected 5 (label and 4 pixels)"),
    "row too long": (NAMED + b"1,2,3,4,5,6\n", "line 8: found 6 fields, expected 5"),
    "cut off": (
        NAMED + b"1,2,3",
        "line 8: found 3 fields, expected 5 (label and 4 pixels); the file looks cut off",
    ),
    "empty line inside": (NAMED + b"\n0,1,2,3,4\n", "line 8: empty line"),
    "no such label": (
        text(first(), ["label", *PIXELS]) + b"4,1,2,3,4\n",
        "line 8, column 1 (label): found '4'; expected one of the labels 0-3",
    ),
    "label 1.5": (
        text(first(), ["label", *PIXELS]) + b"1.5,1,2,3,4\n",
        "line 8, column 1 (label): found '1.5', which is not a whole number",
    ),
    "0 to 1": (
        text(first(lambda n, p: [n, *(v / 255 for v in p)]), ["label", *PIXELS]),
        "line 2, column 2 (pixel0): found '0.4196078431372549', which is not a whole number; expected "
        "a pixel, a whole number 0 to 255; all pixels of this row lie between -1 and 1: they look divided "
        "already. Multiply them back to 0..255 and round them (x 255 if they go from 0 to 1)",
    ),
    "index with a gap": (
        text(INDEXED + [[9, 0, 1, 2, 3, 0]]),
        "line 7, column 1: found '9'; expected 6: with one column more than label and pixels, the first was "
        "taken to count the rows; if another one is no pixel, say source.csv.ignore: [NUMBER]",
    ),
    "both ends": (
        text([[0, 5, 6, 7, 1], [1, 5, 6, 7, 0]]),
        "no column is called label; column 1 and column 5 could both be it; "
        "say which column is the label, source.csv.label: 1 or 5",
    ),
    "no end": (
        text([[9, 5, 6, 7, 3]] * 2),
        "no column is called label; column 1 holds '9' in line 1, which is no label of this data set; "
        "column 5 is the same in all rows; say which column is the label, source.csv.label: 1 or 5",
    ),
    "label column with a fault": (
        text([*first(), *first()] * 2 + [[4, 1, 2, 3, 0], [1, 1, 1, 1, 1]]),
        "no column is called label; column 5 could be it, but column 1 holds '4' in line 25, which is no "
        "label of this data set, and few different values, as a label has; say which column is the label",
    ),
    "labels from 1, black and white pixels": (
        text([[1, 0, 1, 0, 0], [2, 0, 1, 0, 1], [4, 1, 1, 1, 1]] * 4),
        "column 5 could be it, but column 1 holds '4' in line 3",
    ),
    "one class too many, an edge always black": (
        text([*first(), [4, 1, 2, 3, 0]] * 2),
        "column 1 holds '4' in line 7, which is no label of this data set; column 5 is the same in all rows",
    ),
    "two labels": (
        text(first(), ["y", "label", *PIXELS[1:]]),
        "line 1: y and label could both be the label: say which, source.csv.label: NAME",
    ),
    "two separators": (
        text(first(), ["label;", *PIXELS]),
        "say which separates the columns, source.csv.separator: comma or semicolon",
    ),
    "no separator": (
        b"1 2 3 4 5\n",
        "line 1: found '1 2 3 4 5'; expected columns with a comma, semicolon, tab",
    ),
    "names or numbers": (
        text(first(), [0, 1, 2, 3, 4]),
        "line 1 counts from 0 to 4: names of columns, or an image; say which, "
        "source.csv.header: true or false",
    ),
    "a text among numbers": (
        text(["x.png", *row] for row in first()),
        "line 1 holds 1 texts and 5 numbers: names of columns, or an image; say which, source.csv.header",
    ),
    "a header of numbers": (
        text(first(), [3, 107, 107.1, 217, 0]),
        "line 1, column 3: found '107.1', which is not a whole number; expected a pixel, "
        "a whole number 0 to 255; if this line is a header, say source.csv.header: true",
    ),
    "not square": (
        text([[1, 2, 3]] * 2, ["label", "a", "b"]),
        "line 1: 3 columns are a label and 2 pixels, not a square image; give the dataset's image: "
        "{height, width, channels}, or name the columns that are no pixels, source.csv.ignore: [...]",
    ),
    "UTF-16": (PLAIN.decode().encode("utf-16"), "text in UTF-16; save it as UTF-8"),
    "header alone": (b"digit,a,b,c,d\n", "a header but no rows"),
    "quote inside": (
        NAMED.replace(b"217", b'2"1"7'),
        "line 2, column 4 (pixel2): found '2\"1\"7', which is not",
    ),
    "quoted twice": (
        NAMED.replace(b"217", b'"2"17'),
        "line 2, column 4 (pixel2): found '\"2\"17', which is not",
    ),
    "space inside": (NAMED.replace(b"217", b"2 17"), "line 2, column 4 (pixel2): found '2 17', which is not"),
}


@pytest.mark.fault("data", "CSV form of other people with a fault: {id}", "refused")
@pytest.mark.parametrize(("data", "expected"), FAULTS.values(), ids=FAULTS)
def test_faults(fetch, tmp_path, data, expected):
    with pytest.raises(UserError) as caught:
        fetch(data)
    assert str(caught.value).startswith(f"{tmp_path / 'train_in.csv'}: ")
    assert expected in str(caught.value)
    assert not (tmp_path / "train.csv").exists()


@pytest.mark.parametrize(
    ("csv", "expected"),
    [
        ({"label": "size"}, "source.csv.label: 'size': 0 columns have this name"),
        (
            {"label": 6},
            "source.csv.label: column 6: found 5 columns in line 1; the first is 1, the last one -1",
        ),
        ({"label": 0}, "source.csv.label: column 0"),
        ({"ignore": ["digit"], "label": 1}, "source.csv.label and source.csv.ignore name the same column 1"),
        ({"header": False, "label": "digit"}, "source.csv.label: 'digit': the file has no header"),
        ({"ignore": [2]}, "5 columns without pixel0 are a label and 3 pixels, not a square image"),
        ({"separator": "tab"}, "line 1: 1 columns are a label and 0 pixels"),
    ],
)
def test_settings_that_do_not_fit_the_file(fetch, csv, expected):
    with pytest.raises(UserError) as caught:
        fetch(NAMED, csv=csv)
    assert expected in str(caught.value)


def test_colour_and_the_image_of_the_configuration(fetch):
    """Six pixels are no square; where the configuration tells the shape, one more column counts the rows."""
    data = text([[n, 10 + n, 20, 30, 40, 50, 60, n % 2] for n in range(4)])
    entry = {"class_names": ["a", "b"], "image": {"height": 2, "width": 1, "channels": 3}}
    rows = fetch(data, **entry)[0].splitlines()
    assert rows[0] == b"label,pixel1,pixel2,pixel3,pixel4,pixel5,pixel6"
    assert rows[1:] == [b"%d,%d,20,30,40,50,60" % (n % 2, 10 + n) for n in range(4)]


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(alphabet='0123456789.eE+-" ', max_size=8),
        st.decimals(-300, 300, places=2).map(str),
        st.integers(-300, 300).map(lambda n: f"{n}.0"),
    )
)
def test_a_field_is_the_number_that_it_spells(spelling):
    """As Decimal reads it without spaces and one pair of quotes, if it is a whole number to 255."""
    bare = spelling.strip()
    bare = bare[1:-1].strip() if len(bare) > 1 and bare[0] == bare[-1] == '"' else bare
    try:
        expected = Decimal(bare) if bare else None  # not float: 1E-330 is no 0
    except InvalidOperation:
        expected = None
    good = expected is not None and abs(expected) <= 255 and expected == int(expected)
    try:
        assert number(spelling.encode(), "a number") == expected and good
    except FieldError:
        assert not good


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 40), values=st.integers(1, 30))
def test_blocks_join_to_the_whole(tmp_path, monkeypatch, seed, rows, values):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (rows, 4), np.uint8)
    labels = random.integers(0, 4, rows, np.uint8)
    path, plain = tmp_path / "x.csv", tmp_path / "plain.csv"
    path.write_bytes(text(np.column_stack([images, labels]), [*PIXELS, "label"], ";"))
    monkeypatch.setattr(csv_rows, "BLOCK_VALUES", values)
    blocks = list(other_blocks(path, form_of(path), range(4)))
    write_image_csv(plain, np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks]))
    assert plain.read_bytes().split(b"\n", 1)[1] == csv_text(images, labels)
