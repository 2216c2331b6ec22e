"""A user's own pictures go through the emulated board."""

import csv

import numpy as np
import pytest
from PIL import Image

from dpuflow.accuracy.evaluation import read_accuracy
from dpuflow.datasets.dataset_file import read_dataset

pytestmark = pytest.mark.rules

FOLDER = "results/predict/tiny/small/reference/zcu104"


def test_test_images_as_files_get_the_answers_of_the_emulated_board(changeable, tmp_path):
    images, _ = read_dataset(changeable.path("results/tiny/dataset.h5")).subset("test")
    for index in range(6):
        Image.fromarray(images[index][..., 0]).save(tmp_path / f"{index}.png")
    enlarged = Image.fromarray(np.kron(images[0][..., 0], np.ones((10, 10), np.uint8)))
    enlarged.convert("RGB").save(tmp_path / "big one's.jpg", quality=95)
    result = changeable.run("predict", "--config", f"images={tmp_path}")
    with open(changeable.path(f"{FOLDER}/predictions.csv"), newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * 7
    first = {row["image"]: int(row["label"]) for row in rows if row["rank"] == "1"}
    record = read_accuracy(
        changeable.path("results/tiny/small/reference/zcu104/emulator/board_accuracy.json")
    )
    assert [first[f"{index}.png"] for index in range(6)] == record["predictions"][:6]
    page = changeable.path(f"{FOLDER}/predictions.html").read_text()
    assert page.count("<article") == 7 and str(tmp_path) not in page
    assert "big one's.jpg: " in result.stdout


@pytest.mark.fault("results", "broken picture, through Snakemake", "message")
def test_a_broken_picture_is_skipped_and_listed_and_ends_the_run_with_an_error(changeable, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    result = changeable.run("predict", "--config", f"images={tmp_path}", check=False)
    assert result.returncode != 0 and "broken.jpg: not a whole PNG" in result.stdout
    Image.new("L", (28, 28), 90).save(tmp_path / "good.webp")
    result = changeable.run("predict", "--config", f"images={tmp_path}", check=False)
    assert result.returncode != 0
    assert (
        "error: 1 of 2 pictures were skipped; the answers for the others are in results/predict/"
        in result.stdout
    )
    assert "broken.jpg: not a whole PNG" in result.stdout
    rows = changeable.path(f"{FOLDER}/predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 and all(row.startswith("good.webp,") for row in rows[1:])
    page = changeable.path(f"{FOLDER}/predictions.html").read_text()
    assert "<li>broken.jpg: not a whole PNG" in page and str(tmp_path) not in page
    (tmp_path / "broken.jpg").unlink()
    changeable.run("predict", "--config", f"images={tmp_path}")
    assert "Nothing to be done" in changeable.run("predict", "--config", f"images={tmp_path}").stdout


@pytest.mark.fault("results", "pictures not given or missing", "message")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "predict.images is not given; name a folder: snakemake predict --config images=FOLDER"),
        (("--config", "images=no/where"), "predict.images: no/where: there is no folder no"),
    ],
)
def test_missing_pictures_are_explained(finished, arguments, message):
    result = finished.run("predict", "-n", *arguments, check=False)
    assert result.returncode != 0 and message in result.stdout and "Traceback" not in result.stdout
