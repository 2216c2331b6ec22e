"""Quantized networks with layers that the DPU does not run: in front, in the middle, at the end."""

import numpy as np

from dpuflow.network import Layer, Network, QuantizedNetwork

CLASSES = [f"class {number}" for number in range(10)]
SCALING = {"subtract": 128.0, "divide": 128.0}


class Builder:
    """Layers one after the other with random int8 parameters that keep values in range."""

    def __init__(self, shape=(12, 12, 1), seed=0):
        self.random = np.random.default_rng(seed)
        self.layers = [Layer("image", "input", [], shape)]
        self.points, self.weights, self.biases = {"image": 7}, {}, {}

    def shape(self, name):
        return next(layer.shape for layer in self.layers if layer.name == name)

    def layer(self, op, inputs, shape, attrs, point=None, weights=None):
        name = f"{op}_{len(self.layers)}"
        layer = Layer(name, op, inputs, shape, attrs)
        self.points[name] = self.points[inputs[0]] if point is None else point
        if weights is not None:
            spread = int(np.clip(900 / np.sqrt(np.prod(weights[1:])), 6, 127))
            values = self.random.integers(-spread, spread + 1, weights).astype(np.int8)
            bias = self.random.integers(-100, 101, shape[-1]).astype(np.int8)
            self.weights[name], self.biases[name] = (values, 7), (bias, self.points[inputs[0]] + 4)
            layer.weights = np.ldexp(values.astype(np.float32), -7)
            layer.bias = np.ldexp(bias.astype(np.float32), -self.biases[name][1])
        self.layers.append(layer)
        return name

    def conv(self, source, channels, activation="RELU", point=5):
        height, width, inputs = self.shape(source)
        attrs = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}
        shape = (height, width, channels)
        attrs["activation"] = activation
        return self.layer("conv", [source], shape, attrs, point, (channels, 3, 3, inputs))

    def depthwise(self, source, activation="LEAKYRELU", point=5):
        """With a leaky ReLU it goes to the CPU: the depthwise engine has none."""
        shape = self.shape(source)
        attrs = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}
        attrs["activation"] = activation
        return self.layer("depthwise_conv", [source], shape, attrs, point, (1, 3, 3, shape[2]))

    def pool(self, source, op="max_pool", size=2):
        height, width, channels = self.shape(source)
        attrs = {"kernel": (size, size), "stride": (size, size), "pad": (0, 0, 0, 0)}
        return self.layer(op, [source], (height // size, width // size, channels), attrs)

    def add(self, *sources):
        point = min(self.points[name] for name in sources) - 1
        return self.layer("add", list(sources), self.shape(sources[0]), {"activation": "RELU"}, point)

    def concat(self, *sources):
        shape = (*self.shape(sources[0])[:2], sum(self.shape(name)[2] for name in sources))
        return self.layer("concat", list(sources), shape, {"axis": 3})

    def dense(self, source, units, activation="NONE", point=3):
        count = int(np.prod(self.shape(source)))
        if len(self.shape(source)) > 1:
            source = self.layer("flatten", [source], (count,), {})
        return self.layer("dense", [source], (units,), {"activation": activation}, point, (units, count))

    def finish(self, name, output):
        self.layers.append(Layer("softmax", "softmax", [output], self.shape(output)))
        return QuantizedNetwork(Network(name, self.layers), self.points, self.weights, self.biases, SCALING)


def front():
    """The network of issue 15: Input, DepthwiseConv2D(3, same), LeakyReLU(0.1), Conv2D(8, relu), ..."""
    b = Builder()
    return b.finish("front", b.dense(b.pool(b.conv(b.depthwise("image"), 8)), 10))


def middle():
    """Two DPU subgraphs: the second reads two maps, one of the first and one of the CPU."""
    b = Builder(seed=1)
    x = b.conv("image", 8)
    y = b.depthwise(x)
    return b.finish("middle", b.dense(b.pool(b.conv(b.add(x, y), 6), "avg_pool", 3), 10))


def end():
    """The last layer on the CPU, so that the answers are made there."""
    b = Builder(seed=2)
    pooled = b.pool(b.conv(b.pool(b.conv("image", 8)), 10, "NONE", 4), size=6)
    last = b.depthwise(pooled, point=4)
    return b.finish("end", b.layer("flatten", [last], (10,), {}))


def branches():
    """Three DPU subgraphs; one value is read by the CPU and by two of them."""
    b = Builder(seed=3)
    x = b.pool(b.conv("image", 8))
    y = b.depthwise(x)
    z = b.depthwise(b.conv(b.add(x, y), 8))
    return b.finish("branches", b.dense(b.dense(b.concat(x, y, z), 24, "RELU"), 10))


NETWORKS = {"front": front, "middle": middle, "end": end, "branches": branches}


def images(network, count, seed=7):
    """uint8 images (count, H, W, C) and labels."""
    random = np.random.default_rng(seed)
    shape = network.network.layers[0].shape
    return random.integers(0, 256, (count, *shape), dtype=np.uint8), random.integers(0, 10, count)
