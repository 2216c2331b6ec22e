"""Nodes of the evaluation graph that several layers are made of: casts, rounding, saturation, borders."""

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.base.totality import Total
from dpuflow.network import Layer, QuantizedNetwork
from dpuflow.ops.activations import SLOPE, rules
from dpuflow.ops.arithmetic import activation_named
from dpuflow.ops.operator import Shape
from dpuflow.tfgraph.graph_def import DT_FLOAT, DTYPES, add_constant, add_node, message
from dpuflow.tfgraph.weighted_nodes import window


class Nodes:
    """Emits nodes of one QuantizedNetwork into `graph`.

    Attributes
    ----------
    tensors : layer name -> node that holds its output, whole numbers as floats.
    """

    def __init__(self, quantized: QuantizedNetwork) -> None:
        self.quantized = quantized
        self.graph = message("GraphDef")()
        self.tensors: dict[str, str] = {}

    def _binary(self, op: str, name: str, x: str, constant: ArrayLike, dtype: int = DT_FLOAT) -> str:
        array: np.ndarray = np.asarray(constant, DTYPES[dtype][0])
        second = add_constant(self.graph, f"{name}/constant", array)
        return add_node(self.graph, op, name, [x, second], T=("type", dtype))

    def _cast(self, name: str, x: str, source: int, target: int, after: str | None = None) -> str:
        """x as numbers of another type; after : a node that the cast waits for."""
        if source == target:
            return x
        inputs = [x, f"^{after}"] if after else [x]
        return add_node(self.graph, "Cast", name, inputs, SrcT=("type", source), DstT=("type", target))

    def _round_and_saturate(
        self,
        scope: str,
        x: str,
        dtype: int,
        low: float = INT8_MIN,
        high: float = INT8_MAX,
        half_added: bool = False,
    ) -> str:
        """floor(x + 1/2), clamped to [low, high], as float32. half_added : x has the 1/2 already."""
        if not half_added:
            x = self._binary("Add", f"{scope}/half", x, 0.5, dtype)
        x = add_node(self.graph, "Floor", f"{scope}/round", [x], T=("type", dtype))
        ends = [
            add_constant(self.graph, f"{scope}/{name}", np.asarray(value, DTYPES[dtype][0]))
            for name, value in (("lowest", low), ("highest", high))
        ]
        x = add_node(self.graph, "ClipByValue", f"{scope}/saturated", [x, *ends], T=("type", dtype))
        return self._cast(f"{scope}/int8", x, dtype, DT_FLOAT)

    def _slope(self, scope: str, x: str, dtype: int) -> str:
        """Negative values times 26/256."""
        negative = self._binary("Minimum", f"{scope}/negative", x, 0.0, dtype)
        negative = self._binary("Mul", f"{scope}/slope", negative, SLOPE, dtype)
        positive = self._binary("Maximum", f"{scope}/positive", x, 0.0, dtype)
        return add_node(self.graph, "Add", f"{scope}/leaky", [negative, positive], T=("type", dtype))

    def _finish(
        self, scope: str, x: str, dtype: int, activation: str, fix_point: int, half_added: bool = False
    ) -> str:
        """Sums in steps of the output -> activation, rounding, saturation."""
        kind = activation_named(activation)
        x = _BEFORE_ROUNDING[kind.before_rounding](self, scope, x, dtype)
        return self._round_and_saturate(scope, x, dtype, kind.lowest, kind.limit(fix_point), half_added)

    def _padded(
        self,
        scope: str,
        layer: Layer,
        x: str,
        dtype: int,
        in_shape: Shape,
        value: float | None = None,
        explicit: bool = False,
    ) -> tuple[str, str]:
        """(tensor, padding): TensorFlow's SAME where that is the same and not `explicit`, else a Pad."""
        pad = layer.attrs["pad"]
        if not any(pad):
            return x, "VALID"
        kernel, stride = layer.attrs["kernel"], layer.attrs["stride"]
        dilation = layer.attrs.get("dilation", (1, 1))
        _, left, right = window(in_shape[1], kernel[0], stride[0], dilation[0], "SAME")
        _, top, bottom = window(in_shape[0], kernel[1], stride[1], dilation[1], "SAME")
        if not explicit and (left, right, top, bottom) == tuple(pad):
            return x, "SAME"
        table = np.array([[0, 0], pad[2:], pad[:2], [0, 0]], np.int32)
        amounts = add_constant(self.graph, f"{scope}/paddings", table)
        if value is None:
            return add_node(self.graph, "Pad", f"{scope}/pad", [x, amounts], T=("type", dtype)), "VALID"
        filled = add_constant(self.graph, f"{scope}/pad_value", np.asarray(value, np.float32))
        return add_node(self.graph, "PadV2", f"{scope}/pad", [x, amounts, filled], T=("type", dtype)), "VALID"

    def _requantized(self, scope: str, x: str, source: str, target: str) -> str:
        difference = self.quantized.fix_points[target] - self.quantized.fix_points[source]
        if difference == 0:
            return x
        x = self._binary("Mul", f"{scope}/requantize", x, 2.0**difference)
        return self._round_and_saturate(f"{scope}/requantize", x, DT_FLOAT)


_BEFORE_ROUNDING = Total(
    "quantize.eval_nodes: nodes of an activation before the rounding",
    rules,
    {"nothing": lambda writer, scope, x, dtype: x, "slope": Nodes._slope},
)
