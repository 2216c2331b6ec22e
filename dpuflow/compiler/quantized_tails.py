"""What a quantized graph computes in real numbers behind its last rounding, as layers of the CPU.

A detector's decoding, for example: sigmoid, transpose, arithmetic with constants. `quantized_reading` reads
what is rounded.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dpuflow.base.numerics import Grid
from dpuflow.compiler.quantized_values import Values
from dpuflow.emulator.axes import slice_bounds
from dpuflow.network import Layer
from dpuflow.xir import Graph, Op

PLAIN = {"sigmoid": "float_sigmoid", "exp": "exp", "tanh": "tanh"}
ARITHMETIC = {"add": "float_add", "sub": "float_subtract", "mul": "float_multiply", "div": "float_divide"}
COMPUTING = frozenset((*PLAIN, *ARITHMETIC, "transpose", "matmul", "argmax"))
"""Types that make real numbers of what lies behind the last rounding; else it only moves codes on."""
RESHAPING = ("reshape", "flatten", "squeeze")


def tail_of(graph: Graph) -> frozenset[str]:
    """Names of the ops behind the last rounding, none where these compute nothing."""
    rounded: set[str] = set()
    for op in reversed(graph.ops):
        if op.type == "fix" or op.name in rounded:
            rounded.update(op.input_names)
            rounded.add(op.name)
    behind = [op for op in graph.ops if op.name not in rounded]
    computes = any(op.type in COMPUTING for op in behind)
    return frozenset(op.name for op in behind) if computes else frozenset()


def read(values: Values, op: Op) -> None:
    """Take over an op of the tail."""
    if op.type == "const":
        array = op.array()
        if array is None:
            values.fail(op, "holds no values")
        values.constants[op.name] = np.asarray(array)
    elif op.type != "stack":  # the shape of a reshape, which its output tells
        described = LAYERS[op.type](values, op) if op.type in LAYERS else None
        if described is None:
            values.fail(op, "is no layer of the CPU behind the last rounding")
        _add(values, op, *described)


def _plain(values, op):
    return PLAIN[op.type], {}


def _arithmetic(values, op):
    return (ARITHMETIC[op.type], {}) if len(op.inputs["input"]) == 2 else None


def _reshape(values, op):
    return "float_reshape", {"target": tuple(int(n) for n in op.tensor.shape[1:])}


def _transpose(values, op):
    return "transpose", {"order": tuple(int(n) for n in op.attr("order"))}


def _concat(values, op):
    return "float_concat", {"axis": int(op.attr("axis")) % len(op.tensor.shape)}


def _argmax(values, op):
    return "argmax", {"axis": int(op.attr("axis")) % len(_input_shape(values, op))}


def _softmax(values, op):
    rank = len(op.tensor.shape)
    return ("softmax", {}) if int(op.attr("axis")) % rank == rank - 1 else None


def _slice(values, op):
    parts = zip(*slice_bounds(op, _input_shape(values, op)), strict=True)
    return "float_slice", dict(zip(("begin", "end", "strides"), parts, strict=True))


def _matmul(values, op):
    return None if op.attr("transpose_a") or op.inputs.get("bias") else ("float_matmul", {})


def _input_shape(values, op):
    return values.graph.op(op.inputs["input"][0]).tensor.shape


LAYERS: dict[str, Callable[[Values, Op], tuple[str, dict[str, Any]] | None]] = {
    **dict.fromkeys(PLAIN, _plain),
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(RESHAPING, _reshape),
    "transpose": _transpose,
    "concat": _concat,
    "argmax": _argmax,
    "softmax": _softmax,
    "strided_slice": _slice,
    "matmul": _matmul,
}
"""Type of an op -> function(values, op): (kind, attributes) of its layer, None where there is none."""


def _add(values, op, kind, attrs):
    names, rank = list(op.inputs["input"]), len(op.tensor.shape)
    if any(name in values.turned or name in values.padded for name in names):
        values.fail(op, "reads a map with the channels first or with padding")
    sources = [_source(values, op, name, rank, k) for k, name in enumerate(names)]
    values.add(op, kind, sources, attrs)


def _source(values, op, name, rank, position):
    """The layer of an input; a constant becomes one, with as many axes as the op has."""
    if name not in values.constants and name not in values.integers:
        layer = values.layer_of(op, name)
        values.close(layer, op)
        return layer
    data = (
        values.constants[name]
        if name in values.constants
        else Grid(values.integers[name][1]).reals(values.integers[name][0])
    )
    data = np.asarray(data, np.float32)
    if op.type == "matmul":
        if position == 0:
            values.fail(op, "multiplies a constant by what is no constant")
        data = data.reshape(data.shape[-2:])
        data = np.ascontiguousarray(data.T) if op.attr("transpose_b") else data
    elif data.ndim > rank or (data.ndim == rank and len(data) != 1):
        values.fail(op, f"its constant {name!r} has the shape {list(data.shape)}")
    else:
        data = data.reshape((1,) * (rank - data.ndim) + data.shape)[0]
    layer = name if name not in values.layers else f"{name}_{op.name}"
    values.layers[layer] = Layer(layer, "constant", [], data.shape, {}, data)
    return layer
