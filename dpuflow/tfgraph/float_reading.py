"""TensorFlow ops as layers of the CPU, for what the DPU's last layers are followed by: one handler per op.

These are asked where an input is real numbers already, or where the DPU has nothing for the op
(`graph_reader`); what they read is reshaped to the shape that the graph sees.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from dpuflow.network import Layer
from dpuflow.network.devices import gives_floats, of_shares
from dpuflow.tfgraph.node_order import sources
from dpuflow.tfgraph.shape_nodes import _slice_of
from dpuflow.tfgraph.values import (
    NO_PAD,
    Batch,
    Constant,
    Node,
    Tensor,
    Translator,
    Value,
    constant,
    pseudo_node,
)

Handler = Callable[[Translator, Node, list[Value]], Value | list[Value]]


def inside(nodes: Mapping[str, Node], order: Sequence[str]) -> set[str]:
    """Names of the nodes that a node of the DPU's follows, near or far, which only the DPU can compute.

    order : names, inputs first. A convolution behind a softmax, the mean of a distribution, is no such node.
    """
    found: set[str] = set()

    def read(name: str) -> tuple[str, Sequence[str]]:
        return nodes[name].op, sources(nodes[name])

    for name in reversed(order):
        of_dpu = nodes[name].op in ONLY_DPU and not of_shares(name, read, WEIGHTED_VIEWS)
        if of_dpu or name in found:
            found.update(sources(nodes[name]))
    return found


def is_float(layers: dict[str, Layer], of_dpu: set[str], value: Value) -> bool:
    """Whether a value is made of real numbers: by a layer of the CPU, or of what one makes.

    of_dpu : names of the layers that are the DPU's, whatever they are.
    """
    return isinstance(value, Tensor) and gives_floats(layers, of_dpu, value.layer)


def plain(translator: Translator, node: Node, value: Value) -> Layer:
    """The layer that gives `value` in the shape that the graph sees; a constant as a layer."""
    if isinstance(value, Constant):
        array = np.asarray(value.array, np.float32)
        array = array[0] if array.ndim > 1 and len(array) == 1 else array
        array = array.reshape(array.shape or (1,))
        name = _free(translator, node, "constant")
        return translator.layer(translator.emit(name, "constant", [], array.shape, array))
    if not isinstance(value, Tensor) or value.pad != NO_PAD or value.space is not None:
        translator.fail(node, "its input is padded, cut into blocks or no activation")
    layer = translator.layer(value)
    if value.view is None or value.view[1:] == layer.shape:
        return layer
    if value.view[0] != Batch():
        translator.fail(node, "its input joins several images")
    shape = tuple(int(n) for n in value.view[1:])  # type: ignore[arg-type]  # only the first is a Batch
    name = _free(translator, node, "reshaped")
    return translator.layer(translator.emit(name, "float_reshape", [layer.name], shape, target=shape))


def _free(translator, node, suffix):
    """A node for one more layer, called after `node`."""
    number = 0
    while f"{node.name}/{suffix}{number or ''}" in translator.layers:
        number += 1
    return pseudo_node(node, node.op, f"{suffix}{number or ''}")


def _unary(op: str) -> Handler:
    def handler(translator: Translator, node: Node, inputs: list[Value]) -> Value:
        layer = plain(translator, node, inputs[0])
        return translator.emit(node, op, [layer.name], layer.shape)

    return handler


def _softmax(translator, node, inputs):
    layer = plain(translator, node, inputs[0])
    if layer.op == "softmax":
        translator.fail(node, f"softmax of a softmax ({layer.name!r}); remove one of them")
    return translator.emit(node, "softmax", [layer.name], layer.shape)


def _transpose(translator, node, inputs):
    layer = plain(translator, node, inputs[0])
    order = tuple(int(n) for n in constant(translator, node, inputs[1], "the order of axes"))
    if sorted(order) != list(range(len(layer.shape) + 1)) or order[0]:
        translator.fail(node, f"orders the axes as {order}; the batch must stay first")
    shape = tuple(layer.shape[axis - 1] for axis in order[1:])
    return translator.emit(node, "transpose", [layer.name], shape, order=order)


def _concat(translator, node, inputs):
    *values, axis = inputs
    layers = [plain(translator, node, value) for value in values]
    axis = int(constant(translator, node, axis, "the axis")) % (len(layers[0].shape) + 1)
    shapes = [layer.shape for layer in layers]
    others = {(*shape[: axis - 1], *shape[axis:]) for shape in shapes}
    if not axis or len(others) != 1 or len({len(shape) for shape in shapes}) != 1:
        translator.fail(node, f"joins {shapes} along axis {axis}")
    size = sum(shape[axis - 1] for shape in shapes)
    shape = (*shapes[0][: axis - 1], size, *shapes[0][axis:])
    return translator.emit(node, "float_concat", [layer.name for layer in layers], shape, axis=axis)


def _old_concat(translator, node, inputs):
    return _concat(translator, node, [*inputs[1:], inputs[0]])


def _cut(
    translator: Translator, node: Node, layer: Layer, bounds: Iterable[tuple[int, int, int]], name: Node
) -> Tensor:
    """(begin, end, stride) of each axis behind the batch."""
    begin, end, strides = (tuple(int(n) for n in column) for column in zip(*bounds, strict=True))
    if min(strides) < 1 or any(b >= e for b, e in zip(begin, end, strict=True)):
        translator.fail(node, "takes nothing, or takes it backwards")
    shape = [len(range(b, e, s)) for b, e, s in zip(begin, end, strides, strict=True)]
    return translator.emit(name, "float_slice", [layer.name], shape, begin=begin, end=end, strides=strides)


def _strided_slice(translator, node, inputs):
    layer = plain(translator, node, inputs[0])
    first, *index = _slice_of(translator, node, inputs, len(layer.shape) + 1)
    if first not in (slice(None), slice(0, None, 1), slice(None, None, 1)):
        translator.fail(node, "slices the batch")
    gone = [axis for axis, each in enumerate(index) if not isinstance(each, slice)]
    parts = [
        each.indices(n) if isinstance(each, slice) else (each % n, each % n + 1, 1)
        for each, n in zip(index, layer.shape, strict=True)
    ]
    if not gone:
        return _cut(translator, node, layer, parts, node)
    cut = _cut(translator, node, layer, parts, _free(translator, node, "cut"))
    shape = tuple(n for axis, n in enumerate(translator.layer(cut).shape) if axis not in gone) or (1,)
    return translator.emit(node, "float_reshape", [cut.layer], shape, target=shape)


def _split(translator, node, inputs):
    layer = plain(translator, node, inputs[1])
    axis = int(constant(translator, node, inputs[0], "the axis")) % (len(layer.shape) + 1)
    parts = node.attr["num_split"].i
    if not axis or parts < 1 or layer.shape[axis - 1] % parts:
        translator.fail(node, f"splits axis {axis} of {layer.shape} into {parts}")
    each, whole = layer.shape[axis - 1] // parts, [(0, n, 1) for n in layer.shape]
    found = []
    for k in range(parts):
        bounds = [*whole[: axis - 1], (k * each, (k + 1) * each, 1), *whole[axis:]]
        found.append(_cut(translator, node, layer, bounds, _free(translator, node, f"part{k}")))
    return found


def _binary(op: str) -> Handler:
    """Of two activations, or of one and a constant; a shape of fewer axes lacks those in front."""

    def handler(translator: Translator, node: Node, inputs: list[Value]) -> Value:
        layers = [plain(translator, node, value) for value in inputs]
        rank = max(len(layer.shape) for layer in layers)
        names, shapes = [], []
        for layer in layers:
            shape = (*(1,) * (rank - len(layer.shape)), *layer.shape)
            if layer.op == "constant":
                assert layer.weights is not None  # `plain` gave it
                layer.weights, layer.shape = layer.weights.reshape(shape), shape
            elif shape != layer.shape:
                wide = _free(translator, node, "wide")
                layer = translator.layer(
                    translator.emit(wide, "float_reshape", [layer.name], shape, target=shape)
                )
            names.append(layer.name)
            shapes.append(shape)
        return translator.emit(node, op, names, np.broadcast_shapes(*shapes))

    return handler


def _argmax(translator, node, inputs):
    layer = plain(translator, node, inputs[0])
    axis = int(constant(translator, node, inputs[1], "the axis")) % (len(layer.shape) + 1)
    if not axis:
        translator.fail(node, "looks for the largest over the batch")
    shape = (*layer.shape[: axis - 1], *layer.shape[axis:]) or (1,)
    return translator.emit(node, "argmax", [layer.name], shape, axis=axis)


HANDLERS: dict[str, Handler] = {
    "Add": _binary("float_add"),
    "AddV2": _binary("float_add"),
    "ArgMax": _argmax,
    "Concat": _old_concat,
    "ConcatV2": _concat,
    "Exp": _unary("exp"),
    "Mul": _binary("float_multiply"),
    "RealDiv": _binary("float_divide"),
    "Sigmoid": _unary("sigmoid"),
    "Softmax": _softmax,
    "Split": _split,
    "StridedSlice": _strided_slice,
    "Sub": _binary("float_subtract"),
    "Tanh": _unary("tanh"),
    "Transpose": _transpose,
}
"""Op -> handler(translator, node, inputs) -> its value (a list of them of several outputs)."""
ONLY_DPU = (
    *(
        "Conv2D",
        "Conv2DBackpropInput",
        "DepthwiseConv2dNative",
        "DepthwiseConv2dNativeBackpropInput",
        "MatMul",
    ),
    *("MatMul", "MaxPool", "MaxPoolV2", "AvgPool", "Relu", "Relu6", "LeakyRelu"),
    *("ResizeBilinear", "ResizeNearestNeighbor", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
)
"""Ops that the CPU has nothing for."""
ARRANGING = ("BiasAdd", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose")
WEIGHTED_VIEWS = ("Conv2D", "MatMul", *ARRANGING)
"""Ops between a softmax and the mean of a distribution, that mean itself, too."""
ALWAYS = ("Sigmoid",)
"""Ops that are the CPU's here though the DPU's reading takes them: at the end they mean something else."""
