"""Constants of an xmodel, wherever the file keeps them.

An uncompiled or self-made file holds them in the `data` of const and const-fix ops; a
file of the vendor's compiler leaves `data` empty and puts the bytes into the DPU
subgraph's reg_id_to_parameter_value, each tensor contiguous at its ddr_addr in plain
OHWI order (docs/reference/xmodel.md).
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.xir.graph import Graph
from dpuflow.xir.nodes import Op

CONSTANT_TYPES = ("const", "const-fix")


def constants(
    graph: Graph, known: Mapping[str, np.ndarray] | None = None, ops: Iterable[Op] | None = None
) -> dict[str, np.ndarray]:
    """{op name: array} of the const (float) and const-fix (int8) ops of a graph.

    known : the arrays of those that hold none themselves. ops : among these only (None: all of the graph's).
    """
    found = dict(known or {})
    wanted = [op for op in (graph.ops if ops is None else ops) if op.type in CONSTANT_TYPES]
    missing = [op for op in wanted if op.name not in found]
    regions = _parameter_regions(graph, {op.name for op in missing})
    found |= {op.name: _constant(op, regions) for op in missing}
    return {op.name: found[op.name] for op in wanted}


def _parameter_regions(graph: Graph, wanted: set[str]) -> dict[str, dict[str, bytes]]:
    """{op name: {"REG_0": bytes, ...}} for the ops of each DPU subgraph with some of the wanted ones."""
    regions: dict[str, dict[str, bytes]] = {}
    for subgraph in graph.subgraphs("DPU"):
        names = wanted.intersection(subgraph.op_names)
        if names:  # copies all of the parameters
            regions |= dict.fromkeys(names, subgraph.attrs.get("reg_id_to_parameter_value") or {})
    return regions


def _constant(op, regions):
    stored = op.array()
    if stored is not None:
        return stored
    attrs = op.tensor.attrs
    register = f"REG_{attrs.get('reg_id', 0)}"
    data, address = regions.get(op.name, {}).get(register), attrs.get("ddr_addr")
    if data is None or address is None:
        raise UserError(
            f"op {op.name!r} ({op.type}) holds no data, and its DPU subgraph has no parameters for it "
            f"in {register}; give a model compiled with its weights"
        )
    size, strides = math.prod(op.tensor.shape), attrs.get("stride")
    plain = [math.prod(op.tensor.shape[axis + 1 :]) for axis in range(len(op.tensor.shape))]
    if strides is not None and any(
        length > 1 and step != wanted
        for length, step, wanted in zip(op.tensor.shape, strides, plain, strict=False)
    ):
        raise UserError(
            f"op {op.name!r} ({op.type}): its {list(op.tensor.shape)} values lie {strides} bytes apart, not "
            "one behind the other; that layout is not known"
        )
    if address < 0 or address + size > len(data):
        raise UserError(
            f"op {op.name!r}: its {size} bytes at address {address} reach beyond the {len(data)} bytes "
            f"of {register}; the file is damaged, compile the model again"
        )
    return np.frombuffer(data, np.int8, size, address).reshape(op.tensor.shape)
