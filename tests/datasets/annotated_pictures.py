"""Small annotated pictures, written as folders or zips, for the tests of readers."""

import io
import json
import zipfile

import numpy as np
from PIL import Image

from dpuflow.datasets.annotated_dataset import build_annotated_dataset
from dpuflow.datasets.dataset_file import read_dataset

ENTRY = {
    "task": "detection",
    "image": {"height": 32, "width": 32, "channels": 3},
    "validation": {"rows": 1},
    "calibration": {"images": 1},
}
PARTS = {"train": ("a", "b", "c"), "test": ("d", "e")}
"""Pictures of a set that tells its parts."""


def png(size=(64, 32), seed=0, mode="RGB"):
    """A picture's file: noise, so that no two are alike."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)
    return encoded(Image.fromarray(pixels))


def encoded(image):
    """PNG bytes of an image."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def mask(values, palette=None):
    """PNG bytes of a mask."""
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image = Image.fromarray(np.asarray(values, np.uint8), mode="P")
        image.putpalette(palette)
    return encoded(image)


def pictures(folder="{part}/", parts=PARTS):
    """{path: bytes} of the pictures of a set."""
    names = [(part, name) for part, stems in parts.items() for name in stems]
    return {f"{folder.format(part=part)}{name}.png": png(seed=i) for i, (part, name) in enumerate(names)}


def voc(objects, size=(64, 32)):
    """A VOC file; objects : (name, (x1, y1, x2, y2), difficult)."""
    inner = "".join(
        f"<object>\n<name>{name}</name><difficult>{int(hard)}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for name, (x1, y1, x2, y2), hard in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>\n{sides}\n{inner}</annotation>".encode()


def coco(images, annotations, categories):
    """A COCO file; images : (id, file_name), annotations : (image, category, box, crowd)."""
    content = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 32} for i, name in images],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": kind,
                "bbox": box,
                "iscrowd": crowd,
                "segmentation": [],
            }
            for i, (image, kind, box, crowd) in enumerate(annotations)
        ],
        "categories": [{"id": i, "name": name} for i, name in categories],
    }
    return json.dumps(content).encode()


def write(folder, files):
    """A folder of {path: bytes}."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return {"kind": "pictures", "folder": str(folder)}


def pack(path, files):
    """A zip of {path: bytes}."""
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return {"kind": "pictures", "zip": str(path)}


CAT, DOG = ("cat", (8, 4, 24, 20), False), ("dog", (0, 0, 64, 32), True)


def build(tmp_path, source, name="out.h5", **entry):
    """The Dataset of a source."""
    path = tmp_path / name
    build_annotated_dataset(path, ENTRY | {"source": source, "annotations": {"format": "voc"}} | entry)
    return read_dataset(path)


def voc_files():
    """Two parts, every picture with CAT, those of the test with DOG."""
    files = pictures("{part}/images/")
    for name in list(files):
        objects = [CAT, DOG] if name.startswith("test") else [CAT]
        files[name.replace("images", "labels").replace("png", "xml")] = voc(objects)
    return files


def yolo_files():
    """A set with data.yaml; the picture e shows nothing, and says so by having no file."""
    files = pictures("{part}/images/")
    for name in list(files):
        if not name.endswith("e.png"):
            text = b"1 0.25 0.375 0.25 0.5\n0 0.125 0.125 0.375 0.125 0.375 0.625 0.2 0.3\n"
            files[name.replace("images", "labels").replace("png", "txt")] = text
    return files | {"data.yaml": b"names: [cat, dog]\ntrain: ../train/images\n", "README.txt": b"hello"}


def changed(name, content, files=None):
    """The VOC files with one that is another."""
    return (voc_files() if files is None else files) | {name: content}


def listed(**lists):
    """A VOC set of four pictures with these lists."""
    files = {f"V/JPEGImages/{n}.png": png(seed=i) for i, n in enumerate("abcd")}
    files |= {f"V/Annotations/{n}.xml": voc([CAT]) for n in "abcd"}
    return files | {f"V/ImageSets/Main/{name}.txt": text for name, text in lists.items()}
