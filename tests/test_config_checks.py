"""Mistakes that only show when entries are put together are said while the configuration is read."""

import pytest
import yaml

from dpuflow.base.errors import UserError
from dpuflow.workflow.config import check


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
            {"source": {"kind": "synthetic"}, "test": {"fraction": 0.5}},
            "datasets.x.test: not for kind synthetic, which draws images for the test; leave it out",
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


@pytest.mark.fault("configuration", "input of three channels for grey images", "message")
def test_an_input_for_other_channels_than_the_images_have(config, schema):
    name = config["runs"][0]["model"]
    name = name if isinstance(name, str) else name[0]
    config["models"][name]["input"] = "torch"
    assert (
        f"models.{name}.input (torch): subtract has 3 numbers, the images have 1 channels (dataset "
        f"{config['runs'][0]['dataset']}); give one number, or one for each channel"
    ) in refused(config, schema)
    config["models"][name]["input"] = "torhc"
    assert "'torhc' is not one of caffe, tf, torch; did you mean torch?" in refused(config, schema)


@pytest.mark.fault("configuration", "changes of colour for grey images", "message")
def test_changes_of_colour_are_for_colour_images(config, schema):
    config["models"]["signnet"]["training"]["augmentation"]["hue"] = 0
    check(config, schema)
    config["models"]["signnet"]["training"]["augmentation"]["hue"] = 10
    assert "models.signnet.training.augmentation.hue: the images of synthetic_signs are grey" in refused(
        config, schema
    )


def test_what_a_detector_may_start_from(config, schema):
    """Another detector with heads that are trained here; no classifier of Keras, no heads of other kinds."""
    config["datasets"]["parts"] = {
        "task": "detection",
        "source": {"kind": "pictures", "folder": "parts"},
        "annotations": {"format": "voc"},
        "image": {"height": 32, "width": 32, "channels": 3},
    }
    training = {"optimizer": "adam", "learning_rate": 0.001, "batch_size": 8, "epochs": 1}
    decode = {"kind": "yolov5", "anchors": [[[8, 8], [16, 16]]]}
    config["models"]["own"] = {"keras_h5": "own.h5", "decode": decode}
    config["models"]["further"] = {"starts_from": "own", "qat": True, "training": training}
    config["runs"][0] |= {"dataset": "parts", "model": "further"}
    check(config, schema)
    own = config["models"]["own"]
    own["decode"] = {"kind": "yolov8"}
    assert (
        "models.own.decode.kind: a model that is trained here has yolov3 or yolov5; found yolov8 "
        "(models.further starts from it)"
    ) in refused(config, schema)
    del own["decode"]
    assert "further on parts (detection): nothing says what its outputs mean; give" in refused(config, schema)
    config["models"]["own"] = {"application": "MobileNetV2", "weights": "none", "training": training}
    assert "further on parts (detection): application is for classification" in refused(config, schema)
