"""What a node of a graph reads, and which nodes a node depends on."""

import re
from collections.abc import Iterable, Mapping

from dpuflow.base.errors import UserError
from dpuflow.tfgraph.values import Node


def split_reference(reference: str) -> tuple[str, int]:
    """Input reference of a NodeDef -> (node name, output index): "bn:1" -> ("bn", 1)."""
    node, _, index = reference.partition(":")
    if index and not re.fullmatch("[0-9]{1,9}", index):
        raise UserError(f"input reference {reference!r}: expected NODE or NODE:OUTPUT; the graph is damaged")
    return node, int(index or 0)


def sources(node: Node) -> list[str]:
    """Names of the nodes that `node` takes values from."""
    return [split_reference(r)[0] for r in node.input if not r.startswith("^")]


def ancestors(nodes: Mapping[str, Node], outputs: Iterable[str], where: str) -> list[str]:
    """Names of the nodes that `outputs` depend on, inputs first (iterative depth-first search).

    UserError, beginning with `where`, for a missing node and for a loop.
    """
    order: list[str] = []
    state: dict[str, str] = {}
    stack = list(outputs)[::-1]
    while stack:
        name = stack[-1]
        if state.get(name) == "done":
            stack.pop()
            continue
        if name not in nodes:
            raise UserError(f"{where}: node {name!r} is read but missing; the graph is incomplete")
        inputs = sources(nodes[name])
        if state.get(name) == "open":
            if any(state.get(i) == "open" for i in inputs):
                raise UserError(f"{where}: node {name!r} is part of a loop; only feed-forward graphs work")
            state[name] = "done"
            order.append(name)
            stack.pop()
            continue
        state[name] = "open"
        stack.extend(i for i in reversed(inputs) if state.get(i) != "done")
    return order
