"""Layers of the CPU as XIR's float ops: the same in both forms of a compiled network."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dpuflow.base.totality import Total
from dpuflow.network import Layer
from dpuflow.ops import kinds

Described = tuple[str, dict[str, Any]]
"""(type of the op, its attributes)."""


def _plain(type_: str) -> Callable[[Layer], Described]:
    return lambda layer: (type_, {})


def constant(layer: Layer) -> dict[str, Any]:
    """Attributes of the `const` op that holds a constant layer's value."""
    value = np.ascontiguousarray(layer.weights, np.float32)
    return {"shape": [1, *value.shape], "data_type": "FLOAT32", "data": value.tobytes()}


def _slice(layer: Layer) -> Described:
    bounds = {name: [first, *layer.attrs[name]] for name, first in (("begin", 0), ("end", 1), ("strides", 1))}
    return "strided_slice", bounds


OPS = Total(
    "compiler.float_ops: op of a layer on the CPU",
    lambda: kinds(lambda operator: not operator.quantized),
    {
        "constant": lambda layer: ("const", constant(layer)),
        "softmax": lambda layer: ("softmax", {"axis": len(layer.shape)}),
        "float_sigmoid": _plain("sigmoid"),
        "exp": _plain("exp"),
        "tanh": _plain("tanh"),
        "float_reshape": lambda layer: ("reshape", {"shape": [1, *layer.shape]}),
        "transpose": lambda layer: ("transpose", {"order": list(layer.attrs["order"])}),
        "float_slice": _slice,
        "float_concat": lambda layer: ("concat", {"axis": layer.attrs["axis"]}),
        "float_add": _plain("add"),
        "float_subtract": _plain("sub"),
        "float_multiply": _plain("mul"),
        "float_divide": _plain("div"),
        "float_matmul": lambda layer: ("matmul", {"transpose_a": False, "transpose_b": False}),
        "argmax": lambda layer: ("argmax", {"axis": layer.attrs["axis"]}),
    },
)
