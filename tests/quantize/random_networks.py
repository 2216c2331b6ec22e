"""Random small float networks for the quantizer, and images to calibrate them on."""

import numpy as np

from dpuflow.network import Layer, Network
from dpuflow.tfgraph.weighted_nodes import window

SHAPE = (9, 8, 2)


class NetworkMaker:
    """Writes an unfolded network layer by layer; every method returns the layer it adds.

    weights : scale of all weights; bias : what is added to the biases in front of a ReLU (far below
    zero, they kill it); norm : smallest and largest scale of the batch norms' channels.
    """

    def __init__(self, rng, weights=1.0, bias=0.0, norm=(0.5, 2.0)):
        self.rng, self.scale, self.shift, self.norm = rng, weights, bias, norm
        self.layers = [Layer("x", "input", [], SHAPE)]

    def emit(self, op, sources, shape, weights=None, bias=None, **attrs):
        """Append a layer."""
        name = f"{op}{len(self.layers)}"
        layer = Layer(name, op, [source.name for source in sources], tuple(shape), attrs, weights, bias)
        self.layers.append(layer)
        return layer

    def _values(self, *shape, fan_in):
        values = self.rng.normal(size=shape) * self.scale * (2 / fan_in) ** 0.5
        return values.astype(np.float32)

    def sliding(self, source, kernel, stride, padding):
        """Output size and attributes."""
        height, top, bottom = window(source.shape[0], kernel, stride, 1, padding)
        width, left, right = window(source.shape[1], kernel, stride, 1, padding)
        attrs = {"kernel": (kernel, kernel), "stride": (stride, stride), "pad": (left, right, top, bottom)}
        return (height, width), attrs

    def conv(self, source, filters, kernel=3, stride=1):
        """Convolution with bias."""
        size, attrs = self.sliding(source, kernel, stride, "SAME")
        channels = source.shape[-1]
        weights = self._values(filters, kernel, kernel, channels, fan_in=kernel * kernel * channels)
        bias = self._bias(filters)
        attrs |= {"dilation": (1, 1), "activation": "NONE"}
        return self.emit("conv", [source], (*size, filters), weights, bias, **attrs)

    def depthwise(self, source):
        """3x3 depthwise convolution without bias."""
        size, attrs = self.sliding(source, 3, 1, "SAME")
        weights = self._values(1, 3, 3, source.shape[-1], fan_in=9)
        attrs |= {"dilation": (1, 1), "activation": "NONE"}
        return self.emit("depthwise_conv", [source], (*size, source.shape[-1]), weights, **attrs)

    def dense(self, source, units):
        """Dense layer with bias."""
        weights = self._values(units, source.shape[0], fan_in=source.shape[0])
        return self.emit("dense", [source], (units,), weights, self._bias(units), activation="NONE")

    def _bias(self, count):
        return (self.rng.normal(size=count) * 0.1 * self.scale + self.shift).astype(np.float32)

    def batch_norm(self, source):
        """Batch norm with scales spread over `norm`."""
        channels = source.shape[-1]
        scale = np.exp(self.rng.uniform(*np.log(self.norm), channels)).astype(np.float32)
        return self.emit("batch_norm", [source], source.shape, scale, self._bias(channels))

    def activate(self, source):
        """One of the activations."""
        op = str(self.rng.choice(["relu", "relu", "relu6", "leaky_relu"]))
        return self.emit(op, [source], source.shape, **({"alpha": 0.1} if op == "leaky_relu" else {}))

    def pool(self, source, op):
        """2x2 pooling."""
        size, attrs = self.sliding(source, 2, 2, "VALID")
        return self.emit(op, [source], (*size, source.shape[-1]), **attrs)

    def flat(self, source):
        """Flatten, or global average pooling and then flatten."""
        height, width, channels = source.shape
        if self.rng.random() < 0.5:
            source = self.emit(
                "avg_pool",
                [source],
                (1, 1, channels),
                kernel=(width, height),
                stride=(1, 1),
                pad=(0, 0, 0, 0),
            )
        return self.emit("flatten", [source], (int(np.prod(source.shape)),))

    def block(self, x):
        """A convolution with norm and activation in either order, a residual block, or two branches."""
        kind = self.rng.integers(8)
        if kind == 5:
            return self.squeeze_and_excitation(self.activate(self.conv(x, 6)))
        if kind == 6:
            return self.gated(
                self.batch_norm(self.conv(x, 5)), str(self.rng.choice(["hard_sigmoid", "sigmoid"]))
            )
        if kind == 7:  # one factor per channel, from a vector
            left = self.activate(self.conv(x, 4))
            factors = self.emit("hard_sigmoid", [self.dense(self.flat(x), 4)], (4,))
            return self.emit("multiply", [factors, left], left.shape)
        if kind == 0:
            return self.activate(self.batch_norm(self.conv(x, 6)))
        if kind == 1:
            return self.batch_norm(self.activate(self.conv(x, 5)))
        if kind == 2:
            body = self.conv(self.activate(self.depthwise(x)), x.shape[-1], 1)
            total = self.emit("add", [x, body], x.shape, activation="NONE")
            return self.emit("relu", [total], x.shape)
        if kind == 3:
            left, right = self.activate(self.conv(x, 3)), self.batch_norm(self.conv(x, 4, 1))
            return self.emit("concat", [left, right], (*x.shape[:2], 7), axis=3)
        return self.activate(self.depthwise(x))

    def gated(self, x, gate):
        """x times its own hard sigmoid (hard swish) or sigmoid (swish)."""
        return self.emit("multiply", [x, self.emit(gate, [x], x.shape)], x.shape)

    def squeeze_and_excitation(self, x):
        """x times one factor per channel, made of its averages."""
        height, width, channels = x.shape
        attrs = {"kernel": (width, height), "stride": (1, 1), "pad": (0, 0, 0, 0)}
        pooled = self.emit("avg_pool", [x], (1, 1, channels), **attrs)
        excited = self.conv(self.activate(self.conv(pooled, 3, 1)), channels, 1)
        gate = self.emit(str(self.rng.choice(["hard_sigmoid", "sigmoid"])), [excited], excited.shape)
        return self.emit("multiply", [x, gate], x.shape)

    def network(self, classes):
        """Two to four blocks, pools between them, one or two dense layers, softmax."""
        x = self.activate(self.conv(self.layers[0], 4))
        for _ in range(int(self.rng.integers(2, 4))):
            x = self.block(x)
            if min(x.shape[:2]) >= 4 and self.rng.random() < 0.6:
                x = self.pool(x, str(self.rng.choice(["max_pool", "avg_pool"])))
        x = self.flat(x)
        if self.rng.random() < 0.5:
            x = self.activate(self.dense(x, 10))
        x = self.dense(x, classes)
        self.emit("softmax", [x], (classes,))
        return Network("random", self.layers)


NETWORKS = {
    "usual": {},
    "tiny weights": {"weights": 1e-4},
    "large weights": {"weights": 30.0},
    "very large weights": {"weights": 1e4},
    "dead channels": {"bias": -0.8},
    "all dead": {"bias": -1e3},
    "norms of tiny variance": {"norm": (1e-3, 1e3)},
    "weights of zero": {"weights": 0.0, "bias": 0.3},
}
"""What is odd about a network -> how to make it."""


def smooth(rng, count):
    """uint8 images in which neighbouring pixels are alike."""
    coarse = rng.uniform(0, 255, (count, 3, 3, SHAPE[2]))
    fine = np.repeat(np.repeat(coarse, 3, axis=1), 3, axis=2)[:, : SHAPE[0], : SHAPE[1]]
    return np.clip(fine + rng.normal(0, 12, fine.shape), 0, 255).astype(np.uint8)


def dark(rng, count):
    """As `smooth`, with values up to 7."""
    return (smooth(rng, count) // 32).astype(np.uint8)


SCALINGS = {
    "raw": {"subtract": 0, "divide": 1},
    "to one": {"subtract": 0, "divide": 255},
    "signed": {"subtract": 127.5, "divide": 127.5},
}
