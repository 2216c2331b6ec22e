"""Public data sets in CSV: one file for all, labels as names, pixels in one cell, tests without labels."""

import zipfile

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.datasets.first_look import image_shape
from dpuflow.datasets.image_csv import read_image_csv
from dpuflow.datasets.locate import given_files
from dpuflow.datasets.sources import obtain
from dpuflow.workflow.config_checks import problems

CLASSES = ["cat", "dog", "sea horse"]
LABELS = np.array([0, 1, 2, 1, 0, 2, 0, 1])
IMAGES = np.random.default_rng(3).integers(0, 256, (8, 4))
PIXELS = ["pixel1", "pixel2", "pixel3", "pixel4"]


def text(rows, header=()):
    return "".join(",".join(map(str, row)) + "\n" for row in [header, *rows] if len(row)).encode()


def rows(label=int):
    return [[label(n), *image] for n, image in zip(LABELS, IMAGES, strict=True)]


def cells(form="{}", label="emotion"):
    """One row an image: label, pixels in one cell, a column more."""
    return text(
        [
            [n, form.format(" ".join(map(str, image))), "Training"]
            for n, image in zip(LABELS, IMAGES, strict=True)
        ],
        [label, "pixels", "Usage"],
    )


@pytest.fixture
def fetch(tmp_path):
    """fetch(train, test or None, csv=..., **entry) -> ((images, labels) of train.csv, of test.csv)."""

    def call(train, test=None, csv=None, **entry):
        source = {"kind": "files"} | ({"csv": csv} if csv else {})
        for part, data in (("train", train), ("test", test)):
            if data is not None:
                (tmp_path / f"{part}_in.csv").write_bytes(data)
                source[part] = str(tmp_path / f"{part}_in.csv")
        entry = {"class_names": CLASSES} | entry
        obtain({"source": source} | entry, tmp_path / "train.csv", tmp_path / "test.csv")
        return tuple(read_image_csv(tmp_path / f"{part}.csv") for part in ("train", "test"))

    return call


def name(label):
    return CLASSES[label]


PUBLIC = {
    "labels as names": (text(rows(name), ["label", *PIXELS]), None),
    "names in quotes, any column": (text(rows(lambda n: f'"{CLASSES[n]}"'), ["animal", *PIXELS]), None),
    "names without a header": (text([[*row[1:], name(row[0])] for row in rows()]), {"header": False}),
    "fer2013": (cells(), None),
    "its label named": (cells(label="kind"), {"label": "kind"}),
    "cells in quotes": (cells('"{}"'), None),
    "cells as Python's lists": (cells('"[{}]"').replace(b" ", b", "), None),
    "a header that pandas made of an image": (text(rows(), ["0", "0.1", "0.2", "0.3", "0.4"]), None),
    "a header of Windows": (
        text(rows(), ["Größe", *PIXELS]).decode().encode("cp1252"),
        {"label": "Größe"},
    ),
}


@pytest.mark.parametrize(("data", "csv"), PUBLIC.values(), ids=PUBLIC)
def test_files_of_public_data_sets(fetch, data, csv):
    for images, labels in fetch(data, data, csv):
        assert images.reshape(-1, 4).tolist() == IMAGES.tolist()
        assert labels.tolist() == LABELS.tolist()


def test_the_shape_of_pixels_in_a_cell_is_known_before_anything_runs(tmp_path):
    (tmp_path / "fer.csv").write_bytes(cells())
    source = {"kind": "files", "train": str(tmp_path / "fer.csv")}
    assert image_shape({"source": source, "test": {"fraction": 0.2}}) == (2, 2, 1)


@pytest.fixture
def divide(tmp_path):
    """divide({name: bytes}, key="folder", **test) -> what `fetch` returns, of files in a folder or zip."""

    def call(files, key="folder", **test):
        (tmp_path / "in").mkdir(exist_ok=True)
        for name, data in files.items():
            (tmp_path / "in" / name).write_bytes(data)
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"top/{name}", data)
        place = {"folder": tmp_path / "in", "zip": tmp_path / "in.zip", "train": tmp_path / "in" / min(files)}
        source = {"kind": "files", key: str(place[key])}
        entry = {"source": source, "class_names": CLASSES, "test": {"fraction": 0.34} | test}
        assert (
            problems({"datasets": {"x": entry}, "models": {}, "targets": {}, "runners": {}, "runs": []}) == []
        )
        assert given_files(source, one_file=True) == [str(place["train"] if key == "folder" else place[key])]
        obtain(entry, tmp_path / "train.csv", tmp_path / "test.csv")
        return tuple(read_image_csv(tmp_path / f"{part}.csv") for part in ("train", "test"))

    return call


@pytest.mark.parametrize("key", ["train", "folder", "zip"])
@pytest.mark.parametrize("data", [text(rows()), text(rows(), ["label", *PIXELS]), cells()])
def test_one_file_is_divided_class_by_class(divide, data, key, tmp_path):
    train, test = divide({"A_Z handwritten.csv": data}, key)
    assert sorted(test[1].tolist()) == [0, 1, 2]
    both = np.concatenate([train[0], test[0]]).reshape(-1, 4)
    assert sorted(both.tolist()) == sorted(IMAGES.tolist())
    of_image = {tuple(image): label for image, label in zip(IMAGES.tolist(), LABELS.tolist(), strict=True)}
    for images, labels in (train, test):
        assert [of_image[tuple(image)] for image in images.reshape(-1, 4).tolist()] == labels.tolist()
    assert divide({"A_Z handwritten.csv": data}, key)[1][0].tolist() == test[0].tolist()
    assert divide({"A_Z handwritten.csv": data}, key, seed=7)[1][0].tolist() != test[0].tolist()
    assert {path.name for path in tmp_path.iterdir()} == {"in", "in.zip", "train.csv", "test.csv"}


def test_of_a_competition_the_training_file_is_divided(tmp_path):
    (tmp_path / "train.csv").write_bytes(text(rows(), ["label", *PIXELS]))
    (tmp_path / "test.csv").write_bytes(text(IMAGES, PIXELS))
    entry = {"source": {"kind": "files", "folder": str(tmp_path)}, "class_names": CLASSES}
    obtain(entry | {"test": {"fraction": 0.34}}, tmp_path / "1.csv", tmp_path / "2.csv")
    assert len(read_image_csv(tmp_path / "1.csv")[1]) == 5


FAULTS = {
    "a name that is none": (
        text(rows(name), ["label", *PIXELS]).replace(b"sea horse", b"sea cow"),
        "line 4, column 1 (label): found 'sea cow'; expected one of the labels 0-2, "
        "or a name: cat, dog, sea horse",
    ),
    "labels from 1": (
        text(rows(lambda n: n + 1), ["label", *PIXELS]),
        "found '3'; expected one of the labels 0-2; if labels count from 1, write class_names: [null, ...]",
    ),
    "a pixel of a cell": (
        cells().replace(f" {IMAGES[2, 1]} ".encode(), b" 256 ", 1),
        "column 2 (pixels): found '256'; expected a pixel",
    ),
    "a cell that is too short": (
        cells() + b"1,1 2 3,Training\n",
        "line 10, column 2 (pixels): found 3 pixels ('1 2 3'); expected 4",
    ),
    "a cell without its label": (
        cells(label="kind"),
        "column 2 holds the pixels; say which other column is the label, source.csv.label: kind or Usage",
    ),
    "carriage returns alone": (
        text(rows(), ["label", *PIXELS]).replace(b"\n", b"\r"),
        "lines end in carriage returns alone; save it with LF or CRLF line ends",
    ),
}


@pytest.mark.parametrize(("data", "expected"), FAULTS.values(), ids=FAULTS)
def test_faults(fetch, data, expected):
    with pytest.raises(UserError) as error:
        fetch(data, data)
    assert expected in str(error.value)


def test_a_name_that_is_a_number_means_the_label_of_this_number(fetch):
    """With the names 1, 2, 3 a field 1 is label 1 in all files, and 3 is refused in all."""
    data = text(rows(lambda n: n + 1), ["label", *PIXELS])
    with pytest.raises(UserError, match="found '3'"):
        fetch(data, data, class_names=["1", "2", "3"])


def test_a_test_file_without_labels_is_told(fetch):
    with pytest.raises(UserError, match="one less than the training file has: it seems to hold no labels"):
        fetch(text(rows(), ["label", *PIXELS]), text(IMAGES, PIXELS))
    with pytest.raises(UserError, match="one less than the training file has: it seems to hold no labels"):
        fetch(text(rows()), text(IMAGES))


@pytest.mark.parametrize(
    ("source", "test", "expected"),
    [
        ({"kind": "files", "train": "a"}, None, "found train. To take a share of it for the test"),
        ({"kind": "files", "train": "a", "test": "b"}, 0.2, "a file for the test, and test.fraction"),
        ({"kind": "synthetic"}, 0.2, "test: not for kind synthetic"),
    ],
)
def test_configurations_that_fit_no_division(source, test, expected):
    entry = {"source": source} | ({"test": {"fraction": test}} if test else {})
    found = problems({"datasets": {"x": entry}, "models": {}, "targets": {}, "runners": {}, "runs": []})
    assert len(found) == 1
    assert expected in found[0]


def test_several_files_of_which_none_is_the_one(tmp_path):
    for name in ("a.csv", "b.csv", "__MACOSX/._a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text(rows()))
    entry = {"source": {"kind": "files", "folder": str(tmp_path)}, "test": {"fraction": 0.5}}
    with pytest.raises(UserError, match=r"found 2 CSV files \(a.csv, b.csv\) at any depth; name the one"):
        obtain(entry, tmp_path / "train.csv", tmp_path / "test.csv")
