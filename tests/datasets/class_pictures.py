"""Small pictures in folders of classes, for the tests of their reader."""

import io

import numpy as np
from PIL import Image

IMAGE = {"height": 8, "width": 10, "channels": 3}
CLASSES = ("cat", "dog", "owl")


def png(seed, size=(12, 9), mode="RGB"):
    """A random picture file's bytes."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode).save(stream, "PNG")
    return stream.getvalue()


def split_files(train=6, test=2):
    """train/CLASS and test/CLASS files of three classes, all different."""
    return {
        f"{part}/{name}/{number}.png": png((label, number, part == "test"))
        for part, count in (("train", train), ("test", test))
        for label, name in enumerate(CLASSES)
        for number in range(count)
    }


def paths(dataset):
    """/paths of a dataset.h5."""
    import h5py

    with h5py.File(dataset.path) as file:
        return file["paths"].asstr()[()].tolist()


def listed(put, text, name="list.csv"):
    folder = put(split_files())
    (folder / name).write_text(text)
    return {"list": str(folder / name)}
