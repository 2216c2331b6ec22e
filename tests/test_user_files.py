"""Files and folders that a configuration names are looked for, and looked into, when it is read."""

import pytest

from dpuflow.base.foreign_file import HDF5_SIGNATURE
from dpuflow.base.schemas import load_schema
from dpuflow.workflow.user_files import missing, path_values, used_entries


def leaves(schema, where="", key=""):
    """(dotted key, schema) of every text in a schema."""
    kind = schema.get("type")
    if "enum" not in schema and (kind == "string" or (isinstance(kind, list) and "string" in kind)):
        yield where, schema
    for name, child in schema.get("properties", {}).items():
        yield from leaves(child, f"{where}.{name}".lstrip("."))
    for name in ("additionalProperties", "items"):
        if isinstance(schema.get(name), dict):
            yield from leaves(schema[name], f"{where}.*")
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from leaves(branch, where)


def test_every_text_of_the_schema_is_a_path_or_known_to_be_none(schema):
    """A new key has to decide."""
    paths = {where for where, leaf in leaves(load_schema(schema)[0]) if "path" in leaf}
    others = {where for where, leaf in leaves(load_schema(schema)[0]) if "path" not in leaf}
    assert paths == {
        *(f"datasets.*.source.{key}" for key in ("folder", "zip", "list", "train", "test")),
        *(f"models.*.{key}" for key in ("keras_h5", "frozen_pb", "saved_model", "onnx", "weights")),
        *("models.*.quantized", "models.*.xmodel"),
        *(f"runners.*.boards.*.{key}" for key in ("identity", "ssh_config", "known_hosts")),
        *("vitis_ai.images.*.*", "predict.images", "predict.images.*", "images", "images.*"),
    }
    assert others == {
        *(f"datasets.*.source.{key}" for key in ("train_sha256", "test_sha256", "handle")),
        *("datasets.*.source.csv.label", "datasets.*.source.csv.ignore.*"),
        *("datasets.*.class_names.*", "models.*.input_node", "models.*.output_node"),
        *("models.*.output_node.*", "models.*.output"),
        *("models.*.decode.outputs.*", "models.*.decode.outputs.*.*"),  # names of outputs
        *("models.*.signature", "name"),
        *("models.*.application", "models.*.freeze_until", "models.*.fine_tuning.freeze_until"),
        *(f"targets.*.{key}" for key in ("dpu", "release", "board", "board.name")),
        # on the board
        *(f"runners.*.boards.*.{key}" for key in ("host", "python", "folder", "environment.*", "lock")),
        "runners.*.boards.*.fingerprint",
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder, with files that a configuration names."""
    for name in ("models/mine.h5", "data/train.csv", "data/test.csv", "data/both.zip", "key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(HDF5_SIGNATURE)
    (tmp_path / "lfs.h5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/saved_model.pb").write_bytes(b"\x08\x01")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(config, **entries):
    """`config` with a run on entries of the user's own."""
    for section, entry in entries.items():
        config[section]["own"] = entry
        config["runs"][0][section.removesuffix("s")] = "own"
    return config


@pytest.mark.fault("configuration", "missing file under {id}", "message")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"models": {"keras_h5": "models/mien.h5"}},
            "models.own.keras_h5: models/mien.h5: no such file or folder; did you mean models/mine.h5?",
        ),
        (
            {"models": {"frozen_pb": "modles/mine.pb"}},
            "models.own.frozen_pb: modles/mine.pb: there is no folder modles; did you mean models?",
        ),
        ({"models": {"keras_h5": "models"}}, "models.own.keras_h5: models: is a folder; expected an H5 file"),
        ({"models": {"keras_h5": "saved"}}, "models.own.keras_h5: saved: is a SavedModel folder, not an H5"),
        (
            {"models": {"frozen_pb": "saved"}},
            "models.own.frozen_pb: saved: is a SavedModel folder, not a ",
        ),
        ({"models": {"saved_model": "models"}}, "models.own.saved_model: models: holds no saved_model.pb"),
        ({"models": {"saved_model": "lfs.h5"}}, "models.own.saved_model: lfs.h5: is a file, expected a S"),
        ({"models": {"keras_h5": "lfs.h5"}}, "models.own.keras_h5: lfs.h5: is a Git LFS pointer"),
        ({"models": {"frozen_pb": "lfs.h5"}}, "models.own.frozen_pb: lfs.h5: is a Git LFS pointer"),
        (
            {"models": {"keras_h5": "$UNSET_HERE/a.h5"}},
            "models.own.keras_h5: $UNSET_HERE/a.h5: the environment variable in this path is not set",
        ),
        (
            {"datasets": {"source": {"kind": "files", "train": "data/train.cvs", "test": "data/test.csv"}}},
            "datasets.own.source.train: data/train.cvs: no such file or folder; did you mean data/train.csv",
        ),
        (
            {"datasets": {"source": {"kind": "files", "zip": "data/bth.zip"}}},
            "datasets.own.source.zip: data/bth.zip: no such file or folder; did you mean data/both.zip?",
        ),
        (
            {"datasets": {"source": {"kind": "files", "folder": "dta"}}},
            "datasets.own.source.folder: dta: no such file or folder; did you mean data?",
        ),
        (
            {"datasets": {"source": {"kind": "files", "folder": "models"}}},
            "datasets.own.source.folder: models: found no train file at any depth; expected sign_mnist_t",
        ),
        (
            {"datasets": {"source": {"kind": "files", "folder": "key"}}},
            "datasets.own.source.folder: key: a file, expected a folder",
        ),
        (
            {
                "datasets": {
                    "source": {"kind": "pictures", "folder": "dta"},
                    "image": {"height": 8, "width": 8},
                }
            },
            "datasets.own.source.folder: dta: no such file or folder; did you mean data?",
        ),
        (
            {"datasets": {"source": {"kind": "pictures", "list": "data/trian.csv"}}},
            "datasets.own.source.list: data/trian.csv: no such file or folder; did you mean data/train.csv",
        ),
        (
            {"runners": {"kind": "ssh", "boards": [{"host": "b"}, {"host": "c", "identity": "kye"}]}},
            "runners.own.boards[1].identity: kye: no such file or folder; did you mean key?",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_a_run_uses_must_be_there(config, schema, folder, entries, message):
    assert [text[: len(message)] for text in missing(own(config, **entries), schema)] == [message]


def test_files_that_are_there_or_that_a_rule_makes_are_no_mistakes(config, schema, folder):
    source = {"kind": "files", "train": "data/train.csv", "test": str(folder / "data/test.csv")}
    runner = {"kind": "ssh", "boards": [{"host": "b", "identity": "key", "ssh_config": "none"}]}
    own(config, datasets={"source": source}, models={"keras_h5": "models/mine.h5"}, runners=runner)
    config["vitis_ai"] = {"images": {"3.0": {"tensorflow": "docker://x/y:1"}}}
    assert missing(config, schema) == []
    config["models"]["own"]["keras_h5"] = "results/a.h5"
    assert missing(config, schema, made=lambda path: path == "results/a.h5") == []
    assert missing(config, schema) == [
        "models.own.keras_h5: results/a.h5: there is no folder results; paths count from " + str(folder)
    ]


def test_entries_that_no_run_uses_may_be_elsewhere(config, schema, folder):
    config["models"]["own"] = {"keras_h5": "gone.h5"}
    config["datasets"]["own"] = {"source": {"kind": "files", "folder": "gone"}}
    assert missing(config, schema) == []
    config["models"]["further"] = {"starts_from": "own", "training": {}}
    config["quantizer_search"] = {"model": "further", "dataset": "own"}
    assert used_entries(config)["models"] == {"signnet", "further", "own"}
    assert [text.split(":")[0] for text in missing(config, schema)] == [
        "models.own.keras_h5",
        "datasets.own.source.folder",
    ]


def test_a_folder_of_another_kind_of_source_is_not_looked_at(config, schema):
    own(config, datasets={"source": {"kind": "kaggle", "folder": "gone"}})
    assert missing(config, schema) == []


def test_paths_are_found_in_lists_and_choices(config, schema):
    config["predict"] = {"images": ["a", "b"]}
    config["images"] = "c"
    found = [(where, kind) for where, kind, _ in path_values(config, schema) if where[0] != "datasets"]
    assert found == [
        (("predict", "images", 0), "any"),
        (("predict", "images", 1), "any"),
        (("images",), "any"),
    ]
