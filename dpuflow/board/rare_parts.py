"""Ops that few networks have (`emulator.rare_makers`), as plain data for the board's application."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dpuflow.emulator import rare_makers
from dpuflow.emulator.operations import Constants
from dpuflow.xir import Graph, Op

Describe = Callable[[Op, Graph, Constants], dict[str, Any]]


def _pad(op: Op, graph: Graph, constants: Constants) -> dict[str, Any]:
    return rare_makers.padding(op, graph)


def _reduction(op: Op, graph: Graph, constants: Constants) -> dict[str, Any]:
    axes, keep = rare_makers.reduced(op, graph)
    return {"axes": list(axes), "keep": keep}


def _reduction_fix(op: Op, graph: Graph, constants: Constants) -> dict[str, Any]:
    return {**_reduction(op, graph, constants), "shifts": [rare_makers.reduction_shift(op, graph)]}


def _argmax(op: Op, graph: Graph, constants: Constants) -> dict[str, Any]:
    return {"axis": rare_makers.searched_axis(op, graph), "shape": list(op.tensor.shape[1:])}


def _scale(op: Op, graph: Graph, constants: Constants) -> dict[str, Any]:
    given = rare_makers.scale_and_offset(op, constants)
    return {"arrays": dict(zip(("factors", "offsets"), map(np.asarray, given), strict=False))}


def _prelu(op: Op, graph: Graph, constants: Constants) -> dict[str, Any]:
    (slopes,) = rare_makers.parameters(op, constants, "weight")
    return {"arrays": {"slopes": slopes}}


DESCRIPTIONS: dict[str, Describe] = {
    **dict.fromkeys(("pad-fix", "pad"), _pad),
    **dict.fromkeys(("reduction_max", "reduction_sum"), _reduction),
    "reduction_max-fix": _reduction_fix,
    **dict.fromkeys(("argmax", "argmax-fix"), _argmax),
    **dict.fromkeys(("scale", "batchnorm"), _scale),
    "prelu": _prelu,
    **dict.fromkeys(("max", "min", "neg"), lambda op, graph, constants: {}),
}
"""Type of an op -> its description."""
