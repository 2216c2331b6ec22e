"""Names of layers, from the names of the nodes that TensorFlow made of them."""

from collections.abc import Iterable

from dpuflow.network import Layer

INNER_SCOPES = {"Tensordot", "SpaceToBatchND", "BatchToSpaceND", "batchnorm", "cond", "dropout", "moments"}
"""Scopes that a layer opens inside its own."""


def layer_name(node: str, nodes: Iterable[str]) -> str | None:
    """Name of the (Keras) layer that made `node`: its scope; None for a node without one.

    nodes : the names of all nodes; the scope that they share ("model") is left out.
    """
    parts = node.split("/")[:-1]
    scopes = [name.split("/")[:-1] for name in nodes]
    scopes = [scope for scope in scopes if scope]
    while len(parts) > 1 and all(scope[0] == parts[0] for scope in scopes):
        parts, scopes = parts[1:], [scope[1:] for scope in scopes if len(scope) > 1]
    while len(parts) > 1 and parts[-1] in INNER_SCOPES:
        parts.pop()
    return "/".join(parts) or None


def shorten_names(layers: list[Layer]) -> list[Layer]:
    """Name layers after their scope: "model/conv2d/Conv2D" -> "conv2d", where that stays unique.

    The input keeps its node's name, because the evaluation graph is fed under it.
    """
    paths = {layer.name: layer.name.split("/") for layer in layers}
    scoped = {name: parts[:-1] if len(parts) > 1 else parts for name, parts in paths.items()}
    prefix = 0
    inner = [scoped[layer.name] for layer in layers if layer.op != "input"]
    while inner and all(len(parts) > prefix + 1 for parts in inner) and len({p[prefix] for p in inner}) == 1:
        prefix += 1
    final, taken = {}, set()
    for layer in layers:
        short = layer.name if layer.op == "input" else "/".join(scoped[layer.name][prefix:])
        if short in taken:  # a second op of the same scope, say the ReLU of a dense layer
            short = "/".join(paths[layer.name][prefix:])
        final[layer.name] = short
        taken.add(short)
    if len(set(final.values())) != len(final):
        return layers
    for layer in layers:
        layer.inputs = [final[name] for name in layer.inputs]
        layer.name = final[layer.name]
    return layers
