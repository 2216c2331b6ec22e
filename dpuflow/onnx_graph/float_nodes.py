"""ONNX operators as layers of the CPU, behind the DPU's last layers: one handler per operator.

These are asked where an input is real numbers already, or where the DPU has nothing for the node (`reader`).
A layer of the CPU has ONNX's axes in ONNX's order; what it reads is brought to them first.
"""

from collections.abc import Callable, Container, Sequence

import numpy as np

from dpuflow.network import Layer
from dpuflow.network.devices import gives_floats, of_shares
from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.graph import VIEWS, Node
from dpuflow.onnx_graph.values import (
    Constant,
    Reader,
    Tensor,
    Value,
    constant,
    float_constant,
    pieces,
    slices,
    tensor,
    unpadded,
    whole_numbers,
)

Inputs = Sequence[Value | None]
Handler = Callable[[Reader, Node, Inputs], Value | list[Tensor]]
MOST_PIECES = 16
"""Places that a Gather may take one by one."""


def inside(nodes: Sequence[Node], on_dpu: Container[str]) -> set[str]:
    """Names of the tensors that a node of the DPU's follows, near or far: only the DPU can make those.

    on_dpu : the operators that the DPU's reading has.
    """
    made = {name: (node.op, node.inputs) for node in nodes for name in node.outputs}
    found: set[str] = set()
    for node in reversed(nodes):
        of_dpu = node.op in on_dpu and node.op not in HANDLERS and node.op not in VIEWS
        if (
            of_dpu
            or (node.op in WEIGHTED and not of_shares(node.inputs[0], made.get, VIEWS))
            or found & set(node.outputs)
        ):
            found.update(node.inputs)
    return found


def is_float(layers: dict[str, Layer], of_dpu: set[str], value: Value | None) -> bool:
    """Whether a value is made of real numbers: by a layer of the CPU, or of what one makes.

    of_dpu : names of the layers that are the DPU's, whatever they are.
    """
    return isinstance(value, Tensor) and gives_floats(layers, of_dpu, value.layer)


def seen(layer: Layer) -> Tensor:
    """A layer of the CPU, whose axes are ONNX's."""
    return Tensor(layer.name, algebra.whole(layer.shape, range(len(layer.shape))))


def plain(reader: Reader, node: Node, value: Value | None) -> Layer:
    """The layer that gives `value` in ONNX's shape: reshaped, transposed, reshaped as far as is needed."""
    found = unpadded(reader, node, value)
    layer = reader.layers[found.layer]
    shape = algebra.sizes(found.axes) or (1,)
    if found.axes == seen(layer).axes and shape == layer.shape:
        return layer
    cut = algebra.cuts(found.axes, layer.shape)
    if cut is None:
        reader.fail(node, "reads a part of a tensor that is no slice of it")
    atoms, order = cut

    def make() -> Layer:
        made = _reshaped(reader, node, layer, tuple(atom.size for atom in atoms) or (1,), "cut")
        if order != sorted(order):
            turned = tuple(made.shape[k] for k in order)
            axes = (0, *(k + 1 for k in order))
            made = reader.emit(node, "transpose", [made.name], turned, suffix="turned", order=axes)
        return _reshaped(reader, node, made, shape, "reshaped")

    return reader.once(("plain", layer.name, found.axes), make)


def _reshaped(reader, node, layer, shape, suffix):
    shape = tuple(int(n) for n in shape)
    if layer.shape == shape:
        return layer
    return reader.emit(node, "float_reshape", [layer.name], shape, suffix=suffix, target=shape)


def _constant(reader, node, array, rank):
    """A constant as a layer of `rank` axes behind the batch."""
    array = np.asarray(array, np.float32)
    if array.ndim == rank + 1 and len(array) == 1:
        array = array[0]
    if array.ndim > rank:
        reader.fail(node, f"a constant of shape {array.shape} has more axes than what it meets")
    array = np.ascontiguousarray(array.reshape((1,) * (rank - array.ndim) + array.shape))
    return reader.emit(node, "constant", [], array.shape, array, suffix="constant")


def _layers(reader, node, inputs):
    """All inputs as layers of one rank; only constants and tensors of fewer axes get more."""
    ranks = [len(value.axes) for value in inputs if isinstance(value, Tensor)]
    if not ranks:
        reader.fail(node, "works on constants alone, and was not folded")
    rank, found = max(1, *ranks), []
    for value in inputs:
        if isinstance(value, Constant):
            found.append(_constant(reader, node, value.array, rank))
            continue
        layer = plain(reader, node, value)
        if len(layer.shape) < rank:  # ONNX puts the axes that lack in front of the batch
            reader.fail(node, f"combines tensors of {len(layer.shape)} and {rank} axes behind the images")
        found.append(layer)
    return found


def _binary(op: str) -> Handler:
    def handler(reader: Reader, node: Node, inputs: Inputs) -> Tensor:
        layers = _layers(reader, node, inputs)
        shape = np.broadcast_shapes(*(layer.shape for layer in layers))
        return seen(reader.emit(node, op, [layer.name for layer in layers], shape))

    return handler


def _unary(op: str) -> Handler:
    def handler(reader: Reader, node: Node, inputs: Inputs) -> Tensor:
        layer = plain(reader, node, inputs[0])
        return seen(reader.emit(node, op, [layer.name], layer.shape))

    return handler


def _with(op: str, number: float, first: bool = False) -> Handler:
    """Arithmetic with one number, which stands first or behind."""

    def handler(reader: Reader, node: Node, inputs: Inputs) -> Value | list[Tensor]:
        pair: list[Value | None] = [inputs[0], Constant(np.array(number, np.float32))]
        return _binary(op)(reader, node, pair[::-1] if first else pair)

    return handler


def _power(reader, node, inputs):
    exponent = float_constant(reader, node, inputs[1], "the exponent")
    if not np.all(exponent == 2):
        reader.fail(node, f"takes the power of {exponent.reshape(-1)[:4].tolist()}; the CPU has squares")
    return _binary("float_multiply")(reader, node, [inputs[0], inputs[0]])


def _axis(reader, node, value, default):
    """The axis behind the batch (0: the first) of an attribute."""
    rank = len(value.axes) + 1
    axis = int(node.attrs.get("axis", default)) % rank
    if not axis:
        reader.fail(node, "works along the axis of the images")
    return axis - 1


def _last(axes, axis):
    """(axes with `axis` at the end, order that brings a tensor seen so back)."""
    order = [k for k in range(len(axes)) if k != axis]
    return tuple(axes[k] for k in (*order, axis)), [*range(axis), len(axes) - 1, *range(axis, len(axes) - 1)]


def _over_axis(reader, node, value, axis, make):
    """What `make` (a function of a layer) does along the last axis, done along another."""
    found = unpadded(reader, node, value)
    moved, back = _last(found.axes, axis)
    made = make(plain(reader, node, Tensor(found.layer, moved)))
    return Tensor(made.name, tuple(seen(made).axes[k] for k in back))


def _softmax(reader, node, inputs):
    value = tensor(reader, node, inputs[0])
    axis = _axis(reader, node, value, 1 if reader.opset < 13 else -1)
    if reader.opset < 13 and any(value.axes[axis + 1 :]):
        reader.fail(node, "a softmax over several axes at once (opset below 13)")

    def make(layer: Layer) -> Layer:
        if layer.op == "softmax":
            reader.fail(node, f"softmax of a softmax ({layer.name!r}); remove one of them")
        return reader.emit(node, "softmax", [layer.name], layer.shape)

    return _over_axis(reader, node, value, axis, make)


def _argmax(reader, node, inputs):
    if node.attrs.get("select_last_index", 0):
        reader.fail(node, "takes the last of equal ones; export it with select_last_index=0")
    layer = plain(reader, node, inputs[0])
    axis = _axis(reader, node, seen(layer), 0)
    shape = (*layer.shape[:axis], *layer.shape[axis + 1 :])
    made = reader.emit(node, "argmax", [layer.name], shape or (1,), axis=axis + 1)
    axes = seen(made).axes if shape else ()
    return Tensor(made.name, (*axes[:axis], (), *axes[axis:]) if node.attrs.get("keepdims", 1) else axes)


def _concat(reader, node, inputs):
    ranks = {len(value.axes) for value in inputs if isinstance(value, Tensor)}
    if len(ranks) != 1:
        reader.fail(node, "joins tensors of different numbers of axes")
    (rank,) = ranks
    layers = [
        _constant(reader, node, value.array, rank)
        if isinstance(value, Constant)
        else plain(reader, node, value)
        for value in inputs
    ]
    axis = int(node.attrs["axis"]) % (rank + 1)
    if not axis:
        reader.fail(node, "joins images")
    size = sum(layer.shape[axis - 1] for layer in layers)
    shape = (*layers[0].shape[: axis - 1], size, *layers[0].shape[axis:])
    return seen(reader.emit(node, "float_concat", [layer.name for layer in layers], shape, axis=axis))


def _cut(reader, node, layer, axis, start, end, step=1, suffix=""):
    """start, start + step, ... below end along an axis behind the batch."""
    if not 0 <= start < end <= layer.shape[axis] or step < 1:
        reader.fail(node, "takes nothing, or takes it backwards")
    if (start, end, step) == (0, layer.shape[axis], 1):
        return layer
    bounds = [(0, n, 1) for n in layer.shape]
    bounds[axis] = (start, end, step)
    begin, ends, strides = (tuple(column) for column in zip(*bounds, strict=True))
    shape = [len(range(*each)) for each in bounds]
    return reader.emit(
        node, "float_slice", [layer.name], shape, suffix=suffix, begin=begin, end=ends, strides=strides
    )


def _slice(reader, node, inputs):
    layer = plain(reader, node, inputs[0])
    for axis, start, end, step in slices(reader, node, inputs, len(layer.shape) + 1):
        low, high, _ = slice(start, end, step).indices(layer.shape[axis])
        layer = _cut(reader, node, layer, axis, low, high, step, suffix=f"{axis + 1}")
    return seen(layer)


def _split(reader, node, inputs):
    layer = plain(reader, node, inputs[0])
    axis = _axis(reader, node, seen(layer), 0)
    return [
        seen(_cut(reader, node, layer, axis, start, end, suffix=str(k)))
        for k, (start, end) in enumerate(pieces(reader, node, axis))
    ]


def _gather(reader, node, inputs):
    layer = plain(reader, node, inputs[0])
    axis = _axis(reader, node, seen(layer), 0)
    indices = constant(reader, node, inputs[1], "the indices").astype(np.int64)
    if indices.ndim > 1 or not 0 < indices.size <= MOST_PIECES:
        reader.fail(node, f"picks {indices.size} places by a table; at most {MOST_PIECES} in a list can be")
    places = (np.atleast_1d(indices) % layer.shape[axis]).tolist()
    pieces = [_cut(reader, node, layer, axis, n, n + 1, suffix=str(n)) for n in places]
    if indices.ndim == 0:
        axes = seen(pieces[0]).axes
        return Tensor(pieces[0].name, (*axes[:axis], *axes[axis + 1 :]))
    shape = (*layer.shape[:axis], len(places), *layer.shape[axis + 1 :])
    return seen(reader.emit(node, "float_concat", [p.name for p in pieces], shape, axis=axis + 1))


def _product(reader, node, layer, matrix, bias=None):
    """A layer times a matrix [K, M] over its last axis, and a bias [M]."""
    matrix = np.ascontiguousarray(matrix, np.float32)
    weights = reader.emit(node, "constant", [], matrix.shape, matrix, suffix="weights")
    shape = (*layer.shape[:-1], matrix.shape[1])
    made = reader.emit(node, "float_matmul", [layer.name, weights.name], shape, suffix="product")
    if bias is None:
        return made
    offset = _constant(reader, node, bias, len(shape))
    return reader.emit(node, "float_add", [made.name, offset.name], shape)


def _matmul(reader, node, inputs):
    matrix = float_constant(reader, node, inputs[1], "its weights")
    if matrix.ndim not in (1, 2):
        reader.fail(node, f"weights of shape {matrix.shape}; expected one axis or two")
    made = _product(reader, node, plain(reader, node, inputs[0]), matrix.reshape(len(matrix), -1))
    axes = seen(made).axes
    return Tensor(made.name, axes if matrix.ndim == 2 else axes[:-1])


def _conv(reader, node, inputs):
    """A 1x1 convolution of one group, as a product over the channels."""
    weights = float_constant(reader, node, inputs[1], "its weights")
    bias = float_constant(reader, node, inputs[2], "its bias") if inputs[2:] and inputs[2] else None
    steps = [*node.attrs.get("strides", ()), node.attrs.get("group", 1)]
    if any(n != 1 for n in (*weights.shape[2:], *steps)) or any(node.attrs.get("pads", ())):
        reader.fail(node, "a convolution of what only the CPU computes; end the network in front of that")
    matrix = weights.reshape(weights.shape[:2]).T
    make = lambda layer: _product(reader, node, layer, matrix, bias)  # noqa: E731
    return _over_axis(reader, node, inputs[0], 0, make)


def _reduce(mean: bool) -> Handler:
    """A sum or mean over one axis, as a product with ones or shares."""

    def handler(reader: Reader, node: Node, inputs: Inputs) -> Tensor:
        value = tensor(reader, node, inputs[0])
        axes = whole_numbers(reader, node, inputs, 1, "axes") or []
        if len(axes) != 1 or axes[0] % (len(value.axes) + 1) == 0:
            reader.fail(node, f"reduces the axes {axes}; one that is not the images' is possible on the CPU")
        axis = axes[0] % (len(value.axes) + 1) - 1
        size = algebra.size(value.axes[axis])
        share = np.full((size, 1), np.float32(1) / np.float32(size) if mean else 1, np.float32)
        made = _over_axis(reader, node, value, axis, lambda layer: _product(reader, node, layer, share))
        if node.attrs.get("keepdims", 1):
            return made
        return Tensor(made.layer, (*made.axes[:axis], *made.axes[axis + 1 :]))

    return handler


def _reshape(reader, node, inputs):
    """Where axes are cut unevenly: the values in ONNX's order, in the shape that shape inference found."""
    layer = plain(reader, node, inputs[0])
    batch, *shape = reader.shape(node, node.outputs[0]) or (0,)
    if batch != 1 or int(np.prod(shape)) != int(np.prod(layer.shape)):
        reader.fail(
            node, f"reshapes (images, {layer.shape}) to {(batch, *shape)}; the images must stay first"
        )
    return seen(_reshaped(reader, node, layer, tuple(shape) or (1,), "reshaped"))


def _expand(reader, node, inputs):
    shape = reader.shape(node, node.outputs[0])
    return _binary("float_multiply")(reader, node, [inputs[0], Constant(np.ones(shape, np.float32))])


def _cast(reader, node, inputs):
    """The places of largest values are whole numbers already, whatever holds them."""
    value = tensor(reader, node, inputs[0])
    if reader.layers[value.layer].op != "argmax":
        reader.fail(node, "turns real numbers into another type; only casts to float are supported")
    return value


HANDLERS: dict[str, Handler] = {
    "Add": _binary("float_add"),
    "ArgMax": _argmax,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _binary("float_divide"),
    "Exp": _unary("exp"),
    "Expand": _expand,
    "Gather": _gather,
    "MatMul": _matmul,
    "Mul": _binary("float_multiply"),
    "Neg": _with("float_multiply", -1),
    "Pow": _power,
    "Reciprocal": _with("float_divide", 1, first=True),
    "ReduceMean": _reduce(True),
    "ReduceSum": _reduce(False),
    "Reshape": _reshape,
    "Sigmoid": _unary("sigmoid"),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sub": _binary("float_subtract"),
    "Tanh": _unary("tanh"),
}
"""Operator -> handler."""
WEIGHTED = ("Conv", "MatMul")
"""Of the operators above those that only behind a softmax are the CPU's."""
