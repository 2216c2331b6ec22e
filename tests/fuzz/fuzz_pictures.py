"""Picture data sets under fuzz: zips, lists and annotations beside good pictures, read up to dataset.h5."""

import functools
import io
import json
import zipfile

import numpy as np

NAMES = ("a", "b", "c", "d")
ENTRY = {
    "image": {"height": 6, "width": 6, "channels": 3},
    "test": {"fraction": 0.25, "seed": 1},
    "validation": {"fraction": 0.34, "seed": 1},
    "calibration": {"images": 2},
}
VOC = (
    "<annotation>\n<filename>{0}.png</filename><size><width>9</width><height>8</height><depth>3</depth></size>\n"
    "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>7.5</xmax>"
    "<ymax>6</ymax></bndbox></object>\n<object><name>dog</name><bndbox><xmin>2</xmin><ymin>1</ymin>"
    "<xmax>4</xmax><ymax>3</ymax></bndbox></object>\n</annotation>\n"
)
YOLO = "0 0.5 0.5 0.25 0.5\n1 0.25 0.75 0.125 0.25\n"


@functools.cache
def picture(seed):
    """A PNG of 9 x 8 pixels."""
    from PIL import Image

    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def pictures_zip_seeds():
    """Classes as folders, and parts above them."""

    def packed(names):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for seed, name in enumerate(names):
                archive.writestr(zipfile.ZipInfo(name), picture(seed))
        return stream.getvalue()

    flat = [f"{name}/{n}.png" for name in NAMES[:2] for n in range(6)]
    parts = [
        f"set/{part}/{name}/{n}.png" for part in ("train", "test") for name in NAMES[:2] for n in (1, 2, 3)
    ]
    return [packed(flat), packed(parts)]


def beside(folder, labels=None):
    """Good pictures in a folder, and good label files of all but the first of them."""
    for seed, name in enumerate(NAMES):
        (folder / f"{name}.png").write_bytes(picture(seed))
        if labels and name != NAMES[0]:
            suffix, text = labels
            (folder / f"{name}{suffix}").write_text(text.format(name))


def built(path, build, entry):
    """Build the data set and look at it; the file under fuzz is named in every error."""
    from dpuflow.base.errors import UserError
    from dpuflow.datasets.dataset_file import read_dataset

    out = path.parent.parent / "out.h5"
    try:
        build(out, {**ENTRY, **entry})
    except UserError as error:
        # a fault of the whole set (too few pictures of a class) names the folder
        raise UserError(f"{path.name}: {error}") from None
    dataset = read_dataset(out)
    assert dataset.shape == (6, 6, 3)
    assert all(dataset.subset(name)[0].dtype == np.uint8 for name in ("train", "test"))


def read_pictures_zip(path):
    from dpuflow.datasets.picture_dataset import build_picture_dataset

    before = sorted(p.name for p in path.parent.parent.iterdir())
    entry = {"source": {"kind": "pictures", "zip": str(path)}}
    if b"/test/" in path.read_bytes():
        entry["test"] = None
    built(path, build_picture_dataset, entry)
    after = sorted(p.name for p in path.parent.parent.iterdir())
    assert set(after) - set(before) <= {"out.h5"}, "something was unpacked"


def list_seeds():
    rows = [f"{name}.png,{label}" for name, label in zip(NAMES, "ppqq", strict=True)]
    return [
        ("path,label\n" + "\n".join(rows) + "\n").encode(),
        ("path,label,split\n" + "".join(f"{row},{p}\n" for row, p in zip(rows, PARTS, strict=True))).encode(),
    ]


PARTS = ("train", "test", "train", "test")


def read_list(path):
    from dpuflow.datasets.picture_dataset import build_picture_dataset

    beside(path.parent)
    source = {"kind": "pictures", "folder": str(path.parent), "list": str(path)}
    entry = {"source": source, "validation": {"rows": 1}, "calibration": {"images": 1}}
    if b"test" in path.read_bytes():
        entry["test"] = None
    built(path, build_picture_dataset, entry)


def annotated(kind, labels):
    """read of a label file beside good ones."""

    def read(path):
        from dpuflow.datasets.annotated_dataset import build_annotated_dataset

        beside(path.parent, labels)
        source = {"kind": "pictures", "folder": str(path.parent)}
        built(
            path,
            build_annotated_dataset,
            {"source": source, "task": "detection", "annotations": {"format": kind}},
        )

    return read


def voc_seeds():
    return [VOC.format("a").encode()]


def yolo_seeds():
    return [YOLO.encode()]


def coco_seeds():
    images = [{"id": n, "file_name": f"{name}.png", "width": 9, "height": 8} for n, name in enumerate(NAMES)]
    boxes = [
        {"id": n, "image_id": n % 4, "category_id": 1 + n % 2, "bbox": [1, 2.5, 4, 3], "iscrowd": 0}
        for n in range(6)
    ]
    kinds = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    return [json.dumps({"images": images, "annotations": boxes, "categories": kinds}).encode()]


read_voc = annotated("voc", (".xml", VOC))
read_yolo = annotated("yolo", (".txt", YOLO))
read_coco = annotated("coco", None)
