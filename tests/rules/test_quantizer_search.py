"""snakemake quantizer_search: settings compared on the trained network, nothing else made or stale."""

import csv

import pytest
import yaml

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.emulator import Emulator

pytestmark = [pytest.mark.slow, pytest.mark.rules]

GRID = {"equalization": [True, False], "fast_finetune": [True, False]}


def test_the_settings_are_ranked_by_the_validation_images(changeable):
    config = changeable.config | {"quantizer_search": {"grid": GRID}}
    folder = changeable.path("results/tiny/small")
    outputs = [folder / f"quantizer_search.{kind}" for kind in ("csv", "html")]
    assert changeable.plan("quantizer_search", config) == {"search_quantizer", "quantizer_search"}
    output = changeable.run("quantizer_search", config=config).stdout
    rows = list(csv.DictReader(outputs[0].read_text().splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    progress = changeable.path("logs/tiny/small/quantizer_search.log").read_text()
    assert "4 of 4: equalization off, fast_finetune off: " in progress

    # the quantizer that the run has is one of the settings, and answers as its xmodel does
    dataset = read_dataset(changeable.path("results/tiny/dataset.h5"))
    images, labels = dataset.subset("validation")
    with Emulator(folder / "reference/zcu104/small.xmodel") as emulator:
        answers = emulator.run(emulator.quantize_input(images)).argmax(axis=1)
    (own,) = [row for row in rows if (row["equalization"], row["fast_finetune"]) == ("on", "on")]
    assert int(own["correct"]) == (answers == labels).sum()

    text = output[output.index("quantizers:") :]
    entry = yaml.safe_load(text[: text.index("\n\n")])["quantizers"]["searched"]
    assert entry["tool"] == "reference" and entry.keys() == {"tool", *GRID}
    assert changeable.plan("quantizer_search", config) == set()
    changed = config | {"quantizer_search": {"grid": GRID | {"equalization": False}}}
    assert changeable.plan("quantizer_search", changed) == {"search_quantizer", "quantizer_search"}
    assert changeable.plan("all", changed) == set()


def test_a_mistake_in_the_grid_stops_before_anything_runs(fresh):
    search = {"dataset": "tinny", "grid": {"method": ["min_diff"]}}
    result = fresh.run("quantizer_search", config=fresh.config | {"quantizer_search": search}, check=False)
    assert result.returncode != 0 and "Traceback" not in result.stdout
    assert "quantizer_search.dataset: datasets has no entry 'tinny'; did you mean tiny?" in result.stdout
    assert "quantizer_search.grid: quantizer setting method: 'min_diff'" in result.stdout
