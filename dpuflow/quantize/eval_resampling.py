"""Nodes of the evaluation graph that resize maps: rows and columns gathered, mixed in float32.

TensorFlow's own resizing nodes differ between versions and processors in the last bits; gathering and
single sums and products do not. `writer` is the `eval_graph.GraphWriter`.
"""

from typing import Any

import numpy as np

from dpuflow.network import Layer
from dpuflow.ops.resampling import Downsample, ResizeBilinear, Upsample
from dpuflow.tfgraph.graph_def import DT_DOUBLE, DT_FLOAT, DT_INT32, add_constant, add_node


def _gather(writer, name, x, indices, axis):
    """Rows (axis 1) or columns (axis 2) of x with these numbers."""
    chosen = add_constant(writer.graph, f"{name}/indices", np.asarray(indices, np.int32))
    along = add_constant(writer.graph, f"{name}/axis", np.asarray(axis, np.int32))
    types = {"Tparams": ("type", DT_FLOAT), "Tindices": ("type", DT_INT32), "Taxis": ("type", DT_INT32)}
    return add_node(writer.graph, "GatherV2", name, [x, chosen, along], **types)


def picked(writer: Any, layer: Layer, scope: str) -> str:
    """Upsample and Downsample."""
    operator, shape = layer.operator, writer.quantized.network[layer.inputs[0]].shape
    x = writer._requantized(scope, writer.tensors[layer.inputs[0]], layer.inputs[0], layer.name)
    for axis in (1, 2):
        numbers = np.arange(shape[axis - 1])
        if isinstance(operator, Upsample):
            numbers = numbers.repeat(operator.factor[2 - axis])
        elif isinstance(operator, Downsample):
            numbers = numbers[:: operator.factor[2 - axis]]
        x = _gather(writer, f"{scope}/axis{axis}", x, numbers, axis)
    return x


def bilinear(writer: Any, layer: Layer, scope: str) -> str:
    """ResizeBilinear: along the rows, then along the columns."""
    operator, shape = layer.operator, writer.quantized.network[layer.inputs[0]].shape
    assert isinstance(operator, ResizeBilinear)  # by the table's row
    x = writer.tensors[layer.inputs[0]]
    for axis in (2, 1):
        lower, upper, share = operator.places(2 - axis, shape[axis - 1])
        name = f"{scope}/axis{axis}"
        first, second = (
            _gather(writer, f"{name}/{end}", x, places, axis) for end, places in (("a", lower), ("b", upper))
        )
        step = add_node(writer.graph, "Sub", f"{name}/step", [second, first], T=("type", DT_FLOAT))
        shares = share.reshape(-1, 1) if axis == 2 else share.reshape(-1, 1, 1)
        step = writer._binary("Mul", f"{name}/share", step, shares)
        x = add_node(writer.graph, "Add", f"{name}/mixed", [first, step], T=("type", DT_FLOAT))
    fixes = writer.quantized.fix_points
    x = writer._cast(f"{scope}/double", x, DT_FLOAT, DT_DOUBLE)
    x = writer._binary(
        "Mul", f"{scope}/scale", x, 2.0 ** (fixes[layer.name] - fixes[layer.inputs[0]]), DT_DOUBLE
    )
    return writer._round_and_saturate(scope, x, DT_DOUBLE)
