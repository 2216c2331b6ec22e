"""The network between the frozen graph and the xmodel: float layers, then int8 ones.

`Network` is what the quantizer reads from a frozen GraphDef (TensorFlow ops with
layouts and names turned into the DPU's terms) and transforms; `QuantizedNetwork`
adds int8 parameters and fix_points and is what the compiler lowers to XIR.

Conventions (those of XIR, docs/reference/xmodel.md): activations NHWC, kernel /
stride / dilation ``(w, h)``, pad ``(left, right, top, bottom)``, conv weights
[OC, KH, KW, IC], depthwise weights [multiplier, KH, KW, C], dense weights
[OC, IN] with IN in flattened NHWC order, bias [OC].
"""

from dataclasses import dataclass, field

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import Scaling
from dpuflow.ops import Operator, kinds, make

WEIGHTED = kinds(lambda operator: operator.weighted)
"""Kinds of layers that have weights."""


def folded_ops() -> tuple[str, ...]:
    """Kinds that are left after folding: what the quantizer and all behind it know."""
    return kinds(lambda operator: operator.survives_folding)


@dataclass
class Layer:
    """One layer and its output tensor (both go by `name`).

    Attributes
    ----------
    shape : output shape without the batch dimension, (H, W, C) or (N,).
    op : kind of its operator, a key of `ops.OPERATORS`.
    attrs : the operator's attributes; kernel, stride, dilation are (w, h), pad is (l, r, t, b).
    weights, bias : float32 arrays or None (layouts: module docstring).
    """

    name: str
    op: str
    inputs: list[str]
    shape: tuple[int, ...]
    attrs: dict = field(default_factory=dict)
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None

    @property
    def operator(self) -> Operator:
        """The operator with this layer's attributes; UserError for a kind that does not exist."""
        try:
            return make(self.op, self.attrs)
        except ValueError as error:
            raise UserError(f"layer {self.name!r} ({self.op}): {error}") from None

    def per_output_channel(self, values: np.ndarray) -> np.ndarray:
        """`values` (channels,) in a shape that multiplies the output channels of the weights."""
        if self.weights is None:
            raise ValueError(f"layer {self.name!r} ({self.op}) has no weights")
        return self.operator.per_output(values, self.weights)


@dataclass
class Network:
    """A directed acyclic graph of layers in topological order, one input, one output."""

    name: str
    layers: list[Layer]

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError("layer names must be unique")

    def __getitem__(self, name: str) -> Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def input(self) -> Layer:
        """The input layer."""
        return next(layer for layer in self.layers if layer.op == "input")

    @property
    def output(self) -> Layer:
        """The last layer: the one that no other layer reads."""
        read = {name for layer in self.layers for name in layer.inputs}
        return next(layer for layer in self.layers if layer.name not in read)

    def consumers(self, name: str) -> list[Layer]:
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
    input_scaling : float input = (pixel - subtract) / divide, more in `base.pixels`.
    """

    network: Network
    fix_points: dict[str, int]
    weights: dict[str, tuple[np.ndarray, int]]
    biases: dict[str, tuple[np.ndarray, int]]
    input_scaling: Scaling

    def shift_cut(self, name: str) -> int:
        """fix_in + fix_weights - fix_out of a weighted layer."""
        layer = self.network[name]
        return self.fix_points[layer.inputs[0]] + self.weights[name][1] - self.fix_points[name]

    def shift_bias(self, name: str) -> int:
        """fix_in + fix_weights - fix_bias of a weighted layer with bias."""
        layer = self.network[name]
        return self.fix_points[layer.inputs[0]] + self.weights[name][1] - self.biases[name][1]
