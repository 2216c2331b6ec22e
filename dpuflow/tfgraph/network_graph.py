"""A float `Network` as a frozen GraphDef, for networks that come from elsewhere than TensorFlow.

The vendor's TensorFlow flow starts from it, and it is the float network's evaluator. Only operators and
attributes of TensorFlow 1.15 occur; nodes are called after their layers.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.outputs import ends_of, node_entry
from dpuflow.base.totality import Total
from dpuflow.network import Layer, Network
from dpuflow.ops import OPERATORS, kinds
from dpuflow.ops.convolution import weighted
from dpuflow.ops.pooling import InsideAveragePool
from dpuflow.ops.rearranging import shuffled
from dpuflow.tfgraph import float_nodes
from dpuflow.tfgraph.graph_def import DT_FLOAT, add_constant, add_node, new_graph, write_graph_def
from dpuflow.tfgraph.weighted_nodes import window

FLOAT = ("type", DT_FLOAT)
DT_INT32 = 3
LOWEST = float(np.finfo(np.float32).min)


def write_network_graph(path: Path | str, network: Network) -> dict[str, Any]:
    """Write the frozen graph of a network; returns the content of nodes.json."""
    writer = NetworkGraph(network)
    for layer in network.layers:
        writer.tensors[layer.name] = LAYERS[layer.op](writer, layer)
    write_graph_def(path, writer.graph)
    entries = {
        name: node_entry(writer.tensors[layer.name], layer.shape) for name, layer in network.outputs.items()
    }
    first = node_entry(writer.tensors[network.input.name], network.input.shape)
    return {"input": first, **ends_of(entries), "variables": []}


class NetworkGraph:
    """Emits the nodes of one Network.

    Attributes
    ----------
    graph : GraphDef message. tensors : layer's name -> name of the node that gives its output.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.graph = new_graph()
        self.tensors: dict[str, str] = {}

    def node(self, layer: Layer, op: str, inputs: list[str], **attrs: Any) -> str:
        """A node of a layer, called after it and the op."""
        return add_node(self.graph, op, f"{layer.name}/{op}", inputs, T=FLOAT, **attrs)

    def constant(self, layer: Layer, name: str, array: np.ndarray | None) -> str:
        """A constant of a layer."""
        return add_constant(self.graph, f"{layer.name}/{name}", np.asarray(array))

    def source(self, layer: Layer) -> str:
        """The node that gives a layer's only input."""
        return self.tensors[layer.inputs[0]]

    def input(self, layer: Layer) -> str:
        """The placeholder."""
        return add_node(
            self.graph, "Placeholder", layer.name, dtype=FLOAT, shape=("shape", [-1, *layer.shape])
        )

    def same(self, layer: Layer) -> bool:
        """Whether a layer's padding is what TensorFlow calls SAME."""
        height, width, _ = self.network[layer.inputs[0]].shape
        (kw, kh), (sw, sh) = layer.attrs["kernel"], layer.attrs["stride"]
        dw, dh = layer.attrs.get("dilation", (1, 1))
        _, left, right = window(width, kw, sw, dw, "SAME")
        _, top, bottom = window(height, kh, sh, dh, "SAME")
        return (left, right, top, bottom) == tuple(layer.attrs["pad"])

    def padded(self, layer: Layer, x: str, value: float | None = None) -> tuple[str, str]:
        """Padding as TensorFlow's SAME where that is the same, else by a Pad: (tensor, padding).

        value : what it is filled with; None: zeros.
        """
        pad = layer.attrs["pad"]
        if not any(pad):
            return x, "VALID"
        if self.same(layer) and layer.op != "avg_pool":  # whose padding counts, which SAME's does not
            return x, "SAME"
        amounts = self.constant(layer, "paddings", np.array([[0, 0], pad[2:], pad[:2], [0, 0]], np.int32))
        if value is None:
            return self.node(layer, "Pad", [x, amounts]), "VALID"
        filled = self.constant(layer, "pad_value", np.asarray(value, np.float32))
        return self.node(layer, "PadV2", [x, amounts, filled]), "VALID"

    def biased(self, layer: Layer, x: str) -> str:
        """The bias and the activation behind a layer's sums."""
        if layer.bias is not None:
            x = self.node(layer, "BiasAdd", [x, self.constant(layer, "bias", layer.bias)])
        return _ACTIVATIONS[layer.attrs["activation"]](self, layer, x)

    def convolution(self, op: str, layer: Layer, weights: np.ndarray) -> str:
        """weights HWIO, or HWC1 for depthwise."""
        x, padding = self.padded(layer, self.source(layer))
        (sw, sh), (dw, dh) = layer.attrs["stride"], layer.attrs["dilation"]
        more = {} if (dw, dh) == (1, 1) else {"dilations": [1, dh, dw, 1]}
        values = self.constant(layer, "weights", weights)
        x = self.node(layer, op, [x, values], strides=[1, sh, sw, 1], padding=padding, **more)
        return self.biased(layer, x)

    def conv(self, layer: Layer) -> str:
        """Conv2D."""
        return self.convolution("Conv2D", layer, _weights(layer).transpose(1, 2, 3, 0))

    def depthwise(self, layer: Layer) -> str:
        """DepthwiseConv2dNative; a full convolution where the strides differ, which that cannot have."""
        weights = _weights(layer)
        if layer.attrs["stride"][0] == layer.attrs["stride"][1]:
            return self.convolution("DepthwiseConv2dNative", layer, weights.transpose(1, 2, 3, 0))
        _, height, width, channels = weights.shape
        full = np.zeros((height, width, channels, channels), np.float32)
        full[:, :, range(channels), range(channels)] = weights[0]
        return self.convolution("Conv2D", layer, full)

    def transposed(self, layer: Layer) -> str:
        """Conv2DBackpropInput over the whole output, then what `pad` leaves of it; weights flipped."""
        weights, x = _weights(layer), self.source(layer)
        if weighted(layer.operator).per_channel:
            weights = np.eye(weights.shape[3], dtype=np.float32)[:, None, None] * weights
        height, width, _ = self.network[layer.inputs[0]].shape
        (sw, sh), (kw, kh) = layer.attrs["stride"], layer.attrs["kernel"]
        left, _, top, _ = layer.attrs["pad"]
        ints = ("type", DT_INT32)

        def numbers(name: str, *values: int) -> str:
            return self.constant(layer, name, np.array(values, np.int32))

        def integers(op: str, name: str, inputs: list[str], **attrs: Any) -> str:
            return add_node(self.graph, op, f"{layer.name}/{name}", inputs, **attrs)

        shape = integers("Shape", "shape", [x], T=FLOAT, out_type=ints)
        first = [shape, numbers("first", 0), numbers("one", 1)]
        images = integers("Slice", "images", first, T=ints, Index=ints)
        full = numbers("full", (height - 1) * sh + kh, (width - 1) * sw + kw, layer.shape[-1])
        axis = self.constant(layer, "axis", np.asarray(0, np.int32))
        size = integers("ConcatV2", "size", [images, full, axis], N=2, T=ints)
        kernel = self.constant(layer, "weights", weights[:, ::-1, ::-1].transpose(1, 2, 0, 3))
        settings: dict[str, Any] = {"strides": [1, sh, sw, 1], "padding": "VALID"}
        whole = self.node(layer, "Conv2DBackpropInput", [size, kernel, x], **settings)
        part = [whole, numbers("begin", 0, top, left, 0), numbers("kept", -1, *layer.shape)]
        return self.biased(layer, self.node(layer, "Slice", part, Index=ints))

    def dense(self, layer: Layer) -> str:
        """MatMul."""
        weights = self.constant(layer, "weights", _weights(layer).T)
        return self.biased(layer, self.node(layer, "MatMul", [self.source(layer), weights]))

    def pool(self, op: str, layer: Layer, value: float | None) -> str:
        """MaxPool or AvgPool."""
        if self.network[layer.inputs[0]].op in ("relu", "relu6"):
            value = None  # nothing is below zero, and zeros are what every reader knows
        x, padding = self.padded(layer, self.source(layer), value)
        (kw, kh), (sw, sh) = layer.attrs["kernel"], layer.attrs["stride"]
        return self.node(layer, op, [x], ksize=[1, kh, kw, 1], strides=[1, sh, sw, 1], padding=padding)

    def average(self, layer: Layer) -> str:
        """AvgPool; Mean over the whole map."""
        height, width, _ = self.network[layer.inputs[0]].shape
        if layer.attrs["kernel"] != (width, height) or any(layer.attrs["pad"]):
            return self.pool("AvgPool", layer, None)
        axes = self.constant(layer, "axes", np.array([1, 2], np.int32))
        return self.node(layer, "Mean", [self.source(layer), axes], keep_dims=True)

    def average_inside(self, layer: Layer) -> str:
        """AvgPool whose padding does not count: SAME, or factors behind one whose padding does."""
        pooled = self.pool("AvgPool", layer, None)
        if layer.op == "avg_pool_inside" and self.same(layer):
            return pooled
        operator = layer.operator
        assert isinstance(operator, InsideAveragePool)  # by the table's row
        rows, columns = operator.counts(self.network[layer.inputs[0]].shape)
        factors = np.float32(operator.area) / np.outer(rows, columns).astype(np.float32)
        return self.node(layer, "Mul", [pooled, self.constant(layer, "inside", factors[:, :, None])])

    def batch_norm(self, layer: Layer) -> str:
        """x * weights + bias."""
        factors, offsets = (
            self.constant(layer, name, array)
            for name, array in (("factors", layer.weights), ("offsets", layer.bias))
        )
        return self.node(layer, "Add", [self.node(layer, "Mul", [self.source(layer), factors]), offsets])

    def add(self, layer: Layer) -> str:
        """Add."""
        x = self.node(layer, "Add", [self.tensors[name] for name in layer.inputs])
        return _ACTIVATIONS[layer.attrs["activation"]](self, layer, x)

    def concat(self, layer: Layer) -> str:
        """ConcatV2."""
        axis = self.constant(layer, "axis", np.asarray(layer.attrs["axis"], np.int32))
        parts = [self.tensors[name] for name in layer.inputs]
        return self.node(layer, "ConcatV2", [*parts, axis], N=len(parts))

    def flatten(self, layer: Layer) -> str:
        """Reshape."""
        shape = self.constant(layer, "shape", np.array([-1, *layer.shape], np.int32))
        return self.node(layer, "Reshape", [self.source(layer), shape])

    def leaky_relu(self, layer: Layer) -> str:
        """LeakyRelu."""
        return self.node(layer, "LeakyRelu", [self.source(layer)], alpha=float(layer.attrs["alpha"]))

    def multiply(self, layer: Layer) -> str:
        """Mul; factors of a map's channels as (N, 1, 1, C)."""
        inputs = []
        for k, name in enumerate(layer.inputs):
            source = self.network[name]
            x = self.tensors[name]
            if len(source.shape) < len(layer.shape):
                shape = self.constant(layer, f"shape{k}", np.array([-1, 1, 1, *source.shape], np.int32))
                x = self.node(layer, "Reshape", [x, shape])
            inputs.append(x)
        return self.node(layer, "Mul", inputs)

    def pixel_shuffle(self, layer: Layer) -> str:
        """Reshape, Transpose, Reshape: DepthToSpace has another order of channels."""
        cut, order = shuffled(layer.attrs["scale"], layer.attrs["upscale"], layer.shape)
        x = add_node(
            self.graph,
            "Reshape",
            f"{layer.name}/cut",
            [self.source(layer), self.constant(layer, "blocks", np.array([-1, *cut], np.int32))],
            T=FLOAT,
        )
        x = self.node(layer, "Transpose", [x, self.constant(layer, "order", np.array(order, np.int32))])
        shape = self.constant(layer, "shape", np.array([-1, *layer.shape], np.int32))
        return self.node(layer, "Reshape", [x, shape])

    def hard_sigmoid(self, layer: Layer) -> str:
        """relu6(x + 3) / 6."""
        three, sixth = (
            self.constant(layer, name, np.array(number, np.float32))
            for name, number in (("3", 3), ("sixth", 1 / 6))
        )
        x = self.node(layer, "Relu6", [self.node(layer, "Add", [self.source(layer), three])])
        return self.node(layer, "Mul", [x, sixth])

    def upsample(self, layer: Layer) -> str:
        """ResizeNearestNeighbor."""
        size = self.constant(layer, "size", np.array(layer.shape[:2], np.int32))
        return self.node(layer, "ResizeNearestNeighbor", [self.source(layer), size])

    def resize_bilinear(self, layer: Layer) -> str:
        """ResizeBilinear."""
        size = self.constant(layer, "size", np.array(layer.shape[:2], np.int32))
        grids = {"half_pixel": {"half_pixel_centers": True}, "align_corners": {"align_corners": True}}
        more: dict[str, Any] = grids.get(layer.attrs["grid"], {})
        return self.node(layer, "ResizeBilinear", [self.source(layer), size], **more)

    def downsample(self, layer: Layer) -> str:
        """StridedSlice."""
        begin, end, steps = (
            self.constant(layer, name, np.array(values, np.int32))
            for name, values in (
                ("begin", [0] * 4),
                ("end", [0] * 4),
                ("steps", [1, layer.attrs["factor"][1], layer.attrs["factor"][0], 1]),
            )
        )
        inputs = [self.source(layer), begin, end, steps]
        return self.node(layer, "StridedSlice", inputs, Index=("type", DT_INT32), begin_mask=15, end_mask=15)


def _weights(layer: Layer) -> np.ndarray:
    assert layer.weights is not None  # `network.check` says so
    return np.asarray(layer.weights, np.float32)


_ACTIVATIONS = Total(
    "tfgraph.network_graph: node of a fused activation",
    ("NONE", "RELU", "RELU6"),
    {
        "NONE": lambda writer, layer, x: x,
        "RELU": lambda writer, layer, x: writer.node(layer, "Relu", [x]),
        "RELU6": lambda writer, layer, x: writer.node(layer, "Relu6", [x]),
    },
)
"""Layers as they are read have none; choices of channels and folded networks may."""


def _unary(op):
    return lambda writer, layer: writer.node(layer, op, [writer.source(layer)])


def _on_cpu(writer, layer):
    inputs = [writer.tensors[name] for name in layer.inputs]
    return float_nodes.NODES[layer.op](writer.graph, layer, layer.name, inputs)


LAYERS = Total(
    "tfgraph.network_graph: nodes of a layer",
    lambda: set(OPERATORS),
    {
        "input": NetworkGraph.input,
        "output": lambda writer, layer: writer.source(layer),
        "conv": NetworkGraph.conv,
        "depthwise_conv": NetworkGraph.depthwise,
        **dict.fromkeys(("transposed_conv", "transposed_depthwise_conv"), NetworkGraph.transposed),
        "dense": NetworkGraph.dense,
        "max_pool": lambda writer, layer: writer.pool("MaxPool", layer, LOWEST),
        "avg_pool": NetworkGraph.average,
        "avg_pool_inside": NetworkGraph.average_inside,
        "batch_norm": NetworkGraph.batch_norm,
        "add": NetworkGraph.add,
        "concat": NetworkGraph.concat,
        "flatten": NetworkGraph.flatten,
        "multiply": NetworkGraph.multiply,
        "hard_sigmoid": NetworkGraph.hard_sigmoid,
        "pixel_shuffle": NetworkGraph.pixel_shuffle,
        "sigmoid": _unary("Sigmoid"),
        "upsample": NetworkGraph.upsample,
        "downsample": NetworkGraph.downsample,
        "resize_bilinear": NetworkGraph.resize_bilinear,
        "relu": _unary("Relu"),
        "relu6": _unary("Relu6"),
        "leaky_relu": NetworkGraph.leaky_relu,
        "to_grid": NetworkGraph.source,
        **dict.fromkeys(kinds(lambda operator: not operator.quantized), _on_cpu),
    },
    optional=True,
)
