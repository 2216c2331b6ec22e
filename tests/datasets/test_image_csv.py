"""The CSV reader: values, forms, and every fault by line and column."""

import gzip
import logging
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpuflow.base.errors import UserError
from dpuflow.base.files import sha256
from dpuflow.datasets.image_csv import (
    ImageShape,
    count_rows,
    image_blocks,
    read_image_csv,
    write_image_csv,
)
from dpuflow.datasets.labels import labels_of, sign_mnist_labels
from dpuflow.datasets.sources import known_as

HEADER = b"label,pixel1,pixel2,pixel3,pixel4\n"
GOOD = HEADER + b"3,0,9,10,99\n24,100,199,200,255\n"
LETTERS = sign_mnist_labels().present


def assert_good(path):
    images, labels = read_image_csv(path, labels_allowed=LETTERS)
    assert images.dtype == labels.dtype == np.uint8
    assert images.shape == (2, 2, 2, 1)
    assert images.ravel().tolist() == [0, 9, 10, 99, 100, 199, 200, 255]
    assert labels.tolist() == [3, 24]


@pytest.mark.fault("data", "CSV form accepted: {id}", "right")
@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + GOOD,
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"),
        GOOD[:-1],
        GOOD.replace(b"\n", b"\r\n", 2),
        gzip.compress(GOOD, mtime=0),
        GOOD.replace(b"9,10", b"009,10"),
    ],
    ids=["lf", "crlf", "bom", "bom-crlf", "no-last-line-end", "mixed", "gzip", "leading-zeros"],
)
def test_accepted_forms(write, data):
    assert_good(write(data))


def test_missing_last_line_end_is_told(write, caplog):
    with caplog.at_level(logging.WARNING):
        read_image_csv(write(GOOD[:-1]))
    assert "no line end" in caplog.text


def test_no_warning_for_a_whole_file(write, caplog):
    read_image_csv(write(GOOD))
    assert not caplog.records


@pytest.mark.fault("data", "CSV with a fault in header, label, pixel, line, or no CSV at all", "refused")
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file"),
        (HEADER, "no rows"),
        (b"3,0,9,10,99\n" * 3, "line 1: the header is missing"),
        (b"\x00\x01\x02" * 99 + b"\n", "binary file"),
        (bytes(range(128, 256)) * 9, "line 1, column 1"),
        (HEADER + bytes(range(11, 256)) * 40, "line 2: .*binary|line 2: found"),
        (HEADER + b"3,0,9\x00,10,99\n", "line 2: found NUL"),
        (GOOD.replace(b"pixel3", b"pixel5"), "line 1, column 4: found 'pixel5', expected 'pixel3'"),
        (GOOD.replace(b"label", b"class"), "line 1, column 1: found 'class', expected 'label'"),
        (b"label,pixel1,pixel2\n1,2,3\n", "2 pixel columns are not a square"),
        (b"label\n1\n", "0 pixel columns"),
        (GOOD[:-9], "line 3: found 3 fields, expected 5.*cut off"),
        (GOOD + b"1,2,3,4,5,6\n" + GOOD[-20:], "line 4: found 6 fields"),
        (GOOD.replace(b"\n24", b"\n\n24"), "line 3: empty line"),
        (
            GOOD.replace(b"\n24", b"\n9"),
            r"line 3, column 1 \(label\): found '9'; expected one of the labels 0-8, 10-24",
        ),
        (GOOD.replace(b"\n24", b"\n25"), r"line 3, column 1 \(label\): found '25'"),
        (GOOD.replace(b"\n24", b"\n-1"), r"line 3, column 1 \(label\): found '-1'"),
        (GOOD.replace(b"\n24", b"\n1.5"), r"line 3, column 1 \(label\): found '1.5', .*not a whole number"),
        (GOOD.replace(b"\n24", b"\nA"), r"line 3, column 1 \(label\): found 'A', .*not a number"),
        (GOOD.replace(b"\n24", b"\n"), r"line 3, column 1 \(label\): empty field"),
        (
            GOOD.replace(b"200", b"256"),
            r"line 3, column 4 \(pixel3\): found '256'; expected a pixel, .*0 to 255",
        ),
        (GOOD.replace(b"200", b"300"), r"column 4 \(pixel3\): found '300'"),
        (GOOD.replace(b"200", b"1000"), r"column 4 \(pixel3\): found '1000'"),
        (GOOD.replace(b"200", b"0200"), r"column 4 \(pixel3\): found '0200', .*three digits"),
        (GOOD.replace(b"200", b"9" * 5000), r"column 4 \(pixel3\): found '9+\.\.\.'"),
        (GOOD.replace(b"200", b"-1"), r"column 4 \(pixel3\): found '-1'"),
        (GOOD.replace(b"200", b"1.5"), r"column 4 \(pixel3\): found '1.5'"),
        (GOOD.replace(b"200", b"2e1"), r"column 4 \(pixel3\): found '2e1'"),
        (GOOD.replace(b"200", b"0x1"), r"column 4 \(pixel3\): found '0x1'"),
        (GOOD.replace(b"200", b"nan"), r"column 4 \(pixel3\): found 'nan'"),
        (GOOD.replace(b"200", b" 20"), r"column 4 \(pixel3\): found ' 20'"),
        (GOOD.replace(b"200", b'"2"'), r"""column 4 \(pixel3\): found '"2"'"""),
        (GOOD.replace(b"200", b""), r"column 4 \(pixel3\): empty field"),
        (GOOD.replace(b",200,", b"\r200,"), "line 3: found 3 fields"),
        (GOOD.replace(b"\n24", b"\r24"), "stray carriage returns"),
        (GOOD.replace(b",", b";"), "line 1, column 1"),
        (gzip.compress(GOOD, mtime=0)[:-12], "damaged gzip"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"?" * 40, "damaged gzip"),
        (b"PK\x03\x04" + b"0" * 40, "a zip file"),
    ],
)
def test_faults(write, data, expected):
    path = write(data)
    with pytest.raises(UserError) as caught:
        read_image_csv(path, labels_allowed=LETTERS)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert re.search(expected, message), message
    assert "\n" not in message


def test_every_number_is_read_or_refused(write):
    fields = [b"%d" % number for number in range(1100)] + [b"00", b"000", b"099", b"0255", b""]
    for field in fields:
        path = write(HEADER + b"1,0," + field + b",255,0\n")
        if field and len(field) <= 3 and int(field) <= 255:
            assert read_image_csv(path)[0].ravel().tolist() == [0, int(field), 255, 0]
        else:
            with pytest.raises(UserError, match=r"line 2, column 3 \(pixel2\)"):
                read_image_csv(path)


@pytest.mark.fault("data", "pixel 256 in line 4,323", "refused")
def test_fault_line_is_right_in_a_later_block(write):
    rows = [b"3,0,9,10,99\n"] * 5000
    rows[4321] = b"3,0,9,10,256\n"
    path = write(HEADER + b"".join(rows))
    with pytest.raises(UserError, match=r"line 4323, column 5 \(pixel4\)"):
        list(image_blocks(path, block_bytes=1 << 10))


@pytest.mark.fault("data", "line of a million digits", "refused")
def test_line_without_end_takes_no_memory_without_bound(write):
    with pytest.raises(UserError, match="line 2"):
        list(image_blocks(write(HEADER + b"1" * 1_000_000), block_bytes=1 << 12))


@pytest.mark.fault("data", "CSV that is missing or a folder", "refused")
def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_image_csv(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="a folder"):
        read_image_csv(tmp_path)


def test_shape_from_config(write):
    path = write(b"label,pixel1,pixel2,pixel3,pixel4,pixel5,pixel6\n200,1,2,3,4,5,6\n")
    images, labels = read_image_csv(path, height=1, width=2, channels=3)
    assert images.tolist() == [[[[1, 2, 3], [4, 5, 6]]]]
    assert labels.tolist() == [200]
    with pytest.raises(UserError, match="found 6 pixel columns, expected 4"):
        read_image_csv(path, height=2, width=2)
    with pytest.raises(UserError, match="found 6 pixel columns, expected 9"):
        read_image_csv(path, height=3, width=3)


def test_written_bytes(tmp_path, small):
    images, labels = small
    path = tmp_path / "a.csv"
    write_image_csv(path, images, labels, rows_per_block=2)
    lines = path.read_bytes().split(b"\n")
    assert lines[0] == HEADER[:-1]
    assert lines[1] == b"0,0,9,10,99"
    assert lines[2] == b"24,100,199,200,255"
    assert lines[-1] == b""
    assert count_rows(path) == (7, ImageShape(2, 2, 1))


@settings(max_examples=60)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])),
    crlf=st.booleans(),
    block=st.integers(1, 4000),
)
def test_round_trip(tmp_path, data, shape, crlf, block):
    images = data.draw(hnp.arrays(np.uint8, shape))
    labels = data.draw(hnp.arrays(np.uint8, shape[:1]))
    path = tmp_path / "r.csv"
    write_image_csv(path, images, labels)
    if crlf:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    blocks = list(image_blocks(path, ImageShape(*shape[1:]), block_bytes=block))
    assert np.array_equal(np.concatenate([b[0] for b in blocks]), images)
    assert np.array_equal(np.concatenate([b[1] for b in blocks]), labels)


@settings(max_examples=300)
@given(rows=st.lists(st.text(alphabet='0123456789,,\n\r.- x\x00"', max_size=24), min_size=1, max_size=6))
def test_agrees_with_a_plain_reading_of_the_rules(tmp_path, rows):
    """Accept exactly what a field-by-field check accepts; else one UserError."""
    body = "\n".join(rows).encode()
    path = tmp_path / "f.csv"
    path.write_bytes(HEADER + body)
    text = body.replace(b"\r\n", b"\n")
    lines = text.removesuffix(b"\n").split(b"\n") if text else []
    fields = [line.split(b",") for line in lines]
    good = bool(fields) and all(
        len(row) == 5 and all(re.fullmatch(rb"[0-9]{1,3}", f) and int(f) < 256 for f in row) for row in fields
    )
    if good:
        images, labels = read_image_csv(path)
        assert [[int(f) for f in row] for row in fields] == np.column_stack(
            [labels, images.reshape(len(images), -1)]
        ).tolist()
    else:
        with pytest.raises(UserError):
            read_image_csv(path)


@pytest.mark.parametrize(("part", "rows"), [("train", 27455), ("test", 7172)])
def test_real_files(shared, tmp_path, part, rows):
    path = shared(f"datasets/sign_mnist/sign_mnist_{part}.csv.gz")
    images, labels = read_image_csv(path, labels_allowed=LETTERS)
    assert images.shape == (rows, 28, 28, 1)
    assert set(labels.tolist()) == set(LETTERS)
    # written back with LF, the file is byte for byte the other public form
    written = tmp_path / "lf.csv"
    write_image_csv(written, images, labels)
    assert known_as(sha256(written)) == f"Sign Language MNIST {part}, LF"


@pytest.mark.fault("data", "digits without class_names", "message")
def test_digits_without_class_names_say_what_to_write(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("label,pixel1\n7,0\n9,0\n")
    with pytest.raises(UserError) as caught:
        count_rows(path, labels_allowed=labels_of(None).present)
    assert "line 3, column 1 (label): found '9'; expected one of the labels 0-8, 10-24 (the lett" in str(
        caught.value
    )
    assert str(caught.value).endswith('class_names: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"])')
    with pytest.raises(UserError, match=r"expected one of the labels 0-8$"):
        count_rows(path, labels_allowed=range(9))
    names = [str(i) for i in range(10)]
    assert count_rows(path, labels_allowed=labels_of(names).present)[0] == 2
    assert labels_of(list(range(10))).names == tuple(names)
