"""A data set of picture files, really built by Snakemake: what makes it stale, and what does not."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from workflow_copy import TINY

from dpuflow.datasets.dataset_file import read_dataset

pytestmark = pytest.mark.rules
TARGET = "results/photos/dataset.h5"
ENTRY = {
    "source": {"kind": "pictures", "folder": "photos"},
    "image": {"height": 6, "width": 8, "channels": 3},
    "test": {"fraction": 0.25},
}
CONFIG = TINY | {"datasets": TINY["datasets"] | {"photos": ENTRY}}


def png(seed):
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_pictures_touched_added_and_broken(fresh):
    for label, name in enumerate(("cat", "dog")):
        fresh.path(f"photos/{name}").mkdir(parents=True)
        for number in range(8):
            fresh.path(f"photos/{name}/{number}.png").write_bytes(png((label, number)))
    fresh.run(TARGET, config=CONFIG)
    first = read_dataset(fresh.path(TARGET))
    assert first.class_names == ["cat", "dog"] and len(first.labels) == 16 and len(first.splits["test"]) == 4
    picture, added = fresh.path("photos/cat/0.png"), fresh.path("photos/dog/new.png")
    os.utime(picture)
    assert fresh.plan(TARGET, config=CONFIG) == set(), "a new time means nothing"
    added.write_bytes(png(99))
    assert fresh.plan(TARGET, config=CONFIG) == {"build_picture_dataset"}
    added.unlink()
    picture.write_bytes(b"broken")
    failed = fresh.run(TARGET, config=CONFIG, check=False)
    assert failed.returncode
    assert "photos: cat/0.png: not a whole" in failed.stdout
    assert "Traceback" not in failed.stdout and not first.path.exists()
