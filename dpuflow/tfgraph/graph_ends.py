"""Where a network begins and ends in a graph: its input and output nodes, named or found, and its images."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.tfgraph.condition_nodes import PLACEHOLDERS, inference_value, readers_of
from dpuflow.tfgraph.graph_def import DT_BOOL, DT_FLOAT
from dpuflow.tfgraph.node_order import sources, split_reference
from dpuflow.tfgraph.shape_nodes import reshape_to
from dpuflow.tfgraph.values import Batch, Node, Tensor, Translator, pseudo_node

DT_UINT8 = 4
IGNORED_SINKS = {"Const", "NoOp", "Assert", *PLACEHOLDERS, "SaveV2", "RestoreV2"}

Names = str | Sequence[str] | None
"""Of one node, of several, or None: discovered."""
Nodes = Mapping[str, Node]


def output_nodes(nodes: Nodes, wanted: Names, where: str) -> list[str]:
    """Names of the outputs' nodes: those wanted, or the only one that nothing reads."""
    if wanted is not None:
        given = [split_reference(name) for name in ([wanted] if isinstance(wanted, str) else wanted)]
        names = [name for name, _ in given]
        for name, index in given:
            if name not in nodes:
                raise UserError(f"{where}: no node {name!r} for the output; sinks: {_sinks(nodes)}")
            if index:
                raise UserError(f"{where}: output {name}:{index}: only the first output of a node can be one")
        if len(set(names)) != len(names) or not names:
            raise UserError(f"{where}: outputs {', '.join(names) or 'none'}; name each one once")
        return names
    sinks = _sinks(nodes)
    if len(sinks) != 1:
        raise UserError(
            f"{where}: expected one output (a node that nothing reads), found {len(sinks)}: "
            f"{', '.join(sinks[:8]) or 'none'}; name the one to use, or a list of all that are outputs"
        )
    return sinks


def _sinks(nodes):
    read = {split_reference(r.lstrip("^"))[0] for node in nodes.values() for r in node.input}
    sinks = [n for n, node in nodes.items() if n not in read and node.op not in IGNORED_SINKS]
    if len(sinks) < 2:
        return sinks
    # of a condition there are nodes that only say which side is taken
    return [sink for sink in sinks if _sees_images(nodes, sink)] or sinks


def _sees_images(nodes, name):
    seen, pending = set(), [name]
    while pending:
        node = nodes.get(pending.pop())
        if node is None or node.name in seen:
            continue
        if node.op in PLACEHOLDERS and node.attr["dtype"].type != DT_BOOL:
            return True
        seen.add(node.name)
        pending += sources(node)
    return False


def input_nodes(
    nodes: Nodes, order: Sequence[str], wanted: Names, where: str
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the inputs' nodes, those wanted or the only placeholder for images, and the switches.

    order : the nodes that count. The switches are {placeholder: its value in inference}.
    """
    readers = readers_of([nodes[n] for n in order], sources)
    placeholders = {n: nodes[n] for n in order if nodes[n].op in PLACEHOLDERS}
    found = {n: inference_value(node, readers) for n, node in placeholders.items()}
    switches = {n: value for n, value in found.items() if value is not None}
    if wanted is not None:
        names = [split_reference(name)[0] for name in ([wanted] if isinstance(wanted, str) else wanted)]
        for name in names:
            if name not in nodes:
                raise UserError(
                    f"{where}: no node {name!r} for the input; placeholders: {list(placeholders)}"
                )
        return names, switches
    rest = {
        n: node
        for n, node in placeholders.items()
        if n not in switches and node.attr["dtype"].type != DT_BOOL
    }
    images = [n for n, node in rest.items() if node.op != "PlaceholderWithDefault"] or list(rest)
    if len(images) != 1:
        raise UserError(
            f"{where}: expected one input placeholder, found {len(images)}: "
            f"{', '.join(images[:8]) or 'none'}; name the one for the images (models.NAME.input_node) "
            "and freeze the others to constants"
        )
    return images, switches


def emit_images(translator: Translator, node: Node, image_shape: tuple[int, ...] | None) -> Tensor:
    """The input layer, of images (H, W, C); seen by the graph as its placeholder has them."""
    dims = [dim.size for dim in node.attr["shape"].shape.dim]
    dtype = node.attr["dtype"].type if "dtype" in node.attr else DT_FLOAT
    if node.op in PLACEHOLDERS and dtype not in (DT_FLOAT, DT_UINT8):
        translator.fail(node, f"has TensorFlow's data type {dtype}; images come as float32 or uint8")
    translator.batch = dims[0] if dims and dims[0] > 0 else None
    open_rank = not dims or node.attr["shape"].shape.unknown_rank
    shape, rest = image_shape, dims[1:]
    if shape is None:
        if open_rank or len(dims) not in (2, 3, 4) or any(d <= 0 for d in rest):
            translator.fail(
                node,
                f"input shape {dims} is not (batch, H, W, C) with known sizes; they come from the data "
                "set where the graph is imported (models.NAME.frozen_pb)",
            )
        shape = (*rest, 1) if len(rest) == 2 else tuple(rest)
    kinds = {4: shape, 3: shape[:2] if shape[2:] == (1,) else None, 2: (math.prod(shape),)}
    fits = kinds.get(len(dims))
    if not open_rank and (fits is None or any(d not in (-1, 0, n) for d, n in zip(rest, fits, strict=True))):
        translator.fail(
            node,
            f"takes {_images(rest)}, the data set has {_images(shape)}; train and export the "
            "network for such images, or give it a data set of its own kind",
        )
    value = translator.emit(node, "input", [], shape)
    if open_rank or fits is None or len(dims) == 4 or tuple(shape) == tuple(fits):
        return value
    translator.batch, batch = None, translator.batch
    value = reshape_to(translator, pseudo_node(node, "Reshape", "reshaped"), value, (Batch(), *fits))
    translator.batch = batch
    return value


def _images(shape):
    """A shape in words: (28, 28, 1) -> "28x28 with 1 channel"."""
    shown = ["any size" if n <= 0 else str(n) for n in shape]
    if len(shape) != 3:
        return f"inputs of the shape ({', '.join(['images', *shown])})"
    return f"images of {shown[0]}x{shown[1]} with {shown[2]} channel{'s' * (shape[2] != 1)}"
