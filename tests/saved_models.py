"""SavedModel folders written by hand, of constants alone: quick, and of any form."""

from pathlib import Path

import numpy as np

from dpuflow.tfgraph.graph_def import add_constant, add_node, new_graph

DT_FLOAT = ("type", 1)


def _varint(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _field(number, data):
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _tensors(number, named):
    entries = ((key, _field(1, name.encode()) + _varint(2 << 3) + b"\x01") for key, name in named.items())
    return b"".join(_field(number, _field(1, key.encode()) + _field(2, info)) for key, info in entries)


def write_saved_model(folder, graph, signatures, tags=("serve",)):
    """signatures : name -> ({input: tensor}, {output: tensor}). tags : of each of the graphs, all alike."""
    data = b""
    for tag in tags:
        meta = _field(1, _field(4, tag.encode())) + _field(2, graph.SerializeToString())
        for name, (inputs, outputs) in signatures.items():
            value = _tensors(1, inputs) + _tensors(2, outputs)
            meta += _field(5, _field(1, name.encode()) + _field(2, value))
        data += _field(2, meta)
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "saved_model.pb").write_bytes(data)


def small_graph(shape, classes, seed=1):
    """(GraphDef of a dense layer with softmax, its weights): nodes x, scores, chosen."""
    graph, size = new_graph(), int(np.prod(shape))
    weights = np.random.default_rng(seed).normal(0, 0.1, (size, classes)).astype(np.float32)
    add_node(graph, "Placeholder", "x", dtype=DT_FLOAT, shape=("shape", [-1, *shape]))
    flat = add_constant(graph, "flat", np.array([-1, size], np.int32))
    add_node(graph, "Reshape", "vector", ["x", flat], T=DT_FLOAT, Tshape=("type", 3))
    kernel = add_constant(graph, "kernel", weights)
    add_node(graph, "MatMul", "logits", ["vector", kernel], T=DT_FLOAT)
    add_node(graph, "Softmax", "scores", ["logits"], T=DT_FLOAT)
    return graph, weights


def small_saved_model(folder, shape, classes):
    """A SavedModel with one signature."""
    graph, weights = small_graph(shape, classes)
    write_saved_model(folder, graph, {"serving_default": ({"image": "x:0"}, {"scores": "scores:0"})})
    return weights
