"""A user's mistakes end in a sentence, a non-zero status and no file that looks whole."""

import copy

import pytest
import yaml

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


@pytest.mark.fault(
    "configuration", "model file that is gone after a finished run, through Snakemake", "message"
)
@pytest.mark.parametrize("key", ["keras_h5", "frozen_pb"])
def test_old_results_do_not_stand_for_a_model_file_that_is_not_there(changeable, key):
    config = copy.deepcopy(changeable.config)
    config["models"]["small"] = {key: "results/tiny/smal/model.bin"}
    result = changeable.run("all", config=config, check=False)
    assert result.returncode != 0 and "Nothing to be done" not in result.stdout
    assert (
        f"models.small.{key}: results/tiny/smal/model.bin: there is no folder results/tiny/smal"
        in result.stdout
    )
    assert "did you mean results/tiny/small" in result.stdout and "Traceback" not in result.stdout


def test_an_entry_without_a_run_is_looked_for_when_it_is_asked_for(changeable):
    """Its job has other inputs than the one that made the file, so it runs, and says what is missing."""
    config = copy.deepcopy(changeable.config)
    config["models"]["own"] = {"keras_h5": "results/tiny/small/keras_trained_model.h5"}
    wanted = "results/tiny/own/keras_trained_model.h5"
    changeable.run(wanted, config=config)
    assert "Nothing to be done" in changeable.run(wanted, config=config).stdout
    config["models"]["own"]["keras_h5"] = "gone.h5"
    result = changeable.run(wanted, config=config, check=False)
    assert result.returncode != 0 and "gone.h5: no such file" in result.stdout


@pytest.mark.fault("configuration", "{id}, through Snakemake", "message")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--configfile", "broken.yaml"),
            "error: broken.yaml: line 2, column 8: no YAML: mapping values",
        ),
        (
            ("--configfile", "tset.yaml"),
            "error: configuration file tset.yaml: no such file or folder; did you",
        ),
        (("--configfile", "test.yaml", "all"), "error: configuration file all: no such file or folder"),
    ],
    ids=["YAML error", "missing configuration file", "target behind --configfile"],
)
def test_a_configuration_file_that_cannot_be_read_is_named(fresh, arguments, message):
    (fresh.folder / "broken.yaml").write_text("seed: 1\nruns: a: b\n")
    result = fresh.snakemake("-n", "--cores", "1", *arguments)
    assert result.returncode == 1 and message in result.stdout and "Traceback" not in result.stdout


def test_a_run_in_another_folder_takes_the_workflow_s_defaults(fresh, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.yaml").write_text(yaml.safe_dump(fresh.config))
    words = ("-s", "../flow/Snakefile", "--configfile", "mine.yaml", "--cores", "1")
    result = fresh.snakemake("results/tiny/dataset.h5", *words, cwd=elsewhere)
    assert result.returncode == 0, result.stdout
    assert (elsewhere / "results/tiny/dataset.h5").is_file()


@pytest.mark.fault("processes", "one run of two fails, with -k", "message")
def test_a_run_that_fails_costs_no_other_run_its_report(changeable):
    """A board that nobody answers for: the stages before it and the other run are reported."""
    board = {"host": "127.0.0.1", "port": 1, "retries": 0, "connect_timeout_s": 2}
    config = copy.deepcopy(changeable.config)
    config["runners"] = {"lab": {"kind": "ssh", "boards": [board]}}
    config["targets"] = {"machine": {"board": "kv260", "compiler": "native"}}
    config["runs"].append({**config["runs"][0], "runner": "lab", "target": "machine"})
    config["name"] = "broken"
    folder = changeable.folder / "results/report/broken"
    folder.mkdir(parents=True)
    (folder / "accuracy.json").write_text("of an earlier run")
    result = changeable.run("all", "-k", config=config, check=False)
    assert result.returncode != 0 and "Traceback" not in result.stdout
    assert "failed: small on tiny (reference / machine / lab), run_ssh: " in result.stdout
    assert result.stdout.count("96 of 96") + result.stdout.count(" of 96") >= 7  # stages of both runs
    assert "RuleException" not in result.stdout and "CalledProcessError" not in result.stdout
    page = (folder / "accuracy.html").read_text()
    assert "could not be finished" in page and "run_ssh" in page and "Emulated board" in page
    assert "**not finished**: small (tiny, reference / machine / lab)" in (folder / "accuracy.md").read_text()
    assert not (folder / "accuracy.json").exists()  # so that the next run makes the report anew
    del config["runs"][1]
    changeable.run("all", config=config)
    assert "could not be finished" not in (folder / "accuracy.html").read_text()
