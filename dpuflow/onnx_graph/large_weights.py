"""Weights of many megabytes beside the model while onnxruntime folds it.

A model goes through folding and the inference of shapes as bytes and messages, many times over: VGG16 took
4.4 GiB. What a dense layer or a convolution reads as its weights nothing of it looks into, so the largest are
taken out and stand as inputs of the same shape meanwhile.
"""

import math
from collections.abc import Collection
from typing import Any

LARGE = 8 << 20
"""Values of a tensor from which it is taken out."""
READERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second input is weights."""


def large_weights(model: Any) -> dict[str, Any]:
    """{name: TensorProto} of an onnx.ModelProto's large initializers that are read as weights alone."""
    # asked of the shapes: to say its size in bytes the library serializes a message
    large = {t.name: t for t in model.graph.initializer if math.prod(t.dims) >= LARGE}
    if not large:
        return {}
    inner = [a for node in model.graph.node for a in node.attribute if a.HasField("g") or a.graphs]
    others = {entry.name for entry in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        weights = [1] if node.op_type in READERS else []
        others |= {name for k, name in enumerate(node.input) if k not in weights}
    if inner or model.functions:  # what reads them there is not seen here
        return {}
    return {name: tensor for name, tensor in large.items() if name not in others}


def without(model: Any, names: Collection[str]) -> Any:
    """A copy of a model in which these initializers are inputs; the weights themselves are not copied."""
    copy = _copied(model, "graph")
    copy.graph.CopyFrom(_copied(model.graph, "initializer"))
    for tensor in model.graph.initializer:
        if tensor.name in names:
            entry = copy.graph.input.add(name=tensor.name)
            entry.type.tensor_type.elem_type = tensor.data_type
            for size in tensor.dims:
                entry.type.tensor_type.shape.dim.add(dim_value=size)
        else:
            copy.graph.initializer.add().CopyFrom(tensor)
    return copy


def _copied(message: Any, but: str) -> Any:
    """A copy without one field."""
    copy = type(message)()
    for field, value in message.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "MergeFrom"):  # repeated
            getattr(copy, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy
