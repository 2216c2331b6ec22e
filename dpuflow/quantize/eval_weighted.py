"""Nodes of the evaluation graph for layers with weights: convolutions of all kinds and dense layers."""

from dataclasses import replace

import numpy as np

from dpuflow.base.totality import Total
from dpuflow.network import WEIGHTED, Layer
from dpuflow.network.dilation import spread_kernel
from dpuflow.ops.convolution import weighted
from dpuflow.quantize.eval_nodes import Nodes
from dpuflow.tfgraph.graph_def import DT_DOUBLE, DT_FLOAT, DT_INT8, DT_INT32, add_constant, add_node

MANY_WEIGHTS = 1 << 22
"""Weights of one layer that are a constant of bytes: VGG16's first dense layer would be 822 MB in float64."""
AT_ONCE = 1 << 24
"""Weights of a dense layer that are numbers at the same time while such a graph runs; 134 MB in float64."""


class WeightedNodes(Nodes):
    """The part of the graph's writer that knows weights."""

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
        return self._bytes(scope, weights, dtype)

    def _bytes(self, scope: str, weights: np.ndarray, dtype: int, after: str | None = None) -> str:
        """The node that casts int8 weights when it runs; after : a node that it waits for."""
        constant = add_constant(self.graph, f"{scope}/weights_int8", weights)
        return self._cast(f"{scope}/weights", constant, DT_INT8, dtype, after)

    def _matrix(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        if weights.size < MANY_WEIGHTS:
            constant = self._weights(scope, weights.T, dtype)
            return add_node(self.graph, "MatMul", f"{scope}/MatMul", [x, constant], T=("type", dtype))
        outputs = max(1, AT_ONCE // weights.shape[1])
        products = [x]
        for start in range(0, len(weights), outputs):
            part = f"{scope}/part{start}"
            # not before the product of the part before it: as numbers only one part is there at a time
            cast = self._bytes(part, weights[start : start + outputs].T, dtype, after=products[-1])
            products.append(add_node(self.graph, "MatMul", f"{part}/MatMul", [x, cast], T=("type", dtype)))
        if len(products) == 2:
            return products[1]
        axis = add_constant(self.graph, f"{scope}/axis", np.asarray(1, np.int32))
        parts = [*products[1:], axis]
        return add_node(
            self.graph, "ConcatV2", f"{scope}/MatMul", parts, N=len(products) - 1, T=("type", dtype),
            Tidx=("type", DT_INT32),
        )  # fmt: skip

    def _conv(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        return self._convolution("Conv2D", layer, scope, x, weights, dtype)

    def _depthwise(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int) -> str:
        """DepthwiseConv2dNative; a full convolution where the strides differ, which that cannot have.

        In float64 TensorFlow has it without dilation only: zeros stand between the weights instead.
        """
        dilation = tuple(layer.attrs.get("dilation", (1, 1)))
        if dtype == DT_DOUBLE and dilation != (1, 1):
            weights = spread_kernel(weights, dilation, (1, 2))
            attrs = {**layer.attrs, "kernel": weights.shape[2:0:-1], "dilation": (1, 1)}
            layer = replace(layer, attrs=attrs)
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


_LINEAR = Total(
    "quantize.eval_weighted: node of a weighted layer",
    WEIGHTED,
    {
        "conv": WeightedNodes._conv,
        "depthwise_conv": WeightedNodes._depthwise,
        "dense": WeightedNodes._matrix,
        **dict.fromkeys(("transposed_conv", "transposed_depthwise_conv"), WeightedNodes._transposed),
    },
)
