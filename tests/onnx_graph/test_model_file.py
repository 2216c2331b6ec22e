"""Opening a model: its ends, its layout, weights in other files, what is refused before it is read."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import Model, small_classifier

from dpuflow.base.errors import UserError
from dpuflow.onnx_graph.external_data import external_files
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx
from dpuflow.onnx_graph.runtime import OnnxModel, classes
from dpuflow.quantize.engine import run_float

SHAPE = (12, 10, 3)
X = np.random.default_rng(3).normal(size=(5, *SHAPE)).astype(np.float32)


def answers(path, **names):
    """(what onnxruntime answers, what the network that is read answers)."""
    opened = open_model(path, SHAPE, **names)
    network = read_onnx(opened, SHAPE, "net")
    return OnnxModel(opened).run(X), run_float(network, X)[network.output.name]


def nhwc(path):
    model = Model((12, 10, 3))
    model.node("Transpose", perm=[0, 3, 1, 2])
    model.conv(3, 6, strides=[5, 5])
    model.node("Flatten")
    model.node("Gemm", [model.last, model.numbers(36, 4)])
    return model.write(path)


def test_images_may_be_counted_as_nhwc(tmp_path):
    assert open_model(nhwc(tmp_path / "m.onnx"), SHAPE).order == (0, 1, 2)
    expected, found = answers(tmp_path / "m.onnx")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_grey_images_may_be_flat(tmp_path):
    model = Model((120,))
    model.node("Gemm", [model.last, model.numbers(120, 4)])
    opened = open_model(model.write(tmp_path / "m.onnx"), (12, 10, 1))
    network = read_onnx(opened, (12, 10, 1), "net")
    assert network.input.shape == (12, 10, 1)
    x = X[..., :1]
    np.testing.assert_allclose(run_float(network, x)["Gemm_0"], OnnxModel(opened).run(x), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_answers_any_number_of_images(tmp_path, batch):
    open_one, fixed = tmp_path / "open.onnx", tmp_path / "fixed.onnx"
    small_classifier(open_one, (3, 12, 10), 5)
    small_classifier(fixed, (3, 12, 10), 5, batch=batch)
    assert open_model(fixed, SHAPE).batch == batch
    expected, found = answers(fixed)
    np.testing.assert_array_equal(expected, answers(open_one)[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_written_for_one_image_although_its_batch_is_open(tmp_path):
    model = Model((3, 12, 10))
    model.conv(3, 2, strides=[5, 5])
    model.node("Reshape", [model.last, model.constant(np.array([1, 12]))])  # as tracing writes it
    model.node("Gemm", [model.last, model.numbers(12, 4)])
    expected, found = answers(model.write(tmp_path / "m.onnx"))
    assert expected.shape == (5, 4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_output_is_named_by_its_tensor_or_its_node(tmp_path):
    model = Model((3, 12, 10))
    model.conv(3, 6, strides=[5, 5])
    model.node("GlobalAveragePool")
    logits = model.node("Flatten", name="logits")
    model.node("Hardmax", axis=1)
    path = model.write(tmp_path / "m.onnx")
    with pytest.raises(
        UserError, match=r"node 'Hardmax_3' \(op Hardmax\): not supported .* name that tensor as"
    ):
        answers(path)
    for name in (logits, "logits"):
        expected, found = answers(path, output_name=name)
        assert expected.shape == (5, 6)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(
        UserError, match=r"no tensor or node 'logit' for the output; its outputs: Hardmax_3_out0"
    ):
        open_model(path, SHAPE, output_name="logit")


def external(folder, location="weights.bin"):
    """A model whose weights lie in a file beside it."""
    path = small_classifier(folder / "inside.onnx", (3, 12, 10), 5)
    model = onnx.load(path)
    onnx.save(
        model, str(folder / "m.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    if location != "weights.bin":
        model = onnx.load(str(folder / "m.onnx"), load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_weights_beside_the_model_are_read_and_are_inputs_of_the_job(tmp_path):
    path = external(tmp_path)
    assert external_files(path) == [str(tmp_path / "weights.bin")]
    assert external_files(tmp_path / "inside.onnx") == [] == external_files(tmp_path / "none.onnx")
    np.testing.assert_array_equal(answers(path)[0], answers(tmp_path / "inside.onnx")[0])


@pytest.mark.fault("models", "ONNX model whose weights lie outside its folder: {id}", "refused")
@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "linked.bin"], ids=["up", "root", "link"]
)
def test_weights_outside_the_models_folder_are_never_read(tmp_path, location):
    folder = tmp_path / "models"
    folder.mkdir()
    path = external(folder, location)
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "linked.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(UserError, match=r"m\.onnx: names the file '.*' for its weights, which lies outside"):
        open_model(path, SHAPE)
    assert external_files(path) == []


@pytest.mark.fault("models", "ONNX model without its file of weights, or with a part of it", "refused")
def test_weights_that_are_missing_or_cut_are_said(tmp_path):
    path = external(tmp_path)
    content = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(content[:100])
    with pytest.raises(
        UserError, match=r"m\.onnx: weights '.*' should be \d+ bytes at \d+ of 'weights\.bin'"
    ):
        open_model(path, SHAPE)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match=r"its weights lie in 'weights\.bin', which cannot be read"):
        open_model(path, SHAPE)


@pytest.mark.fault("models", "ONNX model that is cut, empty or something else", "refused")
def test_what_is_no_model_is_refused(tmp_path):
    content = small_classifier(tmp_path / "whole.onnx", (3, 12, 10), 5).read_bytes()
    for name, data in {
        "cut": content[:-100], "empty": b"", "text": b"hello", "lfs": b"version https://git-lfs.github.com/spec/v1\n",
        "zeros": b"\x08" + bytes(50),
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf"{name}\.onnx: (is|holds)"):
            open_model(path, SHAPE)


def test_other_images_and_types_are_refused(tmp_path):
    path = small_classifier(tmp_path / "m.onnx", (3, 12, 10), 5)
    with pytest.raises(
        UserError, match=r"takes \(images, 3, 12, 10\), the data set has images of 10x12 with 3"
    ):
        open_model(path, (10, 12, 3))
    model = Model((3, 12, 10))
    model.node("Cast", to=1)
    model.conv(3, 2)
    path = model.write(tmp_path / "whole.onnx", kind=TensorProto.INT32)
    with pytest.raises(UserError, match=r"input 'input' has the data type int32; images come as float32"):
        open_model(path, SHAPE)


def test_quantized_networks_and_foreign_operators_are_refused_by_name(tmp_path):
    model = Model((3, 12, 10))
    scale, zero = model.constant(np.float32(0.5)), model.constant(np.int8(0))
    model.node("QuantizeLinear", ["input", scale, zero], name="q")
    with pytest.raises(UserError, match=r"node 'q' \(op QuantizeLinear\): the network is already quantized"):
        open_model(model.write(tmp_path / "m.onnx"), SHAPE)
    model = Model((3, 12, 10))
    model.node("Fancy", domain="com.example", name="own")
    with pytest.raises(
        UserError, match=r"node 'own' \(op Fancy\): an operator of 'com\.example', not of ONNX"
    ):
        open_model(model.write(tmp_path / "m.onnx"), SHAPE)


def test_one_sigmoid_answers_two_classes():
    np.testing.assert_array_equal(classes(np.array([[0.4], [0.6]], np.float32)), [0, 1])
    np.testing.assert_array_equal(classes(np.array([[1, 3], [2, 1]], np.float32)), [1, 0])
