"""SavedModel folders: one signature becomes the frozen graph, and nothing of the program runs."""

import shutil

import numpy as np
import pytest
from saved_models import small_graph, write_saved_model

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.tfgraph.graph_def import add_node
from dpuflow.tfgraph.saved_model import freeze_saved_model, saved_model_files

SHAPE, CLASSES = (8, 8, 3), 3
IMAGES = np.random.default_rng(1).uniform(0, 255, (4, *SHAPE)).astype(np.float32)
ONE = {"image": "x:0"}


def run(frozen):
    """What a frozen graph computes of IMAGES."""
    tf = tensorflow()
    graph, first, ends, _ = frozen
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(graph), name="")
        found = session.run({end: f"{node}:0" for end, node in ends.items()}, {f"{first}:0": IMAGES})
    return found if len(found) > 1 else next(iter(found.values()))


def kinds(frozen):
    return {node.op for node in tensorflow().compat.v1.GraphDef.FromString(frozen[0]).node}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A SavedModel of TensorFlow 2 with an inner model and batch normalization, and its answers."""
    K, L = keras(), keras().layers
    K.utils.set_random_seed(1)
    inner = K.Sequential([K.Input((8, 8, 4)), L.Conv2D(4, 3)])
    x = K.Input(SHAPE)
    y = L.ReLU()(
        L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(L.Rescaling(1 / 255)(x)))
    )
    model = K.Model(x, L.Dense(CLASSES, activation="softmax")(L.Flatten()(inner(L.Dropout(0.3)(y)))))
    rng = np.random.default_rng(2)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape) - 0.4 * (w.ndim > 1) for w in model.get_weights()])
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder, save_format="tf")
    return folder, model.predict(IMAGES, verbose=0)


def test_tensorflow_2_gives_its_values(saved):
    folder, expected = saved
    frozen = freeze_saved_model(folder)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(run(frozen), expected, rtol=0, atol=1e-6)
    assert "Const" in kinds(frozen) and not kinds(frozen) & {
        "VarHandleOp",
        "ReadVariableOp",
        "PartitionedCall",
    }
    assert (
        frozen[3] == ["signature 'serving_default', input 'input_1', output 'dense'"]
        or "output" in frozen[3][0]
    )


@pytest.mark.parametrize("resource", [True, False])
def test_tensorflow_1_gives_its_values(tmp_path, resource):
    t = tensorflow().compat.v1
    with t.Graph().as_default(), t.Session() as session:
        x, rng = t.placeholder("float32", (None, *SHAPE), name="image"), np.random.default_rng(3)

        def variable(name, *shape):
            value = rng.uniform(-0.5, 0.5, shape).astype(np.float32)
            return t.get_variable(name, initializer=value, use_resource=resource)

        y = t.nn.conv2d(x, variable("w", 3, 3, 3, 4), [1, 1, 1, 1], "SAME")
        y = t.reshape(t.nn.relu(t.nn.bias_add(y, variable("b", 4))), (-1, 256))
        y = t.nn.softmax(t.matmul(y, variable("d", 256, 3)) / 100, name="probabilities")
        session.run(t.global_variables_initializer())
        t.saved_model.simple_save(session, str(tmp_path / "m"), {"image": x}, {"scores": y})
        expected = session.run(y, {x: IMAGES})
    frozen = freeze_saved_model(tmp_path / "m")
    assert np.ptp(expected) > 1e-3 and frozen[1] == "image"
    np.testing.assert_allclose(run(frozen), expected, rtol=0, atol=1e-6)


def test_what_does_not_lead_to_the_output_is_neither_run_nor_kept(tmp_path):
    """A graph that would write a file when it is initialized, or beside its answer."""
    graph, weights = small_graph(SHAPE, CLASSES)
    victim = tmp_path / "victim"
    tf = tensorflow()
    g = tf.compat.v1.GraphDef.FromString(graph.SerializeToString())
    for name, text in (("path", str(victim)), ("text", "gotcha")):
        node = g.node.add(name=name, op="Const")
        node.attr["dtype"].type = 7
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))
    g.node.add(name="write", op="WriteFile", input=["path", "text"])
    next(n for n in g.node if n.name == "scores").input.append("^write")
    write_saved_model(tmp_path / "m", g, {"serving_default": (ONE, {"scores": "scores:0"})})
    frozen = freeze_saved_model(tmp_path / "m")
    logits = IMAGES.reshape(4, -1) @ weights
    np.testing.assert_array_equal(run(frozen).argmax(1), logits.argmax(1))
    assert not victim.exists() and "WriteFile" not in kinds(frozen)


def two_outputs():
    graph, _ = small_graph(SHAPE, CLASSES)
    add_node(graph, "ArgMax", "chosen", ["logits", "flat"], T=("type", 1))
    return graph


CHOICES = {
    "two signatures": (
        {"a": (ONE, {"s": "scores:0"}), "b": (ONE, {"s": "logits:0"})},
        ("serve",),
        r"name one of its signatures with models\.NAME\.signature: 'a', 'b'",
    ),
    "two inputs": ({"a": (ONE | {"y": "x:0"}, {"s": "scores:0"})}, ("serve",), "'a' has 2 inputs"),
    "no signature": ({}, ("serve",), "has no signature"),
    "training graphs": (
        {"a": (ONE, {"s": "scores:0"})},
        ("train", "eval"),
        "several graphs .train and eval.",
    ),
    "apart": ({"a": (ONE, {"s": "kernel:0"})}, ("serve",), "does not depend on its input 'image'"),
    "nowhere": ({"a": (ONE, {"s": "nothing:0"})}, ("serve",), "cannot read its graph|does not depend"),
}


@pytest.mark.fault("models", "SavedModel that leaves a choice or has none", "refused")
@pytest.mark.parametrize("what", CHOICES)
def test_a_choice_is_named(tmp_path, what):
    signatures, tags, message = CHOICES[what]
    write_saved_model(tmp_path / "m", two_outputs(), signatures, tags)
    with pytest.raises(UserError, match=message) as raised:
        freeze_saved_model(tmp_path / "m")
    assert str(tmp_path / "m") in str(raised.value) and "\n" not in str(raised.value)


def test_a_choice_is_taken(tmp_path):
    graph, weights = small_graph(SHAPE, CLASSES)
    outputs = {"scores": "scores:0", "logits": "logits:0"}
    write_saved_model(tmp_path / "m", graph, {"a": (ONE, outputs), "serving_default": (ONE, outputs)})
    frozen = freeze_saved_model(tmp_path / "m", "a", "logits")
    np.testing.assert_allclose(run(frozen), IMAGES.reshape(4, -1) @ weights, rtol=1e-4, atol=1e-3)
    both = run(freeze_saved_model(tmp_path / "m", "a"))
    assert list(both) == ["logits", "scores"]
    np.testing.assert_array_equal(both["logits"], run(frozen))
    assert both["scores"].sum(axis=1) == pytest.approx(1)
    named = run(freeze_saved_model(tmp_path / "m", "a", {"p": "scores", "z": "logits"}))
    np.testing.assert_array_equal(named["z"], both["logits"])
    np.testing.assert_array_equal(named["p"], both["scores"])
    with pytest.raises(
        UserError, match=r"no signature 'b' \(models\.NAME\.signature\); it has 'a', 'serving_d"
    ):
        freeze_saved_model(tmp_path / "m", "b")
    with pytest.raises(UserError, match="has no output 'best', expected one of 'logits', 'scores'"):
        freeze_saved_model(tmp_path / "m", None, "best")


@pytest.mark.fault("models", "cut or flipped SavedModel", "refused or the same")
def test_a_cut_or_flipped_saved_model_is_noticed(saved, tmp_path):
    """The checkpoint has checksums; a graph that is read all the same must be one that can be written."""
    folder, expected = saved
    rng = np.random.default_rng(4)
    files = [path for path in saved_model_files(folder) if "variables" in path]
    assert len(files) == 2
    for number in range(12):
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "m")
        path = tmp_path / "m" / files[number % 2].removeprefix(f"{folder}/")
        data = bytearray(path.read_bytes())
        position = int(rng.integers(len(data)))
        if number < 4:
            del data[position:]
        else:
            data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            found = run(freeze_saved_model(tmp_path / "m"))
        except UserError as error:
            assert str(tmp_path / "m") in str(error) and "\n" not in str(error)
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.fault("models", "SavedModel without its files", "refused")
def test_missing_files_are_named(saved, tmp_path):
    shutil.copytree(saved[0], tmp_path / "m")
    shutil.rmtree(tmp_path / "m/variables")
    with pytest.raises(UserError, match=r"its variables cannot be read .*variables/variables\.index"):
        freeze_saved_model(tmp_path / "m")
    (tmp_path / "m/saved_model.pb").write_bytes(b"\x12\xff\xff\xff")
    with pytest.raises(UserError, match="damaged or no SavedModel"):
        freeze_saved_model(tmp_path / "m")
    (tmp_path / "m/saved_model.pb").unlink()
    assert saved_model_files(tmp_path / "m") == []
    with pytest.raises(UserError, match="No such file"):
        freeze_saved_model(tmp_path / "m")
