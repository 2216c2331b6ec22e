"""The examples in the documentation are valid: configurations pass the check, code runs."""

import re

import numpy as np
import pytest
import yaml
from PIL import Image
from snakemake.utils import update_config

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.datasets.labels import labels_of
from dpuflow.datasets.picture_dataset import build_picture_dataset
from dpuflow.workflow.config import Settings, check, expand_runs

PAGES = ["README.md", "docs/adding-a-dataset.md", "docs/adding-a-model.md", "docs/adding-a-target.md"]
COMPLETE = PAGES[1:]


def blocks(repo, page, language):
    text = (repo / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def merged(repo, text):
    """The default configuration with a documented one merged over it, as Snakemake does."""
    config = yaml.safe_load((repo / "config/config.yaml").read_text(encoding="utf-8"))
    update_config(config, yaml.safe_load(text))
    return config


@pytest.mark.parametrize("page", PAGES)
def test_every_configuration_is_valid(repo, page):
    found = blocks(repo, page, "yaml")
    assert found
    for text in found:
        check(merged(repo, text), repo / "config/config.schema.yaml")


@pytest.mark.parametrize("page", COMPLETE)
def test_complete_examples_define_what_they_run(repo, page):
    for text in blocks(repo, page, "yaml"):
        own, config = yaml.safe_load(text), merged(repo, text)
        settings, runs = Settings(config), expand_runs(config)
        (section,) = set(own) - {"runs"}
        component = section.removesuffix("s")
        assert {getattr(run, component) for run in runs} == set(own[section])
        for run in runs:
            assert settings.hardware(run.target).fingerprint > 0
            labels_of(settings.dataset(run.dataset).get("class_names"))
            origins = (
                *("layers", "keras_h5", "frozen_pb", "saved_model", "onnx"),
                *("quantized", "xmodel"),
            )
            assert settings.origin(run.model) in origins


def test_the_own_board_has_the_fingerprint_that_its_dpu_names(repo):
    config = merged(repo, blocks(repo, "docs/adding-a-target.md", "yaml")[0])
    settings = Settings(config)
    assert settings.hardware("zcu106").fingerprint == 0x101000056010405
    assert settings.hardware("kv260_b1024").board.clock_mhz == 275


def test_the_pictures_of_the_example_become_a_data_set(repo, tmp_path):
    random = np.random.default_rng(2)
    for name in ("car", "ship", "lorry"):
        folder = tmp_path / "vehicles" / name
        folder.mkdir(parents=True)
        for index in range(5):
            pixels = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    entry = yaml.safe_load(blocks(repo, "docs/adding-a-dataset.md", "yaml")[0])["datasets"]["vehicles"]
    entry["source"]["folder"] = str(tmp_path / "vehicles")
    build_picture_dataset(tmp_path / "dataset.h5", entry)
    data = read_dataset(tmp_path / "dataset.h5")
    assert data.class_names == ["car", "lorry", "ship"] and data.shape == (96, 96, 3)
    assert sorted(data.subset("test")[1].tolist()) == [0, 1, 2] and len(data.labels) == 15


def test_links_between_pages_lead_somewhere(repo):
    for page in [*PAGES, *(str(p.relative_to(repo)) for p in sorted((repo / "docs").glob("*.md")))]:
        folder = (repo / page).parent
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", (repo / page).read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{page}: {target}"


def test_what_the_code_cites_stands_in_the_reference(repo):
    """`docs/reference/PAGE.md, "Heading"` in a docstring: the page is there, and so is the heading."""
    cited = 0
    for path in sorted((repo / "dpuflow").rglob("*.py")):
        text = re.sub(r"\n\s*#?\s*", " ", path.read_text(encoding="utf-8"))
        for page, _, heading in re.findall(r"(docs/reference/[\w-]+\.md)(,\s+\"([A-Z][^\"]+)\")?", text):
            assert (repo / page).exists(), f"{path}: {page}"
            headings = re.findall(r"^#+ (.*)$", (repo / page).read_text(encoding="utf-8"), re.MULTILINE)
            assert not heading or heading in headings or any(h.startswith(heading) for h in headings), (
                f"{path}: {page} has no heading {heading!r}"
            )
            cited += 1
        assert not re.search(r"\b(xmodel|isa|quantizers|vendor-code|dpu-numerics)\.md section", text), path
    assert cited > 50
