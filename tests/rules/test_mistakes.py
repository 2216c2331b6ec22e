"""A user's mistakes end in a sentence, a non-zero status and no file that looks whole."""

import copy

import pytest

pytestmark = pytest.mark.rules


@pytest.mark.fault("configuration", "unknown key, through Snakemake", "message")
def test_an_unknown_key_stops_before_anything_runs(fresh):
    config = copy.deepcopy(fresh.config)
    config["models"]["small"]["trainin"] = {}
    result = fresh.run("all", "-n", config=config, check=False)
    assert result.returncode != 0
    assert "models.small.trainin: unknown key; did you mean training?" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.fault("data", "label 9 in a CSV, through Snakemake", "message")
def test_a_broken_csv_is_named_with_its_row_and_leaves_nothing(fresh):
    header = "label," + ",".join(f"pixel{i}" for i in range(1, 785))
    good = ",".join(["3"] + ["7"] * 784)
    wrong = ",".join(["9"] + ["7"] * 784)
    (fresh.folder / "train.csv").write_text("\n".join([header, good, wrong]) + "\n")
    (fresh.folder / "test.csv").write_text("\n".join([header, good]) + "\n")
    config = copy.deepcopy(fresh.config)
    config["datasets"]["tiny"]["source"] = {"kind": "files", "train": "train.csv", "test": "test.csv"}
    result = fresh.run("results/tiny/dataset.h5", config=config, check=False)
    assert result.returncode != 0
    assert "train.csv" in result.stdout and "line 3" in result.stdout and "9" in result.stdout
    assert "Traceback" not in result.stdout.partition("error:")[0]
    assert not (fresh.folder / "results/tiny/dataset.h5").exists()


@pytest.mark.fault("data", "missing folder, through Snakemake", "message")
def test_a_missing_folder_says_which_setting_to_change(fresh):
    config = copy.deepcopy(fresh.config)
    config["datasets"]["tiny"]["source"] = {"kind": "files", "folder": "no/such/place"}
    result = fresh.run("results/tiny/dataset.h5", config=config, check=False)
    assert result.returncode != 0 and "no/such/place" in result.stdout
