"""Networks with several outputs from `snakemake all` to the report, with a class and without."""

import copy

import numpy as np
import onnx
import pytest
from onnx_models import Model
from workflow_copy import copy_of_run

from dpuflow.base.files import read_json
from dpuflow.base.tensorflow_env import keras
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.emulator import Emulator
from dpuflow.emulator.outputs import EmulatorStage
from dpuflow.keras_models.keras_file import save_model
from dpuflow.records import read_record

pytestmark = pytest.mark.rules
STAGES = ("onnx", "frozen", "reference/quantized", "reference/zcu104/emulator/board")


def two_heads(path):
    """A map of boxes and a vector of scores from one trunk; grey pictures of 28 x 28."""
    model = Model((1, 28, 28))
    model.conv(1, 8, strides=[2, 2])
    trunk = model.node("Relu")
    boxes = model.conv(8, 6, kernel=1, source=trunk, name="boxes")
    model.node("GlobalAveragePool", [trunk])
    model.node("Flatten")
    model.node("Gemm", [model.last, model.numbers(4, 8), model.numbers(4)], transB=1, name="scores")
    proto = model.proto()
    proto.graph.output.insert(0, onnx.helper.make_tensor_value_info(boxes, 1, None))
    onnx.save(proto, str(path))


def class_and_mask(path):
    K, L = keras(), keras().layers
    K.utils.set_random_seed(3)
    x = K.Input((28, 28, 1))
    trunk = L.Conv2D(6, 3, strides=2, activation="relu")(x)
    letter = L.Dense(25, activation="softmax", name="letter")(L.Flatten()(trunk))
    save_model(K.Model(x, [L.Conv2D(3, 1, name="mask")(trunk), letter]), path)


def between(path):
    """A convolution that the DPU does not have, between two that it has."""
    K, L = keras(), keras().layers
    K.utils.set_random_seed(4)
    x = K.Input((28, 28, 1))
    y = L.Conv2D(4, 3, strides=2, activation="relu", name="first")(x)
    y = L.Conv2D(4, 17, padding="same", activation="relu", name="large")(y)
    y = L.Conv2D(4, 3, strides=2, activation="relu", name="last")(y)
    save_model(K.Model(x, L.Dense(25, activation="softmax", name="letter")(L.Flatten()(y))), path)


@pytest.fixture(scope="module")
def flow(finished, tmp_path_factory):
    """The finished workflow, run for networks with two outputs."""
    flow = copy_of_run(finished, tmp_path_factory.mktemp("outputs") / "flow")
    config = copy.deepcopy(flow.config)
    scaling = {"subtract": 128, "divide": 128}
    config["name"] = "outputs"
    config["models"] = {
        "heads": {
            "onnx": "heads.onnx",
            "output_node": {"boxes": "boxes", "scores": "scores"},
            "output": "none",
            "input": scaling,
        },
        "both": {"keras_h5": "both.h5", "output": "letter", "input": scaling},
    }
    config["models"]["between"] = {"keras_h5": "between.h5", "input": scaling}
    config["targets"] = {"allowing": {"board": "zcu104", "on_cpu": "allow"}}
    config["runs"][0] |= {"model": ["heads", "both"], "runner": ["emulator", "virtual_board"]}
    config["runs"].append(config["runs"][0] | {"model": "between", "target": "allowing"})
    two_heads(flow.path("heads.onnx"))
    class_and_mask(flow.path("both.h5"))
    between(flow.path("between.h5"))
    flow.outputs_said = flow.run("all", config=config).stdout
    flow.outputs_config = config
    return flow


def record(flow, model, stage):
    return read_record(flow.path(f"results/tiny/{model}/{stage}_accuracy.json"), "accuracy.schema.yaml")


def test_every_raw_output_of_the_board_equals_the_quantized_network_s(flow):
    stages = [record(flow, "heads", stage) for stage in STAGES]
    for stage in stages:
        assert "accuracy" not in stage and stage["images"] == 96
        shapes = {name: output["shape"] for name, output in stage["outputs"].items()}
        assert shapes == {"boxes": [14, 14, 6], "scores": [4]}
    quantized, board = stages[2:]
    for name, output in quantized["outputs"].items():
        assert output == board["outputs"][name]
        assert len(set(output["digests"])) > 40
        floats = np.array(stages[1]["outputs"][name]["values"])
        error = np.array(output["values"]) - floats
        assert 0 < np.square(error).mean() < 0.01 * np.square(floats).mean(), name
        trained = np.array(stages[0]["outputs"][name]["values"])
        np.testing.assert_allclose(trained, floats, rtol=1e-4, atol=1e-5)
    for found in board["outputs_with_quantized"].values():
        assert found == {"images": 96, "equal": 96, "max_difference": 0.0, "relative_error": 0.0}


def test_the_board_s_application_gives_them_as_well(flow):
    emulated = record(flow, "heads", STAGES[3])
    board = record(flow, "heads", "reference/zcu104/virtual_board/board")
    assert board["outputs"] == emulated["outputs"]
    assert {found["equal"] for found in board["outputs_with_emulator"].values()} == {96}
    assert {found["equal"] for found in board["outputs_with_quantized"].values()} == {96}
    rows = flow.path("results/tiny/heads/reference/zcu104/virtual_board/predictions.csv").read_text()
    emulator = flow.path("results/tiny/heads/reference/zcu104/emulator/predictions.csv").read_text()
    assert rows == emulator and rows.startswith("index,label,label_name,sha256 of boxes,sha256 of scores\n")


def test_a_record_keeps_what_the_xmodel_gives(flow):
    dataset = read_dataset(flow.path("results/tiny/dataset.h5"))
    images, labels = dataset.subset("test")
    with EmulatorStage(flow.path("results/tiny/both/reference/zcu104/both.xmodel"), threads=1) as stage:
        values = stage(images)
    assert stage.shapes == {"mask": (13, 13, 3), "letter": (25,)}
    board = record(flow, "both", STAGES[3])
    assert board["predictions"] == values["letter"].argmax(axis=1).tolist()
    assert board["correct"] == int((values["letter"].argmax(axis=1) == labels).sum())
    kept = np.array(board["outputs"]["letter"]["values"], np.float32).reshape(96, 25)
    np.testing.assert_array_equal(np.sort(kept), np.sort(values["letter"]))


def test_a_class_and_more_have_an_accuracy_and_distances(flow):
    trained, frozen = (record(flow, "both", stage) for stage in ("keras", "frozen"))
    assert trained["predictions"] == frozen["predictions"]
    freeze = read_json(flow.path("results/tiny/both/freeze.json"))
    assert set(freeze["differences"]) == {"mask", "letter"} and freeze["max_difference"] < 1e-5
    for runner in ("emulator", "virtual_board"):
        board = record(flow, "both", f"reference/zcu104/{runner}/board")
        assert board["agreement_with_quantized"]["equal"] == 96
        assert board["outputs_with_quantized"]["mask"]["equal"] == 96
        # a softmax in TensorFlow and in NumPy: other last bits
        assert board["outputs_with_quantized"]["letter"]["relative_error"] < 1e-6
    assert board["agreement_with_emulator"]["different_outputs"] == 0


def test_a_layer_of_the_cpu_between_layers_of_the_dpu_runs_everywhere(flow):
    folder = flow.path("results/tiny/between/reference/allowing")
    emulator = Emulator(folder / "between.xmodel", threads=1)
    devices = [part.device for part in emulator.parts]
    assert devices == ["USER", "DPU", "CPU", "DPU", "CPU"]
    assert any(op.name.startswith("large") for op in emulator.ops_of(emulator.parts[2]))
    report = read_record(folder / "compile.json", "compile.schema.yaml")
    assert {finding["layer"] for finding in report["findings"]} == {"large"}
    quantized = record(flow, "between", "reference/quantized")
    for runner in ("emulator", "virtual_board"):
        board = record(flow, "between", f"reference/allowing/{runner}/board")
        assert board["predictions"] == quantized["predictions"] and len(set(board["predictions"])) > 3
    assert board["agreement_with_emulator"]["different_outputs"] == 0
    timed = read_record(folder / "virtual_board/board.json", "board.schema.yaml")["timing"]
    assert [part["device"] for part in timed["parts"]] == devices[1:]
    assert "between" in flow.path("results/report/outputs/accuracy.md").read_text()


def test_the_report_shows_the_outputs(flow):
    text = flow.path("results/report/outputs/accuracy.md").read_text()
    assert "boxes" in text and "scores" in text and "mask" in text
    assert flow.run("all", config=flow.outputs_config).stdout.count("Nothing to be done") == 1
