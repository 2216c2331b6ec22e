"""Kinds of graphs that need more than reading: from TensorFlow to the emulator and to machine code."""

import numpy as np
import pytest

from dpuflow.base.pixels import scale_pixels
from dpuflow.device.targets import load_targets
from dpuflow.dpuczdx8g.compile_report import compile_reference
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.quantize.reference import predict, quantize, write_artifacts
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.tfgraph.open_graph import open_graph

RANDOM = np.random.default_rng(12)
SHAPE = (12, 10, 3)
SCALING = {"subtract": 128, "divide": 128}


def constant(*shape, scale=0.5):
    return RANDOM.uniform(-scale, scale, shape).astype(np.float32)


def dilated(tf, x):
    """Dilated convolutions in TensorFlow's batch form, a grouped one, and a dense layer on a map."""
    kernel = constant(3, 3, 3, 8)
    y = tf.nn.with_space_to_batch(
        x, [2, 3], "SAME", lambda z, *_: tf.nn.conv2d(z, kernel, 1, "VALID"), filter_shape=kernel.shape
    )
    y = tf.nn.relu(tf.nn.bias_add(y, constant(8)))
    y = tf.nn.relu(tf.nn.depthwise_conv2d(y, constant(3, 3, 8, 1), [1, 1, 1, 1], "SAME", dilations=[2, 2]))
    y = tf.nn.relu(tf.nn.conv2d(y, constant(3, 3, 4, 8), 2, "SAME"))
    y = tf.nn.relu(tf.tensordot(y, constant(8, 6), [[3], [0]]) + constant(6))
    return tf.nn.softmax(tf.matmul(tf.reshape(y, [-1, 180]), constant(180, 4, scale=0.2)))


def one_sigmoid(tf, x):
    y = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, constant(3, 3, 3, 8), 2, "SAME"), constant(8)))
    flat = tf.reshape(y, [-1, 6 * 5 * 8])
    return tf.sigmoid(tf.matmul(flat, constant(240, 1)) + constant(1))


def padded_pools(tf, x):
    """Averages that leave padding out and that count zeros, and a maximum of values and zeros."""
    y = tf.nn.bias_add(tf.nn.conv2d(x + 0.65, constant(3, 3, 3, 8), 1, "SAME"), constant(8))
    y = tf.nn.avg_pool2d(y, 3, 1, "SAME")
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    counted = tf.nn.avg_pool2d(tf.pad(y, around), 3, 2, "VALID")
    largest = tf.nn.max_pool2d(tf.pad(y - 0.2, around), 3, 2, "VALID")
    y = tf.concat([counted, largest, tf.nn.avg_pool2d(y, [2, 3], [2, 2], "SAME")], 3)
    return tf.nn.softmax(tf.matmul(tf.reshape(y, [-1, 720]), constant(720, 4, scale=0.06)))


def transposed(tf, x):
    """Transposed convolutions of both paddings, one of channels each alone."""
    y = tf.nn.bias_add(tf.nn.conv2d(x + 0.65, constant(3, 3, 3, 8), 2, "SAME"), constant(8))
    images = tf.shape(y)[0]
    up = tf.nn.conv2d_transpose(y, constant(3, 3, 6, 8), tf.stack([images, 12, 10, 6]), 2, "SAME")
    other = tf.nn.conv2d_transpose(y, constant(4, 2, 5, 8), tf.stack([images, 14, 10, 5]), 2, "VALID")
    alone = tf.nn.depthwise_conv2d_backprop_input(
        tf.stack([images, 12, 10, 8]), constant(4, 4, 8, 1), y, [1, 2, 2, 1], "SAME"
    )
    y = tf.nn.conv2d(tf.concat([up, alone], 3), constant(3, 3, 14, 6, scale=0.2), 1, "SAME")
    other = tf.nn.conv2d(other, constant(3, 1, 5, 4), 1, "VALID")
    y = tf.concat([y, other], 3)
    return tf.nn.softmax(tf.matmul(tf.reshape(y, [-1, 1200]), constant(1200, 4, scale=0.02)))


def resized(tf, x):
    """Nearest and bilinear resizing, and every second pixel, with sizes that the graph computes."""
    v1 = tf.compat.v1
    y = tf.nn.bias_add(tf.nn.conv2d(x + 0.65, constant(3, 3, 3, 8), 2, "SAME"), constant(8))
    twice = v1.image.resize_bilinear(y, tf.shape(y)[1:3] * 2, half_pixel_centers=True)
    near = v1.image.resize_nearest_neighbor(y, tf.shape(y)[1:3] * [2, 2])
    y = tf.nn.conv2d(tf.concat([twice, near, x], 3), constant(3, 3, 19, 6, scale=0.2), 1, "SAME")
    y = v1.image.resize_nearest_neighbor(v1.image.resize_bilinear(y, [24, 40]), [12, 10])
    y = tf.nn.conv2d(y, constant(3, 3, 6, 8), 2, "SAME")
    return tf.nn.softmax(tf.matmul(tf.reshape(y, [-1, 240]), constant(240, 4, scale=0.08)))


SEEDS = {dilated: 12, one_sigmoid: 13, padded_pools: 12, transposed: 12, resized: 12}
"""With which a network gives several answers."""


@pytest.mark.parametrize("build", SEEDS)
def test_from_the_graph_to_machine_code(build, tmp_path):
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    RANDOM.bit_generator.state = np.random.default_rng(SEEDS[build]).bit_generator.state
    images = (
        RANDOM.integers(0, 256, (60, *SHAPE)) * RANDOM.uniform(0, 1, (60, 1, 1, 3)) ** 2
    )  # of many colours
    images = images.astype(np.uint8)
    x = scale_pixels(images, SCALING)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        placeholder = tf.compat.v1.placeholder(tf.float32, [None, *SHAPE], name="images")
        expected = session.run(build(tf, placeholder), {placeholder: x})
    (tmp_path / "own.pb").write_bytes(graph.as_graph_def().SerializeToString())
    opened, _, nodes, _ = open_graph(tmp_path / "own.pb", image_shape=SHAPE)
    opened.write(tmp_path / "frozen.pb")
    settings = {"calibration": {"images": 30}, "diagnosis": False, "fast_finetune": False}
    quantized, report = quantize(read_network(tmp_path / "frozen.pb"), images[:30], settings, SCALING)
    answers = expected.argmax(1) if expected.shape[1] > 1 else (expected[:, 0] > 0.5).astype(int)
    assert len(set(answers)) > 1

    write_artifacts(quantized, report, *(tmp_path / n for n in ("q.h5", "eval.pb", "q.json")))
    in_tensorflow = FrozenGraph(tmp_path / "eval.pb", nodes["input"], nodes["output"]).run(x)
    target = load_targets()["kv260"]
    reference = compile_reference(quantized, target)
    emulator = Emulator(reference.graph)
    batch = emulator.quantize_input(images)
    emulated = emulator.run(batch)
    np.testing.assert_allclose(emulated, in_tensorflow, atol=1e-6)
    wanted = expected if expected.shape[1] > 1 else np.concatenate([1 - expected, expected], axis=1)
    np.testing.assert_allclose(emulated, wanted, atol=0.1)
    assert (emulated.argmax(1) == answers).mean() > 0.9
    assert (predict(quantized, images).argmax(1) == emulated.argmax(1)).all()

    native = compile_native(quantized, target)  # proves its code against the emulator
    np.testing.assert_array_equal(IsaRunner(native.graph).run(batch[:2]), emulated[:2])
