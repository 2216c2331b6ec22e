"""Frozen graphs of other people: opened for any number of the data set's images, with TensorFlow's values."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.quantize.engine import run_float
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.open_graph import open_graph

RANDOM = np.random.default_rng(8)
SHAPE = (6, 6, 1)


def constant(*shape):
    return RANDOM.uniform(-0.5, 0.5, shape).astype(np.float32)


@pytest.fixture(scope="module")
def tf():
    from dpuflow.base.tensorflow_env import tensorflow

    tensorflow().compat.v1.disable_control_flow_v2()  # Switch and Merge, as TensorFlow 1 wrote them
    yield tensorflow()
    tensorflow().compat.v1.enable_control_flow_v2()


@pytest.fixture
def image_graph(tf, tmp_path):
    """Factory: (path of a graph, TensorFlow's output of each image) from a function of the placeholder.

    The original is fed as many images at a time as it takes, reshaped as it wants them.
    """

    def make(build, dims, dtype="float32", feeds=(), images=None):
        images = RANDOM.integers(0, 256, (6, *SHAPE)).astype(np.float32) if images is None else images
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            tf.compat.v1.set_random_seed(1)
            x = tf.compat.v1.placeholder(dtype, dims, name="images")
            y = tf.identity(build(tf, x), name="result")
            batch = dims[0] if dims and dims[0] else 6
            parts = np.split(images, 6 // batch)
            shape = [batch, *(n or size for n, size in zip(dims[1:], SHAPE, strict=False))] if dims else None
            extra = {f"{name}:0": value for name, value in feeds}
            expected = [session.run(y, {x: p.reshape(shape or p.shape), **extra}) for p in parts]
            (tmp_path / "g.pb").write_bytes(graph.as_graph_def().SerializeToString())
        return tmp_path / "g.pb", images, np.concatenate(expected)

    return make


def opened(path, images, **names):
    """(output of the opened graph in TensorFlow, of the network read from it, changes)."""
    graph, network, nodes, changes = open_graph(path, image_shape=SHAPE, **names)
    result = path.with_name("opened.pb")
    graph.write(result)
    again = open_graph(result, nodes["input"], nodes["output"], SHAPE)
    assert again[3] == [], "an opened graph needs no more changes"
    assert [layer.shape for layer in again[1].layers] == [layer.shape for layer in network.layers]
    values = FrozenGraph(result, nodes["input"], nodes["output"]).run(images)
    return values, run_float(again[1], images)[again[1].output.name], changes


def tail(tf, x):
    """Conv, ReLU and two dense layers on a map."""
    y = tf.nn.relu(tf.nn.conv2d(x, constant(3, 3, 1, 4), 2, "SAME"))
    return tf.nn.softmax(tf.matmul(tf.reshape(y, [-1, 36]), constant(36, 3)) * 0.01)


def fixed_tail(batch, tf, x):
    y = tf.nn.relu(tf.nn.conv2d(x, constant(3, 3, 1, 4), 2, "SAME"))
    y = tf.tensordot(y, constant(4, 5), [[3], [0]])  # reshapes to batch * 9 rows and back
    y = tf.nn.relu(tf.matmul(tf.reshape(y, [batch, -1]), constant(45, 20)))
    return tf.matmul(tf.reshape(y, [batch, 20]), constant(20, 3))


def dilated(tf, x, kernel):
    def convolve(y, *_):
        return tf.nn.conv2d(y, kernel, 1, "VALID")

    return tf.nn.with_space_to_batch(x, [2, 2], "SAME", convolve, filter_shape=kernel.shape)


def vector_dense(tf, x, units):
    return tf.matmul(tf.reshape(x, [-1, 36]), constant(36, units))


SHAPES = {
    "one image": ([1, *SHAPE], lambda tf, x: fixed_tail(1, tf, x), "float32"),
    "three images": ([3, *SHAPE], lambda tf, x: fixed_tail(3, tf, x), "float32"),
    "vectors": ([None, 36], lambda tf, x: tail(tf, tf.reshape(x, [-1, 6, 6, 1])), "float32"),
    "one vector": ([1, 36], lambda tf, x: tail(tf, tf.reshape(x, [1, 6, 6, 1])), "float32"),
    "vectors to dense": ([None, 36], lambda tf, x: tf.matmul(x, constant(36, 4)), "float32"),
    "no channel axis": ([None, 6, 6], lambda tf, x: tail(tf, tf.expand_dims(x, -1)), "float32"),
    "no channel axis, reshaped": (
        [None, 6, 6],
        lambda tf, x: tail(tf, tf.reshape(x, [-1, 6, 6, 1])),
        "float32",
    ),
    "any size": (
        [None, None, None, 1],
        lambda tf, x: tf.reduce_mean(tf.nn.conv2d(x, constant(3, 3, 1, 3), 1, "SAME"), [1, 2]),
        "float32",
    ),
    "any size, dilated": (
        [None, None, None, 1],
        lambda tf, x: tf.reduce_max(dilated(tf, x, constant(3, 3, 1, 3)), [1, 2]),
        "float32",
    ),
    "any rank": (None, lambda tf, x: tail(tf, tf.reshape(x, [-1, 6, 6, 1])), "float32"),
    "bytes": ([None, *SHAPE], lambda tf, x: tail(tf, tf.cast(x, tf.float32) / 255.0), "uint8"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_placeholder_of_another_form_is_opened(image_graph, name):
    dims, build, dtype = SHAPES[name]
    path, images, expected = image_graph(build, dims, dtype)
    values, network, changes = opened(path, images)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(network, expected, rtol=1e-4, atol=1e-3)
    assert changes


def test_a_graph_that_fits_stays_as_it_is(image_graph):
    path, _, _ = image_graph(tail, [None, *SHAPE])
    assert open_graph(path, image_shape=SHAPE)[3] == []


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([None, 8, 6, 1], r"takes images of 8x6 with 1 channel, the data set has images of 6x6"),
        ([None, 6, 6, 3], r"takes images of 6x6 with 3 channels, .* 6x6 with 1 channel"),
        ([None, 64], r"takes inputs of the shape \(images, 64\)"),
    ],
)
def test_a_placeholder_for_other_images_is_named(image_graph, dims, message):
    path, _, _ = image_graph(lambda tf, x: tf.nn.relu(x), [6, *SHAPE])
    import tensorflow

    with tensorflow.Graph().as_default() as graph:
        tensorflow.nn.relu(tensorflow.compat.v1.placeholder("float32", dims, name="images"))
    path.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError, match=r"node 'images' \(op Placeholder\): " + message):
        open_graph(path, image_shape=SHAPE)


# -- training switches and dropout ---------------------------------------------------------------


def switched_batch_norm(tf, x, training):
    """Both sides of a TensorFlow 1 condition: statistics of the batch, and the moving ones."""
    gamma, beta, mean, variance = constant(1), constant(1), constant(1), constant(1) ** 2 + 0.1

    def side(is_training):
        def compute():
            statistics = {} if is_training else {"mean": mean, "variance": variance}
            return tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, is_training=is_training, **statistics)[0]

        return compute

    return tf.compat.v1.cond(training, side(True), side(False))


def with_placeholder(name, make):
    """A builder with a boolean placeholder of that name."""
    return lambda tf, x: make(tf, x, tf.compat.v1.placeholder(tf.bool, [], name=name))


def old_dropout(tf, x, keep):
    """As TensorFlow wrote it up to 1.12: x / keep * floor(keep + random)."""
    return x / keep * tf.floor(keep + tf.random.uniform(tf.shape(x), 0.0, 1.0))


def drop(rate):
    """tf.nn.dropout of 1.13 to 1.15, from a rate."""

    def build(tf, x):
        scale = 1.0 / (1.0 - rate(tf))
        mask = tf.random.uniform(tf.shape(x)) >= rate(tf)
        return x * scale * tf.cast(mask, tf.float32)

    return build


def number(name):
    found = {}

    def placeholder(tf):
        graph = tf.compat.v1.get_default_graph()
        if found.get("graph") is not graph:
            found.update(graph=graph, node=tf.compat.v1.placeholder(tf.float32, [], name=name))
        return found["node"]

    return placeholder


SWITCHES = {
    "learning phase": (with_placeholder("keras_learning_phase", switched_batch_norm), False),
    "is_training": (with_placeholder("model/is_training", switched_batch_norm), False),
    "inference": (
        with_placeholder("isInference", lambda tf, x, s: switched_batch_norm(tf, x, tf.logical_not(s))),
        True,
    ),
    "without a name": (with_placeholder("Placeholder_1", switched_batch_norm), False),
    "without a name, true": (
        with_placeholder("Placeholder", lambda tf, x, s: switched_batch_norm(tf, x, tf.logical_not(s))),
        True,
    ),
    "dropout behind a switch": (
        with_placeholder(
            "phase_train",
            lambda tf, x, s: tf.compat.v1.cond(s, lambda: old_dropout(tf, x, 0.5), lambda: tf.identity(x)),
        ),
        False,
    ),
    "keep_prob": (lambda tf, x: old_dropout(tf, x, number("p")(tf)), 1.0),
    "rate": (drop(number("p")), 0.0),
    "one minus keep": (lambda tf, x: (lambda keep: drop(lambda tf: 1.0 - keep)(tf, x))(number("p")(tf)), 1.0),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_training_switches_get_the_value_of_inference(image_graph, name):
    build, value = SWITCHES[name]
    names = {"learning phase": "keras_learning_phase", "is_training": "model/is_training"} | {
        "inference": "isInference", "without a name": "Placeholder_1", "without a name, true": "Placeholder",
        "dropout behind a switch": "phase_train",
    }  # fmt: skip
    feeds = [(names.get(name, "p"), value)]
    path, images, expected = image_graph(lambda tf, x: tail(tf, build(tf, x)), [None, *SHAPE], feeds=feeds)
    values, network, changes = opened(path, images)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(network, expected, rtol=1e-4, atol=1e-5)
    assert changes == [f"{feeds[0][0]}: constantly {value}, as in inference"]


def test_dropout_that_is_frozen_in_is_refused(image_graph):
    path, _, _ = image_graph(lambda tf, x: old_dropout(tf, x, 0.5), [None, *SHAPE])
    with pytest.raises(UserError, match=r"dropout is active: its rate is frozen above 0"):
        open_graph(path, image_shape=SHAPE)


def test_a_switch_that_says_nothing_is_refused(image_graph):
    build = with_placeholder(
        "which", lambda tf, x, s: tf.compat.v1.cond(s, lambda: tf.nn.relu(x), lambda: tf.identity(x))
    )
    path, _, _ = image_graph(build, [None, *SHAPE], feeds=[("which", True)])
    with pytest.raises(UserError, match=r"'which'.*can be read with true and with false; freeze it"):
        open_graph(path, image_shape=SHAPE)


# -- one sigmoid ----------------------------------------------------------------------------------


def test_one_sigmoid_is_two_classes(image_graph):
    def build(tf, x):
        y = tf.nn.relu(tf.nn.conv2d(x / 255.0, constant(3, 3, 1, 4), 2, "SAME"))
        return tf.sigmoid(tf.nn.bias_add(tf.matmul(tf.reshape(y, [-1, 36]), constant(36, 1)), constant(1)))

    path, images, expected = image_graph(build, [None, *SHAPE])
    values, network, changes = opened(path, images)
    both = np.concatenate([1 - expected, expected], axis=1)
    np.testing.assert_allclose(values, both, atol=1e-6)
    np.testing.assert_allclose(network, both, atol=1e-6)
    assert 0 < (expected > 0.5).sum() < len(expected)  # otherwise the next line says nothing
    assert (values.argmax(1) == (expected[:, 0] > 0.5)).all()
    assert changes == ["Sigmoid: one sigmoid becomes the probabilities of two classes"]
    layers = open_graph(path, image_shape=SHAPE)[1].layers
    assert [layer.op for layer in layers][-2:] == ["dense", "softmax"]  # -z/2 and z/2 from one dense layer
    assert layers[-2].weights.shape == (2, 36)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda tf, x: tf.matmul(tf.nn.softmax(vector_dense(tf, x, 4)), constant(4, 3)),
            r"node 'Softmax' \(op Softmax\): a softmax \(or sigmoid\) inside the network",
        ),
        (
            lambda tf, x: tf.nn.softmax(tf.nn.softmax(vector_dense(tf, x, 4))),
            r"node 'Softmax_1' \(op Softmax\): softmax of a softmax",
        ),
        (
            lambda tf, x: tf.nn.conv2d(tf.nn.softmax(x), constant(3, 3, 1, 2), 1, "SAME"),
            "softmax at each of 6 x 6 pixels",
        ),
        (
            lambda tf, x: tf.quantization.fake_quant_with_min_max_args(x),
            "already quantized, .* give the float network",
        ),
        (
            lambda tf, x: tf.nn.conv2d(tf.transpose(x, [0, 2, 1, 3]), constant(3, 3, 1, 2), 1, "SAME"),
            "changes the order of the axes",
        ),
    ],
)
def test_what_cannot_be_read_is_named(image_graph, build, message):
    path, _, _ = image_graph(build, [None, *SHAPE])
    with pytest.raises(UserError, match=message):
        open_graph(path, image_shape=SHAPE)


def test_a_keras_layer_is_named(tf, tmp_path):
    from dpuflow.base.tensorflow_env import keras

    layers = keras().layers
    with tf.Graph().as_default() as graph:
        x = keras().Input((6, 6, 1), name="images")
        layers.Conv2D(2, 3, activation="tanh", name="first_conv")(x)
    (tmp_path / "g.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(UserError, match=r"layer 'first_conv', node 'first_conv/.*not frozen"):
        open_graph(tmp_path / "g.pb", image_shape=SHAPE, output_name="first_conv/Tanh")
