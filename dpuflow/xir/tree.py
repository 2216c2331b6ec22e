"""Rules of the subgraph tree (docs/reference/xmodel.md)."""

from dpuflow.xir.nodes import OpGraph

DEVICES = ("USER", "DPU", "CPU")


def check_tree(graph: OpGraph) -> list[str]:
    """Each node is a leaf or has children, and the leaves hold every op exactly once."""
    problems, placed = [], set()
    root = graph.root
    if not root.op_names and root.is_leaf:
        return ["the graph has no subgraph tree (subg_root); the file may be truncated"]
    for depth, subgraph in root.walk():
        if subgraph.proto.op_name and subgraph.proto.subg_child:
            problems.append(f"subgraph {subgraph.name!r} has both ops and children")
        if depth and subgraph.is_leaf and not subgraph.proto.op_name:
            problems.append(f"subgraph {subgraph.name!r} is empty")
        for name in subgraph.proto.op_name:
            if name not in graph:
                problems.append(f"subgraph {subgraph.name!r} lists the op {name!r}, which does not exist")
            elif name in placed:
                problems.append(f"op {name!r} is in two subgraphs")
            placed.add(name)
    problems += [f"op {op.name!r} is in no subgraph" for op in graph.ops if op.name not in placed]
    return problems


def check_devices(graph: OpGraph, attributes: bool = True) -> list[str]:
    """The tree as the runtime needs it: ordered, each child with a device and (`attributes`) a runner."""
    root = graph.root
    problems = []
    names = [subgraph.name for subgraph in root.children]
    problems += [f"two subgraphs are called {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    for child in root.children:
        problems += _check_device(graph, child, attributes)
    for _, subgraph in root.walk():
        problems += _check_order(graph, subgraph)
    return problems


def _check_device(graph, child, attributes):
    problems = []
    if child.device not in DEVICES:
        return [f"subgraph {child.name!r}: device {child.device!r} is none of {', '.join(DEVICES)}"]
    required = {"DPU": ("dpu_name", "dpu_fingerprint", "runner"), "CPU": ("runner",), "USER": ()}
    for name in required[child.device] if attributes else ():
        if name not in child.attrs:
            problems.append(f"{child.device} subgraph {child.name!r} lacks the attribute {name!r}")
    for name in child.op_names:
        device = graph.op(name).device
        if device is not None and device != child.device:
            problems.append(f"{device} op {name!r} is in the {child.device} subgraph {child.name!r}")
    listed = set(child.attrs.get("children_topological_sort", ()))
    unknown = sorted(listed - {node.name for _, node in child.walk()})
    return problems + [
        f"subgraph {child.name!r}: children_topological_sort names {name!r}, which does not exist"
        for name in unknown
    ]


def _check_order(graph, subgraph):
    """Children run in order: none reads what a later sibling makes (XIR: "children depend each other")."""
    children = subgraph.children
    owner = {name: i for i, child in enumerate(children) for name in child.op_names}
    return [
        f"subgraph {subgraph.name!r}: child {children[i].name!r} reads {source!r}, made by a later child"
        for name, i in owner.items()
        for source in graph.op(name).input_names
        if owner.get(source, -1) > i
    ]
