"""Annotated pictures that are none: one clear error for each, and no data set."""

import pytest
from annotated_pictures import (
    CAT,
    build,
    changed,
    coco,
    listed,
    pack,
    pictures,
    png,
    voc,
    voc_files,
    write,
    yolo_files,
)

from dpuflow.base.errors import UserError
from dpuflow.datasets.dataset_file import read_dataset

X = "train/labels/a.xml"
BOMB = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><annotation>&b;</annotation>'
BAD_VOC = {
    "entities": (BOMB, r"a\.xml\): line 1: has a document type or entities"),
    "no XML": (b"<annotation><object>", r"a\.xml\): not whole XML"),
    "deep": (b"<a>" * 100, r"a\.xml\): line 1: elements nested too deep"),
    "other": (b"<html></html>", r"a\.xml\): expected <annotation>, found <html>"),
    "reversed": (
        voc([("cat", (9, 0, 3, 5), False)]),
        r"a\.xml\): line 3, object 1: a box whose end lies before",
    ),
    "outside": (
        voc([CAT, ("cat", (70, 0, 80, 5), False)]),
        r"line 5, object 2: a box .* outside of its picture",
    ),
    "no number": (voc([("cat", ("x", 0, 3, 5), False)]), r"object 1, bndbox: expected a number, found 'x'"),
    "not finite": (
        voc([("cat", ("nan", 0, 3, 5), False)]),
        r"object 1, bndbox: expected a number, found 'nan'",
    ),
    "no box": (b"<annotation><object><name>cat</name></object></annotation>", r"object 1: has no bndbox"),
    "other size": (
        voc([CAT], size=(32, 64)),
        r"is about a picture of 32 x 64, but .*a.png has 64 x 32 pixels",
    ),
}


@pytest.mark.parametrize("what", BAD_VOC)
def test_bad_voc_is_one_error_that_names_file_and_object(tmp_path, what):
    content, message = BAD_VOC[what]
    with pytest.raises(UserError, match=message):
        build(tmp_path, pack(tmp_path / "set.zip", changed(X, content)))
    assert not (tmp_path / "out.h5").exists()


def good_coco():
    return {
        "images": '[{"id": 1, "file_name": "a.png"}]',
        "categories": '[{"id": 1, "name": "cat"}]',
        "annotations": '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}]',
    }


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("images", '[{"id": 1, "file_name": "nowhere.png"}]', r"images\[0\].file_name: there is no picture"),
        ("images", '[{"id": "1", "file_name": "a.png"}]', r"images\[0\].id: expected a whole number"),
        ("images", "{}", r"expected a list 'images'"),
        ("categories", '[{"id": 1}]', r"categories\[0\].name: expected a text"),
        ("annotations", '[{"image_id": 1, "category_id": 4, "bbox": [0,0,1,1]}]', r"there is no category 4"),
        (
            "annotations",
            '[{"image_id": 5, "category_id": 1, "bbox": [0,0,1,1]}]',
            r"\[0\].image_id: there is no image 5",
        ),
        (
            "annotations",
            '[{"image_id": 1, "category_id": 1, "bbox": [0,0,1]}]',
            r"\[0\].bbox: expected \[x, y",
        ),
        (
            "annotations",
            '[{"image_id": 1, "category_id": 1, "bbox": [0,0,1,NaN]}]',
            r"\[0\]: bbox: expected a number",
        ),
        ("annotations", "[3]", r"annotations\[0\]: expected an object, found int"),
        ("annotations", "[" * 100000, r"not whole JSON"),
    ],
)
def test_bad_coco_is_one_error_that_names_file_and_element(tmp_path, table, text, message):
    tables = good_coco() | {table: text}
    files = pictures() | {
        "x.json": ("{" + ", ".join(f'"{k}": {v}' for k, v in tables.items()) + "}").encode()
    }
    with pytest.raises(UserError, match=r"x\.json.*" + message):
        build(tmp_path, pack(tmp_path / "set.zip", files), annotations={"format": "coco"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"0 0.5 0.5 0.1", r"line 2: expected CLASS X Y WIDTH HEIGHT .* found 4 fields"),
        (b"cat 0.5 0.5 0.1 0.1", r"line 2: expected the number of a class, found 'cat'"),
        (b"2 0.5 0.5 0.1 0.1", r"line 2: class 2, but there are 2 names"),
        (b"0 320 240 20 20", r"line 2: expected shares of the picture from 0 to 1"),
        (b"0 0.5 inf 0.1 0.1", r"line 2: expected a number, found 'inf'|line 2: line 2"),
        (b"\xff", r"not a text in UTF-8"),
    ],
)
def test_bad_yolo_is_one_error_that_names_file_and_line(tmp_path, line, message):
    files = yolo_files() | {"train/labels/a.txt": b"\n" + line + b"\n"}
    with pytest.raises(UserError, match=r"a\.txt\): " + message):
        build(tmp_path, pack(tmp_path / "set.zip", files), annotations={"format": "yolo"})


def test_classes_that_class_names_lacks(tmp_path):
    source = pack(tmp_path / "set.zip", voc_files())
    with pytest.raises(UserError, match="classes that class_names lacks: dog; add them, or say"):
        build(tmp_path, source, class_names=["cat"])
    notes = {"format": "voc", "other_classes": "leave_out"}
    data = build(tmp_path, source, class_names=["cat"], annotations=notes)
    assert data.boxes_in("test").classes.tolist() == [0, 0]


def test_pictures_of_one_name_are_told_apart_by_their_folders_or_refused(tmp_path):
    files = {
        f"{part}/{kind}/x.{end}": b""
        for part in ("train", "test")
        for kind, end in (("i", "png"), ("l", "xml"))
    }
    for index, name in enumerate(files):
        files[name] = png(seed=index) if name.endswith("png") else voc([CAT] * (1 + ("test" in name)))
    files["train/i/y.png"], files["train/l/y.xml"] = png(seed=9), voc([CAT])
    data = build(tmp_path, pack(tmp_path / "set.zip", files))
    assert len(data.boxes_in("test").boxes) == 2
    files["l/x.xml"] = voc([CAT])
    with pytest.raises(UserError, match=r"l/x.xml fits 2 pictures"):
        build(tmp_path, pack(tmp_path / "set.zip", files))


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("dpuflow.datasets.picture_source.LARGEST_FILE", 1 << 20)
    files = changed(X, b" " * (2 << 20))
    with pytest.raises(UserError, match=r"a\.xml\): more than 1 MiB"):
        build(tmp_path, pack(tmp_path / "set.zip", files))


def test_a_data_set_of_boxes_that_was_tampered_with_is_refused(tmp_path):
    import h5py

    from dpuflow.base.hdf5 import seal

    build(tmp_path, write(tmp_path / "set", voc_files()))
    for name, value in (("boxes", -1.0), ("box_classes", 7), ("box_offsets", 99)):
        build(tmp_path, {"kind": "pictures", "folder": str(tmp_path / "set")})
        with h5py.File(tmp_path / "out.h5", "r+") as file:
            file[name][-1] = value
        seal(tmp_path / "out.h5")
        with pytest.raises(UserError, match="not a dataset file of dpuflow"):
            read_dataset(tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": b"a\nb\n", "test": b"b\nc\nd\n"}, r"b\.png is in .*test\.txt and in .*train\.txt"),
        ({"train": b"a\nb\nnobody\n", "test": b"c\n"}, r"train\.txt\): line 3: no picture 'nobody'"),
        (
            {"train": b"a\nb\n", "test": b"c\n"},
            r"1 pictures belong to no part \(first: V/JPEGImages/d\.png\)",
        ),
        (
            {"train": b"a\nb\nc\nd\n"},
            r"no pictures for the test; add test/NAME\.jpg with its annotation, or divide",
        ),
        ({}, r"no pictures for the test"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(tmp_path, lists, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path, pack(tmp_path / "set.zip", listed(**lists)))


def test_a_listed_picture_without_annotation_is_told_from_one_that_is_not_there(tmp_path):
    files = listed(train=b"a\nb\n", test=b"c\nd\n")
    del files["V/Annotations/d.xml"]
    with pytest.raises(UserError, match=r"test\.txt\): line 2: V/JPEGImages/d\.png has no annotation"):
        build(tmp_path, pack(tmp_path / "set.zip", files))


def test_a_picture_that_two_coco_files_list_is_refused(tmp_path):
    files = pictures()
    for name in ("one", "two"):
        files[f"{name}.json"] = coco([(1, "a.png")], [], [(1, "cat")])
    with pytest.raises(UserError, match=r"two\.json\): lists train/a\.png, and so does .*one\.json"):
        build(tmp_path, pack(tmp_path / "set.zip", files), annotations={"format": "coco"})
