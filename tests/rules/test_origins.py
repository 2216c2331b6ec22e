"""Models that enter the chain elsewhere: an own H5, an own frozen graph, training further."""

import copy

import pytest
from onnx_models import small_classifier
from workflow_copy import copy_of_run

from dpuflow.accuracy.evaluation import read_accuracy
from dpuflow.base.files import read_json

pytestmark = pytest.mark.rules


@pytest.fixture(scope="module")
def origins(finished, tmp_path_factory):
    """The finished workflow, run again for three models made from its first."""
    flow = copy_of_run(finished, tmp_path_factory.mktemp("origins") / "flow")
    config = copy.deepcopy(flow.config)
    model = "results/tiny/small"
    scaling = config["models"]["small"]["input"]
    config["models"] |= {
        "own_h5": {"keras_h5": f"{model}/keras_trained_model.h5", "input": scaling},
        "own_pb": {"frozen_pb": f"{model}/frozen_graph.pb", "input": scaling},
        "own_onnx": {"onnx": "own.onnx", "input": scaling},
        "own_quantized": {"quantized": f"{model}/reference/zcu104/small.quantized.xmodel"},
        "own_xmodel": {"xmodel": f"{model}/reference/zcu104/small.xmodel"},
        "further": {
            "starts_from": "small",
            "qat": True,
            "training": {"optimizer": "adam", "learning_rate": 1e-4, "batch_size": 32, "epochs": 1},
        },
    }
    config["runs"][0]["model"] = [
        "small",
        "own_h5",
        "own_pb",
        "own_quantized",
        "own_xmodel",
        "own_onnx",
        "further",
    ]
    small_classifier(flow.path("own.onnx"))
    flow.run("all", config=config)
    return flow


def board(workflow, model):
    return read_accuracy(workflow.path(f"results/tiny/{model}/reference/zcu104/emulator/board_accuracy.json"))


def test_an_own_model_gives_the_same_answers_as_the_one_trained_here(origins):
    expected = board(origins, "small")["predictions"]
    assert board(origins, "own_h5")["predictions"] == expected
    assert board(origins, "own_pb")["predictions"] == expected


def test_a_frozen_graph_enters_without_a_keras_stage(origins):
    assert not origins.path("results/tiny/own_pb/keras_accuracy.json").exists()
    assert "own_pb" in origins.path("results/report/test/accuracy.md").read_text()


def test_an_onnx_model_is_measured_by_onnxruntime_and_goes_on_as_any_other(origins):
    stages = [
        read_accuracy(origins.path(f"results/tiny/own_onnx/{name}_accuracy.json"))
        for name in ("onnx", "frozen")
    ]
    assert stages[0]["stage"] == "onnx" and stages[0]["images"] == 96
    assert len(set(stages[0]["predictions"])) > 2
    assert stages[0]["predictions"] == stages[1]["predictions"]
    same = sum(map(int.__eq__, board(origins, "own_onnx")["predictions"], stages[0]["predictions"]))
    assert same > 80
    assert "| ONNX " in origins.path("results/report/test/accuracy.md").read_text()


def test_a_quantized_and_a_compiled_network_answer_as_where_they_were_made(origins):
    expected = board(origins, "small")["predictions"]
    assert board(origins, "own_quantized")["predictions"] == expected
    assert board(origins, "own_xmodel")["predictions"] == expected
    folder = origins.path("results/tiny/own_quantized/reference")
    quantization = read_json(folder / "quantization.json")
    assert quantization["quantizer"] == "file" and quantization["input_scaling"]["divide"] == 128
    made_here = read_json(origins.path("results/tiny/small/reference/quantized_accuracy.json"))
    assert read_json(folder / "quantized_accuracy.json")["predictions"] == made_here["predictions"]
    assert not origins.path("results/tiny/own_quantized/network.h5").exists()
    assert [path.name for path in origins.path("results/tiny/own_xmodel/reference").iterdir()] == ["zcu104"]


def test_training_further_starts_from_the_trained_model(origins):
    folder = origins.path("results/tiny/further")
    assert len((folder / "history.csv").read_text().splitlines()) == 2
    assert (folder / "keras_trained_model.h5").read_bytes() != origins.path(
        "results/tiny/small/keras_trained_model.h5"
    ).read_bytes()


def test_what_training_further_gained_stands_in_the_quantization_report(origins):
    report = read_json(origins.path("results/tiny/further/reference/quantization.json"))
    gain = report["training_further"]
    assert gain["what"] == "INT8 in the forward pass" and gain["images"] == 96
    assert gain["before"]["loss"] != gain["after"]["loss"] and 0 <= gain["after"]["accuracy"] <= 1
    assert "training_further" not in read_json(origins.path("results/tiny/small/reference/quantization.json"))


@pytest.mark.fault("configuration", "model to start from that does not exist", "message")
def test_a_start_that_does_not_exist_is_named(finished):
    config = copy.deepcopy(finished.config)
    config["models"]["further"] = {
        "starts_from": "smal",
        "training": {"optimizer": "adam", "learning_rate": 1e-4, "batch_size": 32, "epochs": 1},
    }
    result = finished.run("all", "-n", config=config, check=False)
    assert result.returncode != 0
    assert "models.further.starts_from: models has no entry 'smal'; did you mean small?" in result.stdout
