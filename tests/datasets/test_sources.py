"""Obtaining CSV files: folders, zips, single files, and what can go wrong."""

import gzip
import hashlib
import sys
import types
import zipfile

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.datasets.image_csv import csv_text, read_image_csv
from dpuflow.datasets.sources import known_as, obtain

HEADER = b"label,pixel1,pixel2,pixel3,pixel4\n"


@pytest.fixture
def csvs():
    """{"train": bytes, "test": bytes}"""
    random = np.random.default_rng(1)
    rows = {"train": 6, "test": 3}
    return {
        part: HEADER + csv_text(random.integers(0, 256, (n, 4)), np.arange(n)) for part, n in rows.items()
    }


@pytest.fixture
def fetch(tmp_path):
    """fetch(source, **entry) -> (train bytes, test bytes, digests)."""

    def call(source, **entry):
        train, test = tmp_path / "out/train.csv", tmp_path / "out/test.csv"
        digests = obtain({"source": source, **entry}, train, test)
        return train.read_bytes(), test.read_bytes(), digests

    return call


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in members.items():
            bundle.writestr(name, data)
    return path


def test_folder_at_any_depth(tmp_path, csvs, fetch):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/sign_mnist_train.csv.gz").write_bytes(gzip.compress(csvs["train"], mtime=0))
    (tmp_path / "in/sign_mnist_test.csv").write_bytes(csvs["test"].replace(b"\n", b"\r\n"))
    train, test, digests = fetch({"kind": "files", "folder": str(tmp_path / "in")})
    assert train == csvs["train"]
    assert test == csvs["test"].replace(b"\n", b"\r\n")
    assert digests["train"] == hashlib.sha256(train).hexdigest()


def test_single_files_with_variables_in_the_path(tmp_path, csvs, fetch, monkeypatch):
    for part in csvs:
        (tmp_path / f"{part}ing.csv").write_bytes(csvs[part])
    monkeypatch.setenv("DATA_HERE", str(tmp_path))
    source = {"kind": "files", "train": "$DATA_HERE/training.csv", "test": "${DATA_HERE}/testing.csv"}
    assert fetch(source)[:2] == (csvs["train"], csvs["test"])
    monkeypatch.delenv("DATA_HERE")
    with pytest.raises(UserError, match="not set"):
        fetch(source)


def test_zip(tmp_path, csvs, fetch):
    archive = zip_of(
        tmp_path / "a.zip",
        {
            "x/sign_mnist_train.csv": csvs["train"],
            "x/sign_mnist_test.csv.gz": gzip.compress(csvs["test"], mtime=0),
        },
    )
    assert fetch({"kind": "files", "zip": str(archive)})[:2] == (csvs["train"], csvs["test"])


@pytest.mark.fault("data", "zip with path traversal", "right")
def test_zip_path_traversal_writes_nothing_outside(tmp_path, csvs):
    place = tmp_path / "around/it/work"  # nobody else writes there, as other tests' servers might above
    place.mkdir(parents=True)
    archive = zip_of(
        place / "a.zip",
        {
            "../../sign_mnist_train.csv": csvs["train"],
            "/abs/sign_mnist_test.csv": csvs["test"],
            "../evil": b"x",
        },
    )
    before = set(tmp_path.rglob("*"))
    train, test = place / "out/train.csv", place / "out/test.csv"
    obtain({"source": {"kind": "files", "zip": str(archive)}}, train, test)
    assert (train.read_bytes(), test.read_bytes()) == (csvs["train"], csvs["test"])
    assert set(tmp_path.rglob("*")) - before == {place / "out", train, test}


@pytest.mark.fault("data", "zip empty, foreign, truncated, with zeroed bytes, without the files", "refused")
def test_corrupt_zips(tmp_path, csvs, fetch):
    whole = zip_of(tmp_path / "a.zip", {f"sign_mnist_{p}.csv": csvs[p] * 40 for p in csvs}).read_bytes()
    flipped = bytearray(whole)
    flipped[60:90] = bytes(30)
    bad = tmp_path / "bad.zip"
    for data in (b"", b"no zip", whole[: len(whole) // 2], bytes(flipped)):
        bad.write_bytes(data)
        with pytest.raises(UserError, match=r"bad\.zip: damaged or unreadable zip"):
            fetch({"kind": "files", "zip": str(bad)})
        assert not (tmp_path / "out/train.csv").exists()
    zip_of(bad, {"readme.txt": "x"})
    with pytest.raises(UserError, match="found no train file"):
        fetch({"kind": "files", "zip": str(bad)})
    with pytest.raises(UserError, match="no such file"):
        fetch({"kind": "files", "zip": str(tmp_path / "absent.zip")})


@pytest.mark.fault("data", "wrong label inside a zip", "refused")
def test_fault_inside_a_zip_names_the_member(tmp_path, csvs, fetch):
    members = {"sign_mnist_train.csv": csvs["train"] + b"9,0,0,0,0\n", "sign_mnist_test.csv": csvs["test"]}
    archive = zip_of(tmp_path / "a.zip", members)
    with pytest.raises(
        UserError, match=r"a\.zip \(sign_mnist_train\.csv\): line 8, column 1 \(label\): found '9'"
    ):
        fetch({"kind": "files", "zip": str(archive)})


@pytest.mark.fault("data", "CSV of another checksum", "refused")
def test_checksum_of_the_config(tmp_path, csvs, fetch):
    for part in csvs:
        (tmp_path / f"{part}.csv").write_bytes(csvs[part])
    source = {
        "kind": "files",
        "folder": str(tmp_path),
        "train_sha256": hashlib.sha256(csvs["train"]).hexdigest(),
    }
    fetch(source)
    (tmp_path / "out/train.csv").unlink()
    (tmp_path / "out/test.csv").unlink()
    with pytest.raises(UserError, match=r"SHA-256 .* expected 000"):
        fetch(source | {"train_sha256": "0" * 64})
    assert not (tmp_path / "out/train.csv").exists()


@pytest.mark.fault("data", "folder with two training files", "refused")
def test_several_candidates_are_refused(tmp_path, csvs, fetch):
    for name in ("a/train.csv", "b/train.csv", "test.csv"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(csvs["test"])
    with pytest.raises(UserError, match="several train files"):
        fetch({"kind": "files", "folder": str(tmp_path / "in")})


@pytest.mark.fault("data", "source that is incomplete or leads nowhere", "refused")
@pytest.mark.parametrize(
    "source",
    [
        {"kind": "files"},
        {"kind": "files", "train": "x"},
        {"kind": "files", "folder": "/nowhere/at/all"},
        {"kind": "files", "folder": "x", "zip": "y"},
        {"kind": "files", "zip": "/"},
        {"kind": "other"},
        {"kind": "files", "train": "/nowhere/x.csv", "test": "/nowhere/y.csv"},
    ],
)
def test_faulty_sources(fetch, source):
    with pytest.raises(UserError):
        fetch(source)


def test_own_classes_and_shape(tmp_path, fetch):
    text = b"label,pixel1,pixel2\n0,1,2\n2,3,4\n"
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_bytes(text)
    source = {"kind": "files", "folder": str(tmp_path)}
    train, _, _ = fetch(source, image={"height": 1, "width": 2}, class_names=["a", None, "b"])
    assert train == text


def test_synthetic(tmp_path, fetch):
    source = {"kind": "synthetic", "train_images": 24, "test_images": 5, "seed": 3}
    train, test, digests = fetch(source)
    assert fetch(source) == (train, test, digests)
    assert read_image_csv(tmp_path / "out/train.csv")[0].shape == (24, 28, 28, 1)
    assert len(read_image_csv(tmp_path / "out/test.csv")[1]) == 5


@pytest.mark.fault("data", "Kaggle refuses the download, or its package is missing", "refused")
def test_kaggle_download(tmp_path, csvs, fetch, monkeypatch):
    """The download itself is Kaggle's; what we do with its folder, and with its failure, is ours."""
    for part in csvs:
        (tmp_path / f"sign_mnist_{part}.csv").write_bytes(csvs[part])
    asked = []
    module = types.SimpleNamespace(dataset_download=lambda handle: asked.append(handle) or str(tmp_path))
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    assert fetch({"kind": "kaggle"})[0] == csvs["train"]
    assert asked == ["datamunge/sign-language-mnist"]

    def refuse(handle):
        raise PermissionError("403")

    module.dataset_download = refuse
    with pytest.raises(UserError, match="token"):
        fetch({"kind": "kaggle"})
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match="pip install kagglehub"):
        fetch({"kind": "kaggle"})


@pytest.mark.parametrize("line_end", ["CRLF", "LF"])
def test_real_data_is_known_by_checksum(shared, line_end):
    for part in ("train", "test"):
        data = gzip.decompress(shared(f"datasets/sign_mnist/sign_mnist_{part}.csv.gz").read_bytes())
        data = data.replace(b"\r\n", b"\n") if line_end == "LF" else data
        assert known_as(hashlib.sha256(data).hexdigest()) == f"Sign Language MNIST {part}, {line_end}"
