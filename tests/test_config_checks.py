"""Mistakes that only show when entries are put together are said while the configuration is read."""

import copy

import pytest
import yaml

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import HDF5_SIGNATURE
from dpuflow.base.schemas import load_schema
from dpuflow.workflow.config import check
from dpuflow.workflow.network_checks import unfit_networks
from dpuflow.workflow.user_files import missing, path_values, used_entries


@pytest.fixture(scope="module")
def default(repo):
    return yaml.safe_load((repo / "config/config.yaml").read_text())


@pytest.fixture
def schema(repo):
    return repo / "config/config.schema.yaml"


@pytest.fixture
def config(default):
    return copy.deepcopy(default)


def refused(config, schema):
    with pytest.raises(UserError) as caught:
        check(config, schema)
    return str(caught.value)


# -- entries and runs --------------------------------------------------------------------------------


@pytest.mark.fault("configuration", "impossible entry {id}, before anything runs", "message")
@pytest.mark.parametrize(
    ("section", "entry", "message"),
    [
        ("targets", {"board": "zcu1022"}, "targets.x.board: 'zcu1022' is unknown; did you mean zcu102"),
        ("targets", {"dpu": "DPUCZDX8G_ISA1_B4095"}, "targets.x.dpu: 'DPUCZDX8G_ISA1_B4095' is unknown; did"),
        (
            "targets",
            {"board": "kv260", "release": "4.0"},
            "targets.x.release: '4.0' is unknown for DPUCZDX8G_ISA1_B4096; write one of \"2.5\"",
        ),
        (
            "targets",
            {"board": "kv260", "release": 3.0},
            "targets.x.release: 3.0 is not of type 'string'; put it in quotes: \"3.0\"",
        ),
        ("runners", {"kind": "ssh"}, "runners.x: kind ssh needs the key boards; for example boards: [{host:"),
        (
            "datasets",
            {"source": {"kind": "files"}},
            "datasets.x.source: kind files needs either folder, or zip, or both train and test; found none",
        ),
        (
            "datasets",
            {"source": {"kind": "files", "train": "a.csv"}},
            "datasets.x.source: kind files needs either folder, or zip, or both train and test; found train",
        ),
        (
            "datasets",
            {"source": {"kind": "files", "folder": "a", "zip": "b"}},
            "found folder and zip (files are merged key by key: where another configuration gives the same",
        ),
        (
            "datasets",
            {"source": {"kind": "synthetic"}, "class_names": ["a", "b"]},
            "datasets.x.class_names: kind synthetic draws 28x28 letters A to Y; leave it out",
        ),
        (
            "datasets",
            {"source": {"kind": "pictures"}, "image": {"height": 8, "width": 8}},
            "datasets.x.source: kind pictures needs a folder, a zip or a list; found none of them",
        ),
        (
            "datasets",
            {"source": {"kind": "pictures", "zip": "a", "folder": "b"}, "image": {"height": 8, "width": 8}},
            "datasets.x.source: kind pictures takes either folder or zip; found both",
        ),
        (
            "datasets",
            {"source": {"kind": "pictures", "folder": "a", "seed": 3}, "image": {"height": 8, "width": 8}},
            "datasets.x.source: kind pictures has no seed; it takes folder or zip, and list",
        ),
        (
            "datasets",
            {"source": {"kind": "pictures", "folder": "a"}},
            "datasets.x.image: kind pictures needs it: image: {height: 96, width: 96, channels: 3}",
        ),
        (
            "datasets",
            {"source": {"kind": "kaggle"}, "test": {"fraction": 0.5}},
            "datasets.x.test: only for kind pictures; kind kaggle has images for the test of its own",
        ),
        (
            "datasets",
            {"source": {"kind": "kaggle", "list": "a.csv"}},
            "datasets.x.source.list: only kind pictures takes a list; found kind kaggle",
        ),
        (
            "datasets",
            {"source": {"kind": "kaggle"}, "image": {"height": 8, "width": 8, "resize": "pad"}},
            "datasets.x.image.resize: only for kind pictures; the images of kind kaggle have their size",
        ),
        (
            "datasets",
            {"source": {"kind": "kaggle"}, "image": {"height": 28}},
            "datasets.x.image: misses the key width",
        ),
        (
            "datasets",
            {"source": {"kind": "kaggle"}, "class_names": [True, False]},
            "class_names[0]: True is not of type 'string', 'integer', 'null'; YAML reads yes, no, on and off",
        ),
        (
            "datasets",
            {"source": {"kind": "kaggle"}, "class_names": ["a", "a"]},
            "datasets.x.class_names: class names must be unique: a, a",
        ),
    ],
)
def test_an_impossible_entry_is_named_by_its_key(config, schema, section, entry, message):
    config[section]["x"] = entry
    assert message in refused(config, schema)


@pytest.mark.fault("configuration", "value of another kind ({id})", "message")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "runs",
            {"dataset": "x"},
            "is not of type 'array'; write a list: [a, b], or a line that",
        ),
        (
            "models",
            {"m": "x"},
            "'x' is not of type 'object'; write keys with values: {key: value}",
        ),
        ("models", {"my-net": {"keras_h5": "x"}}, "'my-net' is no name; write letters, digits and _: my_net"),
        ("models", None, "models: None is not of type 'object'; nothing stands behind the colon"),
    ],
    ids=["mapping for a list", "text for a mapping", "name with a dash", "nothing"],
)
def test_a_value_of_another_kind_says_what_to_write(config, schema, key, value, message):
    config[key] = value
    assert message in refused(config, schema)


@pytest.mark.fault("configuration", "runner {id} for a model without machine code", "message")
@pytest.mark.parametrize("runner", [{"kind": "isa_simulator"}, {"kind": "ssh", "boards": [{"host": "b"}]}])
def test_a_runner_that_needs_machine_code_is_refused_for_a_target_without(config, schema, runner):
    config["runners"]["lab"] = runner
    config["runs"][0] |= {"runner": ["emulator", "lab"], "target": ["kv260_native", "kv260"]}
    message = refused(config, schema)
    kind = runner["kind"]
    assert f"runs[0]: runner lab ({kind}) needs machine code, and target kv260 has none: its" in message
    assert "write target: kv260_native, or take a runner of kind emulator or virtual_board" in message
    assert "target kv260_native has none" not in message
    del config["targets"]["kv260_native"]
    config["runs"][0]["target"] = "kv260"
    assert "give targets.kv260 compiler: native" in refused(config, schema)


def test_whoever_can_run_a_model_may(config, schema):
    config["runners"]["lab"] = {"kind": "ssh", "boards": [{"host": "b"}]}
    config["targets"]["vendor"] = {"board": "kv260", "release": "3.0", "compiler": "vai_c_xir"}
    config["runs"][0] |= {"runner": ["lab", "isa_simulator"], "target": ["kv260_native", "vendor"]}
    config["runs"].append(config["runs"][0] | {"target": "kv260", "runner": ["emulator", "virtual_board"]})
    check(config, schema)


# -- what YAML makes of a number ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("2E-4", 0.0002), ("1.5e-3", 0.0015), (".5e-1", 0.05), ("1e+0", 1)]
)
def test_a_number_with_an_exponent_is_a_number(config, schema, text, value):
    training = yaml.safe_load(f"learning_rate: {text}")
    config["models"]["signnet"]["training"] |= training
    check(config, schema)
    read = config["models"]["signnet"]["training"]["learning_rate"]
    assert read == value and not isinstance(read, str)


def test_whole_numbers_and_numbers_in_lists_and_choices_are_read_too(config, schema):
    config["models"]["signnet"]["training"]["epochs"] = "1e1"
    config["models"]["signnet"]["layers"][0] = {"dropout": "1e-1"}
    config["runs"][0]["seed"] = ["1e2", 3]
    check(config, schema)
    assert repr(config["models"]["signnet"]["training"]["epochs"]) == "10"
    assert config["models"]["signnet"]["layers"][0] == {"dropout": 0.1}
    assert config["runs"][0]["seed"] == [100, 3]


@pytest.mark.fault("configuration", "text {id} for a number", "message")
@pytest.mark.parametrize("text", ["1e-3x", "one", "1,5", "0x1e3"])
def test_a_text_that_is_no_number_stays_a_mistake(config, schema, text):
    config["models"]["signnet"]["training"]["learning_rate"] = text
    assert f"learning_rate: '{text}' is not of type 'number'; write a number" in refused(config, schema)


def test_names_that_look_like_numbers_stay_names(config, schema):
    config["models"]["1e3"] = config["models"].pop("signnet")
    config["models"]["signnet_qat"]["starts_from"] = "1e3"
    config["runs"][0]["model"] = "1e3"
    check(config, schema)
    assert config["runs"][0]["model"] == "1e3"


# -- files that must be there ------------------------------------------------------------------------


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
        *("models.*.keras_h5", "models.*.frozen_pb"),
        *(f"runners.*.boards.*.{key}" for key in ("identity", "ssh_config", "known_hosts")),
        *("vitis_ai.images.*.*", "predict.images", "predict.images.*", "images", "images.*"),
    }
    assert others == {
        *(f"datasets.*.source.{key}" for key in ("train_sha256", "test_sha256", "handle")),
        *("datasets.*.class_names.*", "models.*.input_node", "models.*.output_node"),
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


# -- networks that do not fit ------------------------------------------------------------------------


def network(config, *layers):
    config["models"]["signnet"]["layers"] = list(layers)
    return config


@pytest.mark.fault("configuration", "layers that do not fit: {id}", "message")
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [{"conv": {"filters": 5000, "activation": "relu"}}, "global_average_pool"],
            "models.signnet.layers[0].conv (conv): output channels is 5000, allowed at most 4096",
        ),
        (["flatten", {"dense": 5000}], "models.signnet.layers[1].dense (dense): output channels is 5000"),
        (
            [{"conv": {"filters": 8, "kernel": 9}}, {"max_pool": 8}, {"max_pool": 8}, "flatten"],
            "models.signnet.layers[2].max_pool: leaves an empty map (0 x 0 x 8)",
        ),
        ([{"conv": {"filters": 8}}], "the last layer leaves a map of 28 x 28 x 8; end the list with flatten"),
        (
            ["flatten", {"conv": {"filters": 8}}],
            "layers[1].conv: needs a map, but its input is a vector of 784",
        ),
        (
            [{"concat": {"branches": [[{"max_pool": 2}], [{"conv": {"filters": 4}}]]}}, "flatten"],
            "layers[0].concat: branches end in 14 x 14 x 1 and 28 x 28 x 4; all but the",
        ),
        (
            [{"residual": {"layers": [{"conv": {"filters": 4, "padding": "valid"}}]}}, "global_average_pool"],
            "layers[0].residual: its layers leave 26 x 26 x 4, which a 1x1 convolution of its input",
        ),
    ],
)
def test_layers_that_do_not_fit_are_said_before_training(config, schema, layers, message):
    (found,) = unfit_networks(network(config, *layers))
    assert message in found and found.endswith("(on the 28 x 28 x 1 images of synthetic_signs)")


def test_layers_may_leave_the_dpu_where_the_target_allows_it(config):
    network(config, {"conv": {"filters": 5000}}, "global_average_pool")
    config["targets"]["kv260"]["on_cpu"] = "warn"
    assert unfit_networks(config) == []


def test_the_shipped_networks_fit_every_target(config):
    config["runs"][0] |= {"model": list(config["models"]), "target": list(config["targets"])}
    assert unfit_networks(config) == []


def test_what_native_has_no_code_for_is_said_before_training(config, tmp_path):
    """A window that the DPU could run: the compiler `reference` takes it, `native` has no code for it."""
    source = {"kind": "files", "train": f"{tmp_path}/a.csv", "test": f"{tmp_path}/b.csv"}
    own(config, datasets={"source": source, "image": {"height": 200, "width": 200}})
    network(config, {"conv": {"filters": 40}}, "global_average_pool")
    assert unfit_networks(config) == []
    config["runs"][0]["target"] = "kv260_native"
    (found,) = unfit_networks(config)
    assert "models.signnet.layers[1] (global_average_pool) (avg_pool): window is 200x200 on 40" in found
    config["targets"]["kv260_native"]["on_cpu"] = "warn"
    assert unfit_networks(config) == []


@pytest.mark.parametrize("form", ["train", "folder", "zip"])
def test_the_size_of_the_images_comes_from_the_first_line(config, tmp_path, form):
    import zipfile

    header = "label," + ",".join(f"pixel{i}" for i in range(1, 16 * 16 + 1)) + "\n"
    for part in ("train", "test"):
        (tmp_path / f"{part}.csv").write_text(header)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for part in ("train", "test"):
            archive.writestr(f"deep/{part}.csv", header)
    source = {
        "train": {"train": f"{tmp_path}/train.csv", "test": f"{tmp_path}/test.csv"},
        "folder": {"folder": str(tmp_path)},
        "zip": {"zip": f"{tmp_path}/a.zip"},
    }[form]
    own(config, datasets={"source": {"kind": "files", **source}})
    (found,) = unfit_networks(network(config, {"max_pool": 20}, "flatten"))
    assert found.endswith("leaves an empty map (0 x 0 x 1) (on the 16 x 16 x 1 images of own)")
    config["datasets"]["own"]["image"] = {"height": 40, "width": 20, "channels": 3}
    assert unfit_networks(config) == []
