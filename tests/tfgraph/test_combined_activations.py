"""Two activations combined, reductions, vectors that become maps, ends behind SiLU: as TensorFlow does."""

import numpy as np
import pytest

from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_reader import read_network

SHAPE = (8, 12, 3)
SETTINGS = {"calibration": {"images": 2}, "diagnosis": False, "fast_finetune": False}


class Ops:
    """TensorFlow, and layers with random weights."""

    def __init__(self):
        self.tf, self.random = tensorflow(), np.random.default_rng(1)

    def numbers(self, *shape):
        return (self.random.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    def conv(self, x, channels, kernel=3, stride=1):
        weights = self.numbers(kernel, kernel, int(x.shape[3]), channels)
        return self.tf.nn.conv2d(x, weights, stride, "SAME") + self.numbers(channels)

    def dense(self, x, units):
        return self.tf.matmul(x, self.numbers(int(x.shape[1]), units)) + self.numbers(units)


def two_maps(o, x):
    a, b = o.conv(x, 6), o.conv(x, 6)
    greater, lesser = o.tf.maximum(a - b, b), o.tf.minimum(a, b)
    x = o.conv(o.tf.concat([greater, lesser], 3), 6)
    return o.tf.clip_by_value(x, -0.25, 0.5) + o.tf.maximum(x, 0.125)


def one_for_many(o, x):
    x = o.conv(x, 6)
    channel = o.conv(o.tf.reduce_mean(x, (1, 2), keepdims=True), 6, 1)
    return o.tf.nn.relu(x + channel) - o.conv(x, 1)


def reductions(o, x):
    x = o.conv(x, 6)
    each = [reduce(x, 3, keepdims=True) for reduce in (o.tf.reduce_mean, o.tf.reduce_max)]
    x = x * o.tf.sigmoid(o.conv(o.tf.concat(each, 3), 1))
    return o.dense(o.tf.reshape(o.tf.reduce_mean(x, 1), (-1, 12 * 6)), 5)


def vector_to_map(o, x):
    x = o.dense(o.tf.reshape(o.conv(x, 4, stride=4), (-1, 24)), 7)
    x = o.tf.nn.relu(o.dense(o.tf.nn.relu(x), 32))
    return o.conv(o.tf.reshape(x, (-1, 4, 4, 2)), 5)


def padded_twice(o, x):
    """Zeros of a Pad, then those of SAME; in an average only the first count."""
    x = o.conv(o.tf.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0))), 6, stride=2)
    return o.tf.nn.avg_pool2d(o.tf.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0))), 3, 2, "SAME")


def end_behind_silu(o, x):
    """A detector's end, cut along no channels, on a network whose activations are x sigmoid(x)."""
    x = o.tf.nn.silu(o.conv(o.tf.nn.silu(o.conv(x, 6)), 6))
    x = o.tf.reshape(o.conv(x, 12, 1), (-1, 8 * 12 * 2, 6))
    return o.tf.concat([o.tf.sigmoid(x[..., :2]), o.tf.exp(x[..., 2:4]), x[..., 4:]], 2)


BUILDS = (two_maps, one_for_many, reductions, vector_to_map, padded_twice, end_behind_silu)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_it_is_read_as_tensorflow_computes_it_and_comes_to_code(build, tmp_path):
    tf = tensorflow()
    with tf.Graph().as_default() as graph:
        tf.identity(build(Ops(), tf.compat.v1.placeholder(tf.float32, (None, *SHAPE), "x")), name="y")
        (tmp_path / "g.pb").write_bytes(graph.as_graph_def().SerializeToString())
    network = read_network(tmp_path / "g.pb", "x", "y")
    images = np.random.default_rng(3).integers(0, 256, (2, *SHAPE), np.uint8)
    x = (images.astype(np.float32) - 127.5) / 64
    expected = FrozenGraph(tmp_path / "g.pb", "x", "y").run(x)
    found = run_float(network, x)[network.output.name].reshape(expected.shape)
    size = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * size
    np.testing.assert_allclose(found, expected, atol=1e-5 * size)

    quantized, _ = quantize(network, images, SETTINGS, {"subtract": 127.5, "divide": 64})
    compiled = compile_native(quantized, get_target("kv260"), calibration=images)  # proves its code
    assert len(compiled.report["programs"]) == 1 and not compiled.report["findings"]
