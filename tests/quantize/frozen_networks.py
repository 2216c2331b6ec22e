"""Small frozen graphs made without TensorFlow, and images to calibrate on."""

import numpy as np

from dpuflow.tfgraph.graph_def import add_constant, add_node, new_graph, write_graph_def


class GraphMaker:
    """Writes a frozen graph op by op; every method returns the node it adds."""

    def __init__(self, shape=(12, 12, 1), seed=3):
        self.graph = new_graph()
        self.rng = np.random.default_rng(seed)
        self.count = 0
        dims = ("shape", [-1, *shape])
        self.input = add_node(self.graph, "Placeholder", "images", dtype=("type", 1), shape=dims)

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}/{kind}"

    def constant(self, *shape, scale=1.0, positive=False):
        values = self.rng.normal(size=shape) * scale
        values = np.abs(values) + 0.5 if positive else values
        return add_constant(self.graph, self.name("const"), values.astype(np.float32))

    def conv(self, x, channels, filters, kernel=3, stride=1, bias=True, depthwise=False):
        op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
        shape = (kernel, kernel, channels, 1 if depthwise else filters)
        fan_in = kernel * kernel * (1 if depthwise else channels)
        weights = self.constant(*shape, scale=(2 / fan_in) ** 0.5)
        x = add_node(
            self.graph, op, self.name("conv"), [x, weights], strides=[1, stride, stride, 1], padding="SAME"
        )
        if not bias:
            return x
        return add_node(self.graph, "BiasAdd", self.name("bias"), [x, self.constant(filters, scale=0.1)])

    def dense(self, x, width, units):
        weights = self.constant(width, units, scale=(2 / width) ** 0.5)
        x = add_node(self.graph, "MatMul", self.name("dense"), [x, weights])
        return add_node(self.graph, "BiasAdd", self.name("bias"), [x, self.constant(units, scale=0.1)])

    def batch_norm(self, x, channels):
        inputs = [x, *(self.constant(channels, positive=p) for p in (True, False, False, True))]
        return add_node(self.graph, "FusedBatchNormV3", self.name("norm"), inputs, is_training=False)

    def op(self, op, *inputs, **attributes):
        return add_node(self.graph, op, self.name(op.lower()), list(inputs), **attributes)

    def pool(self, x, op="MaxPool", size=2):
        return self.op(op, x, ksize=[1, size, size, 1], strides=[1, size, size, 1], padding="VALID")

    def flatten(self, x, width):
        shape = add_constant(self.graph, self.name("const"), np.array([-1, width], np.int32))
        return self.op("Reshape", x, shape)

    def write(self, path, x):
        add_node(self.graph, "Softmax", "probabilities/Softmax", [x])
        write_graph_def(path, self.graph)
        return path


def plain_network(path, after=False):
    """Two convolutions with batch norm before (or after) ReLU, pooling, two dense layers."""
    g = GraphMaker()
    x, channels = g.input, 1
    for filters in (8, 12):
        x = g.conv(x, channels, filters)
        x = g.op("Relu", x) if after else g.batch_norm(x, filters)
        x = g.batch_norm(x, filters) if after else g.op("Relu", x)
        x, channels = g.pool(x), filters
    x = g.op("Relu", g.dense(g.flatten(x, 108), 108, 20))
    return g.write(path, g.dense(x, 20, 5))


def residual_network(path):
    """Residual add, depthwise convolution, concatenation, ReLU6, leaky ReLU, both average pools."""
    g = GraphMaker()
    x = g.op("Relu", g.batch_norm(g.conv(g.input, 1, 8), 8))
    y = g.op("Relu6", g.conv(x, 8, 8, depthwise=True))
    x = g.op("Relu", g.op("AddV2", g.conv(y, 8, 8, kernel=1), x))
    x = g.pool(x, "AvgPool")
    left, right = g.op("LeakyRelu", g.conv(x, 8, 6), alpha=0.1015625), g.op("Relu", g.conv(x, 8, 6))
    axis = add_constant(g.graph, "axis", np.int32(-1))
    x = g.op("ConcatV2", left, right, axis, N=2)
    axes = add_constant(g.graph, "axes", np.array([1, 2], np.int32))
    x = g.op("Mean", g.pool(x), axes)
    return g.write(path, g.dense(x, 12, 5))


def images(count=96, seed=0, size=12):
    """Smooth random uint8 pictures: neighbouring pixels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, size // 3 + 1, size // 3 + 1, 1))
    fine = np.repeat(np.repeat(coarse, 3, axis=1), 3, axis=2)[:, :size, :size]
    return np.clip(fine + rng.normal(0, 12, fine.shape), 0, 255).astype(np.uint8)


def gated_network(path, shape=(12, 12, 3)):
    """Hard swish, swish, squeeze-and-excitation by convolutions and by dense layers, spatial attention."""
    g = GraphMaker(shape)

    def number(value):
        return add_constant(g.graph, g.name("const"), np.float32(value))

    def hard_sigmoid(x):
        return g.op("Mul", g.op("Relu6", g.op("AddV2", x, number(3))), number(1 / 6))

    def mean(x, keep):
        axes = add_constant(g.graph, g.name("axes"), np.array([1, 2], np.int32))
        return g.op("Mean", x, axes, keep_dims=keep)

    x = g.batch_norm(g.conv(g.input, shape[-1], 10), 10)
    x = g.op("Mul", g.op("Mul", x, g.op("Relu6", g.op("AddV2", x, number(3)))), number(0.16666667))
    y = g.batch_norm(g.conv(x, 10, 10, stride=2, depthwise=True), 10)
    y = g.op("Mul", hard_sigmoid(y), y)
    squeezed = g.op("Relu", g.conv(mean(y, True), 10, 4, kernel=1))
    y = g.op("Mul", y, hard_sigmoid(g.conv(squeezed, 4, 10, kernel=1)))
    z = g.conv(y, 10, 12)
    z = g.op("IdentityN", g.op("Mul", z, g.op("Sigmoid", z)))
    excited = g.op("Sigmoid", g.dense(g.op("Relu", g.dense(mean(z, False), 12, 5)), 5, 12))
    vector = add_constant(g.graph, g.name("const"), np.array([-1, 1, 1, 12], np.int32))
    z = g.op("Mul", g.op("Reshape", excited, vector), z)
    z = g.op("Mul", z, g.op("Sigmoid", g.conv(z, 12, 1)))
    return g.write(path, g.dense(mean(z, False), 12, 5))
