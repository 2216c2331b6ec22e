"""A detector as TensorFlow writes it, from its graph to machine code: layers of the CPU behind the DPU's."""

import numpy as np
import pytest
from output_networks import SCALING

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import scale_pixels
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.quantize import engine
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_reader import read_network, read_network_and_nodes

SIZE, CLASSES, BINS = 16, 3, 4
OUTPUTS = ["boxes", "scores", "best"]


def decoded(tf, heads):
    """Boxes by the mean of a distribution per side around each place, scores, classes; as YOLOv8 does."""
    flat = tf.concat([tf.reshape(h, (-1, h.shape[1] * h.shape[2], h.shape[3])) for h in heads], 1)
    sides, scores = flat[..., : 4 * BINS], flat[..., 4 * BINS :]
    shares = tf.nn.softmax(tf.reshape(sides, (-1, sides.shape[1], 4, BINS)))
    mean = tf.nn.conv2d(shares, np.arange(BINS, dtype=np.float32).reshape(1, 1, BINS, 1), 1, "VALID")
    mean = tf.reshape(mean, (-1, sides.shape[1], 4))
    before, behind = tf.split(mean, 2, axis=2)
    sizes = [int(h.shape[1]) for h in heads]
    grid = np.concatenate(
        [np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) + 0.5 for n in sizes]
    ).astype(np.float32)
    steps = np.repeat([SIZE / n for n in sizes], [n * n for n in sizes]).astype(np.float32)[:, None]
    first, last = grid - before, grid + behind
    boxes = tf.concat([(first + last) / 2, last - first], 2) * steps
    tf.transpose(boxes, (0, 2, 1), name="boxes")
    tf.argmax(tf.sigmoid(scores, name="scores"), 2, name="best")


def frozen(path, build):
    """A frozen graph of convolutions with random weights and what `build` puts behind them."""
    tf, rng = tensorflow(), np.random.default_rng(1)

    def conv(x, channels, kernel=3, stride=1):
        shape = (kernel, kernel, int(x.shape[3]), channels)
        weights = (rng.normal(size=shape) / np.sqrt(np.prod(shape[:3]))).astype(np.float32)
        return tf.nn.conv2d(x, weights, stride, "SAME") + (0.1 * rng.normal(size=channels)).astype(np.float32)

    with tf.Graph().as_default() as graph:
        x = tf.nn.relu(conv(tf.compat.v1.placeholder(tf.float32, (None, SIZE, SIZE, 3), "image"), 8, 3, 2))
        heads = []
        for _ in range(3):
            heads.append(conv(x, 4 * BINS + CLASSES, 1))
            x = tf.nn.relu(conv(x, 8, 3, 2))
        build(tf, heads)
        path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return frozen(tmp_path_factory.mktemp("graph") / "detector.pb", decoded)


def test_reading_gives_tensorflows_answers(path):
    network, nodes = read_network_and_nodes(path, output_name=OUTPUTS)
    assert nodes == {"input": "image", "output": "boxes", "outputs": OUTPUTS}
    assert list(network.outputs) == OUTPUTS
    x = np.random.default_rng(2).normal(size=(5, SIZE, SIZE, 3)).astype(np.float32)
    found = engine.run_float(network, x)
    for name, layer in network.outputs.items():
        expected = FrozenGraph(path, "image", name).run(x)
        got = found[layer.name].reshape(expected.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=name)
        assert len(np.unique(got)) > 2


def test_from_the_graph_to_machine_code(path, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (16, SIZE, SIZE, 3)).astype(np.uint8)
    network = read_network(path, output_name=OUTPUTS)
    quantized, report = quantize(network, pixels, {"fast_finetune": False}, SCALING)
    ends = [layer.name for layer in quantized.network.last_quantized]
    assert list(report["steps"][-1]["agreement_of_ends"]) == ends and len(ends) == 3
    graph = compile_native(quantized, get_target("kv260"), calibration=pixels).graph
    assert [subgraph.attrs["device"] for subgraph in graph.subgraphs()] == ["USER", "DPU", "CPU"]
    emulator = Emulator(graph, threads=1)
    batch = emulator.quantize_input(pixels)
    emulated, run = emulator.run(batch), IsaRunner(graph).run(batch)
    reals = engine.run_float(network, scale_pixels(pixels, SCALING))
    assert list(graph.attrs["output_names"]) == OUTPUTS
    for name, op in zip(OUTPUTS, graph.attrs["return_ops"], strict=True):
        np.testing.assert_array_equal(emulated[op], run[op])
        real = reals[network.outputs[name].name]
        if name != "best":
            assert np.square(emulated[op] - real).mean() < 0.01 * np.square(real).mean()


def test_a_map_of_probabilities_ends_a_segmentation(tmp_path):
    path = frozen(tmp_path / "s.pb", lambda tf, heads: tf.nn.softmax(heads[0], name="pixels"))
    network = read_network(path, output_name="pixels")
    x = np.random.default_rng(2).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    found = engine.run_float(network, x)[network.output.name]
    expected = FrozenGraph(path, "image", "pixels").run(x)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)
    quantized, _ = quantize(network, np.full((2, SIZE, SIZE, 3), [[0, 9, 255]], np.uint8), {}, SCALING)
    assert lower(quantized, get_target("kv260")).op(quantized.network.output.name).type == "softmax"


def test_what_would_stand_between_layers_of_the_dpu_is_refused_as_before(tmp_path):
    def shuffled(tf, heads):
        x = tf.transpose(heads[0], (0, 2, 1, 3))
        tf.nn.conv2d(x, np.ones((3, 3, x.shape[3], 2), np.float32), 1, "SAME", name="last")

    path = frozen(tmp_path / "t.pb", shuffled)
    with pytest.raises(UserError, match="changes the order of the axes"):
        read_network(path, output_name="last")
