"""Slices, splits, channel shuffle, space to depth and depth to space: read as NumPy computes them."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.network import Network
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.graph_def import add_constant, add_node
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import GraphMaker

SHAPE = (8, 12, 8)


class Maker(GraphMaker):
    """With what rearranges."""

    def ints(self, *values):
        return add_constant(self.graph, self.name("const"), np.array(values, np.int32))

    def reshape(self, x, *shape):
        return self.op("Reshape", x, self.ints(-1, *shape))

    def transpose(self, x, *order):
        return self.op("Transpose", x, self.ints(*order))

    def cut(self, x, begin, end, step):
        ends = [self.ints(*numbers) for numbers in (begin, end, step)]
        return self.op("StridedSlice", x, *ends, end_mask=9, begin_mask=1)  # the batch, and all channels

    def axis(self):
        return add_constant(self.graph, self.name("axis"), np.int32(3))

    def read(self, x, path):
        """The network and its layer that computes x, a map: the output."""
        self.write(path, self.dense(self.flatten(x, 4), 4, 2))
        network = read_network(path, output_name=x)
        return network


def shuffle(g, x):
    return g.reshape(g.transpose(g.reshape(x, 8, 12, 2, 4), 0, 1, 2, 4, 3), 8, 12, 8)


def focus(g, x):
    parts = [g.cut(x, (0, i, j, 0), (0, 8, 12, 0), (1, 2, 2, 1)) for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
    return g.op("ConcatV2", *parts, g.axis(), N=4)


def split(g, x):
    node = g.op("SplitV", x, g.ints(3, -1), g.axis(), num_split=2)
    return g.op("ConcatV2", f"{node}:1", node, g.axis(), N=2)


def blocks(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c)


def spread(x, cut, order):
    n, h, w, c = x.shape
    return x.reshape(n, h, w, *cut).transpose(order).reshape(n, 2 * h, 2 * w, c // 4)


CASES = {
    "channel shuffle": (shuffle, lambda x: x.reshape(-1, 8, 12, 2, 4).swapaxes(3, 4).reshape(-1, 8, 12, 8)),
    "focus": (
        focus,
        lambda x: np.concatenate([x[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))], -1),
    ),
    "parts of channels": (split, lambda x: np.concatenate([x[..., 3:], x[..., :3]], -1)),
    "a crop": (lambda g, x: g.cut(x, (0, 2, 1, 0), (0, 7, 12, 0), (1, 1, 1, 1)), lambda x: x[:, 2:7, 1:12]),
    "some rows": (lambda g, x: g.cut(x, (0, 1, 0, 0), (0, 8, 12, 0), (1, 3, 1, 1)), lambda x: x[:, 1::3]),
    "a mean over the columns": (
        lambda g, x: g.op("Mean", x, g.ints(2), keep_dims=True),
        lambda x: x.sum(2, keepdims=True) / np.float32(12),
    ),
    "a maximum over the rows": (
        lambda g, x: g.op("Max", x, g.ints(1), keep_dims=True),
        lambda x: x.max(1, keepdims=True),
    ),
    "space to depth": (
        lambda g, x: g.op("SpaceToDepth", x, block_size=2),
        lambda x: blocks(x).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, 6, 32),
    ),
    "space to depth, written out": (
        lambda g, x: g.reshape(g.transpose(g.reshape(x, 4, 2, 6, 2, 8), 0, 1, 3, 5, 2, 4), 4, 6, 32),
        lambda x: blocks(x).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4, 6, 32),
    ),
    "depth to space": (
        lambda g, x: g.op("DepthToSpace", x, block_size=2),
        lambda x: spread(x, (2, 2, 2), (0, 1, 3, 2, 4, 5)),
    ),
    "depth to space, written out": (
        lambda g, x: g.reshape(g.transpose(g.reshape(x, 8, 12, 2, 2, 2), 0, 1, 3, 2, 4, 5), 16, 24, 2),
        lambda x: spread(x, (2, 2, 2), (0, 1, 3, 2, 4, 5)),
    ),
    "pixel shuffle in PyTorch's order": (
        lambda g, x: g.reshape(g.transpose(g.reshape(x, 8, 12, 2, 2, 2), 0, 1, 4, 2, 5, 3), 16, 24, 2),
        lambda x: spread(x, (2, 2, 2), (0, 1, 4, 2, 5, 3)),
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_values_come_where_they_belong(tmp_path, what):
    make, numpy = CASES[what]
    g = Maker(SHAPE)
    network = g.read(make(g, g.op("Relu", g.conv(g.input, 8, 8))), tmp_path / "g.pb")
    x = np.random.default_rng(3).normal(size=(2, *SHAPE)).astype(np.float32)
    ops = [layer.op for layer in network.layers]
    before = Network("before", network.layers[: ops.index("relu") + 1])
    expected = numpy(run_float(before, x)[before.output.name])
    np.testing.assert_allclose(run_float(network, x)[network.output.name], expected, rtol=1e-6)
    folded = fold(network)[0]
    np.testing.assert_allclose(run_float(folded, x)[folded.output.name], expected, atol=1e-6)


def test_another_order_of_channels_goes_into_the_convolution_in_front(tmp_path):
    """Depth to space in TensorFlow's order costs no layer where a convolution makes its channels."""
    g = Maker(SHAPE)
    network = g.read(g.op("DepthToSpace", g.conv(g.input, 8, 8), block_size=2), tmp_path / "g.pb")
    assert [layer.op for layer in network.layers] == ["input", "conv", "pixel_shuffle"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g, x: g.op("SpaceToDepth", x, block_size=5), "blocks of 5 in a map of 8 x 12"),
        (lambda g, x: g.op("DepthToSpace", x, block_size=3), "8 channels into blocks of 3 x 3"),
        (lambda g, x: g.conv(g.transpose(x, 0, 2, 1, 3), 8, 8), "changes the order of the axes"),
        (
            lambda g, x: g.cut(x, (0, 7, 0, 0), (0, 0, 12, 0), (1, -1, 1, 1)),
            "takes rows or columns backwards",
        ),
        (lambda g, x: g.op("SplitV", x, g.ints(3, 4), g.axis(), num_split=2), "splits 8 into parts of"),
    ],
)
def test_what_cannot_be_rearranged_is_refused(tmp_path, make, message):
    g = Maker(SHAPE)
    x = make(g, g.conv(g.input, 8, 8))
    add_node(g.graph, "Identity", "end", [x])
    g.write(tmp_path / "g.pb", "end")
    with pytest.raises(UserError, match=message):
        read_network(tmp_path / "g.pb", output_name="end")
