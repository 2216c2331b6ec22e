"""Models whose numbers are not float32: half-precision ones, and images that come as bytes.

The DPU's network is read in float32, and pixels come as real numbers; so half precision is widened, which
changes no weight, and bytes are taken as the real numbers that the model's own Cast makes of them.
"""

from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import Scaling, complete

FLOAT, BYTE, HALF = 1, 2, 10


def widen(model: Any) -> None:
    """Every half-precision tensor of a ModelProto, weights inside, as float32; changed in place."""
    from onnx import numpy_helper

    for graph in (model.graph, *model.functions):
        for tensor in getattr(graph, "initializer", ()):
            if tensor.data_type == HALF:
                tensor.CopyFrom(_wide(numpy_helper, tensor))
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t") and attribute.t.data_type == HALF:
                    attribute.t.CopyFrom(_wide(numpy_helper, attribute.t))
                if attribute.name in ("to", "dtype") and attribute.i == HALF:
                    attribute.i = FLOAT
    for entry in (*model.graph.input, *model.graph.output):
        if entry.type.tensor_type.elem_type == HALF:
            entry.type.tensor_type.elem_type = FLOAT
    if any(entry.type.tensor_type.elem_type == HALF for entry in model.graph.value_info):
        del model.graph.value_info[:]


def _wide(numpy_helper, tensor):
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def bytes_as_floats(model: Any, name: str) -> bool:
    """The input of this name as float32 where it takes bytes, and whether it did; changed in place."""
    found = False
    for entry in model.graph.input:
        if entry.name == name and entry.type.tensor_type.elem_type == BYTE:
            entry.type.tensor_type.elem_type = FLOAT
            del model.graph.value_info[:]
            found = True
    return found


def check_of_bytes(path: str, takes_bytes: bool, scaling: Scaling) -> None:
    """UserError where a model of bytes would get scaled pixels, which it scales itself."""
    plain = complete(scaling)
    if takes_bytes and (np.any(np.asarray(plain["subtract"])) or np.any(np.asarray(plain["divide"]) != 1)):
        raise UserError(
            f"{path}: its input takes bytes (uint8), so it scales pixels itself; write models.NAME.input: "
            "{subtract: 0, divide: 1}"
        )
