"""Nodes of the evaluation graph for layers with weights: convolutions of all kinds and dense layers."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from dpuflow.base.numerics import row_sums
from dpuflow.base.totality import Total
from dpuflow.network import WEIGHTED, Layer
from dpuflow.network.dilation import spread_kernel
from dpuflow.ops.arithmetic import EXACT_FLOAT32
from dpuflow.ops.convolution import weighted
from dpuflow.quantize.eval_nodes import Nodes
from dpuflow.tfgraph.graph_def import DT_DOUBLE, DT_FLOAT, DT_INT8, DT_INT32, DTYPES, add_constant, add_node

MANY_WEIGHTS = 1 << 22
"""Weights of one layer that are a constant of bytes: VGG16's first dense layer would be 822 MB in float64."""
AT_ONCE = 1 << 24
"""Weights of a dense layer that are numbers at the same time while such a graph runs; 134 MB in float64."""
MOST_PARTS = 8
"""Parts of the input channels that are summed one after the other."""


class WeightedNodes(Nodes):
    """The part of the graph's writer that knows weights."""

    def _weighted(self, layer: Layer, scope: str) -> str:
        """Sums in steps of the output, since weights and bias are: powers of two move no bit.

        The half of the rounding is in the bias, but where a slope comes between. float64 is for what float32
        cannot hold; the products are summed in float32 even then where that holds their sums, or those of
        some input channels at a time: TensorFlow's convolutions in float64 are five times slower.
        """
        quantized, name = self.quantized, layer.name
        weights, scale = quantized.weights[name][0], 2.0 ** -quantized.shift_cut(name)
        sloped = layer.attrs["activation"] == "LEAKYRELU"
        added, finest = np.zeros(layer.shape[-1]), scale
        if name in quantized.biases:
            step = 2.0 ** quantized.shift_bias(name) * scale
            added, finest = quantized.biases[name][0] * step, min(scale, step)
        added = added + (0.0 if sloped else 0.5)
        largest = _largest_sum(layer, weights) * scale + np.abs(added).max()
        exact = not sloped and largest <= EXACT_FLOAT32 * min(finest, 0.5)
        dtype = DT_FLOAT if exact else DT_DOUBLE
        x = self._sums(layer, scope, weights, dtype, scale)
        if added.any():
            x = self._binary("BiasAdd", f"{scope}/bias", x, added, dtype)
        activation, fix_point = layer.attrs["activation"], quantized.fix_points[name]
        return self._finish(scope, x, dtype, activation, fix_point, half_added=not sloped)

    def _sums(self, layer: Layer, scope: str, weights: np.ndarray, dtype: int, scale: float) -> str:
        """Sums of products times `scale`, as `dtype`."""
        x, linear = self.tensors[layer.inputs[0]], _LINEAR[layer.op]
        if dtype == DT_FLOAT:
            return linear(self, layer, scope, x, weights, dtype, scale)
        parts = _exact_parts(layer, weights)
        if not parts:
            x = self._cast(f"{scope}/double", x, DT_FLOAT, dtype)
            return linear(self, layer, scope, x, weights, dtype, scale)
        total = ""
        for k, channels in enumerate(parts):
            part, some = (scope, x) if len(parts) == 1 else (f"{scope}/channels{channels.start}", "")
            some = some or self._channels(f"{part}/Slice", x, channels, weights.ndim)
            y = linear(self, layer, part, some, weights[..., channels], DT_FLOAT, scale)
            y = self._cast(f"{part}/double", y, DT_FLOAT, dtype)
            total = add_node(self.graph, "Add", f"{scope}/sum{k}", [total, y], T=("type", dtype)) if k else y
        return total

    def _channels(self, name: str, x: str, channels: slice, axes: int) -> str:
        """Some channels, of a map or of a vector."""
        begin = add_constant(
            self.graph, f"{name}/begin", np.array([0] * (axes - 1) + [channels.start], np.int32)
        )
        count = channels.stop - channels.start
        size = add_constant(self.graph, f"{name}/size", np.array([-1] * (axes - 1) + [count], np.int32))
        types = {"T": ("type", DT_FLOAT), "Index": ("type", DT_INT32)}
        return add_node(self.graph, "Slice", name, [x, begin, size], **types)

    def _weights(self, scope: str, weights: np.ndarray, dtype: int, scale: float = 1.0) -> str:
        """The node with int8 weights times `scale` as `dtype`, made when it runs where they are many."""
        node = f"{scope}/weights"
        if weights.size < MANY_WEIGHTS:
            return add_constant(self.graph, node, np.multiply(weights, scale, dtype=DTYPES[dtype][0]))
        return self._scaled(f"{scope}/scaled", self._bytes(scope, weights, dtype), dtype, scale)

    def _bytes(self, scope: str, weights: np.ndarray, dtype: int, after: str | None = None) -> str:
        """The node that casts int8 weights when it runs; after : a node that it waits for."""
        constant = add_constant(self.graph, f"{scope}/weights_int8", weights)
        return self._cast(f"{scope}/weights", constant, DT_INT8, dtype, after)

    def _scaled(self, name: str, x: str, dtype: int, scale: float) -> str:
        return x if scale == 1 else self._binary("Mul", name, x, scale, dtype)

    def _matrix(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int, scale: float) -> str:
        if weights.size < MANY_WEIGHTS:
            constant = self._weights(scope, weights.T, dtype, scale)
            return add_node(self.graph, "MatMul", f"{scope}/MatMul", [x, constant], T=("type", dtype))
        outputs = max(1, AT_ONCE // weights.shape[1])
        products = [x]
        for start in range(0, len(weights), outputs):
            part = f"{scope}/part{start}"
            # not before the product of the part before it: as numbers only one part is there at a time
            cast = self._bytes(part, weights[start : start + outputs].T, dtype, after=products[-1])
            products.append(add_node(self.graph, "MatMul", f"{part}/MatMul", [x, cast], T=("type", dtype)))
        if len(products) == 2:
            return self._scaled(f"{scope}/scaled", products[1], dtype, scale)
        axis = add_constant(self.graph, f"{scope}/axis", np.asarray(1, np.int32))
        parts = [*products[1:], axis]
        joined = add_node(
            self.graph, "ConcatV2", f"{scope}/MatMul", parts, N=len(products) - 1, T=("type", dtype),
            Tidx=("type", DT_INT32),
        )  # fmt: skip
        return self._scaled(f"{scope}/scaled", joined, dtype, scale)

    def _conv(self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int, scale: float) -> str:
        return self._convolution("Conv2D", layer, scope, x, weights, dtype, scale)

    def _depthwise(
        self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int, scale: float = 1.0
    ) -> str:
        """DepthwiseConv2dNative; a full convolution where the strides differ, which that cannot have.

        In float64 TensorFlow has it without dilation only: zeros stand between the weights instead.
        """
        dilation = tuple(layer.attrs.get("dilation", (1, 1)))
        if dtype == DT_DOUBLE and dilation != (1, 1):
            weights = spread_kernel(weights, dilation, (1, 2))
            attrs = {**layer.attrs, "kernel": weights.shape[2:0:-1], "dilation": (1, 1)}
            layer = replace(layer, attrs=attrs)
        if layer.attrs["stride"][0] == layer.attrs["stride"][1]:
            return self._convolution("DepthwiseConv2dNative", layer, scope, x, weights, dtype, scale)
        dense = np.eye(weights.shape[3], dtype=weights.dtype)[:, None, None] * weights
        return self._convolution("Conv2D", layer, scope, x, dense, dtype, scale)

    def _transposed(
        self, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int, scale: float
    ) -> str:
        """The gradient of a convolution (TensorFlow's flipped weights), whole, then cut."""
        if weighted(layer.operator).per_channel:
            dense = np.eye(weights.shape[3], dtype=weights.dtype)
            weights = dense[:, None, None] * weights  # [C, KH, KW, C] with zeros between the channels
        flipped = np.ascontiguousarray(weights[:, ::-1, ::-1].transpose(1, 2, 0, 3))
        constant = self._weights(scope, flipped, dtype, scale)
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

    def _convolution(
        self, op: str, layer: Layer, scope: str, x: str, weights: np.ndarray, dtype: int, scale: float
    ) -> str:
        """weights OHWI, or [1, KH, KW, C] for depthwise; TensorFlow takes HWIO and HWC1."""
        constant = self._weights(scope, weights.transpose(1, 2, 3, 0), dtype, scale)
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
        height, width, _ = self.quantized.network[layer.inputs[0]].shape
        seen, width = (kw - 1) * dw + 1, width + left + right
        if seen == width:
            return x
        begin = add_constant(self.graph, f"{scope}/begin", np.zeros(4, np.int32))
        kept = add_constant(
            self.graph, f"{scope}/kept", np.array([-1, height + top + bottom, seen, -1], np.int32)
        )
        return add_node(
            self.graph,
            "Slice",
            f"{scope}/seen",
            [x, begin, kept],
            T=("type", dtype),
            Index=("type", DT_INT32),
        )


def _exact_parts(layer: Layer, weights: np.ndarray) -> list[slice]:
    """Input channels whose sums of products of int8 float32 holds exactly: all, or else some at a time.

    [] where there is no such way, and for a large dense layer, whose parts are made of its outputs.
    """
    channels, dense = weights.shape[-1], weights.ndim == 2
    whole = weighted(layer.operator).per_channel or (dense and weights.size >= MANY_WEIGHTS)
    for count in range(1, 2 if whole else min(MOST_PARTS, channels) + 1):
        ends = [channels * k // count for k in range(count + 1)]
        parts = [slice(start, stop) for start, stop in pairwise(ends)]
        if all(_largest_sum(layer, weights[..., part]) < EXACT_FLOAT32 for part in parts):
            return parts
    return []


def _largest_sum(layer: Layer, weights: np.ndarray) -> int:
    return 128 * int(row_sums(weighted(layer.operator).rows(weights))[0].max(initial=0))


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
