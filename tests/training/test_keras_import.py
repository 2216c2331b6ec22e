"""Other people's H5 files: each gives Keras's values up to the frozen graph, or is refused in one line."""

import zipfile

import h5_misfits as misfits
import h5_theano
import h5_zoo as zoo
import numpy as np
import pytest
from h5_writing import start_over

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras
from dpuflow.command.models import read_model
from dpuflow.keras_models.keras_file import read_config, save_model
from dpuflow.keras_models.keras_import import import_model, prove_equal
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import FrozenGraph, freeze
from dpuflow.tfgraph.graph_def import read_graph_def

READ = {
    "grey": (
        *(zoo.sequential, zoo.fixed_batch, zoo.vector_input, zoo.vector_input_reshaped, zoo.matrix_input),
        *(zoo.matrix_input_expanded, zoo.matrix_input_newaxis, zoo.open_size, zoo.never_built),
        *(zoo.augmentation, zoo.augmentation_as_a_model, zoo.rescaling, zoo.operators, zoo.mixed_float16),
        *(zoo.uint8_input, zoo.own_class, zoo.shared_layer, zoo.dense_on_a_map, zoo.dilated),
        *(zoo.ends_in_one_by_one, zoo.cut_and_broadcast),
        *(
            zoo.relu6_by_name,
            zoo.keras_2_0_list,
            h5_theano.theano,
            h5_theano.theano_strided,
            zoo.graph_op_layer,
        ),
    ),
    "colour": (
        *(zoo.open_size_colour, zoo.normalization, zoo.preprocess_tf, zoo.preprocess_caffe),
        *(zoo.reversal_through_layers, zoo.nested, zoo.nested_functional),
        *(h5_theano.theano_channels_first, h5_theano.theano_flatten_of_old),
    ),
    "two classes": (zoo.one_sigmoid, zoo.sigmoid_apart),
}
SHAPES = {"grey": zoo.GREY, "colour": zoo.COLOUR, "two classes": zoo.GREY}
CASES = [(kind, maker) for kind, makers in READ.items() for maker in makers]
TRAINING_OPS = {
    "RandomUniform",
    "ImageProjectiveTransformV3",
    "Cast",
    "PartitionedCall",
    "StatefulPartitionedCall",
}

REFUSED = {
    misfits.other_size: r"takes 9x8 images with 1 channel .*, the data set's images are 8x8 with 1 channel",
    misfits.colour_on_grey: r"8x8 images with 3 channels .* 8x8 with 1 channel \(grey\); .*datasets\.NAME",
    misfits.other_classes: r"shape \(4,\), the data set has 3 .*; a class folder without pictures counts",
    misfits.two_inputs: "has 2 inputs; the workflow takes networks with one, the pictures",
    misfits.two_outputs: r"has 2 outputs: 'letter' \[3\], 'hand' \[2\]; say with models\.NAME\.output which",
    zoo.one_sigmoid: "one output value, not one per class; one sigmoid is read for two classes, the .* 3",
    misfits.renamed("Dropout", "Lambda"): "layer 'drop' is a Lambda, which carries Python code",
    misfits.renamed("Dropout", "FixNeuron"): r"layer 'drop' \(FixNeuron\): the model is already quantized",
    misfits.renamed("Dropout", "Vitis>VitisQuantize"): "layer 'drop' .*already quantized",
    misfits.renamed(
        "Dropout", "TensorFlowModelOptimization>QuantizeWrapperV2"
    ): "layer 'drop' .*already quantized",
    misfits.renamed("Dropout", "QActivation"): "layer 'drop' .*already quantized",
    misfits.renamed("Dropout", "PruneLowMagnitude"): "layer 'drop' .*strip_pruning",
    misfits.renamed("Dropout", "Addons>Mish"): r"layer 'drop' \(Addons>Mish\): its class is not one of Keras",
    misfits.renamed(
        "Conv2D", "Conv2D", {"activation": "my_mish"}
    ): "layer 'first' .*its activation 'my_mish'",
    misfits.attribute(backend="cntk"): "backend 'cntk', whose convolutions may mean something else",
    misfits.attribute(
        keras_version="4.0.0"
    ): r"written by Keras 4\.0\.0; dpuflow reads files of Keras 2 and 3",
    misfits.keras_1: r"written by Keras 1 \(layer 'first' has 'nb_filter'\).*Keras 2\.0 to 2\.2",
    misfits.recurrent: r"layer 'memory' \(LSTM\): recurrent",
    misfits.calls_a_function: "calls tf.image.rot90, which is not among the functions",
    misfits.cuts_behind_a_change_of_channels: "cuts out a part of the map behind a change of its channels",
    misfits.resizes: r"layer 'bigger' \(Resizing\): resizes 8x8 images to 16x16",
    misfits.dropout_at_inference: r"layer 'drop' \(Dropout\): is called with training=True",
    misfits.theano_same_pool: r"layer 'pool' \(MaxPooling2D\): pools with padding 'same' under Theano",
    misfits.channels_first_permute: r"layer 'turned' \(Permute\) in a channels_first model",
    misfits.weights_only: "holds weights only, no architecture",
    misfits.other_hdf5: "HDF5 file without model_config, so no Keras model",
}


@pytest.mark.parametrize(("kind", "maker"), CASES, ids=[maker.__name__ for _, maker in CASES])
def test_a_foreign_h5_gives_its_values_up_to_the_frozen_graph(kind, maker, tmp_path):
    start_over(maker.__name__)
    compute = maker(tmp_path / "foreign.h5")
    shape, classes = SHAPES[kind], 2 if kind == "two classes" else zoo.CLASSES
    rng = np.random.default_rng(2)
    inputs = [rng.uniform(0, 1, (5, *shape)), rng.integers(0, 256, (5, *shape))]
    # before the conversion, which leaves eager mode
    expected = [compute(x.astype(np.float32)).reshape(5, classes) for x in inputs]
    model, _ = import_model(tmp_path / "foreign.h5", shape, classes)
    assert model.input_shape == (None, *shape) and model.output_shape == (None, classes)
    save_model(model, tmp_path / "m.h5")
    nodes = convert(tmp_path / "m.h5", tmp_path / "tf")
    freeze(tmp_path / "tf", nodes, tmp_path / "f.pb")
    assert not {node.op for node in read_graph_def(tmp_path / "f.pb").node} & TRAINING_OPS
    assert nodes["input"]["dtype"] == "float32"
    graph = FrozenGraph(tmp_path / "f.pb", nodes["input"]["name"], nodes["output"]["name"])
    for x, values in zip(inputs, expected, strict=True):
        assert np.ptp(values) > 1e-6
        np.testing.assert_allclose(
            graph.run(x.astype(np.float32)), values, rtol=0, atol=2e-5 * np.abs(values).max()
        )


@pytest.mark.fault("models", "H5 that the chain cannot take over", "refused")
@pytest.mark.parametrize(("maker", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_cannot_be_taken_over_is_refused_by_name(maker, message, tmp_path):
    maker(tmp_path / "foreign.h5")
    with pytest.raises(UserError, match=message) as raised:
        import_model(tmp_path / "foreign.h5", SHAPES[misfits.KIND.get(maker, "grey")], zoo.CLASSES)
    assert "foreign.h5" in str(raised.value) and "\n" not in str(raised.value)


def zipped(*names):
    def make(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "{}")

    return make


def holding(content):
    return lambda path: path.write_bytes(content)


def saved_model(path):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"\x08\x01")


@pytest.mark.fault("models", "another kind of file where an H5 is expected", "refused")
@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("m.keras", zipped("config.json", "metadata.json", "model.weights.h5"), "describes no Keras model"),
        ("m.h5", zipped("archive/data.pkl"), "is a PyTorch file"),
        ("m.zip", zipped("deep/m.h5"), r"zip archive; unpack it first \(it holds deep/m\.h5\)"),
        ("m.h5", holding(b"PK\x03\x04broken"), "damaged zip archive"),
        ("model", saved_model, "is a SavedModel folder"),
        ("model", lambda path: path.mkdir(), "is a folder; expected an H5 file"),
        (
            "m.h5",
            holding(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "Git LFS pointer.*git lfs pull",
        ),
        ("m.h5", holding(b"\n<!DOCTYPE html><html>"), "is a web page"),
        ("m.tflite", holding(b"\x1c\0\0\0TFL3\0\0"), "TensorFlow Lite"),
        ("m.h5", holding(b"\x08\x07\x12\x07pytorch"), "ONNX"),
        ("m.pkl", holding(b"\x80\x04\x95\x10"), "Python pickle, which dpuflow never opens"),
        ("m.pb", holding(b"\n\x0a\n\x05input"), "TensorFlow graph, .* frozen_pb"),
        ("m.json", holding(b'{"class_name": "Sequential"}'), "JSON"),
        ("m.index", holding(b"\0\0"), "part of a TensorFlow checkpoint"),
        ("m.h5", holding(b""), "is empty"),
        ("m.h5", holding(b"something"), "is not an HDF5 file"),
        ("m.h5", lambda path: None, "no such file"),
    ],
)
def test_another_kind_of_file_is_called_what_it_is(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(UserError, match=message) as raised:
        read_config(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_a_copy_of_other_values_is_noticed(tmp_path):
    zoo.sequential(tmp_path / "foreign.h5")
    model, _ = import_model(tmp_path / "foreign.h5", zoo.GREY, zoo.CLASSES)
    other, _ = import_model(tmp_path / "foreign.h5", zoo.GREY, zoo.CLASSES)
    prove_equal("m.h5", model, other, zoo.GREY)
    first = next(layer for layer in other.layers if layer.weights)
    first.set_weights([w * np.float32(1.01) for w in first.get_weights()])
    with pytest.raises(UserError, match=r"m\.h5: .* differs from the original"):
        prove_equal("m.h5", model, other, zoo.GREY)


@pytest.mark.parametrize("apart", [False, True])
def test_one_sigmoid_beside_other_outputs_answers_two_classes(tmp_path, apart):
    """The output that says the class gets a value for each of the two; the others stay as they are."""
    K = keras()
    images = K.Input((8, 8, 3), name="images")
    trunk = K.layers.Conv2D(4, 3, activation="relu")(images)
    heat = K.layers.Conv2D(2, 1, name="heat")(trunk)
    pooled = K.layers.GlobalAveragePooling2D()(trunk)
    if apart:
        says = K.layers.Activation("sigmoid", name="says")(K.layers.Dense(1)(pooled))
    else:
        says = K.layers.Dense(1, activation="sigmoid", name="says")(pooled)
    model = K.Model(images, [heat, says])
    save_model(model, tmp_path / "two.h5")
    copied, _ = import_model(tmp_path / "two.h5", (8, 8, 3), 2, "says")
    x = np.random.default_rng(2).random((3, 8, 8, 3), np.float32)
    expected, found = (
        dict(zip(m.output_names, m.predict(x, verbose=0), strict=True)) for m in (model, copied)
    )
    np.testing.assert_allclose(found["heat"], expected["heat"], atol=1e-6)
    both = np.concatenate([1 - expected["says"], expected["says"]], axis=1)
    np.testing.assert_allclose(found["says"], both, atol=1e-6)
    network = read_model(tmp_path / "two.h5").network
    assert {name: layer.shape for name, layer in network.outputs.items()} == {"heat": (6, 6, 2), "says": (2,)}
