"""dataset.h5 from folders, zips and lists of picture files."""

import io
import logging
import random
import shutil
import unicodedata
import zipfile

import numpy as np
import pytest
from class_pictures import CLASSES, listed, paths, png, split_files
from PIL import Image

from dpuflow.base.errors import UserError
from dpuflow.datasets import picture_dataset
from dpuflow.datasets.picture_files import read_picture


def test_every_picture_is_where_its_path_says(put, build):
    folder = put(split_files())
    data = build(folder, calibration={"images": 6})
    names = paths(data)
    assert data.class_names == list(CLASSES) and data.shape == (8, 10, 3)
    assert sorted(names) == sorted(split_files())
    for row, name in enumerate(names):
        assert np.array_equal(data.images[row], read_picture(folder / name, (8, 10, 3)).pixels)
        assert CLASSES[data.labels[row]] == name.split("/")[1]
    assert sorted(names[row] for row in data.splits["test"]) == sorted(
        n for n in names if n.startswith("test")
    )
    assert {part: len(rows) for part, rows in data.splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 6,
        "calibration": 6,
    }
    assert np.bincount(data.labels[data.splits["calibration"]]).tolist() == [2, 2, 2]
    assert data.attrs["resize"] == "crop"


def test_folder_and_zip_in_any_order_give_the_same_bytes(put, build, tmp_path):
    files = split_files()
    folder = build(put(files))
    for number in range(2):
        names = list(files)
        random.Random(number).shuffle(names)
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
            for name in names:
                bundle.writestr(f"some/folder/{name}", files[name])
            bundle.writestr("__MACOSX/some/._x.png", b"no picture")
            bundle.writestr("some/folder/train/.DS_Store", b"")
        packed = build({"zip": str(tmp_path / f"{number}.zip")}, name=f"{number}.h5")
        assert packed.path.read_bytes() == folder.path.read_bytes()
    again = put(dict(reversed(files.items())), folder="elsewhere/deeper")
    assert build(again, name="e.h5").path.read_bytes() == folder.path.read_bytes()


@pytest.mark.parametrize("packed", [False, True])
def test_a_class_folder_without_pictures_is_told(put, build, tmp_path, caplog, packed):
    files = {f"all/{name}/{n}.png": png((n, ord(name[0]))) for name in CLASSES for n in range(5)}
    folder = put(files | {"all/eel/notes.txt": b"", "papers/licence.txt": b""})
    for empty in ("bee", ".cache", "test"):  # the second is hidden, the third a part
        (folder / "all" / empty).mkdir()
    source = folder
    if packed:
        archive = shutil.make_archive(tmp_path / "photos", "zip", folder)
        source = {"zip": archive}
    half = {"fraction": 0.5, "seed": 1}
    data = build(source, test=half)
    assert data.class_names == list(CLASSES)
    told = [record.message for record in caplog.records if "no pictures in" in record.message]
    assert len(told) == 1 and "no pictures in bee, eel, so the data set has no such class" in told[0]
    caplog.clear()
    named = build(source, name="n.h5", test=half, class_names=["bee", "cat", "dog", "eel", "owl"])
    assert named.class_names == ["bee", "cat", "dog", "eel", "owl"]
    assert sorted({int(label) for label in named.labels}) == [1, 2, 4]
    assert "no pictures in" not in caplog.text and "the train images show no bee, eel" in caplog.text


def test_a_class_without_pictures_for_the_test_is_no_empty_folder(put, build, caplog):
    folder = put(split_files() | {"train/eel/1.png": png(5), "train/eel/2.png": png(6)})
    (folder / "test/eel").mkdir()
    (folder / "extra/bee").mkdir(parents=True)  # beside the parts
    assert build(folder).class_names == ["cat", "dog", "eel", "owl"]
    assert "no pictures in" not in caplog.text and "the test images show no eel" in caplog.text
    (folder / "test/bee").mkdir()
    build(folder, name="b.h5")
    assert "no pictures in bee, so" in caplog.text


def test_without_parts_a_share_of_each_class_is_the_test(put, build):
    files = {f"{name}/{n}.png": png((n, label)) for label, name in enumerate(CLASSES) for n in range(10)}
    files["rare/1.png"] = png(77)
    folder = put(files)
    data = build(folder, test={"fraction": 0.2, "seed": 3})
    assert np.bincount(data.labels[data.splits["test"]], minlength=4).tolist() == [2, 2, 2, 0]
    assert sum(len(data.splits[part]) for part in ("train", "validation")) == 25
    other = build(folder, name="o.h5", test={"fraction": 0.2, "seed": 4})
    tests = [{paths(d)[row] for row in d.splits["test"]} for d in (data, other)]
    assert tests[0] != tests[1]
    with pytest.raises(UserError, match=r"no pictures for the test; .* test: \{fraction"):
        build(folder)


def test_the_last_rows_are_not_one_class(put, build):
    data = build(put(split_files(train=20)), validation={"rows": 20, "take": "last"})
    assert np.bincount(data.labels[data.splits["validation"]]).min() >= 3


def test_a_test_only_data_set(put, build):
    files = {f"test/{n}/{i}.png": png((i, 1)) for i, n in enumerate(CLASSES)}
    with pytest.raises(UserError, match="only pictures for the test; the quantizer needs others"):
        build(put(files))
    files |= {f"calibration/{n}/{i}{j}.png": png((i, j, 2)) for i, n in enumerate(CLASSES) for j in range(4)}
    data = build(put(files), calibration={"images": 6})
    assert {part: len(rows) for part, rows in data.splits.items()} == {
        "train": 0,
        "validation": 6,
        "test": 3,
        "calibration": 6,
    }
    assert all(paths(data)[row].startswith("calibration/") for row in data.splits["calibration"])
    assert next(iter(data.batches("test", 2)))[0].shape == (2, 8, 10, 3)
    assert list(data.batches("train")) == []


def test_class_names_fix_the_order_and_may_have_gaps(put, build, caplog):
    folder = put(split_files())
    names = ["owl", None, "dog", "cat", "emu"]
    with caplog.at_level(logging.WARNING):
        data = build(folder, class_names=names)
    assert data.class_names == ["owl", "absent 1", "dog", "cat", "emu"]
    assert "the test images show no emu" in caplog.text
    for row, path in enumerate(paths(data)):
        assert names[data.labels[row]] == path.split("/")[1]
    with pytest.raises(UserError, match="class owl is not in class_names; did you mean owls"):
        build(folder, class_names=["owls", "dog", "cat"])


def test_more_than_256_classes(put, build):
    data = put({f"{label:03}/{n}.png": png((label, n), (4, 4)) for label in range(300) for n in (0, 1)})
    data = build(data, image={"height": 2, "width": 2}, test={"fraction": 0.5})
    assert data.labels.dtype == np.uint16 and data.outputs == 300
    assert sorted(data.labels[data.splits["test"]]) == list(range(300))
    assert all(data.class_names[data.labels[row]] == path[:3] for row, path in enumerate(paths(data)))


def test_a_list_tells_labels_and_parts(put, build):
    lines = [f"{path},{path.split('/')[0]},{path.split('/')[1]}" for path in split_files()]
    data = build(listed(put, "path,split,label\n" + "\n".join(lines) + "\n"))
    by_folders = build(put(split_files()), name="f.h5")
    assert np.array_equal(data.images, by_folders.images)
    assert data.class_names == by_folders.class_names
    # whole numbers are the labels themselves, whatever order their digits have
    numbers = {"cat": 2, "dog": 10, "owl": 0}
    lines = [f"{path},{numbers[path.split('/')[1]]}" for path in split_files()]
    data = build(listed(put, "path,label\n" + "\n".join(lines)), name="n.h5", test={"fraction": 0.5})
    assert data.outputs == 11 and data.present == [0, 2, 10] and data.class_names[10] == "10"
    for row, path in enumerate(paths(data)):
        assert data.labels[row] == numbers[path.split("/")[1]]


@pytest.mark.fault("data", "pictures of several kinds, sizes and depths", "all read")
def test_all_kinds_of_pictures(put, build):
    def saved(image, kind, **options):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    grey16 = Image.fromarray(np.full((9, 12), 200 << 8, np.uint16))
    clear = Image.new("RGBA", (12, 9), (0, 0, 0, 0))
    turned = Image.new("RGB", (9, 12), (200, 200, 200))
    exif = turned.getexif()
    exif[0x0112] = 6
    plain = Image.new("RGB", (12, 9), (200, 200, 200))
    files = {
        "a/grey16.png": (saved(grey16, "PNG"), 200),
        "a/clear.png": (saved(clear, "PNG"), 255),
        "a/turned.jpg": (saved(turned, "JPEG", exif=exif), 200),
        "a/cmyk.jpg": (saved(plain.convert("CMYK"), "JPEG"), 200),
        "b/palette.png": (saved(plain.quantize(4), "PNG"), 200),
        "b/lossless.webp": (saved(plain, "WEBP", lossless=True), 200),
        "b/plain.bmp": (saved(plain, "BMP"), 200),
        "b/grey.JPEG": (saved(plain.convert("L"), "JPEG"), 200),
    }
    pictures = {f"train/{name}": content for name, (content, _) in files.items()}
    data = build(
        put(pictures | {"test/a/1.png": png(1), "test/b/1.png": png(2)}),
        duplicates="allow",
        image={"height": 9, "width": 12, "channels": 3},
    )
    for row, path in enumerate(paths(data)[: len(files)]):
        value = files[path.removeprefix("train/")][1]
        assert np.abs(data.images[row].astype(int) - value).max() <= 8, path


def test_pad_and_stretch(put, build):
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[...] = 100
    wide[:, :10] = 250
    stream = io.BytesIO()
    Image.fromarray(wide).save(stream, "PNG")
    files = {"test/a/0.png": stream.getvalue()} | {
        f"train/{name}/1.png": png(1 + (name == "b")) for name in "ab"
    }
    folder = put(files)
    image, pixels = {"height": 20, "width": 20, "channels": 1}, {}
    for resize in ("crop", "pad", "stretch"):
        data = build(folder, image=image | {"resize": resize})
        assert data.resize == resize and paths(data)[-1] == "test/a/0.png"
        pixels[resize] = read_picture(folder / "test/a/0.png", (20, 20, 1), resize=resize)
        assert np.array_equal(data.images[-1], pixels[resize].pixels)
    assert (pixels["crop"].pixels[2:-2, 2:-2] == 100).all() and pixels["crop"].crop == (15, 0, 25, 10)
    pad = pixels["pad"].pixels[..., 0]
    assert (pad[:7] == 0).all() and (pad[13:] == 0).all() and (pad[7:12, :3] >= 240).all()
    assert (pad[7:12, 8:] == 100).all() and pixels["pad"].crop == (0, 0, 40, 10)
    stretched = pixels["stretch"].pixels[..., 0]
    assert (stretched[:, :3] >= 240).all() and (stretched[:, 8:] == 100).all()


def test_a_zip_with_the_slashes_of_windows(build, put, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        for name, data in split_files().items():
            bundle.writestr("photos\\" + name.replace("/", "\\"), data)
    assert paths(build({"zip": str(tmp_path / "a.zip")})) == paths(build(put(split_files()), name="f.h5"))


def test_names_in_any_unicode_form(put, build):
    files = {f"{name}/{n}.png": png((n, len(name))) for name in ("Bär", "Äpfel") for n in range(4)}
    composed = build(put(files), test={"fraction": 0.25})
    apart = {unicodedata.normalize("NFD", name): data for name, data in files.items()}
    decomposed = build(put(apart, folder="mac"), name="m.h5", test={"fraction": 0.25})
    assert composed.path.read_bytes() == decomposed.path.read_bytes()
    with pytest.raises(UserError, match="its name looks like that of"):
        build(put(files, folder="mac"), test={"fraction": 0.25})


def test_calibration_avoids_pictures_that_are_in_the_test_too(put, build, caplog):
    files = split_files()
    files["test/cat/0.png"] = files["train/cat/3.png"]
    with caplog.at_level(logging.WARNING):
        data = build(put(files))
    names = paths(data)
    assert "train/cat/3.png" not in {names[row] for row in data.splits["calibration"]}
    assert "1 images are also in" in caplog.text and "first: train/cat/3.png" in caplog.text
    files["train/dog/1.png"] = files["train/dog/2.png"]
    with pytest.raises(
        UserError, match=r"train/dog/\d\.png that of train/dog/\d\.png\); remove the repeated files"
    ):
        build(put(files), duplicates="error")


def test_memory_is_bounded_by_blocks(put, build, monkeypatch):
    """More pictures than a block and a chunk hold come out the same."""
    folder = put(split_files(train=30))
    whole = build(folder)
    monkeypatch.setattr(picture_dataset, "BLOCK_BYTES", 7 * 8 * 10 * 3)
    assert build(folder, name="b.h5").path.read_bytes() == whole.path.read_bytes()
