"""Pixel shuffle and what is made of it in machine code, on all sizes of the DPU."""

import numpy as np
import pytest
from random_jobs import FINGERPRINTS

from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.quantize.engine import run_integer
from dpuflow.quantize.eval_graph import write_eval_graph


def network(scale, channels, seed=0):
    """Blocks of pixels to channels, a 1x1 convolution, channels to pixels, and a sum with the input."""
    rng = np.random.default_rng(seed)
    shape, wide = (4 * scale, 5 * scale, channels), channels * scale**2
    attrs = {
        "kernel": (1, 1),
        "stride": (1, 1),
        "dilation": (1, 1),
        "pad": (0, 0, 0, 0),
        "activation": "RELU",
    }
    layers = [
        Layer("x", "input", [], shape),
        Layer("down", "pixel_shuffle", ["x"], (4, 5, wide), {"scale": scale, "upscale": False}),
        Layer("conv", "conv", ["down"], (4, 5, wide), attrs),
        Layer("up", "pixel_shuffle", ["conv"], shape, {"scale": scale, "upscale": True}),
        Layer("sum", "add", ["up", "x"], shape, {"activation": "NONE"}),
    ]
    weights = rng.integers(-60, 60, (wide, 1, 1, wide)).astype(np.int8)
    bias = rng.integers(-90, 90, wide).astype(np.int8)
    fix_points = {"x": 5, "down": 5, "conv": 3, "up": 3, "sum": 2}
    scaling = {"subtract": 0, "divide": 255}
    parameters = {"conv": (weights, 9)}, {"conv": (bias, 6)}
    return QuantizedNetwork(Network("shuffle", layers), fix_points, *parameters, scaling)


def test_the_evaluation_graph_gives_the_same_integers(tmp_path):
    from dpuflow.base.tensorflow_env import tensorflow

    tf, quantized = tensorflow(), network(2, 3)
    names = write_eval_graph(tmp_path / "q.pb", quantized)
    images = np.random.default_rng(4).integers(-128, 128, (4, *quantized.network.input.shape))
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString((tmp_path / "q.pb").read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph, name="")
        feeds = {f"{names['input']}:0": np.ldexp(images.astype(np.float32), -5)}
        found = session.run(f"{names['logits_int8']}:0", feeds)
    np.testing.assert_array_equal(found, run_integer(quantized, images)["sum"])


@pytest.mark.parametrize("size", FINGERPRINTS)
def test_shuffles_are_verified_on_every_size(size):
    number = list(FINGERPRINTS).index(size)
    quantized = network(2 + number % 3, [3, 1, 7, 5, 12, 2, 4, 9][number], seed=number)
    compiled = compile_native(quantized, get_target(f"DPUCZDX8G_ISA1_{size}"))
    shape = quantized.network.input.shape
    images = np.random.default_rng(9).integers(-128, 128, (3, *shape)).astype(np.int8)
    expected = np.ldexp(run_integer(quantized, images)["sum"], -2)
    runner = IsaRunner(compiled.graph)
    for run in (runner.run, Emulator(compiled.graph).run, Emulator(compiled.quantized_graph).run):
        np.testing.assert_array_equal(run(images), expected)
    types = [op.type for op in compiled.graph.ops]
    assert types.count("pixel-shuffle-fix") == 2
