"""ONNX's arithmetic and activations: one handler per operator, see `values` for what a handler is.

What is affine per channel becomes a `batch_norm` layer, y = x * weights + bias, and merges later.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.pairs import add, greater, lesser, multiply, subtract
from dpuflow.onnx_graph.values import (
    Constant,
    Reader,
    Tensor,
    Value,
    channel_product,
    constant,
    flattened,
    float_constant,
    per_channel,
    through,
    unpadded,
    whole_map,
)

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
            reader.fail(node, "divides by an activation; the DPU cannot divide")
        return of_two(reader, node, inputs)

    return handler


def _sum(reader, node, inputs):
    total = inputs[0]
    for k, value in enumerate(inputs[1:], 1):
        last = k == len(inputs) - 1
        step = node if last else Node(f"{node.name}/{k}", "Add", node.inputs, node.outputs)
        total = HANDLERS["Add"](reader, step, [total, value])
    return total


def _mean(reader, node, inputs):
    value, share = _sum(reader, node, inputs), np.float32(1) / np.float32(len(inputs))
    return _affine(reader, node, unpadded(reader, node, value), share, np.float32(0))


def _magnitude(reader, node, inputs):
    """|x| = x + relu(-2 x)."""
    value = unpadded(reader, node, inputs[0])
    twice = _affine(reader, node, value, np.float32(-2), np.float32(0))
    layer = reader.layers[twice.layer]
    return add(reader, node, [value, through(twice, reader.emit(node, "relu", [layer.name], layer.shape))])


def _power(reader, node, inputs):
    exponent = float_constant(reader, node, inputs[1], "the exponent")
    if not np.all(exponent == 2):
        reader.fail(node, f"takes the power of {exponent.reshape(-1)[:4].tolist()}; the DPU has squares only")
    return multiply(reader, node, [inputs[0], inputs[0]])


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


def _clamped(reader, node, value, low, high):
    """max(low, min(high, x)), by ReLU and ReLU6 of a line; low, high : broadcast to ONNX's axes."""
    limits = (np.min(low), np.max(low), np.min(high), np.max(high))
    if limits == (-np.inf, -np.inf, np.inf, np.inf):
        return value
    for plain, op in (((0, 0, np.inf, np.inf), "relu"), ((0, 0, 6, 6), "relu6")):
        if limits == plain:
            return _unary(op)(reader, node, [value])
    if np.any(np.asarray(low) >= high) or np.isinf(limits).tolist() not in BOUNDED:
        reader.fail(node, f"clamps to {limits[0]:g} ... {limits[3]:g}, which leaves nothing of its input")
    if np.isinf(limits[3]):  # low + relu(x - low)
        before, op, behind = (np.float32(1), -low), "relu", (np.float32(1), low)
    elif np.isinf(limits[0]):  # high - relu(high - x)
        before, op, behind = (np.float32(-1), high), "relu", (np.float32(-1), high)
    else:  # low + (high - low) / 6 relu6(6 (x - low) / (high - low))
        scale = np.float32(6) / (high - low)
        before, op, behind = (scale, -low * scale), "relu6", ((high - low) / np.float32(6), low)
    value = _affine(reader, node, value, *before)
    layer = reader.layers[value.layer]
    value = through(value, reader.emit(node, op, [layer.name], layer.shape, suffix=op))
    return _affine(reader, node, value, *behind)


BOUNDED = [[False] * 4, [True, True, False, False], [False, False, True, True]]
"""Which of the least and greatest low and high limit may be infinite."""


def _clip(reader, node, inputs):
    low, high = (np.float32(n) for n in _bounds(reader, node, inputs))
    return _clamped(reader, node, unpadded(reader, node, inputs[0]), low, high)


def _extreme(of_two, sign: int) -> Handler:
    """Max (sign 1) or Min (-1) of activations and constants."""

    def handler(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
        value = inputs[0]
        assert value is not None  # a node without its first input does not get through onnxruntime
        for other in inputs[1:]:
            if isinstance(value, Constant):
                value, other = other, value
            assert value is not None
            if isinstance(other, Tensor):
                value = of_two(reader, node, [value, other])
                continue
            bound = float_constant(reader, node, other, "the constant")
            limits = (bound, np.float32(np.inf)) if sign > 0 else (np.float32(-np.inf), bound)
            value = _limited(reader, node, unpadded(reader, node, value), *limits)
        return value

    return handler


def _limited(reader, node, value, low, high):
    """`_clamped`; of a ReLU cut to 6 one ReLU6."""
    layer = reader.layers[value.layer]
    if layer.op == "relu" and np.all(high == 6):
        return through(value, reader.emit(node, "relu6", list(layer.inputs), layer.shape))
    return _clamped(reader, node, value, low, high)


def _hard_sigmoid(reader, node, inputs):
    """max(0, min(1, alpha x + beta)); the DPU's is relu6(x + 3) / 6."""
    alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
    value = unpadded(reader, node, inputs[0])
    if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
        value = _affine(reader, node, value, np.float32(6 * alpha), np.float32(6 * beta - 3))
    layer = reader.layers[value.layer]
    return through(value, reader.emit(node, "hard_sigmoid", [layer.name], layer.shape))


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
    # one of several outputs, too: of one value it says two classes, as in a frozen graph
    last = node.outputs[0] in reader.outputs.values() and reader.only_viewed(node.outputs[0])
    if last and reader.layers[value.layer].shape[-1:] == (1,):
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


_ADD = _binary(np.add, lambda c, first: (1, c), add)
HANDLERS: dict[str, Handler] = {
    "Abs": _magnitude,
    "Add": _ADD,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Div": _binary(np.divide, lambda c, first: (1 / c, 0) if first else None, None),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _gated("hard_sigmoid"),
    "LeakyRelu": _leaky_relu,
    "Max": _extreme(greater, 1),
    "Mean": _mean,
    "Min": _extreme(lesser, -1),
    "Mul": _binary(np.multiply, lambda c, first: (c, 0), multiply),
    "Neg": lambda reader, node, inputs: _affine(
        reader, node, unpadded(reader, node, inputs[0]), np.array(-1), np.array(0)
    ),
    "PRelu": _prelu,
    "Pow": _power,
    "Relu": _unary("relu"),
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Sub": _binary(np.subtract, lambda c, first: (1, -c) if first else (-1, c), subtract),
    "Sum": _sum,
    "Swish": _gated("sigmoid"),
}
"""Operator -> handler."""
