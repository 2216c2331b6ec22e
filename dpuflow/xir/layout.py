"""Layered drawing of a directed acyclic graph: where each node goes.

Nodes stand in rows by their distance from the inputs; an edge over several rows gets a
point in each, so that it runs between the boxes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 6

Edge = tuple[str, str]
"""(source, target)."""
Point = tuple[float, int]
"""(x, row)."""
Node = str | tuple[str, Edge, int]
"""A node, or a bend of an edge in a row that it passes."""


@dataclass
class Layout:
    """Centres in the unit of the sizes given.

    Attributes
    ----------
    centres : node -> (x, row).
    routes : list of ((source, target), [(x, row), ...]) from source to target.
    width : extent of the whole drawing; x runs from 0 to width.
    rows : number of rows.
    """

    centres: dict[str, Point]
    routes: list[tuple[Edge, list[Point]]]
    width: float
    rows: int


def arrange(nodes: Sequence[str], edges: Sequence[Edge], widths: Mapping[str, float], gap: float) -> Layout:
    """Place `nodes` (in topological order) connected by `edges` (source, target).

    widths : node -> width of its box; gap : least distance between boxes of a row.
    """
    row: dict[str, int] = {}
    feeders: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        feeders[target].append(source)
    for node in nodes:
        row[node] = max((row[source] + 1 for source in feeders[node]), default=0)
    rows: list[list[Node]] = [[] for _ in range(max(row.values(), default=-1) + 1)]
    for node in nodes:
        rows[row[node]].append(node)
    sizes: dict[Node, float] = {node: widths[node] for node in nodes}
    chains = []
    for source, target in edges:
        chain: list[Node] = [source]
        for between in range(row[source] + 1, row[target]):
            bend = ("bend", (source, target), between)
            rows[between].append(bend)
            sizes[bend] = gap
            chain.append(bend)
        chains.append(([*chain, target], (source, target)))
    neighbours = _neighbours(chains)
    _order(rows, neighbours)
    x = _place(rows, neighbours, sizes, gap)
    left = min((x[node] - sizes[node] / 2 for node in x), default=0)
    right = max((x[node] + sizes[node] / 2 for node in x), default=0)
    level = {node: index for index, members in enumerate(rows) for node in members}
    point = {node: (x[node] - left, level[node]) for node in x}
    routes = [(edge, [point[node] for node in chain]) for chain, edge in chains]
    return Layout({node: point[node] for node in nodes}, routes, right - left, len(rows))


def _neighbours(chains):
    """node -> ([nodes above], [nodes below])."""
    found: dict[Node, tuple[list[Node], list[Node]]] = {}
    for chain, _ in chains:
        for upper, lower in pairwise(chain):
            found.setdefault(upper, ([], []))[1].append(lower)
            found.setdefault(lower, ([], []))[0].append(upper)
    return found


def _order(rows, neighbours):
    """Sort rows by the mean position of neighbours, alternately downwards and upwards."""
    for sweep in range(SWEEPS):
        side = sweep % 2
        for members in rows if side == 0 else rows[::-1]:
            index = {node: i for r in rows for i, node in enumerate(r)}
            mean = {}
            for node in members:
                near = neighbours.get(node, ([], []))[side]
                mean[node] = sum(index[n] for n in near) / len(near) if near else index[node]
            members.sort(key=mean.get)


def _place(rows, neighbours, sizes, gap):
    """x of every node: as close to the mean of its neighbours as the order and the gaps allow."""
    x = {}
    for members in rows:
        at = 0.0
        for node in members:
            x[node] = at + sizes[node] / 2
            at += sizes[node] + gap
        for node in members:
            x[node] -= (at - gap) / 2
    last = 2 * SWEEPS
    for sweep in range(last + 1):
        for members in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = []
            for node in members:
                above, below = neighbours.get(node, ([], []))
                # the last sweep looks upwards only: chains become straight
                near = [x[n] for n in (above if above and sweep == last else above + below)]
                wanted.append(sum(near) / len(near) if near else x[node])
            for node, value in zip(members, _spread(members, wanted, sizes, gap), strict=True):
                x[node] = value
    return x


def _spread(members, wanted, sizes, gap):
    """Positions near `wanted`, in order and apart: the mean of pushing right and pushing left."""
    distance = [(sizes[a] + sizes[b]) / 2 + gap for a, b in pairwise(members)]
    right, left = list(wanted), list(wanted)
    for i, least in enumerate(distance):
        right[i + 1] = max(right[i + 1], right[i] + least)
    for i in range(len(distance) - 1, -1, -1):
        left[i] = min(left[i], left[i + 1] - distance[i])
    return [(a + b) / 2 for a, b in zip(right, left, strict=True)]
