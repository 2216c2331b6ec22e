"""Which maps are in DDR when a program has ended: there the runtime dumps them, and the simulator reads them.

The attribute `location` of vendor-compiled files does not say it: some of its maps are never written, others
share their memory with one another, and the order of the ops is not always that of the code.
"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.program import DpuProgram, Port, feature_maps, read_programs
from dpuflow.dpuczdx8g.isa.steps import Transfer
from dpuflow.xir import Graph

JOINS = ("concat-fix", "reshape-fix")
"""Types of ops whose output may lie where their inputs do, with the same values."""


def left_in_memory(graph: Graph, program: DpuProgram) -> dict[str, Port]:
    """The maps that the code saves as a whole and that share their bytes with no other, op name -> Port.

    With what a map is joined to in its place it may share them. UserError when the code cannot be decoded.
    """
    ports = feature_maps(graph, program)
    written = {name: np.zeros(size, bool) for name, size in program.region_sizes.items() if name != "REG_0"}
    for op in decode(program.code, program.name):
        region = written.get(f"REG_{op['reg_id']}") if op.name == "SAVE" else None
        if region is not None:
            width = op["channel"] if op["argmax"] == 0 else 1
            index = Transfer("", op["ddr_addr"], op["jump_write"], op["length"], width).index
            region[index[index < len(region)]] = True
    roots = {name: _root(graph, name, ports) for name in ports}
    found = {}
    for name, port in ports.items():
        others = (ports[other] for other in ports if roots[other] != roots[name])
        region = written.get(port.region)
        inside = region is not None and port.stop <= len(region) and port.view(region[None]).all()
        if inside and not any(_touch(port, other) for other in others):
            found[name] = port
    return found


def not_left_in_memory(graph: Graph) -> set[str]:
    """Names of the ops computed by machine code whose dumped tensors say nothing.

    Empty where a file has no machine code, or one that cannot be read here.
    """
    try:
        programs = read_programs(graph)
        return {
            name
            for program in programs
            for name in set(feature_maps(graph, program)) - set(left_in_memory(graph, program))
        }
    except UserError:
        return set()


def _touch(one, other):
    return one.region == other.region and one.address < other.stop and other.address < one.stop


def _root(graph, name, ports):
    """The last op of those that show the same bytes: what a map is joined to in its place."""
    mine = ports[name]
    for reader in graph.consumers(name):
        whole = ports.get(reader.name)
        if reader.type not in JOINS or whole is None or whole.fix_point != mine.fix_point:
            continue
        if whole.region == mine.region and whole.address <= mine.address and mine.stop <= whole.stop:
            return _root(graph, reader.name, ports)
    return name
