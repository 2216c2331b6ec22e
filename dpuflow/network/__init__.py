"""The network between the frozen graph and the xmodel: float layers, then int8 ones.

`Network` is what the quantizer reads from a frozen GraphDef (TensorFlow ops with
layouts and names turned into the DPU's terms) and transforms; `QuantizedNetwork`
adds int8 parameters and fix_points and is what the compiler lowers to XIR.

Conventions (those of XIR, facts xmodel.md section 2): activations NHWC, kernel /
stride / dilation ``(w, h)``, pad ``(left, right, top, bottom)``, conv weights
[OC, KH, KW, IC], depthwise weights [multiplier, KH, KW, C], dense weights
[OC, IN] with IN in flattened NHWC order, bias [OC].
"""

from dataclasses import dataclass, field

import numpy as np

from dpuflow.base.totality import Total

ACTIVATIONS = {
    "NONE": "x",
    "RELU": "max(x, 0)",
    "RELU6": "min(max(x, 0), 6)",
    "LEAKYRELU": "x, below 0 x * 26/256",
}
"""Fused activation -> what it computes. Every stage's table of activations has just these keys."""

OPS = {
    "input": (),
    "conv": ("kernel", "stride", "dilation", "pad", "activation"),
    "depthwise_conv": ("kernel", "stride", "dilation", "pad", "activation"),
    "dense": ("activation",),
    "max_pool": ("kernel", "stride", "pad"),
    "avg_pool": ("kernel", "stride", "pad"),
    "add": ("activation",),
    "concat": ("axis",),
    "flatten": (),
    "relu": (),
    "relu6": (),
    "leaky_relu": ("alpha",),
    "batch_norm": (),
    "softmax": (),
}
"""op -> its attributes. batch_norm is y = x * weights + bias per channel. Global average
pooling is an avg_pool with the map as kernel, keeping [1, 1, C]; flatten follows it. concat's
axis counts the batch dimension (3 = channels of NHWC). Every stage's table of operators
(`totality.Total`) has just these keys, or those of `folded_ops`."""

FOLDED_AWAY = ("relu", "relu6", "leaky_relu", "batch_norm")
"""Ops that exist before folding only."""


def folded_ops() -> list[str]:
    """Ops that are left after folding: what the quantizer and all behind it know."""
    return [op for op in OPS if op not in FOLDED_AWAY]


_OUTPUT_AXIS = Total(
    "network: axis of the weights that counts output channels (None: no weights)",
    folded_ops,
    {
        **{"conv": 0, "depthwise_conv": -1, "dense": 0},
        **dict.fromkeys(("input", "max_pool", "avg_pool", "add", "concat", "flatten", "softmax")),
    },
)
WEIGHTED = tuple(op for op, axis in _OUTPUT_AXIS.items() if axis is not None)

OUTPUT = Total(
    "network: what an op's output holds",
    folded_ops,
    {
        **dict.fromkeys((*WEIGHTED, "input", "max_pool", "avg_pool", "add", "concat"), "integers"),
        "flatten": "its input's integers",
        "softmax": "reals",
    },
)
"""Integers have a fix_point; those of the input its own one; reals have none."""


def output_axis(layer: "Layer") -> int:
    """Axis of a weighted layer's weights that counts its output channels."""
    axis = _OUTPUT_AXIS[layer.op]
    if axis is None:
        raise ValueError(f"layer {layer.name!r} ({layer.op}) has no weights")
    return axis


def per_output_channel(layer: "Layer", values: np.ndarray) -> np.ndarray:
    """`values` (channels,) in a shape that multiplies the output channels of the layer's weights."""
    shape = [1] * layer.weights.ndim
    shape[output_axis(layer)] = -1
    return values.reshape(shape)


@dataclass
class Layer:
    """One layer and its output tensor (both go by `name`).

    Attributes
    ----------
    shape : output shape without the batch dimension, (H, W, C) or (N,).
    attrs : see OPS; kernel, stride, dilation are (w, h), pad is (l, r, t, b).
    weights, bias : float32 arrays or None (layouts: module docstring).
    """

    name: str
    op: str
    inputs: list[str]
    shape: tuple[int, ...]
    attrs: dict = field(default_factory=dict)
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None


@dataclass
class Network:
    """A directed acyclic graph of layers in topological order, one input, one output."""

    name: str
    layers: list[Layer]

    def __post_init__(self):
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError("layer names must be unique")

    def __getitem__(self, name):
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def input(self):
        """The input layer."""
        return next(layer for layer in self.layers if layer.op == "input")

    @property
    def output(self):
        """The last layer: the one that no other layer reads."""
        read = {name for layer in self.layers for name in layer.inputs}
        return next(layer for layer in self.layers if layer.name not in read)

    def consumers(self, name):
        """Layers that read `name`, in order."""
        return [layer for layer in self.layers if name in layer.inputs]


@dataclass
class QuantizedNetwork:
    """A folded, fused network with its int8 parameters and fix_points.

    Attributes
    ----------
    network : only ops that survive folding; float parameters are those *before* rounding.
    fix_points : layer name -> fix_point of its int8 output (every layer but softmax).
    weights : layer name -> (int8 array, fix_point).
    biases : layer name -> (int8 array, fix_point); layers without a bias are absent.
    input_scaling : {"subtract": s, "divide": d}: float input = (pixel - s) / d.
    """

    network: Network
    fix_points: dict[str, int]
    weights: dict[str, tuple[np.ndarray, int]]
    biases: dict[str, tuple[np.ndarray, int]]
    input_scaling: dict[str, float]

    def shift_cut(self, name):
        """fix_in + fix_weights - fix_out of a weighted layer."""
        layer = self.network[name]
        return self.fix_points[layer.inputs[0]] + self.weights[name][1] - self.fix_points[name]

    def shift_bias(self, name):
        """fix_in + fix_weights - fix_bias of a weighted layer with bias."""
        layer = self.network[name]
        return self.fix_points[layer.inputs[0]] + self.weights[name][1] - self.biases[name][1]
