"""`quantize_eval_model.pb`: the quantized network as a GraphDef for stock TensorFlow, 1.15 and later.

Every activation is a float tensor of whole numbers in [-128, 127]; rounding and
saturation are Floor, Minimum and Maximum, so the graph's integers equal the emulator's
(docs/reference/numerics.md). float32 sums are exact below 2**24; layers that may exceed
that compute in float64. Only ops and attributes of TensorFlow 1.15 occur, and attributes
that equal their default are left out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.base.pixels import network_gain
from dpuflow.base.protobuf_seal import sealed_file
from dpuflow.base.totality import Total
from dpuflow.device.dpuczdx8g import HARD_SIGMOID_FACTOR, average_pool_factor
from dpuflow.network import WEIGHTED, Layer, QuantizedNetwork, folded_ops
from dpuflow.ops import kinds
from dpuflow.ops.activations import SLOPE, rules
from dpuflow.ops.arithmetic import activation_named
from dpuflow.ops.convolution import weighted
from dpuflow.ops.gating import HardSigmoid
from dpuflow.ops.operator import Shape
from dpuflow.ops.pooling import AveragePool, InsideAveragePool
from dpuflow.ops.rearranging import shuffled
from dpuflow.quantize import eval_resampling
from dpuflow.tfgraph import float_nodes
from dpuflow.tfgraph.graph_def import (
    DT_DOUBLE,
    DT_FLOAT,
    DT_INT8,
    DT_INT32,
    add_constant,
    add_node,
    encoded,
    message,
    new_graph,
)
from dpuflow.tfgraph.weighted_nodes import window

SCOPE = "quantized"
LOGITS_INT8 = f"{SCOPE}/logits_int8"
LOGITS = f"{SCOPE}/logits"
MANY_WEIGHTS = 1 << 22
"""Weights of one layer that are a constant of bytes: VGG16's first dense layer would be 822 MB in float64."""


def write_eval_graph(
    path: Path | str,
    quantized: QuantizedNetwork,
    output_node: str | Mapping[str, str] = f"{SCOPE}/output",
) -> dict[str, Any]:
    """Write the evaluation graph; returns its node names: {"input", "output"}, and more.

    Input: float32 placeholder of the frozen graph's name and shape, already scaled
    ((pixel - subtract) / divide). Output: what the network gives in real units, under the name
    `output_node` (the frozen graph's, so that what runs the one runs the other); of several, each under
    {output's name: node}, or its own name. Where the output is the logits or their softmax:
    "logits_int8" and "logits", too; of several ends "inputs" (list) and "outputs" {output's name: node}.
    """
    with sealed_file(path) as write:
        writer = GraphWriter(quantized, output_node, write)
        names = writer.build()
        write(encoded(writer.graph))
        write(encoded(new_graph()))
    return names


class GraphWriter:
    """Emits the nodes of one QuantizedNetwork.

    Attributes
    ----------
    graph : the nodes since the last layer's were given to `write`: in memory are the weights of one layer.
    constants : of the CPU, by their nodes' names: what reads them looks at them.
    """

    def __init__(
        self,
        quantized: QuantizedNetwork,
        output_node: str | Mapping[str, str],
        write: Callable[[bytes], None],
    ) -> None:
        self.quantized, self.write = quantized, write
        nodes: Mapping[str, str] = {} if isinstance(output_node, str) else output_node
        self.output_nodes = nodes
        self.output_node = output_node if isinstance(output_node, str) else next(iter(output_node.values()))
        self.graph = message("GraphDef")()
        self.tensors: dict[str, str] = {}
        self.reals: dict[str, str] = {}
        self.constants: dict[str, Any] = {}

    def build(self) -> dict[str, Any]:
        """Emit every layer; returns the names of input and outputs."""
        network = self.quantized.network
        outputs, last = network.outputs, network.last_quantized
        simple = len(outputs) == 1 and all(o.op == "softmax" or o is last[0] for o in outputs.values())
        first = next(iter(outputs.values()))
        simple = simple and len(last) == 1 and self._ends_in_logits(first, last[0])
        for layer in network.layers:
            if not (simple and layer is first and layer.op == "softmax"):  # which gets its node last
                self.tensors[layer.name] = LAYERS[layer.op](self, layer, f"{SCOPE}/{layer.name}")
                self.write(encoded(self.graph))
                self.graph = message("GraphDef")()
        if simple:
            return self._logits()
        names: dict[str, Any] = {"input": network.inputs[0].name, "output": self.output_node, "outputs": {}}
        if len(network.inputs) > 1:
            names["inputs"] = [layer.name for layer in network.inputs]
        for end, layer in outputs.items():
            node = self.output_node if len(outputs) == 1 else self.output_nodes.get(end, end)
            if node in [layer.name for layer in network.inputs]:  # which is a node already
                node = f"{node}/output"
            add_node(self.graph, "Identity", node, [self.real(layer.name)], T=("type", DT_FLOAT))
            names["outputs"][end] = node
        names["output"] = next(iter(names["outputs"].values()))
        return names

    def real(self, name: str) -> str:
        """The node that holds a layer's output in real numbers."""
        if name not in self.reals:
            fix_point = self.quantized.fix_points.get(name)
            node = self.tensors[name]
            if fix_point is not None:
                node = self._binary("Mul", f"{SCOPE}/{name}/real", node, 2.0**-fix_point)
            self.reals[name] = node
        return self.reals[name]

    @staticmethod
    def _ends_in_logits(output: Layer, logits: Layer) -> bool:
        return output is logits or output.inputs == [logits.name]

    def _logits(self) -> dict[str, Any]:
        """Output of a classifier: its logits, or their softmax."""
        network = self.quantized.network
        last = network.output
        logits = network[last.inputs[0]] if last.op == "softmax" else last
        add_node(self.graph, "Identity", LOGITS_INT8, [self.tensors[logits.name]], T=("type", DT_FLOAT))
        self._binary("Mul", LOGITS, LOGITS_INT8, 2.0 ** -self.quantized.fix_points[logits.name])
        names: dict[str, Any] = {
            "input": network.inputs[0].name,
            "logits_int8": LOGITS_INT8,
            "logits": LOGITS,
            "output": self.output_node,
        }
        if len(network.inputs) > 1:
            names["inputs"] = [layer.name for layer in network.inputs]
        op = "Softmax" if last.op == "softmax" else "Identity"
        add_node(self.graph, op, self.output_node, [LOGITS], T=("type", DT_FLOAT))
        return names

    # -- pieces ------------------------------------------------------------------------------

    def _binary(self, op: str, name: str, x: str, constant: ArrayLike, dtype: int = DT_FLOAT) -> str:
        array = np.asarray(constant, np.float32 if dtype == DT_FLOAT else np.float64)
        second = add_constant(self.graph, f"{name}/constant", array)
        return add_node(self.graph, op, name, [x, second], T=("type", dtype))

    def _cast(self, name: str, x: str, source: int, target: int) -> str:
        if source == target:
            return x
        return add_node(self.graph, "Cast", name, [x], SrcT=("type", source), DstT=("type", target))

    def _round_and_saturate(
        self, scope: str, x: str, dtype: int, low: float = INT8_MIN, high: float = INT8_MAX
    ) -> str:
        """floor(x + 1/2), clamped to [low, high], as float32."""
        x = self._binary("Add", f"{scope}/half", x, 0.5, dtype)
        x = add_node(self.graph, "Floor", f"{scope}/round", [x], T=("type", dtype))
        x = self._binary("Minimum", f"{scope}/upper", x, high, dtype)
        x = self._binary("Maximum", f"{scope}/lower", x, low, dtype)
        return self._cast(f"{scope}/int8", x, dtype, DT_FLOAT)

    def _slope(self, scope: str, x: str, dtype: int) -> str:
        """Negative values times 26/256."""
        negative = self._binary("Minimum", f"{scope}/negative", x, 0.0, dtype)
        negative = self._binary("Mul", f"{scope}/slope", negative, SLOPE, dtype)
        positive = self._binary("Maximum", f"{scope}/positive", x, 0.0, dtype)
        return add_node(self.graph, "Add", f"{scope}/leaky", [negative, positive], T=("type", dtype))

    def _finish(self, scope: str, x: str, dtype: int, scale: float, activation: str, fix_point: int) -> str:
        """Accumulator -> activation, scaling by a power of two, rounding, saturation."""
        kind = activation_named(activation)
        x = _BEFORE_ROUNDING[kind.before_rounding](self, scope, x, dtype)
        if scale != 1:
            x = self._binary("Mul", f"{scope}/shift", x, scale, dtype)
        return self._round_and_saturate(scope, x, dtype, kind.lowest, kind.limit(fix_point))

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

    # -- layers ------------------------------------------------------------------------------

    def _input(self, layer: Layer, scope: str) -> str:
        shape = ("shape", [-1, *layer.shape])
        add_node(self.graph, "Placeholder", layer.name, dtype=("type", DT_FLOAT), shape=shape)
        # float64, because float32 would round 0.49999997 + 0.5 up to 1
        x = self._cast(f"{scope}/double", layer.name, DT_FLOAT, DT_DOUBLE)
        scale = 2.0 ** self.quantized.fix_points[layer.name] * network_gain(self.quantized.input_scaling)
        x = self._binary("Mul", f"{scope}/scale", x, scale, DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE)

    def _weighted(self, layer: Layer, scope: str) -> str:
        quantized, name = self.quantized, layer.name
        weights = quantized.weights[name][0]
        bias = quantized.biases[name][0] if name in quantized.biases else None
        shift_bias = quantized.shift_bias(name) if bias is not None else 0
        double = (
            weighted(layer.operator).needs_float64(weights, bias, shift_bias)
            or layer.attrs["activation"] == "LEAKYRELU"
        )
        dtype = DT_DOUBLE if double else DT_FLOAT
        x = self._cast(f"{scope}/double", self.tensors[layer.inputs[0]], DT_FLOAT, dtype)
        x = _LINEAR[layer.op](self, layer, scope, x, weights, dtype)
        if bias is not None:
            x = self._binary("Add", f"{scope}/bias", x, bias * 2.0**shift_bias, dtype)
        scale = 2.0 ** -quantized.shift_cut(name)
        return self._finish(scope, x, dtype, scale, layer.attrs["activation"], quantized.fix_points[name])

    def _weights(self, scope: str, weights: np.ndarray, dtype: int) -> str:
        """The node with int8 weights as numbers of `dtype`, cast when it runs where they are many."""
        node = f"{scope}/weights"
        if weights.size < MANY_WEIGHTS:
            real = np.float64 if dtype == DT_DOUBLE else np.float32
            return add_constant(self.graph, node, weights.astype(real))
        return self._cast(node, add_constant(self.graph, f"{node}_int8", weights), DT_INT8, dtype)

    def _matrix(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        constant = self._weights(scope, weights.T, dtype)
        return add_node(self.graph, "MatMul", f"{scope}/MatMul", [x, constant], T=("type", dtype))

    def _conv(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        return self._convolution("Conv2D", layer, scope, x, weights, dtype)

    def _depthwise(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        """DepthwiseConv2dNative; a full convolution where the strides differ, which that cannot have."""
        if layer.attrs["stride"][0] == layer.attrs["stride"][1]:
            return self._convolution("DepthwiseConv2dNative", layer, scope, x, weights, dtype)
        dense = np.eye(weights.shape[3], dtype=weights.dtype)[:, None, None] * weights
        return self._convolution("Conv2D", layer, scope, x, dense, dtype)

    def _transposed(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        """The gradient of a convolution (TensorFlow's flipped weights), whole, then cut."""
        if weighted(layer.operator).per_channel:
            dense = np.eye(weights.shape[3], dtype=weights.dtype)
            weights = dense[:, None, None] * weights  # [C, KH, KW, C] with zeros between the channels
        flipped = np.ascontiguousarray(weights[:, ::-1, ::-1].transpose(1, 2, 0, 3))
        constant = self._weights(scope, flipped, dtype)
        (sw, sh), (kw, kh) = layer.attrs["stride"], layer.attrs["kernel"]
        height, width, _ = self.quantized.network[layer.inputs[0]].shape
        outputs = layer.shape[-1]
        full = [(height - 1) * sh + kh, (width - 1) * sw + kw, outputs]
        ints = ("type", DT_INT32)
        shape = add_node(self.graph, "Shape", f"{scope}/Shape", [x], T=("type", dtype), out_type=ints)
        ends = [
            add_constant(self.graph, f"{scope}/{name}", np.array([value], np.int32))
            for name, value in (("first", 0), ("one", 1))
        ]
        images = add_node(self.graph, "Slice", f"{scope}/images", [shape, *ends], T=ints, Index=ints)
        rest = add_constant(self.graph, f"{scope}/full", np.array(full, np.int32))
        axis = add_constant(self.graph, f"{scope}/axis", np.asarray(0, np.int32))
        size = add_node(self.graph, "ConcatV2", f"{scope}/size", [images, rest, axis], N=2, T=ints)
        whole = add_node(
            self.graph, "Conv2DBackpropInput", f"{scope}/Conv2DBackpropInput", [size, constant, x],
            T=("type", dtype), strides=[1, sh, sw, 1], padding="VALID",
        )  # fmt: skip
        left, _, top, _ = layer.attrs["pad"]
        begin = add_constant(self.graph, f"{scope}/begin", np.array([0, top, left, 0], np.int32))
        kept = add_constant(self.graph, f"{scope}/kept", np.array([-1, *layer.shape], np.int32))
        return add_node(
            self.graph, "Slice", f"{scope}/cut", [whole, begin, kept], T=("type", dtype), Index=ints
        )

    def _convolution(self, op: str, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        """weights OHWI, or [1, KH, KW, C] for depthwise; TensorFlow takes HWIO and HWC1."""
        constant = self._weights(scope, weights.transpose(1, 2, 3, 0), dtype)
        in_shape = self.quantized.network[layer.inputs[0]].shape
        (sw, sh), (dw, dh) = layer.attrs["stride"], layer.attrs.get("dilation", (1, 1))
        one_column = op == "Conv2D" and sw > 1 and layer.shape[1] == 1
        x, padding = self._padded(scope, layer, x, dtype, in_shape, explicit=one_column)
        if one_column:
            x, sw = self._seen(layer, scope, x, dtype), 1
        extra = {} if (dw, dh) == (1, 1) else {"dilations": [1, dh, dw, 1]}
        return add_node(
            self.graph, op, f"{scope}/{op}", [x, constant],
            T=("type", dtype), strides=[1, sh, sw, 1], padding=padding, **extra,
        )  # fmt: skip

    def _seen(self, layer: Layer, scope: str, x: str, dtype: int) -> str:
        """A padded map without the columns behind its only windows, for a stride of 1: oneDNN's kernel
        (TensorFlow 2.21) gives wrong values for one column of windows and a greater stride."""
        (kw, _), (dw, _) = layer.attrs["kernel"], layer.attrs.get("dilation", (1, 1))
        left, right, top, bottom = layer.attrs["pad"]
        height, width, channels = self.quantized.network[layer.inputs[0]].shape
        seen, width = (kw - 1) * dw + 1, width + left + right
        if seen == width:
            return x
        begin = add_constant(self.graph, f"{scope}/begin", np.zeros(4, np.int32))
        kept = add_constant(
            self.graph, f"{scope}/kept", np.array([-1, height + top + bottom, seen, channels], np.int32)
        )
        return add_node(
            self.graph,
            "Slice",
            f"{scope}/seen",
            [x, begin, kept],
            T=("type", dtype),
            Index=("type", DT_INT32),
        )

    def _max_pool(self, layer: Layer, scope: str) -> str:
        x = self.tensors[layer.inputs[0]]
        in_shape = self.quantized.network[layer.inputs[0]].shape
        x, padding = self._padded(scope, layer, x, DT_FLOAT, in_shape, INT8_MIN)
        (kw, kh), (sw, sh) = layer.attrs["kernel"], layer.attrs["stride"]
        x = add_node(
            self.graph, "MaxPool", f"{scope}/MaxPool", [x],
            T=("type", DT_FLOAT), ksize=[1, kh, kw, 1], strides=[1, sh, sw, 1], padding=padding,
        )  # fmt: skip
        return self._requantized(scope, x, layer.inputs[0], layer.name)

    def _avg_pool(self, layer: Layer, scope: str) -> str:
        """Window sums by a convolution with ones: AvgPool itself would round in float32."""
        kw, kh = layer.attrs["kernel"]
        multiplier, shift = average_pool_factor(kh, kw)
        operator = layer.operator
        assert isinstance(operator, AveragePool)  # by the table's row
        dtype = DT_DOUBLE if operator.needs_float64() else DT_FLOAT
        x = self._window_sums(layer, scope, dtype)
        exponent = self.quantized.fix_points[layer.name] - self.quantized.fix_points[layer.inputs[0]] - shift
        x = self._binary("Mul", f"{scope}/factor", x, multiplier * 2.0**exponent, dtype)
        return self._round_and_saturate(scope, x, dtype)

    def _avg_pool_inside(self, layer: Layer, scope: str) -> str:
        """Window sums, each times the factor of its pixels inside the map."""
        operator, fixes = layer.operator, self.quantized.fix_points
        assert isinstance(operator, InsideAveragePool)  # by the table's row
        x = self._window_sums(layer, scope, DT_DOUBLE)
        factors = operator.factors(self.quantized.network[layer.inputs[0]].shape)
        step = 2.0 ** (fixes[layer.name] - fixes[layer.inputs[0]])
        x = self._binary("Mul", f"{scope}/factor", x, factors * step, DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE)

    def _window_sums(self, layer: Layer, scope: str, dtype: int) -> str:
        (kw, kh), channels = layer.attrs["kernel"], layer.shape[-1]
        x = self._cast(f"{scope}/double", self.tensors[layer.inputs[0]], DT_FLOAT, dtype)
        if (kh, kw) == self.quantized.network[layer.inputs[0]].shape[:2] and not any(layer.attrs["pad"]):
            axes = add_constant(self.graph, f"{scope}/axes", np.array([1, 2], np.int32))
            return add_node(self.graph, "Sum", f"{scope}/Sum", [x, axes], T=("type", dtype), keep_dims=True)
        return self._depthwise(layer, scope, x, np.ones((1, kh, kw, channels), np.int8), dtype)

    def _add(self, layer: Layer, scope: str) -> str:
        fixes = [self.quantized.fix_points[name] for name in layer.inputs]
        lowest, fix = min(fixes), self.quantized.fix_points[layer.name]
        total = ""
        for k, (name, fix_in) in enumerate(zip(layer.inputs, fixes, strict=True)):
            x = self._binary("Mul", f"{scope}/{k}/scale", self.tensors[name], 2.0 ** (7 - (fix_in - lowest)))
            if fix_in - lowest > 7:
                x = add_node(self.graph, "Floor", f"{scope}/{k}/floor", [x], T=("type", DT_FLOAT))
            total = (
                add_node(self.graph, "Add", f"{scope}/sum{k}", [total, x], T=("type", DT_FLOAT)) if k else x
            )
        double = layer.attrs["activation"] == "LEAKYRELU"
        dtype = DT_DOUBLE if double else DT_FLOAT
        total = self._cast(f"{scope}/double", total, DT_FLOAT, dtype)
        return self._finish(scope, total, dtype, 2.0 ** (fix - lowest - 7), layer.attrs["activation"], fix)

    def _hard_sigmoid(self, layer: Layer, scope: str) -> str:
        """In float64: the line's offset may have more bits than float32."""
        fix_in, fix = (self.quantized.fix_points[name] for name in (layer.inputs[0], layer.name))
        factor = HARD_SIGMOID_FACTOR[0]
        x = self._cast(f"{scope}/double", self.tensors[layer.inputs[0]], DT_FLOAT, DT_DOUBLE)
        x = self._binary("Mul", f"{scope}/slope", x, factor, DT_DOUBLE)
        x = self._binary("Add", f"{scope}/offset", x, 3 * factor * 2.0**fix_in, DT_DOUBLE)
        x = self._binary("Mul", f"{scope}/shift", x, 2.0 ** -HardSigmoid.shift(fix_in, fix), DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE, low=0)

    def _multiply(self, layer: Layer, scope: str) -> str:
        tensors = []
        for k, name in enumerate(layer.inputs):
            x, shape = self.tensors[name], self.quantized.network[name].shape
            if len(shape) < len(layer.shape):
                over_map = add_constant(
                    self.graph, f"{scope}/{k}/shape", np.array([-1, 1, 1, *shape], np.int32)
                )
                x = add_node(self.graph, "Reshape", f"{scope}/{k}", [x, over_map], T=("type", DT_FLOAT))
            tensors.append(x)
        x = add_node(self.graph, "Mul", f"{scope}/product", tensors, T=("type", DT_FLOAT))
        shift = sum(self.quantized.fix_points[name] for name in layer.inputs)
        shift -= self.quantized.fix_points[layer.name]
        x = self._binary("Mul", f"{scope}/shift", x, 2.0**-shift)
        return self._round_and_saturate(scope, x, DT_FLOAT)

    def _pixel_shuffle(self, layer: Layer, scope: str) -> str:
        """Reshape, Transpose, Reshape: DepthToSpace has another order of channels."""
        cut, order = shuffled(layer.attrs["scale"], layer.attrs["upscale"], layer.shape)
        source = layer.inputs[0]
        x = self._requantized(scope, self.tensors[source], source, layer.name)
        for name, shape in (("cut", cut), ("joined", layer.shape)):
            constant = add_constant(self.graph, f"{scope}/{name}/shape", np.array([-1, *shape], np.int32))
            x = add_node(self.graph, "Reshape", f"{scope}/{name}", [x, constant], T=("type", DT_FLOAT))
            if name == "cut":
                constant = add_constant(self.graph, f"{scope}/order", np.array(order, np.int32))
                x = add_node(self.graph, "Transpose", f"{scope}/moved", [x, constant], T=("type", DT_FLOAT))
        return x

    def _concat(self, layer: Layer, scope: str) -> str:
        parts = [
            self._requantized(f"{scope}/{k}", self.tensors[name], name, layer.name)
            for k, name in enumerate(layer.inputs)
        ]
        axis = add_constant(self.graph, f"{scope}/axis", np.asarray(layer.attrs["axis"], np.int32))
        return add_node(
            self.graph, "ConcatV2", f"{scope}/concat", [*parts, axis], N=len(parts), T=("type", DT_FLOAT)
        )

    def _to_grid(self, layer: Layer, scope: str) -> str:
        # float64, because float32 would round 0.49999997 + 0.5 up to 1
        x = self._cast(f"{scope}/double", self.tensors[layer.inputs[0]], DT_FLOAT, DT_DOUBLE)
        x = self._binary("Mul", f"{scope}/scale", x, 2.0 ** self.quantized.fix_points[layer.name], DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE)

    def _on_cpu(self, layer: Layer, scope: str) -> str:
        reals = [self.real(name) for name in layer.inputs]
        begin, nodes = len(self.graph.node), self.graph.node
        looked_at = [self.constants[real] for real in dict.fromkeys(reals) if real in self.constants]
        nodes.extend(looked_at)
        made = float_nodes.NODES[layer.op](self.graph, layer, scope, reals)
        del nodes[begin : begin + len(looked_at)]  # which are written already
        if layer.op == "constant":
            self.constants[made] = next(node for node in nodes if node.name == made)
        return made

    def _flatten(self, layer: Layer, scope: str) -> str:
        shape = add_constant(self.graph, f"{scope}/shape", np.array([-1, layer.shape[0]], np.int32))
        return add_node(
            self.graph,
            "Reshape",
            f"{scope}/Reshape",
            [self.tensors[layer.inputs[0]], shape],
            T=("type", DT_FLOAT),
        )

    def _requantized(self, scope: str, x: str, source: str, target: str) -> str:
        difference = self.quantized.fix_points[target] - self.quantized.fix_points[source]
        if difference == 0:
            return x
        x = self._binary("Mul", f"{scope}/requantize", x, 2.0**difference)
        return self._round_and_saturate(f"{scope}/requantize", x, DT_FLOAT)


_LINEAR = Total(
    "quantize.eval_graph: node of a weighted layer",
    WEIGHTED,
    {
        "conv": GraphWriter._conv,
        "depthwise_conv": GraphWriter._depthwise,
        "dense": GraphWriter._matrix,
        **dict.fromkeys(("transposed_conv", "transposed_depthwise_conv"), GraphWriter._transposed),
    },
)
LAYERS = Total(
    "quantize.eval_graph: nodes of a layer",
    folded_ops,
    {
        **dict.fromkeys(WEIGHTED, GraphWriter._weighted),
        "input": GraphWriter._input,
        "max_pool": GraphWriter._max_pool,
        "avg_pool": GraphWriter._avg_pool,
        "avg_pool_inside": GraphWriter._avg_pool_inside,
        "upsample": eval_resampling.picked,
        "downsample": eval_resampling.picked,
        "resize_bilinear": eval_resampling.bilinear,
        "add": GraphWriter._add,
        "hard_sigmoid": GraphWriter._hard_sigmoid,
        "multiply": GraphWriter._multiply,
        "pixel_shuffle": GraphWriter._pixel_shuffle,
        "concat": GraphWriter._concat,
        "flatten": GraphWriter._flatten,
        "to_grid": GraphWriter._to_grid,
        **dict.fromkeys(kinds(lambda operator: not operator.quantized), GraphWriter._on_cpu),
    },
)
_BEFORE_ROUNDING = Total(
    "quantize.eval_graph: nodes of an activation before the rounding",
    rules,
    {"nothing": lambda writer, scope, x, dtype: x, "slope": GraphWriter._slope},
)
