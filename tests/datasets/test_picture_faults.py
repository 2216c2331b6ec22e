"""Folders, zips and lists of pictures that are none: refused, each with its name."""

import io
import os
import shutil
import zipfile

import pytest
from class_pictures import listed, paths, png, split_files
from PIL import Image

from dpuflow.base.errors import UserError


@pytest.mark.fault("data", "list of pictures: column, line, path, label or part wrong", "refused, line named")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na,b\n", "line 1: found the columns name, label; expected path and label"),
        ("path,label\ntrain/cat/0.png\n", "line 2: expected 2 fields"),
        ("path,label\ntrain/cat/0.png,\n", "line 2: an empty field"),
        ("path,label\ntrain/cat/9.png,cat\n", "line 2: train/cat/9.png is not in"),
        ("path,label\n../../etc/passwd.png,cat\n", "line 2: .* leads out of the folder"),
        ("path,label\n/etc/passwd.png,cat\n", "line 2: .* leads out of the folder"),
        ("path,label\ntrain/cat/0.png,cat\ntrain/cat/0.png,dog\n", r"line 3: .* is there twice \(line 2\)"),
        (
            "path,label,split\ntrain/cat/0.png,cat,tset\n",
            "line 2, column split: found 'tset'; did you mean test",
        ),
        ("path,label\nlist.csv,cat\n", "line 2: list.csv is no picture"),
        ("path,label\ntrain/cat/0.png,99999999999\n", "found the label 99999999999, expected 0 to 65535"),
        ("path,label\n", "no pictures in it"),
    ],
)
def test_faulty_lists(put, build, text, message):
    with pytest.raises(UserError, match=rf"list\.csv: {message}"):
        build(listed(put, text), test={"fraction": 0.5})


@pytest.mark.fault("data", "broken picture files", "refused, each named")
def test_broken_pictures_are_all_named(put, build, tmp_path):
    files = split_files()
    files["train/cat/0.png"] = files["train/cat/0.png"][:60]
    files["test/owl/1.png"] = b"GIF89a or so"
    folder = put(files)
    with pytest.raises(UserError) as caught:
        build(folder)
    assert "train/cat/0.png: not a whole" in str(caught.value)
    assert "test/owl/1.png: not a whole" in str(caught.value)
    assert not (tmp_path / "d.h5").exists()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.fault("data", "picture that claims or unpacks to an enormous size", "refused")
def test_bombs_are_refused(put, build, tmp_path, monkeypatch):
    stream = io.BytesIO()
    Image.new("1", (10_000, 9_000)).save(stream, "PNG")
    with pytest.raises(UserError, match=r"bomb.png: .*pixels at most"):
        build(put(split_files() | {"train/cat/bomb.png": stream.getvalue()}))
    monkeypatch.setattr("dpuflow.datasets.picture_source.LARGEST_FILE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("test/a/1.png", png(1))
        bundle.writestr("train/a/1.png", bytes(4 << 20))
        bundle.writestr("train/b/1.png", png(2))
    with pytest.raises(UserError, match=r"a\.zip \(train/a/1.png\): more than 1 MiB"):
        build({"zip": str(tmp_path / "a.zip")})


@pytest.mark.fault("data", "zip with paths or links that lead out of it", "refused")
@pytest.mark.parametrize("name", ["../out/a/1.png", "/abs/a/1.png", "a\\..\\1.png"])
def test_zip_slip(build, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(name, png(1))
    with pytest.raises(UserError, match="leads out of the archive"):
        build({"zip": str(tmp_path / "a.zip")})


def test_a_link_in_a_zip(build, tmp_path):
    link = zipfile.ZipInfo("train/a/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"train/a/1\.png is a link"):
        build({"zip": str(tmp_path / "a.zip")})


@pytest.mark.fault("data", "links out of a folder of pictures, in circles, to nothing", "refused")
def test_links(put, build, tmp_path):
    folder = put(split_files())
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(5))
    (folder / "train/cat/inside.png").symlink_to(folder / "test/cat/1.png")
    assert "train/cat/inside.png" in paths(build(folder))
    for target, message in (
        (outside, "leads out of"),
        (tmp_path, "leads out of"),
        (folder / "train", "a link to a folder that it lies in"),
        (folder / "nothing.png", "a link to nothing"),
    ):
        (folder / "train/dog/link.png").symlink_to(target)
        with pytest.raises(UserError, match=message):
            build(folder)
        (folder / "train/dog/link.png").unlink()


@pytest.mark.fault("data", "folders of pictures of no clear meaning", "refused")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1.png", "test/a/2.png", "c/1.png"], "test, train beside c: parts or classes"),
        (["train/a/1.png", "test/a/2.png", "test/3.png"], "test/3.png lies in no folder of a class"),
        (["a/1.png", "b/1.png", "2.png"], "2.png lies in no folder of a class"),
        (["train/a/1.png", "test/a/2.png", "val/a/1.png", "valid/a/2.png"], "both val and valid"),
        (["a/1.txt", "b/1.npy"], "no pictures in it"),
        (["train/a/1.heic", "train/b/1.png", "test/a/1.png"], "a picture in HEIC"),
    ],
)
def test_unclear_folders(put, build, names, message):
    with pytest.raises(UserError, match=message):
        build(put({name: png(index) for index, name in enumerate(names)}))


def test_settings_that_do_not_fit_the_folders(put, build):
    folder = put(split_files() | {"validation/cat/1.png": png(9)})
    with pytest.raises(UserError, match="pictures for the test already; leave out the setting test"):
        build(folder, test={"fraction": 0.1})
    with pytest.raises(UserError, match="pictures for the validation; leave out"):
        build(folder, validation={"rows": 2})
    assert paths(build(folder))[-7] == "validation/cat/1.png"
    with pytest.raises(UserError, match=r"no such file or folder .*datasets\.\*\.source"):
        build(folder / "absent")


def test_a_folder_that_cannot_be_read(put, build):
    folder = put(split_files())
    shutil.rmtree(folder / "train")
    os.chmod(folder / "test", 0)
    try:
        with pytest.raises(UserError, match=r"only pictures for the test|cannot be read"):
            build(folder)
    finally:
        os.chmod(folder / "test", 0o755)
