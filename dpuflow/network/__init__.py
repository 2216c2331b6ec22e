"""The network between the frozen graph and the xmodel: float layers, then int8 ones.

`Network` is what the quantizer reads from a frozen GraphDef (TensorFlow ops with
layouts and names turned into the DPU's terms) and transforms; `QuantizedNetwork`
adds int8 parameters and fix_points and is what the compiler lowers to XIR.

Conventions (those of XIR, docs/reference/xmodel.md): activations NHWC, kernel /
stride / dilation ``(w, h)``, pad ``(left, right, top, bottom)``, conv weights
[OC, KH, KW, IC], depthwise weights [multiplier, KH, KW, C], dense weights
[OC, IN] with IN in flattened NHWC order, bias [OC].
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

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
    weights, bias : float32 arrays or None (layouts: module docstring). They are replaced, never written to:
        a deep copy of a layer shares them, which of VGG16 are half a gigabyte.
    """

    name: str
    op: str
    inputs: list[str]
    shape: tuple[int, ...]
    attrs: dict = field(default_factory=dict)
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None

    def __deepcopy__(self, memo: dict) -> "Layer":
        """A layer of its own with the same arrays."""
        return replace(self, inputs=list(self.inputs), attrs=copy.deepcopy(self.attrs, memo))

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


def reaching(layers: Mapping[str, Layer], ends: Iterable[str]) -> list[Layer]:
    """The layers that lead to one of `ends`, these included, in the order of `layers` (by name)."""
    wanted, stack = set(), list(ends)
    while stack:
        name = stack.pop()
        if name not in wanted:
            wanted.add(name)
            stack.extend(layers[name].inputs)
    return [layer for name, layer in layers.items() if name in wanted]


@dataclass
class Network:
    """A directed acyclic graph of layers in topological order.

    Attributes
    ----------
    ends : output's name -> name of the layer that gives it, in order; empty: every layer that no other
        reads, under its own name. A layer that gives an output may be read by others as well.
    """

    name: str
    layers: list[Layer]
    ends: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {layer.name for layer in self.layers}
        if len(names) != len(self.layers):
            raise ValueError("layer names must be unique")
        if not names.issuperset(self.ends.values()):
            missing = sorted(set(self.ends.values()) - names)
            raise ValueError(f"outputs of layers that do not exist: {', '.join(missing)}")

    def __getitem__(self, name: str) -> Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    @property
    def inputs(self) -> list[Layer]:
        """The input layers, in order."""
        return [layer for layer in self.layers if layer.op == "input"]

    @property
    def input(self) -> Layer:
        """The input layer of a network with one; UserError when there are several."""
        inputs = self.inputs
        if len(inputs) != 1:
            names = ", ".join(repr(layer.name) for layer in inputs) or "none"
            raise UserError(f"network {self.name!r}: one input is needed here, it has {len(inputs)}: {names}")
        return inputs[0]

    @property
    def outputs(self) -> dict[str, Layer]:
        """Output's name -> the layer that gives it, in order."""
        if self.ends:
            by_name = {layer.name: layer for layer in self.layers}
            return {name: by_name[source] for name, source in self.ends.items()}
        read = {name for layer in self.layers for name in layer.inputs}
        return {layer.name: layer for layer in self.layers if layer.name not in read}

    @property
    def output(self) -> Layer:
        """The layer that gives the output of a network with one; UserError when there are several."""
        outputs = self.outputs
        if len(outputs) != 1:
            names = ", ".join(map(repr, outputs)) or "none"
            raise UserError(
                f"network {self.name!r}: one output is needed here, it has {len(outputs)}: {names}"
            )
        return next(iter(outputs.values()))

    @property
    def output_layers(self) -> set[str]:
        """Names of the layers that give outputs."""
        return {layer.name for layer in self.outputs.values()}

    def readers(self, name: str) -> int:
        """How many take the tensor of `name`: layers (each as often as it reads it) and outputs."""
        read = sum(layer.inputs.count(name) for layer in self.layers)
        return read + sum(layer.name == name for layer in self.outputs.values())

    @property
    def last_quantized(self) -> list[Layer]:
        """The layers whose integers the outputs are made of by float layers alone, in order.

        The logits in front of a softmax; what the DPU gives a detector's decoding on the CPU.
        """
        by_name = {layer.name: layer for layer in self.layers}
        found, pending = set(), [layer.name for layer in self.outputs.values()]
        while pending:
            layer = by_name[pending.pop()]
            if layer.operator.quantized:
                found.add(layer.name)
            else:
                pending += layer.inputs
        return [layer for layer in self.layers if layer.name in found]

    def consumers(self, name: str) -> list[Layer]:
        """Layers that read `name`, in order."""
        return [layer for layer in self.layers if name in layer.inputs]


_MARK = "output: "


def marked(layers: list[Layer], outputs: Mapping[str, str]) -> list[Layer]:
    """The layers and a reader (kind "output") for each output: {output's name: layer's name}.

    Rewriting that asks who reads a layer, or lets readers read another one, then needs to know of no outputs.
    """
    shapes = {layer.name: layer.shape for layer in layers}
    ends = [Layer(f"{_MARK}{name}", "output", [source], shapes[source]) for name, source in outputs.items()]
    return [*layers, *ends]


def unmarked(layers: list[Layer]) -> tuple[list[Layer], dict[str, str]]:
    """What `marked` has put together: the layers, {output's name: name of the layer that gives it now}."""
    ends = {layer.name.removeprefix(_MARK): layer.inputs[0] for layer in layers if layer.op == "output"}
    return [layer for layer in layers if layer.op != "output"], ends


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
