import copy

import pytest
import yaml
from snakemake.utils import update_config

from dpuflow.base.errors import UserError
from dpuflow.quantizer_search.requests import search_networks, search_settings
from dpuflow.workflow.config import Run, Settings, check, expand_runs, sort_keys
from dpuflow.workflow.config_docs import document


def changed(config, path, value):
    """A copy with the value at a dotted path set (None: removed)."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    if value is None:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return config


CONFIGURATIONS = ["config", "detection", "onnx", "pictures", "segmentation", "sign_mnist", "vitis_ai"]


def test_all_shipped_configurations_are_known(repo):
    found = {path.name.partition(".")[0] for path in (repo / "config").glob("*.yaml")}
    assert found == {*CONFIGURATIONS} and repo.joinpath("config/config.schema.yaml").is_file()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_shipped_configuration_is_valid_over_the_default(name, repo, default, schema):
    merged = copy.deepcopy(default)
    update_config(merged, yaml.safe_load((repo / f"config/{name}.yaml").read_text()))
    check(merged, schema)
    assert expand_runs(merged)


@pytest.mark.fault("configuration", "misspelt, missing or wrong entry under {id}", "message")
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 1, r"sed: unknown key; did you mean seed\?"),
        ("models.signnet.trainig", {}, r"models\.signnet\.trainig: unknown key; did you mean training\?"),
        (
            "models.signnet.training.epoch",
            3,
            r"models\.signnet\.training\.epoch: unknown key; did you mean epochs\?",
        ),
        (
            "models.signnet.training.epochs",
            "ten",
            r"models\.signnet\.training\.epochs: 'ten' is not of type 'integer'",
        ),
        (
            "models.signnet.training.epochs",
            0,
            r"models\.signnet\.training\.epochs: 0 is less than the minimum",
        ),
        ("models.signnet.training.optimizer", "adm", r"'adm' is not one of adam, sgd"),
        (
            "models.signnet.layers.0",
            {"convv": {}},
            r"models\.signnet\.layers\[0\]\.convv: unknown key; did you mean conv\?",
        ),
        (
            "models.signnet.layers.0",
            {"conv": {"kernel": 3}},
            r"models\.signnet\.layers\[0\]\.conv: misses the key filters",
        ),
        (
            "models.signnet.layers.6",
            "flaten",
            r"models\.signnet\.layers\[6\]: 'flaten' is not one of flatten",
        ),
        ("runs.0.model", "signet", r"runs\[0\]\.model: models has no entry 'signet'; did you mean signnet\?"),
        ("runs.0.target", None, r"runs\[0\]: misses the key target"),
        ("targets.kv260.board", None, r"targets\.kv260: misses the key (dpu|board)"),
        (
            "datasets.sign_mnist.source.kind",
            "web",
            r"datasets\.sign_mnist\.source\.kind: 'web' is not one of",
        ),
    ],
)
def test_mistakes_are_named_by_key_with_the_nearest_valid_one(default, schema, path, value, message):
    with pytest.raises(UserError, match=message):
        check(changed(default, path, value), schema)


@pytest.mark.fault("configuration", "two mistakes at once", "message")
def test_all_mistakes_are_reported_at_once(default, schema):
    broken = changed(changed(default, "sed", 1), "models.optimal.trainin", {})
    with pytest.raises(UserError) as caught:
        check(broken, schema)
    assert "sed" in str(caught.value) and "trainin" in str(caught.value)


def test_runs_multiply_lists_and_share_what_is_equal(default):
    one = {"dataset": "d", "model": "a", "quantizer": "q", "target": "t", "runner": "r"}
    config = changed(default, "runs", [
        one | {"model": ["a", "b"], "target": ["t", "u"], "seed": [1, 2]},
        one | {"seed": 2},
        one,
    ])  # fmt: skip
    runs = expand_runs(config)
    assert len(runs) == 9
    assert runs[0] == Run("d", "a-s1", "q", "t", "r")
    assert runs[-1] == Run("d", "a", "q", "t", "r")
    assert runs[-1].folder == "d/a/q/t/r"


def test_settings_answer_by_wildcard(default):
    settings = Settings(default)
    assert settings.model("signnet-s3") == default["models"]["signnet"]
    assert settings.seed("signnet-s3") == 3
    assert settings.seed("signnet") == default["seed"]
    assert settings.input_scaling("signnet") == {"subtract": 128, "divide": 128}
    assert settings.target("zcu104")["on_cpu"] == "error"
    assert settings.named("targets", "compiler", "reference") == "zcu102|zcu104|kv260|ultra96v2"
    assert settings.named("targets", "compiler", "native") == "kv260_native"
    assert settings.named("targets", "compiler", "vai_c_xir") == "(?!)"


def test_the_documentation_of_the_keys_is_current(repo, schema):
    assert (repo / "config/README.md").read_text() == document(schema), "run `make docs`"


def test_every_key_is_documented(repo, schema):
    """Every property of the schema has a row, and every row a meaning or a bound."""
    text = document(schema)
    for key in (
        "seed",
        "runs",
        "models.NAME.training.augmentation.rotation",
        "runners.NAME.boards[].host",
        "gates[].max_drop",
    ):
        assert f"`{key}`" in text, key


def test_a_quantizer_search_is_for_the_networks_of_runs_unless_it_names_others(default):
    config = changed(default, "runs.0.seed", [1, 2])
    assert search_networks(config) == [
        ("synthetic_signs", "signnet-s1"),
        ("synthetic_signs", "signnet-s2"),
    ]
    assert len(search_settings(config)) == 18
    config["quantizer_search"] = {"dataset": "sign_mnist", "model": ["signnet", "optimal"], "grid": {}}
    assert search_networks(config) == [("sign_mnist", "signnet"), ("sign_mnist", "optimal")]
    assert search_settings(config) == [{}]
    config["quantizer_search"]["seed"] = 3
    assert search_networks(config) == [("sign_mnist", "signnet-s3"), ("sign_mnist", "optimal-s3")]


def test_what_comes_quantized_is_not_searched(default, schema):
    config = copy.deepcopy(default)
    config["models"]["theirs"] = {"quantized": "q.xmodel"}
    run = {"dataset": "synthetic_signs", "quantizer": "reference", "target": "kv260", "runner": "emulator"}
    config["runs"] = [run | {"model": ["theirs", "signnet"]}]
    check(config, schema)
    assert search_networks(config) == [("synthetic_signs", "signnet")]
    with pytest.raises(UserError, match=r"quantizer_search\.model: theirs does not come as a float network"):
        check(config | {"quantizer_search": {"model": "theirs"}}, schema)


def test_ready_made_networks_take_no_tools_of_the_vendor(default, schema):
    config = copy.deepcopy(default)
    config["models"]["theirs"] = {"xmodel": "c.xmodel"}
    config["quantizers"]["vendor"] = {"tool": "vai_q_tensorflow", "release": "3.0"}
    config["targets"]["vendor"] = {"board": "zcu102", "compiler": "vai_c_tensorflow"}
    run = {"dataset": "synthetic_signs", "model": "theirs", "runner": "isa_simulator"}
    config["runs"] = [run | {"quantizer": "reference", "target": "kv260"}]
    check(config, schema)  # whether there is machine code the file says
    config["runs"] = [run | {"quantizer": "vendor", "target": "vendor"}]
    with pytest.raises(UserError) as error:
        check(config, schema)
    assert "model theirs comes compiled, so quantizer vendor (vai_q_tensorflow) has nothing" in str(
        error.value
    )
    assert "the compiler vai_c_tensorflow of target vendor has nothing to do" in str(error.value)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"model": "signet"}, "quantizer_search.model: models has no entry 'signet'; did you mean signnet?"),
        ({"seed": 3}, "quantizer_search.seed: needs the key model, too"),
        ({"grid": {"method": []}}, "quantizer_search.grid: holds no setting; a key has an empty list"),
        ({"grid": {"methud": "x"}}, "quantizer_search.grid: quantizer setting methud: unknown"),
        ({"gird": {}}, "quantizer_search.gird: unknown key; did you mean grid?"),
    ],
)
def test_a_mistake_in_the_quantizer_search_is_named_by_its_key(default, schema, search, message):
    with pytest.raises(UserError) as error:
        check(copy.deepcopy(default) | {"quantizer_search": search}, schema)
    assert message in str(error.value)


def test_keys_are_sorted_in_place_at_every_depth_and_lists_keep_their_order():
    inner = {"z": 1, "a": [{"d": 1, "c": 2}, 3]}
    config = {"b": inner, "a": None}
    sort_keys(config)
    assert repr(config) == "{'a': None, 'b': {'a': [{'c': 2, 'd': 1}, 3], 'z': 1}}"
    assert config["b"] is inner


def test_seeds_are_those_that_runs_depend_on():
    config = {
        "seed": 7,
        "datasets": {
            "a": {"source": {"kind": "synthetic", "seed": 3}, "calibration": {"seed": 2, "images": 9}},
            "b": {"source": {"kind": "files"}},
        },
        "models": {"net": {"layers": []}, "more": {"starts_from": "net"}, "own": {"keras_h5": "m.h5"}},
    }
    rest = ("q", "t", "r")
    runs = [Run("b", "own", *rest), Run("a", "net-s4", *rest), Run("b", "more", *rest)]
    seeds = Settings(config).seeds(runs)
    assert seeds["training"] == {"net-s4": 4, "more": 7}
    # in the order of the names, whatever Python's hash seed: the text of a param counts
    assert list(seeds["datasets"].items()) == [("a", {"source": 3, "calibration": 2}), ("b", {})]


def test_a_detectors_onnx_file_ends_where_it_is_named_or_at_its_heads(config):
    config["datasets"]["parts"] = {"task": "detection"}
    config["models"]["theirs"] = {"onnx": "m.onnx", "decode": {"kind": "yolov8"}}
    settings = Settings(config)
    ends = {"input": None, "output": None}
    assert settings.onnx_ends("theirs", "parts") == ends | {"heads": True}
    assert settings.onnx_ends("theirs", "synthetic_signs") == ends
    config["models"]["theirs"]["decode"] = {"kind": "none"}
    assert settings.onnx_ends("theirs", "parts") == ends
    config["models"]["theirs"] = {"onnx": "m.onnx", "decode": {"kind": "yolov8"}, "output_node": ["a", "b"]}
    assert settings.onnx_ends("theirs", "parts") == ends | {"output": ["a", "b"]}
