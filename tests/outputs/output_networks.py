"""Float networks with several outputs, several inputs, and layers of the CPU behind the DPU's."""

import numpy as np

from dpuflow.network import Layer, Network

SCALING = {"subtract": 128.0, "divide": 128.0}


class Maker:
    """Layers one after the other, with random float weights that keep values near 1."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.layers = []

    def shape(self, name):
        return next(layer.shape for layer in self.layers if layer.name == name)

    def add(self, name, op, inputs, size, weights=None, bias=None, **attrs):
        self.layers.append(Layer(name, op, list(inputs), tuple(size), attrs, weights, bias))
        return name

    def input(self, name, shape):
        return self.add(name, "input", [], shape)

    def conv(self, name, source, channels, kernel=3, stride=1):
        height, width, inputs = self.shape(source)
        weights = self.random.normal(size=(channels, kernel, kernel, inputs)) / np.sqrt(kernel**2 * inputs)
        pad = kernel // 2
        size = ((height + 2 * pad - kernel) // stride + 1, (width + 2 * pad - kernel) // stride + 1, channels)
        return self.add(
            name, "conv", [source], size, weights.astype(np.float32),
            (0.1 * self.random.normal(size=channels)).astype(np.float32),
            kernel=(kernel, kernel), stride=(stride, stride), dilation=(1, 1), pad=(pad,) * 4,
            activation="NONE",
        )  # fmt: skip

    def relu(self, source):
        return self.add(f"{source}/relu", "relu", [source], self.shape(source))

    def dense(self, name, source, units):
        count = int(np.prod(self.shape(source)))
        flat = self.add(f"{name}/flat", "flatten", [source], (count,))
        weights = self.random.normal(size=(units, count)) / np.sqrt(count)
        return self.add(
            name, "dense", [flat], (units,), weights.astype(np.float32), np.zeros(units, np.float32),
            activation="NONE",
        )  # fmt: skip

    def constant(self, name, value):
        value = np.asarray(value, np.float32)
        return self.add(name, "constant", [], value.shape, value)


def two_outputs(seed=0):
    """A class and a map, from one trunk; the map is read by the class's branch as well."""
    m = Maker(seed)
    x = m.relu(m.conv("trunk", m.input("image", (12, 10, 3)), 8, stride=2))
    mask = m.conv("mask", x, 4)
    logits = m.dense("logits", m.relu(mask), 5)
    m.add("probabilities", "softmax", [logits], (5,))
    return Network("two", m.layers, {"class": "probabilities", "mask": "mask"})


def detector(seed=0):
    """Trunk, three heads, each decoded on the CPU: reshape, softmax, sigmoid, arithmetic, concat."""
    m = Maker(seed)
    x = m.relu(m.conv("trunk", m.input("image", (16, 16, 3)), 8, stride=2))
    boxes, scores = [], []
    for k in range(3):
        size = m.shape(x)[0]
        places = size * size
        head = m.conv(f"head{k}", x, 4 * 4 + 3, kernel=1)
        flat = m.add(f"flat{k}", "float_reshape", [head], (places, 19), target=(places, 19))
        sides = m.add(
            f"sides{k}", "float_slice", [flat], (places, 16), begin=(0, 0), end=(places, 16), strides=(1, 1)
        )
        shares = m.add(f"shares{k}", "float_reshape", [sides], (places, 4, 4), target=(places, 4, 4))
        shares = m.add(f"softmax{k}", "softmax", [shares], (places, 4, 4))
        steps = m.constant(f"steps{k}", np.arange(4)[:, None])
        mean = m.add(f"mean{k}", "float_matmul", [shares, steps], (places, 4, 1))
        mean = m.add(f"box{k}", "float_reshape", [mean], (places, 4), target=(places, 4))
        grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(places, 2) + 0.5
        anchors = m.constant(f"anchors{k}", np.concatenate([grid, grid], axis=1))
        placed = m.add(f"placed{k}", "float_subtract", [anchors, mean], (places, 4))
        stride = m.constant(f"stride{k}", np.full((1, 1), 16 / size))
        boxes.append(m.add(f"scaled{k}", "float_multiply", [placed, stride], (places, 4)))
        part = m.add(
            f"classes{k}", "float_slice", [flat], (places, 3), begin=(0, 16), end=(places, 19), strides=(1, 1)
        )
        scores.append(m.add(f"scores{k}", "float_sigmoid", [part], (places, 3)))
        if k < 2:
            x = m.relu(m.conv(f"down{k}", x, 8, stride=2))
    count = sum(m.shape(name)[0] for name in boxes)
    m.add("boxes", "float_concat", boxes, (count, 4), axis=1)
    m.add("scores", "float_concat", scores, (count, 3), axis=1)
    m.add("first", "transpose", ["boxes"], (4, count), order=(0, 2, 1))
    m.add("best", "argmax", ["scores"], (count,), axis=2)
    return Network("detector", m.layers, {"boxes": "first", "scores": "scores", "classes": "best"})


def two_inputs(seed=0):
    """Two branches with inputs of their own, added."""
    m = Maker(seed)
    left = m.conv("left", m.input("image", (8, 8, 3)), 6)
    right = m.conv("right", m.input("other", (8, 8, 1)), 6)
    total = m.relu(m.add("sum", "add", [left, right], m.shape(left), activation="NONE"))
    logits = m.dense("logits", total, 4)
    m.add("probabilities", "softmax", [logits], (4,))
    return Network("inputs", m.layers)


def between(seed=0):
    """A sigmoid on the CPU between convolutions of the DPU."""
    m = Maker(seed)
    x = m.conv("first", m.input("image", (8, 8, 3)), 8)
    x = m.add("tanh", "tanh", [x], m.shape(x))
    x = m.conv("second", x, 4)
    m.add("back", "float_sigmoid", [x], m.shape(x))
    return Network("between", m.layers)


def images(network, count, seed=1):
    """uint8 images for each input."""
    random = np.random.default_rng(seed)
    return {
        layer.name: random.integers(0, 256, (count, *layer.shape)).astype(np.uint8)
        for layer in network.inputs
    }
