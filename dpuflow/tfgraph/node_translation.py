"""TensorFlow ops that become layers: one handler per op, see `values` for what a handler is."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dpuflow.tfgraph import (
    arithmetic_nodes,
    condition_nodes,
    rearranging_nodes,
    resize_nodes,
    shape_nodes,
    weighted_nodes,
)
from dpuflow.tfgraph.arithmetic_nodes import affine
from dpuflow.tfgraph.dilation import SPACE_NODES
from dpuflow.tfgraph.pairs import greater, lesser
from dpuflow.tfgraph.rearranging_nodes import (
    channel_product,
    select_channels,
    to_pixels,
    with_zeros,
)
from dpuflow.tfgraph.shape_nodes import reshape_to
from dpuflow.tfgraph.values import (
    ANY,
    NO_PAD,
    Batch,
    Constant,
    Node,
    Tensor,
    Translator,
    Value,
    activation,
    constant,
    each_value,
    feature_map,
    keeps_axes,
    known,
    pseudo_node,
    sizes,
    tensor,
    text,
)
from dpuflow.tfgraph.weighted_nodes import sliding, spatial


def _unary(op):
    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Value:
        value = tensor(translator, node, inputs[0])
        layer = each_value(translator, node, value)
        return value.through(translator.emit(node, op, [layer.name], layer.shape))

    return handler


def _leaky_relu(translator, node, inputs):
    layer = each_value(translator, node, inputs[0])
    alpha = node.attr["alpha"].f if "alpha" in node.attr else 0.2
    return inputs[0].through(
        translator.emit(node, "leaky_relu", [layer.name], layer.shape, alpha=round(float(alpha), 7))
    )


def _maximum(translator, node, inputs):
    """max(x, 0) is ReLU; max(x, alpha x) leaky ReLU; max(x, c) is c + relu(x - c)."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    constants = [value.array for value in inputs if isinstance(value, Constant)]
    if not tensors:
        return Constant(np.maximum(*constants))
    if len(tensors) == 1 and np.all(constants[0] == 0):
        return _unary("relu")(translator, node, tensors)
    for plain, scaled in (inputs, inputs[::-1]):
        layer = translator.layer(scaled) if len(tensors) == 2 else None
        if layer is not None and layer.op == "batch_norm" and layer.inputs == [plain.layer]:
            alpha = float(layer.weights[0])
            if np.all(layer.weights == layer.weights[0]) and not layer.bias.any() and 0 < alpha < 1:
                source = each_value(translator, node, plain)
                return plain.through(
                    translator.emit(node, "leaky_relu", [source.name], source.shape, alpha=round(alpha, 7))
                )
    if len(tensors) == 2:
        return greater(translator, node, inputs)
    above = affine(translator, pseudo_node(node, "Sub", "above/Sub"), tensors[0], 1, -constants[0])
    cut = _unary("relu")(translator, pseudo_node(node, "Relu", "above/Relu"), [above])
    return affine(translator, node, cut, 1, constants[0])


def _minimum(translator, node, inputs):
    """min(relu(x), 6) is ReLU6; min(x, c) is c - relu(c - x)."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    constants = [value.array for value in inputs if isinstance(value, Constant)]
    if not tensors:
        return Constant(np.minimum(*constants))
    layer = each_value(translator, node, tensors[0])
    if len(tensors) == 1 and np.all(constants[0] == 6) and layer.op == "relu":
        return tensors[0].through(translator.emit(node, "relu6", list(layer.inputs), layer.shape))
    if len(tensors) == 2:
        return lesser(translator, node, inputs)
    below = affine(translator, pseudo_node(node, "Sub", "below/Sub"), tensors[0], -1, constants[0])
    cut = _unary("relu")(translator, pseudo_node(node, "Relu", "below/Relu"), [below])
    return affine(translator, node, cut, -1, constants[0])


def _pool(op):
    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Value:
        layer = _pooled_map(translator, node, inputs[0])
        pending = tensor(translator, node, inputs[0]).pad
        same = text(node, "padding", "VALID") == "SAME"
        if pending != NO_PAD and (same if op == "avg_pool" else layer.op not in ("relu", "relu6")):
            # the zeros count: in the average, where SAME's own do not, and as the greatest
            layer, pending = with_zeros(translator, node, layer, pending), NO_PAD
        # of MaxPoolV2 they are inputs
        given: list[Any] = [[int(n) for n in constant(translator, node, v, "the window")] for v in inputs[1:]]
        ksize, strides = (
            spatial(translator, node, key, values)
            for key, values in zip(("ksize", "strides"), given or [None, None], strict=True)
        )
        (height, width), attrs = sliding(translator, node, layer, ksize, pending, strides)
        if attrs.pop("dilation") != (1, 1):
            translator.fail(node, "pooling with dilation is not supported")
        # TensorFlow's own padding does not count in an average
        inside = op == "avg_pool" and any(attrs["pad"]) and text(node, "padding", "VALID") != "VALID"
        kind = "avg_pool_inside" if inside else op
        return translator.emit(node, kind, [layer.name], (height, width, layer.shape[-1]), **attrs)

    return handler


def _pooled_map(translator, node, value):
    layer = feature_map(translator, node, value)
    if value.space is not None:
        activation(translator, node, value)
    return layer


def _over_map(op, what):
    """Handler of a reduction over height and width, global pooling, or over one of them that is kept."""

    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Value:
        axes = constant(translator, node, inputs[1], "the axes")
        if isinstance(inputs[0], Constant):
            reduced = tuple(int(a) for a in np.atleast_1d(axes))
            function: Any = {"avg_pool": np.mean, "max_pool": np.max}[op]
            return Constant(np.asarray(function(inputs[0].array, reduced, keepdims=keeps_axes(node))))
        layer = feature_map(translator, node, inputs[0])
        activation(translator, node, inputs[0])
        over = sorted(int(a) % 4 for a in np.atleast_1d(axes))
        if over == [3]:
            return _over_channels(translator, node, layer, op)
        if over not in ([1], [2], [1, 2]):
            translator.fail(
                node,
                f"{what} over axes {axes}; only rows, columns, both (axes 1, 2) or channels are supported",
            )
        size, channels = layer.shape[:2], layer.shape[2]
        height, width = (size[axis - 1] if axis in over else 1 for axis in (1, 2))
        window: dict[str, Any] = {"kernel": (width, height), "stride": (1, 1), "pad": NO_PAD}
        shape = (size[0] - height + 1, size[1] - width + 1, channels)
        pooled = translator.emit(node, op, [layer.name], shape, **window)
        if keeps_axes(node):
            return pooled
        if len(over) == 1:
            return replace(
                pooled, view=(Batch(), *(n for axis, n in enumerate(shape, 1) if axis not in over))
            )
        flat = pseudo_node(node, "Reshape", "flatten/Reshape")
        return translator.emit(flat, "flatten", [node.name], (channels,))

    return handler


def _over_channels(translator, node, layer, op):
    """The mean as a product; the greatest as that of a block of pixels that is made of the channels."""
    height, width, channels = layer.shape
    if op == "avg_pool":
        share = np.full((1, channels), np.float32(1) / np.float32(channels))
        made = channel_product(translator, node, layer, share)
    else:
        block = math.isqrt(channels - 1) + 1
        filled = np.minimum(np.arange(block**2), channels - 1)  # the last one again
        chosen = select_channels(translator, pseudo_node(node, "Gather", "filled/Gather"), layer, filled)
        named = pseudo_node(node, "DepthToSpace", "channels/DepthToSpace")
        order = np.arange(block**2).reshape(block, block, 1)
        spread = to_pixels(translator, named, translator.layer(chosen), block, order)
        window: dict[str, Any] = {"kernel": (block, block), "stride": (block, block), "pad": NO_PAD}
        made = translator.emit(node, op, [spread.layer], (height, width, 1), **window)
    return made if keeps_axes(node) else replace(made, view=(Batch(), height, width))


def _pad(translator, node, inputs):
    amounts = constant(translator, node, inputs[1], "the padding")
    value = float(constant(translator, node, inputs[2], "the padding value")) if len(inputs) > 2 else 0.0
    _pooled_map(translator, node, inputs[0])
    if amounts.shape != (4, 2) or amounts[[0, 3]].any() or amounts.min() < 0 or value != 0:
        translator.fail(node, "only zero padding of height and width is supported")
    (top, bottom), (left, right) = amounts[1], amounts[2]
    before = inputs[0].pad
    pad = tuple(int(a + b) for a, b in zip(before, (left, right, top, bottom), strict=True))
    return Tensor(inputs[0].layer, pad)


def _concat(translator, node, inputs):
    *values, axis = inputs
    axis = int(constant(translator, node, axis, "the axis"))
    if all(isinstance(value, Constant) for value in values):
        translator.spend(node, sum(value.array.size for value in values))
        return Constant(np.concatenate([np.atleast_1d(value.array) for value in values], axis))
    if not any(isinstance(value, Tensor) for value in values):
        return known(tuple(size for value in values for size in sizes(translator, node, value)))
    layers = [activation(translator, node, value) for value in values]
    if len(layers) == 1:
        return values[0]
    rank = len(layers[0].shape) + 1
    axis %= rank
    if axis != rank - 1 or len({layer.shape[:-1] for layer in layers}) != 1:
        translator.fail(node, "only concatenation along the channels of equally sized maps is supported")
    shape = (*layers[0].shape[:-1], sum(layer.shape[-1] for layer in layers))
    return translator.emit(node, "concat", [layer.name for layer in layers], shape, axis=axis)


def _old_concat(translator, node, inputs):
    """Concat, TensorFlow's first: the axis comes first."""
    return _concat(translator, node, [*inputs[1:], inputs[0]])


def _softmax(translator, node, inputs):
    """Over a vector, also one in the shape (1, 1, N) of a fully convolutional network."""
    value = inputs[0]
    layer = each_value(translator, node, value)
    if layer.op == "softmax":
        translator.fail(
            node,
            f"softmax of a softmax ({layer.name!r}), which has the same answers; remove one of them: name "
            "the first as the output (models.NAME.output_node of a frozen graph) or export the model without",
        )
    if math.prod(layer.shape) != layer.shape[-1]:
        translator.fail(
            node,
            f"softmax at each of {layer.shape[0]} x {layer.shape[1]} pixels; only one over the classes, at "
            "the end, is supported (an attention or segmentation network has no classes of the image)",
        )
    if value.space is not None:
        activation(translator, node, value)
    view = value.view or (Batch(), *layer.shape)
    if len(layer.shape) != 1:
        flat = pseudo_node(node, "Reshape", "flatten/Reshape")
        layer = translator.layer(reshape_to(translator, flat, Tensor(layer.name), (Batch(), layer.shape[-1])))
    result = translator.emit(node, "softmax", [layer.name], layer.shape)
    return result if len(view) == 2 else Tensor(result.layer, view=view)


def _sigmoid(translator, node, inputs):
    """One sigmoid at the end, for two classes: softmax over (-z/2, z/2) is (1 - sigmoid(z), sigmoid(z)).

    Any other is a gate inside the network.
    """
    layer = each_value(translator, node, inputs[0])
    if layer.shape != (1,):
        return inputs[0].through(translator.emit(node, "sigmoid", [layer.name], layer.shape))
    layer = activation(translator, node, inputs[0])
    translator.binary_outputs.add(node.name)
    pair = np.array(BINARY_LOGITS, np.float32)[:, None]
    logits = channel_product(translator, pseudo_node(node, "MatMul", "logits/MatMul"), layer, pair)
    return translator.emit(node, "softmax", [logits.layer], (2,))


BINARY_LOGITS = (-0.5, 0.5)
"""Share of the sigmoid's argument in the logits of the two classes."""

INPUTS = (
    shape_nodes.INPUTS
    | arithmetic_nodes.INPUTS
    | condition_nodes.INPUTS
    | weighted_nodes.INPUTS
    | resize_nodes.INPUTS
    | dict.fromkeys(("Max", "Maximum", "Mean", "Minimum", "Pad"), (2, 2))
    | dict.fromkeys(("BatchToSpaceND", "MaxPoolV2", "PadV2", "SpaceToBatchND"), (3, 3))
    | dict.fromkeys(("Concat", "ConcatV2"), (2, ANY))
)
"""op -> (fewest, most) inputs; an op that is not here has one."""

HANDLERS = (
    shape_nodes.HANDLERS
    | arithmetic_nodes.HANDLERS
    | condition_nodes.HANDLERS
    | weighted_nodes.HANDLERS
    | resize_nodes.HANDLERS
    | SPACE_NODES
    | rearranging_nodes.HANDLERS
    | {
        "AvgPool": _pool("avg_pool"),
        "Concat": _old_concat,
        "ConcatV2": _concat,
        "LeakyRelu": _leaky_relu,
        "Max": _over_map("max_pool", "maximum"),
        "MaxPool": _pool("max_pool"),
        "MaxPoolV2": _pool("max_pool"),
        "Maximum": _maximum,
        "Mean": _over_map("avg_pool", "mean"),
        "Minimum": _minimum,
        "Pad": _pad,
        "PadV2": _pad,
        "Relu": _unary("relu"),
        "Relu6": _unary("relu6"),
        "Sigmoid": _sigmoid,
        "Softmax": _softmax,
    }
)
"""Every supported op -> its handler."""
