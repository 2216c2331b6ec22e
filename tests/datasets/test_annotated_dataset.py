"""Pictures with boxes or masks -> dataset.h5: values, in every format."""

import io
import json
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
import pytest
from annotated_pictures import (
    CAT,
    DOG,
    ENTRY,
    build,
    changed,
    coco,
    listed,
    mask,
    pack,
    pictures,
    png,
    voc,
    voc_files,
    write,
    yolo_files,
)
from PIL import Image

from dpuflow.base.errors import UserError
from dpuflow.datasets import picture_files
from dpuflow.datasets.annotated_dataset import build_annotated_dataset
from dpuflow.datasets.annotation_masks import mask_classes
from dpuflow.datasets.dataset_file import read_dataset


def test_boxes_lie_where_the_letterbox_puts_their_picture(tmp_path):
    data = build(tmp_path, write(tmp_path / "set", voc_files()))
    assert (data.task, data.class_names, data.shape) == ("detection", ["cat", "dog"], (32, 32, 3))
    boxes = data.boxes_in("test")
    # 64 x 32 becomes 32 x 16 with 8 rows of black above and below
    assert data.placements_in("test")[0].numbers == (64, 32, 0, 0, 64, 32, 0, 8, 32, 24)
    np.testing.assert_array_equal(boxes[0].boxes, [[4, 10, 12, 18], [0, 8, 32, 24]])
    assert boxes.classes.tolist() == [0, 1, 0, 1] and boxes.ignored.tolist() == [False, True] * 2
    assert boxes.offsets.tolist() == [0, 2, 4] and len(boxes) == 2
    images = data.images_in("test")[:]
    assert not images[:, :8].any() and not images[:, 24:].any() and images[:, 8:24].any()
    assert len(data.boxes_in("train").boxes) == 2 and len(data.boxes_in("validation")) == 1
    original = data.placements_in("test")[0].to_original(boxes[0].boxes)
    np.testing.assert_allclose(original, [CAT[1], DOG[1]])
    with pytest.raises(UserError, match=r"holds pictures for detection, but labels \(classification\)"):
        data.labels_in("test")
    assert [len(labels) for _, labels in data.batches("test")] == [2]


def test_a_zip_and_a_folder_give_equal_bytes_whatever_the_number_of_threads(tmp_path):
    files = voc_files()
    entry = ENTRY | {"annotations": {"format": "voc"}}
    packed = {"big/set/" + name: content for name, content in files.items()}
    build_annotated_dataset(tmp_path / "a.h5", entry | {"source": write(tmp_path / "set/big/set", files)}, 1)
    build_annotated_dataset(tmp_path / "b.h5", entry | {"source": write(tmp_path / "set2/big/set", files)}, 4)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    zipped = build(tmp_path, pack(tmp_path / "set.zip", packed))
    np.testing.assert_array_equal(
        zipped.boxes_in("test").boxes, read_dataset(tmp_path / "a.h5").boxes_in("test").boxes
    )


@pytest.mark.parametrize(
    ("resize", "expected", "ignored"),
    [
        ("crop", [[0, 4, 8, 20], [0, 0, 32, 32]], [False, True]),  # the middle 32 of 64 columns
        ("stretch", [[4, 4, 12, 20], [0, 0, 32, 32]], [False, True]),
    ],
)
def test_crop_and_stretch_move_boxes_as_they_move_pixels(tmp_path, resize, expected, ignored):
    source = write(tmp_path / "set", voc_files())
    data = build(tmp_path, source, image=ENTRY["image"] | {"resize": resize})
    boxes = data.boxes_in("test")[0]
    np.testing.assert_array_equal(boxes.boxes, expected)
    assert boxes.ignored.tolist() == ignored


def test_what_a_crop_leaves_hardly_anything_of_is_ignored(tmp_path):
    files = voc_files() | {
        "test/labels/d.xml": voc([("cat", (0, 0, 18, 8), False), ("cat", (0, 0, 10, 9), False)])
    }
    data = build(tmp_path, write(tmp_path / "set", files), image=ENTRY["image"] | {"resize": "crop"})
    one = next(b for b in map(data.boxes_in("test").__getitem__, range(2)) if len(b.boxes) == 1)
    np.testing.assert_array_equal(one.boxes, [[0, 0, 2, 8]])  # two of 18 columns are left
    assert one.ignored.tolist() == [True]


def test_lists_tell_the_parts_of_voc(tmp_path):
    files = {f"VOC/JPEGImages/{n}.png": png(seed=i) for i, n in enumerate("abcd")}
    files |= {f"VOC/Annotations/{n}.xml": voc([CAT]) for n in "abcd"}
    files |= {
        "VOC/ImageSets/Main/trainval.txt": b"a\nb\nc\n",
        "VOC/ImageSets/Main/val.txt": b"c\n",
        "VOC/ImageSets/Main/train.txt": b"a\nb\n",
        "VOC/ImageSets/Main/cat_train.txt": b"a  1\nb -1\n",
        "VOC/ImageSets/Main/test.txt": b"d\r\n",
    }
    entry = {k: v for k, v in ENTRY.items() if k != "validation"}
    path = tmp_path / "out.h5"
    source = pack(tmp_path / "set.zip", files)
    build_annotated_dataset(path, entry | {"source": source, "annotations": {"format": "voc"}})
    data = read_dataset(path)
    assert {name: len(rows) for name, rows in data.splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
        "calibration": 1,
    }


def test_coco(tmp_path):
    files = pictures("images/{part}2017/")
    box = [8, 4, 16, 16]
    kinds = [(7, "dog"), (3, "cat")]
    files["annotations/instances_train2017.json"] = coco(
        [(1, "a.png"), (2, "b.png"), (3, "c.png")], [(1, 3, box, 0), (2, 7, box, 0)], kinds
    )
    files["annotations/instances_test2017.json"] = coco(
        [(1, "d.png"), (9, "e.png")], [(9, 7, box, 1), (9, 3, [0, 0, 64, 32], 0)], kinds
    )
    files["annotations/captions_train2017.json"] = b"{}"
    data = build(tmp_path, pack(tmp_path / "set.zip", files), annotations={"format": "coco"})
    assert data.class_names == ["cat", "dog"]  # in the order of their numbers
    boxes = data.boxes_in("test")
    sizes = np.diff(boxes.offsets).tolist()
    assert sorted(sizes) == [0, 2]
    np.testing.assert_array_equal(boxes.boxes, [[4, 10, 12, 18], [0, 8, 32, 24]])
    assert boxes.classes.tolist() == [1, 0] and boxes.ignored.tolist() == [True, False]


def test_a_coco_object_with_a_polygon_alone_has_the_box_around_it(tmp_path):
    files = pictures("{part}/")
    content = {
        "images": [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("abcde")],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 3, "category_id": 1, "segmentation": [[8, 4, 24, 4, 20, 20], [10, 6, 12, 6, 11, 9]]}
        ],
    }
    files["all.json"] = json.dumps(content).encode()
    data = build(tmp_path, pack(tmp_path / "set.zip", files), annotations={"format": "coco"})
    np.testing.assert_array_equal(data.boxes_in("test").boxes, [[4, 10, 12, 18]])
    run_lengths = {"counts": "ab", "size": [32, 64]}
    content["annotations"].append({"image_id": 3, "category_id": 1, "segmentation": run_lengths})
    files["all.json"] = json.dumps(content).encode()
    with pytest.raises(UserError, match=r"all\.json\): annotations\[1\]\.bbox: .* polygons\), found None"):
        build(tmp_path, pack(tmp_path / "b.zip", files), annotations={"format": "coco"})


def test_yolo(tmp_path):
    data = build(tmp_path, pack(tmp_path / "set.zip", yolo_files()), annotations={"format": "yolo"})
    assert data.class_names == ["cat", "dog"]
    boxes = data.boxes_in("test")
    assert sorted(np.diff(boxes.offsets).tolist()) == [0, 2]
    np.testing.assert_array_equal(boxes.boxes, [[4, 10, 12, 18], [4, 10, 12, 18]])  # the box and the polygon
    assert boxes.classes.tolist() == [1, 0]
    reordered = build(
        tmp_path,
        pack(tmp_path / "b.zip", yolo_files()),
        annotations={"format": "yolo"},
        class_names=["dog", "bird", "cat"],
    )
    assert reordered.boxes_in("test").classes.tolist() == [0, 2]


def test_masks(tmp_path):
    files = pictures("{part}/images/")
    drawn = np.zeros((32, 64), np.uint8)
    drawn[:16, :32], drawn[:, 62:] = 1, 255
    for name in list(files):
        files[name.replace("images", "masks").replace(".png", "_mask.png")] = mask(drawn)
    entry = {"annotations": {"format": "masks"}, "task": "segmentation", "class_names": ["ground", "hand"]}
    data = build(tmp_path, pack(tmp_path / "set.zip", files), **entry)
    masks = data.masks_in("test")
    assert masks.shape == (2, 32, 32) and masks.dtype == np.uint8
    expected = np.full((32, 32), 255, np.uint8)
    expected[8:24] = 0
    expected[8:16, :16], expected[8:24, 31] = 1, 255
    np.testing.assert_array_equal(masks[:1][0], expected)
    np.testing.assert_array_equal(data.masks_in("train")[np.array([1, 0])][1], expected)
    for name in [name for name in files if "masks" in name]:
        files[name] = mask(np.where(drawn == 1, 255, 0))
    with pytest.raises(UserError, match=r"all of class 0 or of none|of class 0 or of none \(255\)"):
        build(tmp_path, pack(tmp_path / "set.zip", files), **entry)
    given = entry | {"annotations": {"format": "masks", "values": [0, 255]}}
    masks = build(tmp_path, pack(tmp_path / "set.zip", files), **given).masks_in("test")
    assert np.bincount(masks[:1].ravel(), minlength=256)[[0, 1, 255]].tolist() == [384, 128, 512]


def test_masks_in_colours_and_with_palettes(tmp_path):
    files = pictures("{part}/images/")
    drawn = np.zeros((32, 64), np.uint8)
    drawn[:, 32:] = 1
    entry = {"annotations": {"format": "masks"}, "task": "segmentation", "class_names": ["ground", "hand"]}
    names = [name.replace("images", "masks") for name in files]
    files |= {name: mask(drawn, palette=[9, 9, 9, 200, 0, 0]) for name in names}
    first = build(tmp_path, pack(tmp_path / "set.zip", files), **entry).masks_in("test")[:]
    assert first[0, 16].tolist() == [0] * 16 + [1] * 16
    colours = np.array([[9, 9, 9], [200, 0, 0]], np.uint8)
    files |= {name: mask(colours[drawn]) for name in names}
    with pytest.raises(UserError, match=r"masks/[a-e].png\): a mask in colours"):
        build(tmp_path, pack(tmp_path / "set.zip", files), **entry)
    values = {"format": "masks", "values": colours.tolist()}
    second = build(tmp_path, pack(tmp_path / "set.zip", files), **entry | {"annotations": values})
    np.testing.assert_array_equal(second.masks_in("test")[:], first)
    values = {"format": "masks", "values": [[9, 9, 9], [1, 2, 3]]}
    with pytest.raises(
        UserError, match=r"pixel \(32, 0\) of the mask is \[200, 0, 0\], expected \[9, 9, 9\]"
    ):
        build(tmp_path, pack(tmp_path / "set.zip", files), **entry | {"annotations": values})


def test_a_grey_mask_saved_in_colours_is_a_grey_one():
    drawn = np.array([[0, 1, 255], [1, 0, 1]], np.uint8)
    colours = np.repeat(drawn[..., None], 3, axis=2)
    np.testing.assert_array_equal(mask_classes(mask(colours), "m", 2), drawn)
    white = mask(np.where(colours == 1, 200, colours))
    np.testing.assert_array_equal(mask_classes(white, "m", 2, [0, 200]), drawn)
    with pytest.raises(UserError, match=r"m: pixel \(1, 0\) of the mask is 200, expected 0 to 1"):
        mask_classes(white, "m", 2)
    colours[0, 0, 2] = 1
    with pytest.raises(UserError, match="m: a mask in colours"):
        mask_classes(mask(colours), "m", 2)


def test_boxes_without_area_are_left_out_and_those_that_reach_out_are_cut(tmp_path, caplog):
    objects = [("cat", (5, 5, 5, 9), False), ("cat", (-4, 0, 200, 32), False)]
    data = build(tmp_path, pack(tmp_path / "set.zip", changed("test/labels/d.xml", voc(objects))))
    one = next(b for b in map(data.boxes_in("test").__getitem__, range(2)) if len(b.boxes) == 1)
    np.testing.assert_array_equal(one.boxes, [[0, 8, 32, 24]])
    assert "1 boxes have no area and are left out" in caplog.text
    assert "1 boxes reach beyond their pictures and are cut" in caplog.text


def test_the_blood_pictures_as_somebody_else_reads_them(tmp_path, shared):
    archive = shared("datasets/bccd_voc.zip")
    entry = {k: v for k, v in ENTRY.items() if k != "validation"}
    entry["image"] = {"height": 60, "width": 80, "channels": 3}
    path = tmp_path / "out.h5"
    counts = build_annotated_dataset(
        path, entry | {"source": {"kind": "pictures", "zip": str(archive)}, "annotations": {"format": "voc"}}
    )
    assert counts["train"] == 205 and counts["validation"] == 87 and counts["test"] == 72
    data = read_dataset(path)
    names, found = data.class_names, {}
    import h5py

    with h5py.File(path) as file:
        paths = file["paths"].asstr()[()]
        assert "labels" not in file
    for row, one in zip(data.splits["test"], map(data.boxes_in("test").__getitem__, range(72)), strict=True):
        found[paths[row]] = sorted(
            (names[kind], *np.round(box * 8).astype(int).tolist())
            for kind, box in zip(one.classes, one.boxes, strict=True)
        )
    assert names == ["Platelets", "RBC", "WBC"] and len(found) == 72
    with ZipFile(archive) as bundle:
        for picture, boxes in found.items():
            root = ElementTree.fromstring(
                bundle.read(picture.replace("JPEGImages", "Annotations").replace("jpg", "xml"))
            )
            expected = []
            for entry in root.iter("object"):
                sides = [int(entry.find(f"bndbox/{side}").text) for side in ("xmin", "ymin", "xmax", "ymax")]
                if sides[0] < sides[2] and sides[1] < sides[3]:
                    expected.append((entry.find("name").text, *sides))
            assert boxes == sorted(expected), picture


def test_a_picture_on_its_side_is_upright_with_its_boxes(tmp_path):
    image = Image.fromarray(np.random.default_rng(5).integers(0, 255, (64, 32, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees: 32 x 64 is shown as 64 x 32
    import io

    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    files = voc_files()
    files["test/images/d.jpg"] = stream.getvalue()
    del files["test/images/d.png"]
    data = build(tmp_path, pack(tmp_path / "set.zip", files))
    assert {place.size for place in data.placements_in("test")} == {(64, 32)}


def test_a_set_without_parts_is_divided_and_names_may_mean_other_parts(tmp_path):
    source = pack(tmp_path / "set.zip", listed())
    data = build(tmp_path, source, test={"fraction": 0.25})
    assert len(data.splits["test"]) == 1 and len(data.boxes_in("test").boxes) == 1
    source = pack(tmp_path / "b.zip", listed(train=b"a\nb\n", val=b"c\nd\n"))
    notes = {"format": "voc", "parts": {"val": "test"}}
    assert len(build(tmp_path, source, annotations=notes).splits["test"]) == 2


def test_a_photograph_decoded_at_a_fraction_lies_where_its_placement_says(monkeypatch):
    monkeypatch.setattr(picture_files, "LARGE", 1)
    monkeypatch.setattr(picture_files, "DECODED_SIDE", 50)  # 300 x 201 is decoded as 75 x 51
    stream = io.BytesIO()
    Image.new("L", (300, 201), 200).save(stream, "JPEG")
    pixels, where = picture_files.placed(stream.getvalue(), "a.jpg", (48, 48, 1), "pad")
    rows = np.flatnonzero(pixels[:, 24, 0] > 100)
    assert (rows[0], rows[-1] + 1) == (where.place[1], where.place[3]) == (8, 40)
