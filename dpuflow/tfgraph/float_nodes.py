"""Layers of the CPU as TensorFlow's nodes: real numbers in float32."""

from collections.abc import Callable, Sequence

import numpy as np

from dpuflow.base.totality import Total
from dpuflow.network import Layer
from dpuflow.ops import kinds
from dpuflow.tfgraph.graph_def import DT_FLOAT, DT_INT32, Message, add_constant, add_node

Write = Callable[[Message, Layer, str, Sequence[str]], str]
"""Function(graph, layer, scope, names of the input nodes) -> name of the node that gives the output."""

FLOAT = ("type", DT_FLOAT)
INT64 = 9
"""TensorFlow's code of the type."""


def _plain(op: str) -> Write:
    """One node of the same inputs."""
    return lambda graph, layer, scope, inputs: add_node(graph, op, f"{scope}/{op}", list(inputs), T=FLOAT)


def _constant(graph: Message, layer: Layer, scope: str, inputs: Sequence[str]) -> str:
    return add_constant(graph, f"{scope}/value", np.asarray(layer.weights, np.float32)[None])


def _reshape(graph: Message, layer: Layer, scope: str, inputs: Sequence[str]) -> str:
    shape = add_constant(graph, f"{scope}/shape", np.array([-1, *layer.shape], np.int32))
    return add_node(graph, "Reshape", f"{scope}/Reshape", [inputs[0], shape], T=FLOAT)


def _transpose(graph: Message, layer: Layer, scope: str, inputs: Sequence[str]) -> str:
    order = add_constant(graph, f"{scope}/order", np.array(layer.attrs["order"], np.int32))
    return add_node(graph, "Transpose", f"{scope}/Transpose", [inputs[0], order], T=FLOAT)


def _slice(graph: Message, layer: Layer, scope: str, inputs: Sequence[str]) -> str:
    bounds = [
        add_constant(graph, f"{scope}/{name}", np.array([first, *layer.attrs[name]], np.int32))
        for name, first in (("begin", 0), ("end", 0), ("strides", 1))
    ]
    return add_node(
        graph, "StridedSlice", f"{scope}/StridedSlice", [inputs[0], *bounds],
        T=FLOAT, Index=("type", 3), begin_mask=1, end_mask=1,
    )  # fmt: skip


def _concat(graph: Message, layer: Layer, scope: str, inputs: Sequence[str]) -> str:
    axis = add_constant(graph, f"{scope}/axis", np.asarray(layer.attrs["axis"], np.int32))
    inputs = _for_all_images(graph, scope, inputs)
    return add_node(graph, "ConcatV2", f"{scope}/concat", [*inputs, axis], N=len(inputs), T=FLOAT)


def _for_all_images(graph: Message, scope: str, inputs: Sequence[str]) -> list[str]:
    """The inputs with each constant repeated for every image: nothing broadcasts in a concatenation."""
    constants = {node.name: node for node in graph.node if node.op == "Const" and node.name in inputs}
    varying = [name for name in inputs if name not in constants]
    if not constants or not varying:
        return list(inputs)

    def numbers(name: str, *values: int) -> str:
        return add_constant(graph, f"{scope}/{name}", np.array(values, np.int32))

    shape = add_node(graph, "Shape", f"{scope}/Shape", [varying[0]], T=FLOAT, out_type=("type", DT_INT32))
    images = add_node(
        graph, "Slice", f"{scope}/images", [shape, numbers("first", 0), numbers("one", 1)],
        T=("type", DT_INT32), Index=("type", DT_INT32),
    )  # fmt: skip
    axis = add_constant(graph, f"{scope}/front", np.asarray(0, np.int32))
    found = []
    for place, name in enumerate(inputs):
        if name in constants:
            rank = len(constants[name].attr["value"].tensor.tensor_shape.dim)
            once = numbers(f"once{place}", *[1] * (rank - 1))
            times = add_node(
                graph, "ConcatV2", f"{scope}/times{place}", [images, once, axis], N=2, T=("type", DT_INT32)
            )
            name = add_node(
                graph, "Tile", f"{scope}/Tile{place}", [name, times], T=FLOAT, Tmultiples=("type", DT_INT32)
            )
        found.append(name)
    return found


def _matmul(graph: Message, layer: Layer, scope: str, inputs: Sequence[str]) -> str:
    """Of matrices without a batch, or of one pair per image: TensorFlow's oneDNN kernel goes wrong where
    one matrix is broadcast over more than one axis (2.21: wrong values, memory overwritten)."""
    left, right = inputs

    def shaped(name: str, x: str, *shape: int) -> str:
        wanted = add_constant(graph, f"{scope}/{name}/shape", np.array(shape, np.int32))
        return add_node(graph, "Reshape", f"{scope}/{name}", [x, wanted], T=FLOAT)

    constant = next((node for node in graph.node if node.name == right and node.op == "Const"), None)
    if constant is None:
        product = add_node(graph, "BatchMatMulV2", f"{scope}/MatMul", [left, right], T=FLOAT)
    else:
        rows, columns = [dim.size for dim in constant.attr["value"].tensor.tensor_shape.dim][1:]
        pair = [shaped("rows", left, -1, rows), shaped("matrix", right, rows, columns)]
        product = add_node(graph, "MatMul", f"{scope}/MatMul", pair, T=FLOAT)
    return _reshape(graph, layer, scope, [product])


def _argmax(graph: Message, layer: Layer, scope: str, inputs: Sequence[str]) -> str:
    axis = add_constant(graph, f"{scope}/axis", np.asarray(layer.attrs["axis"], np.int32))
    place = add_node(
        graph, "ArgMax", f"{scope}/ArgMax", [inputs[0], axis], T=FLOAT, output_type=("type", INT64)
    )
    real = add_node(graph, "Cast", f"{scope}/real", [place], SrcT=("type", INT64), DstT=FLOAT)
    shape = add_constant(graph, f"{scope}/shape", np.array([-1, *layer.shape], np.int32))
    return add_node(graph, "Reshape", f"{scope}/Reshape", [real, shape], T=FLOAT)


NODES = Total(
    "tfgraph.float_nodes: nodes of a layer on the CPU",
    lambda: kinds(lambda operator: not operator.quantized),
    {
        "constant": _constant,
        "softmax": _plain("Softmax"),
        "float_sigmoid": _plain("Sigmoid"),
        "exp": _plain("Exp"),
        "tanh": _plain("Tanh"),
        "float_reshape": _reshape,
        "transpose": _transpose,
        "float_slice": _slice,
        "float_concat": _concat,
        "float_add": _plain("Add"),
        "float_subtract": _plain("Sub"),
        "float_multiply": _plain("Mul"),
        "float_divide": _plain("RealDiv"),
        "float_matmul": _matmul,
        "argmax": _argmax,
    },
)
