"""A small hand-made QuantizedNetwork with every layer type the compiler lowers."""

import numpy as np

from dpuflow.network import Layer, Network, QuantizedNetwork

INPUT_SHAPE = (13, 11, 3)


def window(kernel, stride=(1, 1), pad=(0, 0, 0, 0), **more):
    """Attributes of a layer with a window."""
    return {"kernel": kernel, "stride": stride, "pad": pad, **more}


def hand_network(name="hand"):
    """conv, max pool, depthwise, add, concat, average pool, flatten, two dense layers, softmax."""
    rng = np.random.default_rng(5)

    def integers(*shape):
        return rng.integers(-90, 91, shape).astype(np.int8)

    same = window((3, 3), pad=(1, 1, 1, 1), dilation=(1, 1), activation="RELU")
    layers = [
        Layer("x", "input", [], INPUT_SHAPE),
        Layer("conv1", "conv", ["x"], (13, 11, 8), dict(same)),
        Layer("pool1", "max_pool", ["conv1"], (6, 5, 8), window((2, 2), (2, 2))),
        Layer("dw", "depthwise_conv", ["pool1"], (6, 5, 8), dict(same)),
        Layer("add", "add", ["pool1", "dw"], (6, 5, 8), {"activation": "RELU"}),
        Layer("cat", "concat", ["add", "dw"], (6, 5, 16), {"axis": 3}),
        Layer("avg", "avg_pool", ["cat"], (2, 2, 16), window((3, 3), (2, 3))),
        Layer("flat", "flatten", ["avg"], (64,)),
        Layer("fc1", "dense", ["flat"], (12,), {"activation": "LEAKYRELU"}),
        Layer("fc2", "dense", ["fc1"], (5,), {"activation": "NONE"}),
        Layer("prob", "softmax", ["fc2"], (5,)),
    ]
    weights = {
        "conv1": (integers(8, 3, 3, 3), 8),
        "dw": (integers(1, 3, 3, 8), 7),
        "fc1": (integers(12, 64), 8),
        "fc2": (integers(5, 12), 7),
    }
    # fc2 has no bias
    biases = {"conv1": (integers(8), 6), "dw": (integers(8), 4), "fc1": (integers(12), 6)}
    fix_points = {"x": 6, "conv1": 4, "pool1": 4, "dw": 3, "add": 3, "cat": 3, "avg": 3, "flat": 3}
    fix_points.update(fc1=2, fc2=2)
    scaling = {"subtract": 127.5, "divide": 127.5}
    return QuantizedNetwork(Network(name, layers), fix_points, weights, biases, scaling)
