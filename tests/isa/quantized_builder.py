"""QuantizedNetworks made by hand for the native compiler."""

import numpy as np

from dpuflow.network import Layer, Network, QuantizedNetwork

SAME = {"stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}


class Builder:
    """A QuantizedNetwork with random parameters and positions that keep values in range."""

    def __init__(self, shape, seed=0):
        self.random = np.random.default_rng(seed)
        self.layers = [Layer("input", "input", [], shape)]
        self.fix_points, self.weights, self.biases = {"input": 6}, {}, {}

    def layer(self, op, inputs, shape, fix_point=None, weights=None, **attrs):
        name = f"{op}{len(self.layers)}"
        self.layers.append(Layer(name, op, inputs, shape, attrs))
        self.fix_points[name] = self.fix_points[inputs[0]] if fix_point is None else fix_point
        if weights is not None:
            spread = int(np.clip(1000 / np.sqrt(np.prod(weights[1:])), 8, 127))
            self.weights[name] = (self.random.integers(-spread, spread + 1, weights, np.int8), 8)
            bias = self.random.integers(-128, 128, shape[-1], np.int8)
            self.biases[name] = (bias, self.fix_points[inputs[0]] + 8 - int(self.random.integers(0, 4)))
        return name

    def shape(self, name):
        return next(layer.shape for layer in self.layers if layer.name == name)

    def conv(self, source, channels, fix_point=4, activation="RELU", **attrs):
        height, width, inputs = self.shape(source)
        attrs = {"kernel": (3, 3), **SAME, **attrs}
        return self.layer(
            "conv", [source], (height, width, channels), fix_point, (channels, 3, 3, inputs),
            activation=activation, **attrs,
        )  # fmt: skip

    def depthwise(self, source):
        height, width, channels = self.shape(source)
        attrs = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}
        return self.layer(
            "depthwise_conv", [source], (height, width, channels), 4, (1, 1, 1, channels),
            activation="NONE", **attrs,
        )  # fmt: skip

    def pool(self, source, op="max_pool", kernel=(2, 2)):
        height, width, channels = self.shape(source)
        shape = (height // kernel[1], width // kernel[0], channels)
        return self.layer(op, [source], shape, kernel=kernel, stride=kernel, pad=(0, 0, 0, 0))

    def dense(self, source, units, activation="NONE"):
        count = int(np.prod(self.shape(source)))
        return self.layer("dense", [source], (units,), 3, (units, count), activation=activation)

    def flatten(self, source):
        return self.layer("flatten", [source], (int(np.prod(self.shape(source))),))

    def quantized(self, name, output):
        self.layers.append(Layer("softmax", "softmax", [output], self.shape(output)))
        return QuantizedNetwork(
            Network(name, self.layers), self.fix_points, self.weights, self.biases,
            {"subtract": 128.0, "divide": 128.0},
        )  # fmt: skip
