"""The command `dpuflow`: a configuration out of pictures and a model file; what a model would be on a DPU."""

import json
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import onnx
import pytest
import yaml
from hand_network import hand_network
from onnx import numpy_helper
from onnx_models import Model, small_classifier
from PIL import Image
from saved_models import small_saved_model
from workflow_copy import Workflow, copy_of

from dpuflow.base.files import read_json
from dpuflow.base.pixels import MODES, scale_pixels
from dpuflow.command.models import kind_of, read_model
from dpuflow.command.scaling import images_to_try, tried_scalings
from dpuflow.command.shell import main
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.compile_report import compile_reference
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.quantize.engine import run_float
from dpuflow.workflow.config import check

SIDE, CLASSES = 16, 4


def drawn():
    """96 pictures of noise around a colour."""
    random = np.random.default_rng(7)
    colours = random.integers(0, 256, (96, 1, 1, 3))
    return np.clip(colours + random.normal(0, 60, (96, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An ONNX file for 16x16 colour pictures, four classes."""
    path = tmp_path_factory.mktemp("model") / "my net.onnx"
    small_classifier(path, (3, SIDE, SIDE), CLASSES)
    network = read_model(path).network
    mean = run_float(network, scale_pixels(drawn(), MODES["torch"]))[network.output.name].mean(axis=0)
    proto = onnx.load(path)  # no class is liked best by itself
    (bias,) = (tensor for tensor in proto.graph.initializer if list(tensor.dims) == [CLASSES])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) - mean, bias.name))
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def pictures(model, tmp_path_factory):
    """Pictures in the folders of the classes that the network says, seeing them as torchvision has it."""
    folder = tmp_path_factory.mktemp("photos")
    images = drawn()
    network = read_model(model).network
    answers = run_float(network, scale_pixels(images, MODES["torch"]))[network.output.name].argmax(axis=1)
    for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
        path = folder / f"class {answer}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    assert min(np.bincount(answers, minlength=CLASSES)) >= 3
    return folder


def merged(repo, text):
    """The configuration as Snakemake merges it over the default one."""
    config = yaml.safe_load((repo / "config/config.yaml").read_text())
    for key, value in yaml.safe_load(text).items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return config


# -- new ---------------------------------------------------------------------------------------


def test_a_configuration_out_of_pictures_and_a_model(repo, model, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(pictures.parent)
    out = tmp_path / "mine.yaml"
    assert main(["new", pictures.name, str(model), "-o", str(out)]) == 0
    text = out.read_text()
    assert text in capsys.readouterr().out
    config = yaml.safe_load(text)
    entry = config["datasets"]["pictures"]
    assert entry["source"] == {"kind": "pictures", "folder": pictures.name}
    assert entry["image"] == {"height": SIDE, "width": SIDE, "channels": 3}
    assert entry["test"] == {"fraction": 0.2, "seed": 1} and entry["calibration"] == {"images": 67}
    assert config["models"] == {"my_net": {"onnx": f"{model.parent.name}/my net.onnx", "input": "torch"}}
    assert config["targets"] == {"kv260_native": {"board": "kv260", "compiler": "native", "on_cpu": "error"}}
    assert "# 96 pictures of 4 classes: class 0, class 1, class 2, class 3" in text
    assert "# right answers: torch 40;" in text and "WARNING" not in text
    check(merged(repo, text), repo / "config/config.schema.yaml")


@pytest.mark.slow
@pytest.mark.rules
def test_from_new_to_the_report(repo, model, pictures, tmp_path):
    """The two commands that a newcomer types."""
    workflow = Workflow(copy_of(repo, tmp_path / "workflow"), None)
    shutil.copy(model, workflow.path("net.onnx"))
    shutil.copytree(pictures, workflow.path("photos"))
    command = [sys.executable, "-m", "dpuflow", "new", "photos", "net.onnx"]
    done = subprocess.run(
        command, cwd=workflow.folder, env=workflow.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "snakemake all --cores 2 --configfile mine.yaml" in done.stdout
    result = workflow.snakemake("all", "--cores", "2", "--configfile", "mine.yaml")
    assert result.returncode == 0, result.stdout
    (run,) = read_json(workflow.path("results/report/mine/accuracy.json"))["runs"]
    stages = {row["stage"]: row for row in run["stages"]}
    assert stages["onnx"]["accuracy"] == stages["frozen"]["accuracy"] == 1
    assert stages["board"]["agreement_with_first"]["agreement"] > 0.8
    assert workflow.path("results/report/mine/accuracy.html").exists()


def test_without_a_model_a_network_is_trained(repo, pictures, tmp_path):
    out = tmp_path / "mine.yaml"
    assert main(["new", str(pictures), "-o", str(out), "--target", "zcu104", "--size", "32x48"]) == 0
    config = yaml.safe_load(out.read_text())
    assert config["models"]["mobilenet"]["application"] == "MobileNetV2"
    assert config["datasets"]["pictures"]["image"] == {"height": 32, "width": 48, "channels": 3}
    assert config["runs"][0]["target"] == "zcu104_native"
    check(merged(repo, out.read_text()), repo / "config/config.schema.yaml")


def test_folders_of_parts_and_a_model_beside_them(repo, model, pictures, tmp_path):
    folder = tmp_path / "data"
    for part in ("test", "calibration"):
        shutil.copytree(pictures, folder / part)
    shutil.copy(model, folder / "net.onnx")
    out = tmp_path / "mine.yaml"
    assert main(["new", str(folder), "-o", str(out)]) == 0
    config = yaml.safe_load(out.read_text())
    assert "test" not in config["datasets"]["pictures"]
    assert config["datasets"]["pictures"]["calibration"] == {"images": 96}
    assert config["models"]["net"]["onnx"] == str(folder / "net.onnx")


def refused(capsys, *arguments):
    assert main([str(part) for part in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_what_does_not_fit_together_is_refused(model, pictures, tmp_path, capsys):
    small_classifier(tmp_path / "other.onnx", (3, SIDE, SIDE), 7)
    out = tmp_path / "mine.yaml"
    message = refused(capsys, "new", pictures, tmp_path / "other.onnx", "-o", out)
    assert "other.onnx: answers 7 values" in message and "has 4 classes (class 0, class 1" in message
    assert not out.exists()
    (pictures / "class 9").mkdir()
    assert "; no pictures in class 9" in refused(capsys, "new", pictures, tmp_path / "other.onnx", "-o", out)
    (pictures / "class 9").rmdir()
    assert "does not exist" in refused(capsys, "new", tmp_path / "nowhere", model, "-o", out)
    out.write_text("mine")
    assert "is there already" in refused(capsys, "new", pictures, model, "-o", out)
    assert out.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert "no pictures in it" in refused(capsys, "new", tmp_path / "empty", model, "-o", tmp_path / "o")
    assert "unknown" in refused(capsys, "check", model, "--target", "kv2600").lower()


def test_pictures_for_the_test_only_are_refused_as_the_workflow_would(model, pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "data/all/test")
    out = tmp_path / "mine.yaml"
    message = refused(capsys, "new", tmp_path / "data", model, "-o", out)
    assert "only pictures for the test" in message and "give the folder inside of it" in message
    assert not out.exists()
    assert main(["new", str(tmp_path / "data/all/test"), str(model), "-o", str(out)]) == 0
    assert yaml.safe_load(out.read_text())["datasets"]["pictures"]["test"] == {"fraction": 0.2, "seed": 1}


def two_headed(path, model, maps_channels):
    """`model` with its map in front of the last pooling, made so many channels wide, as a second output."""
    proto = onnx.load(model)
    last = next(node for node in reversed(proto.graph.node) if node.op_type == "Conv")
    kernel = next(tensor for tensor in proto.graph.initializer if tensor.name == last.input[1])
    weights = numpy_helper.from_array(np.ones((maps_channels, kernel.dims[0], 1, 1), np.float32), "map_w")
    proto.graph.initializer.append(weights)
    proto.graph.node.append(onnx.helper.make_node("Conv", [last.output[0], "map_w"], ["map"], "map"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, None))
    onnx.save(proto, path)


def test_of_several_outputs_the_one_with_a_value_for_each_class(repo, model, pictures, tmp_path, capsys):
    path, out = tmp_path / "two.onnx", tmp_path / "mine.yaml"
    two_headed(path, model, 2)
    assert main(["new", str(pictures), str(path), "-o", str(out)]) == 0
    config = yaml.safe_load(out.read_text())
    (answer,) = (name for name in read_model(path).network.outputs if name != "map")
    assert config["models"]["two"]["output"] == answer
    assert config["models"]["two"]["input"] == "torch"
    check(merged(repo, out.read_text()), repo / "config/config.schema.yaml")
    capsys.readouterr()
    folder = tmp_path / "fewer"
    for index in range(CLASSES - 1):
        shutil.copytree(pictures / f"class {index}", folder / f"class {index}")
    message = refused(capsys, "new", folder, path, "-o", tmp_path / "none.yaml")
    assert f"answers {answer} [4], map [" in message and "has 3 classes" in message
    assert "expected one output with a value for each" in message


def test_a_network_of_other_classes_is_warned_of(model, pictures, tmp_path):
    """The same number of classes in another order: hardly any answer is right."""
    folder = tmp_path / "turned"
    for index in range(CLASSES):
        shutil.copytree(pictures / f"class {index}", folder / f"class {(index + 1) % CLASSES}")
    assert main(["new", str(folder), str(model), "-o", str(tmp_path / "mine.yaml")]) == 0
    assert "WARNING: hardly any is right" in (tmp_path / "mine.yaml").read_text()


def test_scalings_are_told_apart_by_probabilities_too(model):
    network = read_model(model).network
    images = np.random.default_rng(3).integers(0, 256, (20, SIDE, SIDE, 3), np.uint8)
    labels = run_float(network, scale_pixels(images, MODES["tf"]))[network.output.name].argmax(axis=1)
    rows = tried_scalings(network, images, labels, network.output.name)
    assert next(row for row in rows if row["words"] == "tf")["right"] == 20
    assert [row["loss"] for row in rows] == sorted(row["loss"] for row in rows)
    assert (images_to_try(32, 32), images_to_try(224, 224)) == (40, 11)


# -- check -------------------------------------------------------------------------------------


def told(capsys, *arguments):
    status = main(["check", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_a_model_that_fits(model, capsys):
    status, content = told(capsys, model)
    assert status == 0 and content["fits"]
    assert content["input"] == [SIDE, SIDE, 3] and content["dpu"] == "DPUCZDX8G_ISA1_B4096"
    assert content["layers"] == {"DPU": 3, "CPU": 0}
    assert content["operators"] == {"conv": 1, "dense": 1, "max_pool": 1}
    assert content["parameters"] == 8 * 3 * 9 + 8 + 4 * 8 * 16 + 4
    assert content["estimate"]["latency_us"] > 0
    assert main(["check", str(model)]) == 0
    text = capsys.readouterr().out
    assert "3 on the DPU, 0 on the CPU" in text and "every quantized layer runs on the DPU" in text


def test_a_layer_beyond_the_limits(tmp_path, capsys):
    model = Model((3, 32, 32))
    model.conv(3, 8, kernel=17)
    model.node("Relu")
    model.node("GlobalAveragePool")
    model.node("Flatten")
    model.node("Gemm", [model.last, model.numbers(5, 8), model.numbers(5)], transB=1)
    model.write(tmp_path / "large.onnx")
    status, content = told(capsys, tmp_path / "large.onnx")
    assert status == 2 and not content["fits"]
    found = content["on_cpu"]["native"][0]
    assert found["op"] == "conv" and "17" in found["reason"] and "smaller kernel" in found["remedy"]
    main(["check", str(tmp_path / "large.onnx")])
    text = capsys.readouterr().out
    assert "on_cpu: warn" in text and "what to do: use a smaller kernel" in text


def test_an_operator_that_is_refused(tmp_path, capsys):
    model = Model((3, 8, 8))
    model.conv(3, 4)
    model.node("Erf")
    model.write(tmp_path / "odd.onnx")
    message = refused(capsys, "check", tmp_path / "odd.onnx")
    assert "Erf" in message and "odd.onnx" in message
    (tmp_path / "text.onnx").write_text("no model")
    assert "text.onnx" in refused(capsys, "check", tmp_path / "text.onnx")
    (tmp_path / "text.txt").write_text("no model")
    assert "expected an ONNX file, a Keras H5" in refused(capsys, "check", tmp_path / "text.txt")


def test_an_open_size(tmp_path, capsys):
    model = Model((3, "h", "w"))
    model.conv(3, 8)
    model.node("GlobalAveragePool")
    model.node("Flatten")
    model.write(tmp_path / "open.onnx")
    _, content = told(capsys, tmp_path / "open.onnx")
    assert content["input"] == [224, 224, 3] and "224 x 224 taken" in content["notes"][0]
    _, content = told(capsys, tmp_path / "open.onnx", "--size", "64x48")
    assert content["input"] == [64, 48, 3]


def test_xmodels(tmp_path, capsys):
    network, target = hand_network(), get_target("kv260")
    quantized_graph(network).save(tmp_path / "q.xmodel")
    compile_reference(network, target).graph.save(tmp_path / "plain.xmodel")
    compile_native(network, target).graph.save(tmp_path / "code.xmodel")
    assert [kind_of(tmp_path / f"{n}.xmodel") for n in ("q", "plain", "code")] == [
        "quantized", "xmodel", "xmodel",
    ]  # fmt: skip
    status, content = told(capsys, tmp_path / "q.xmodel")
    assert status == 0 and content["operators"]["conv"] == 1 and content["at_the_end"] == ["prob (softmax)"]
    status, content = told(capsys, tmp_path / "code.xmodel")
    assert status == 0 and [part["device"] for part in content["subgraphs"]] == ["USER", "DPU", "CPU"]
    assert content["programs"][0]["cycles"] > 0 and content["dpu_us"] > 0
    status, content = told(capsys, tmp_path / "plain.xmodel", "--target", "ultra96v2")
    assert status == 2 and content["programs"] == []
    assert any("no board of this target runs it" in note for note in content["notes"])
    assert any("holds no machine code" in note for note in content["notes"])


def test_files_of_another_instruction_set(shared, capsys):
    """The graph of an older one is the same, so it runs all the same; another family's is refused."""
    path = shared("golden/wild/mnist_28_tf_isa0_b4096_1.4.xmodel")
    status, content = told(capsys, path)
    assert status == 2 and content["programs"] == [] and "dpu_us" not in content
    assert content["outputs"] == {"logits_fix_": [10]}
    assert any("instruction set ISA0, is not read" in note for note in content["notes"])
    message = refused(capsys, "check", shared("golden/wild/lenet_32_pt_vdx8g_3.5.xmodel"))
    assert "DPUCVDX8G, instruction set ISA3" in message and "lenet_32_pt_vdx8g" in message


def test_keras_files(tmp_path, capsys):
    from dpuflow.base.tensorflow_env import keras

    layers = keras().layers
    net = keras().Sequential([
        layers.Input((12, 10, 3)), layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(),
        layers.Flatten(), layers.Dense(5, activation="softmax"),
    ])  # fmt: skip
    net.save(tmp_path / "net.h5")
    status, content = told(capsys, tmp_path / "net.h5")
    assert status == 0 and content["kind"] == "keras_h5" and content["input"] == [12, 10, 3]
    assert content["operators"] == {"conv": 1, "dense": 1, "softmax": 1}
    read = read_model(tmp_path / "net.h5")
    np.testing.assert_array_equal(read.network.layers[1].bias, net.layers[0].get_weights()[1])
    images = layers.Input((12, 10, 3))
    shared = layers.Conv2D(4, 3, activation="relu")(images)
    ends = [layers.Conv2D(2, 1, name="mask")(shared), layers.GlobalAveragePooling2D(name="means")(shared)]
    keras().Model(images, ends).save(tmp_path / "ends.h5")
    status, content = told(capsys, tmp_path / "ends.h5")
    assert status == 0 and content["outputs"] == {"mask": [10, 8, 2], "means": [4]}
    small_saved_model(tmp_path / "saved", (28, 28, 1), 25)
    status, content = told(capsys, tmp_path / "saved")
    assert status == 0 and content["kind"] == "saved_model" and content["outputs"]


def test_the_ways_to_call_it(repo):
    entry = tomllib.loads((repo / "pyproject.toml").read_text())["project"]["scripts"]["dpuflow"]
    assert entry == "dpuflow.command.shell:main"
    done = subprocess.run(
        [sys.executable, "-m", "dpuflow", "--help"], cwd=repo, capture_output=True, text=True
    )
    assert done.returncode == 0 and "dpuflow check MODEL" in done.stdout


def test_make_install_writes_the_command(repo, tmp_path):
    """The recipe's own lines, without the packages."""
    lines = (repo / "Makefile").read_text().split("$(VENV)/run.stamp:")[1].split("\n\n")[0]
    assert "$(VENV)/bin/dpuflow" in lines
    recipe = "\t@printf" + lines.split("\t@printf")[1].split("\t@touch")[0]
    (tmp_path / "Makefile").write_text(f"VENV = .venv\nCURDIR = {repo}\nall:\n{recipe}")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    subprocess.run(["make", "-s", "all"], cwd=tmp_path, check=True)
    command = [str(tmp_path / ".venv/bin/dpuflow"), "check", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "--target" in done.stdout, done.stderr
