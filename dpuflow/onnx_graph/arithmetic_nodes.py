"""ONNX's arithmetic and activations: one handler per operator, see `values` for what a handler is.

What is affine per channel becomes a `batch_norm` layer, y = x * weights + bias, and merges later.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.values import (
    Constant,
    Reader,
    Tensor,
    Value,
    channel_product,
    constant,
    feature_map,
    flattened,
    float_constant,
    per_channel,
    tensor,
    through,
    unpadded,
    whole_map,
)
from dpuflow.ops.gating import is_factors

Handler = Callable[[Reader, Node, Sequence[Value | None]], Value]


def _affine(reader: Reader, node: Node, value: Tensor, scale: np.ndarray, offset: np.ndarray) -> Tensor:
    """y = x * scale + offset; both broadcast to ONNX's axes."""
    for seen in (value, flattened(reader, node, value) if len(value.axes) == 1 else value):
        channels = [per_channel(reader, node, seen, np.asarray(array)) for array in (scale, offset)]
        if all(array is not None for array in channels):
            layer, (factors, offsets) = reader.layers[seen.layer], channels
            made = reader.emit(node, "batch_norm", [layer.name], layer.shape, factors, offsets)
            return through(seen, made)
    reader.fail(
        node,
        "meets a constant that is not one number, or one for each channel; only those become part of weights",
    )


def _same_axes(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> tuple[Tensor, Tensor]:
    """Two activations of one shape, seen alike."""
    first, second = (unpadded(reader, node, value) for value in inputs)
    shapes = [reader.layers[value.layer].shape for value in (first, second)]
    if first.axes == second.axes and shapes[0] == shapes[1]:
        return first, second
    if len(first.axes) == len(second.axes) == 3:
        maps = [feature_map(reader, node, value)[0] for value in (first, second)]
        if maps[0].shape == maps[1].shape:
            return whole_map(maps[0]), whole_map(maps[1])
    if len(first.axes) == len(second.axes) == 1:
        flat = [flattened(reader, node, value) for value in (first, second)]
        if flat[0].axes == flat[1].axes:
            return flat[0], flat[1]
    reader.fail(
        node,
        f"combines activations of different shapes or orders, {shapes[0]} and {shapes[1]}; bring them to one "
        "shape with a 1x1 convolution",
    )


def _add(reader, node, inputs):
    first, second = _same_axes(reader, node, inputs)
    shape = reader.layers[first.layer].shape
    return through(first, reader.emit(node, "add", [first.layer, second.layer], shape, activation="NONE"))


def _multiply(reader, node, inputs):
    """Of one shape, or of a map and one factor per channel, or one per pixel (copied to all channels)."""
    values = [unpadded(reader, node, value) for value in inputs]
    if values[0].axes == values[1].axes or not all(len(value.axes) == 3 for value in values):
        first, second = _same_axes(reader, node, values)
        shape = reader.layers[first.layer].shape
        return through(first, reader.emit(node, "multiply", [first.layer, second.layer], shape))
    layers = [_factors(reader, node, value) for value in values]
    shapes = [layer.shape for layer in layers]
    for k, (one, other) in enumerate((shapes, shapes[::-1])):
        if len(one) == len(other) == 3 and one[2] == 1 < other[2] and one[:2] in (other[:2], (1, 1)):
            layers[k] = channel_product(
                reader, node, layers[k], np.ones((other[2], 1), np.float32), suffix="copies"
            )
    shapes = [layer.shape for layer in layers]
    if shapes[0] != shapes[1] and not is_factors(shapes[1], shapes[0]) and not is_factors(*shapes):
        reader.fail(
            node,
            f"multiplies activations of shapes {shapes[0]} and {shapes[1]}; only maps of one shape, or a map "
            "by one factor per channel or per pixel, are supported",
        )
    big = shapes[1] if is_factors(shapes[0], shapes[1]) else shapes[0]
    return whole_map(reader.emit(node, "multiply", [layer.name for layer in layers], big))


def _factors(reader, node, value):
    """The layer of one side of a product: a map, or a vector seen as (N, C, 1, 1)."""
    layer = reader.layers[value.layer]
    if len(layer.shape) == 1 and value.axes == (*whole_map(layer).axes, (), ()):
        return layer
    return feature_map(reader, node, value)[0]


def _binary(function, of_constant, of_two) -> Handler:
    """Handler of arithmetic on two inputs: constants, a tensor with a constant, two tensors.

    of_constant(c, first) : (scale, offset) of the tensor, which stands first or not; None where it is none.
    """

    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        a, b = inputs
        if isinstance(a, Constant) and isinstance(b, Constant):
            return Constant(function(a.array, b.array))
        if isinstance(a, Constant) or isinstance(b, Constant):
            first = isinstance(b, Constant)
            value = unpadded(reader, node, a if first else b)
            other = b if first else a
            pair = of_constant(float_constant(reader, node, other, "the constant"), first)
            if pair is None:
                reader.fail(node, "a constant divided by an activation; the DPU cannot divide")
            return _affine(reader, node, value, *pair)
        if of_two is None:
            reader.fail(node, "of two activations only the sum and the product are supported")
        return of_two(reader, node, inputs)

    return handler


def _sum(reader, node, inputs):
    total = inputs[0]
    for k, value in enumerate(inputs[1:], 1):
        last = k == len(inputs) - 1
        step = node if last else Node(f"{node.name}/{k}", "Add", node.inputs, node.outputs)
        total = HANDLERS["Add"](reader, step, [total, value])
    return total


def _batch_norm(reader, node, inputs):
    if node.attrs.get("training_mode", 0) or any(node.outputs[1:]):
        reader.fail(node, "batch normalisation in training mode; export the network in inference (eval())")
    value = unpadded(reader, node, inputs[0])
    gamma, beta, mean, variance = (
        constant(reader, node, given, "a parameter of batch normalisation").astype(np.float64)
        for given in inputs[1:5]
    )
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    shape = (-1,) + (1,) * (len(value.axes) - 1)
    offset = beta - mean * scale
    return _affine(reader, node, value, scale.reshape(shape), offset.reshape(shape))


def _unary(op: str, **attrs: Any) -> Handler:
    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        value = unpadded(reader, node, inputs[0])
        layer = reader.layers[value.layer]
        return through(value, reader.emit(node, op, [layer.name], layer.shape, **attrs))

    return handler


def _leaky_relu(reader, node, inputs):
    alpha = round(float(node.attrs.get("alpha", 0.01)), 7)
    return _unary("leaky_relu", alpha=alpha)(reader, node, inputs)


def _prelu(reader, node, inputs):
    slope = float_constant(reader, node, inputs[1], "the slope")
    if slope.size and np.all(slope == slope.flat[0]):
        return _unary("leaky_relu", alpha=round(float(slope.flat[0]), 7))(reader, node, inputs)
    value = unpadded(reader, node, inputs[0])
    layer = reader.layers[value.layer]
    slopes = per_channel(reader, node, value, slope)
    if slopes is None:
        reader.fail(node, f"a PReLU with slopes of shape {slope.shape}; one for each channel is expected")
    if slopes.max() >= 1:
        reader.fail(node, f"a PReLU with a slope of {slopes.max():g}; only those below 1 can be made")
    # a x + (1 - a) relu(x), exactly
    none = np.zeros_like(slopes)
    share = reader.emit(node, "batch_norm", [layer.name], layer.shape, slopes, none, suffix="slope")
    rest = reader.emit(node, "batch_norm", [layer.name], layer.shape, 1 - slopes, none, suffix="rest")
    relu = reader.emit(node, "relu", [rest.name], layer.shape, suffix="relu")
    names = [share.name, relu.name]
    return through(value, reader.emit(node, "add", names, layer.shape, activation="NONE"))


def _bounds(reader, node, inputs):
    """(least, greatest) of a Clip: attributes up to opset 10, inputs since."""
    found = []
    for index, (key, none) in enumerate((("min", -np.inf), ("max", np.inf)), 1):
        given = inputs[index] if len(inputs) > index else None
        bound = node.attrs.get(key, none) if given is None else constant(reader, node, given, key)
        found.append(float(np.asarray(bound).reshape(())))
    limit = float(np.finfo(np.float32).max)
    return tuple(float(np.sign(n)) * np.inf if abs(n) >= limit else n for n in found)


def _clip(reader, node, inputs):
    bounds = _bounds(reader, node, inputs)
    ops = {(0, np.inf): "relu", (0, 6): "relu6"}
    if bounds == (-np.inf, np.inf):
        return tensor(reader, node, inputs[0])
    if bounds not in ops:
        reader.fail(
            node,
            f"clamps to {bounds[0]:g} ... {bounds[1]:g}; the DPU has ReLU (0 ...) and ReLU6 (0 ... 6)",
        )
    return _unary(ops[bounds])(reader, node, inputs[:1])


def _extreme(op, limit, clamp) -> Handler:
    """Max or Min of an activation and a constant."""

    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        constants = [value.array for value in inputs if isinstance(value, Constant)]
        if len(tensors) != 1 or len(constants) != 1 or not np.all(constants[0] == limit):
            reader.fail(node, f"only {clamp} is supported")
        layer = reader.layers[tensors[0].layer]
        if op == "relu6":
            if layer.op != "relu":
                reader.fail(node, f"only {clamp} is supported")
            return through(tensors[0], reader.emit(node, op, list(layer.inputs), layer.shape))
        return _unary(op)(reader, node, tensors)

    return handler


def _hard_sigmoid(reader, node, inputs):
    alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
    if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
        reader.fail(
            node,
            f"a hard sigmoid max(0, min(1, {alpha:g} x + {beta:g})); the DPU has relu6(x + 3) / 6 (PyTorch)",
        )
    return _unary("hard_sigmoid")(reader, node, inputs)


def _gated(gate: str) -> Handler:
    """x times a function of itself."""

    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        value = unpadded(reader, node, inputs[0])
        layer = reader.layers[value.layer]
        share = reader.emit(node, gate, [layer.name], layer.shape, suffix=gate)
        return through(value, reader.emit(node, "multiply", [layer.name, share.name], layer.shape))

    return handler


BINARY_LOGITS = (-0.5, 0.5)
"""Share of one sigmoid's argument in the logits of two classes: softmax(-z/2, z/2) = (1 - s(z), s(z))."""


def _sigmoid(reader, node, inputs):
    value = unpadded(reader, node, inputs[0])
    if [node.outputs[0]] == list(reader.outputs.values()) and reader.layers[value.layer].shape[-1:] == (1,):
        flat = flattened(reader, node, value)
        layer = reader.layers[flat.layer]
        if layer.shape == (1,):
            weights = np.array(BINARY_LOGITS, np.float32)[:, None]
            logits = channel_product(reader, node, layer, weights, suffix="logits")
            return whole_map(reader.emit(node, "softmax", [logits.name], (2,)))
    # at an end it is left to the CPU (`network.devices`)
    return _unary("sigmoid")(reader, node, inputs)


def _softmax(reader, node, inputs):
    """Over a vector, or the channels of a map, at an end."""
    value = unpadded(reader, node, inputs[0])
    rank = len(value.axes) + 1
    axis = int(node.attrs.get("axis", 1 if reader.opset < 13 else -1)) % rank
    long = [k for k, atoms in enumerate(value.axes, 1) if atoms]
    source = reader.layers[value.layer]
    over_channels = len(source.shape) > 1 and algebra.has_whole(
        value.axes[axis - 1], source.shape, len(source.shape) - 1
    )
    over_channels = over_channels and len(long) > 1 and (reader.opset >= 13 or axis == rank - 1)
    if not over_channels and long not in ([], [axis]) and not (reader.opset < 13 and axis == 1):
        reader.fail(
            node, "a softmax at each of many places; only one over the classes, at the end, is possible"
        )
    if not reader.only_viewed(node.outputs[0]):
        reader.fail(
            node,
            "a softmax inside the network; only the last operator can be one, on the CPU: end the network "
            "there (models.NAME.output_node), or use ReLU",
        )
    if over_channels:
        return through(value, reader.emit(node, "softmax", [source.name], source.shape))
    flat = flattened(reader, node, value)
    layer = reader.layers[flat.layer]
    return through(flat, reader.emit(node, "softmax", [layer.name], layer.shape))


_ADD = _binary(np.add, lambda c, first: (1, c), _add)
HANDLERS: dict[str, Handler] = {
    "Add": _ADD,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Div": _binary(np.divide, lambda c, first: (1 / c, 0) if first else None, None),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _gated("hard_sigmoid"),
    "LeakyRelu": _leaky_relu,
    "Max": _extreme("relu", 0, "max(x, 0)"),
    "Min": _extreme("relu6", 6, "min(relu(x), 6)"),
    "Mul": _binary(np.multiply, lambda c, first: (c, 0), _multiply),
    "Neg": lambda reader, node, inputs: _affine(
        reader, node, unpadded(reader, node, inputs[0]), np.array(-1), np.array(0)
    ),
    "PRelu": _prelu,
    "Relu": _unary("relu"),
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Sub": _binary(np.subtract, lambda c, first: (1, -c) if first else (-1, c), None),
    "Sum": _sum,
    "Swish": _gated("sigmoid"),
}
"""Operator -> handler."""
