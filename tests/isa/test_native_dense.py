"""Dense layers whose vector is read as a map of another shape: machine code against plain integers."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.compiler import target_check
from dpuflow.compiler.workload import dense_on_array
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.cost_model import estimate
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network import Layer, Network, QuantizedNetwork

SIZES = ("B512", "B800", "B1024", "B1152", "B1600", "B2304", "B3136", "B4096")
CONV = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1), "activation": "RELU"}
POOL = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0)}


class Builder:
    """A network of random int8 parameters, layer by layer."""

    def __init__(self, shape):
        self.rng = np.random.default_rng(shape[0])
        self.layers = [Layer("in", "input", [], shape)]
        self.fix, self.weights, self.biases = {"in": 6}, {}, {}

    def add(self, name, op, inputs, shape, attrs=None, fix=4, weights=None):
        self.layers.append(Layer(name, op, inputs, shape, attrs or {}))
        self.fix[name] = fix
        if weights:
            self.weights[name] = (self.rng.integers(-20, 21, weights).astype(np.int8), 7)
            self.biases[name] = (self.rng.integers(-60, 61, weights[0]).astype(np.int8), 6)
        return name

    def conv(self, name, source, shape, channels):
        return self.add(name, "conv", [source], shape, CONV, weights=(shape[2], 3, 3, channels))

    def dense(self, name, source, units, fix=1):
        size = int(np.prod(self[source].shape))
        flat = self.add(f"{name}_flat", "flatten", [source], (size,), fix=self.fix[source])
        return self.add(name, "dense", [flat], (units,), {"activation": "NONE"}, fix, (units, size))

    def __getitem__(self, name):
        return next(layer for layer in self.layers if layer.name == name)

    def finish(self):
        self.add("softmax", "softmax", [self.layers[-1].name], self.layers[-1].shape)
        network = Network("dense", self.layers)
        return QuantizedNetwork(
            network, self.fix, self.weights, self.biases, {"subtract": 0.0, "divide": 255.0}
        )


def dense_exactly(quantized, name, x):
    """What a dense layer gives for int8 rows of its vector."""
    (weights, _), (bias, _) = quantized.weights[name], quantized.biases[name]
    total = x.reshape(len(x), -1).astype(np.int64) @ weights.T.astype(np.int64)
    real = total + bias * 2.0 ** quantized.shift_bias(name)
    return np.clip(np.floor(real / 2.0 ** quantized.shift_cut(name) + 0.5), -128, 127)


def check(quantized, size, dense, source):
    """Compile, run, compare; returns the shapes (1, H, W, C) that the dense layer's op reads."""
    graph = compile_native(quantized, get_target(f"DPUCZDX8G_ISA1_{size}")).graph
    shape = quantized.network.input.shape
    batch = np.random.default_rng(1).integers(-128, 128, (4, *shape)).astype(np.int8)
    values = Emulator(graph).run(batch, dump=True)
    expected = dense_exactly(quantized, dense, values[source] if source != "in" else batch)
    assert len(np.unique(expected)) > 12
    np.testing.assert_array_equal(values[dense].reshape(4, -1), expected)
    np.testing.assert_array_equal(IsaRunner(graph).run(batch), values["softmax"])
    return graph.op(graph.op(dense).inputs["input"][0]).tensor.shape


@pytest.mark.parametrize("size", SIZES)
def test_a_vector_of_more_than_sixteen_by_sixteen(size):
    """The input itself, 28 x 28 (vendor: 4 x 14 x 14 with a 14 x 4 kernel), and a map that is computed."""
    build = Builder((28, 28, 1))
    build.dense("d", "in", 10, 2)
    assert check(build.finish(), size, "d", "in") == (1, 1, 1, 784)
    build = Builder((20, 18, 3))
    build.conv("c", "in", (20, 18, 5), 3)
    build.dense("d", "c", 10)
    assert check(build.finish(), size, "d", "c") == (1, 1, 1, 1800)


def test_a_vector_of_more_channels_than_the_array_counts():
    build = Builder((40, 32, 1))
    build.conv("c", "in", (40, 32, 8), 1)
    build.dense("d", "c", 10)
    quantized = build.finish()
    assert check(quantized, "B4096", "d", "c") == (1, 4, 1, 2560)
    assert check(quantized, "B1152", "d", "c") == (1, 5, 1, 2048)


def test_a_map_that_others_read_in_its_own_shape():
    """c stays on chip for the pool and goes to memory for the dense layer; the concat lies there anyway."""
    build = Builder((20, 18, 3))
    build.conv("c", "in", (20, 18, 5), 3)
    build.add("p", "max_pool", ["c"], (10, 9, 5), POOL)
    build.dense("small", "p", 12)
    build.dense("d", "c", 12)
    build.add("sum", "add", ["small", "d"], (12,), {"activation": "NONE"}, fix=0)
    build.dense("last", "sum", 10, fix=-2)
    assert check(build.finish(), "B1600", "d", "c") == (1, 1, 1, 1800)
    build = Builder((20, 18, 3))
    build.conv("c", "in", (20, 18, 5), 3)
    build.conv("e", "in", (20, 18, 4), 3)
    build.add("joined", "concat", ["c", "e"], (20, 18, 9), {"axis": 3})
    build.dense("d", "joined", 10)
    assert check(build.finish(), "B4096", "d", "joined") == (1, 1, 1, 3240)


def test_a_map_that_fits_keeps_its_shape_and_one_that_cannot_is_named():
    target = get_target("DPUCZDX8G_ISA1_B4096")
    build = Builder((16, 16, 5))
    build.dense("d", "in", 10)
    quantized = build.finish()
    assert dense_on_array(quantized.network, quantized.network["d"], target) == ((16, 16), 5)
    build = Builder((59, 73, 1))  # both are primes, and 4307 channels are too many
    build.dense("d", "in", 10)
    quantized = build.finish()
    findings = target_check.check(quantized, target)
    assert [(f.layer, f.limit, f.value) for f in findings[:2]] == [
        ("d", "kernel width", 73),
        ("d", "kernel height", 59),
    ]
    assert "no other height x width x channels of its 4307 inputs fits" in findings[0].remedy
    with pytest.raises(UserError, match="4307 inputs"):
        compile_native(quantized, target)


def test_the_estimate_counts_the_shape_that_is_read():
    """784 inputs in 49 groups of 16 for 10 outputs: 8 x 16 x (2 x 784 + 1), and the input loaded once."""
    build = Builder((28, 28, 1))
    build.dense("d", "in", 10)
    (row,) = estimate(build.finish(), get_target("DPUCZDX8G_ISA1_B4096"))["layers"]
    assert (row["workload"], row["workload_on_arch"]) == (10 * 1569, 8 * 16 * 1569)
    assert (row["cycles"], row["weight_bytes"], row["ddr_bytes"]) == (49, 7850, 7850 + 784 + 10)
