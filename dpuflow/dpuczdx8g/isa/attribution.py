"""Which layer an instruction works for, found in the machine code and the addresses of the file alone.

Weights tell it: a parameter lies at an address that belongs to one op, and a CONV or a depthwise ALU uses
what was last loaded into its entries. Other ALU and ELEW instructions go to the ops without weights in their
order, each until its output is complete. A LOAD of a map belongs to the computation that follows it, a SAVE
to the op whose tensor lies there, the last computed one of those that share the place.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from dpuflow.dpuczdx8g.isa.code import Instruction
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, machine_for
from dpuflow.dpuczdx8g.isa.program import DpuProgram
from dpuflow.dpuczdx8g.isa.settings import DEPTHWISE, DEPTHWISE_NO_BIAS, PRELU
from dpuflow.xir import Graph, Op

UNKNOWN = -1
"""Layer of an instruction that no op could be found for."""
SILENT = ("upload", "download", "const", "const-fix", "reshape-fix", "flatten")


@dataclass
class _Open:
    """An op without weights, and how many entries of its output are not yet computed."""

    index: int
    op: Op
    left: int = 0

    def matches(self, instruction: Instruction, init: Instruction | None) -> bool:
        """Whether the instruction may compute it: by its window, or its number of operands."""
        attrs = self.op.attrs
        if instruction.name == "ELEW":
            operands = len(self.op.inputs.get("input", ())) if self.op.type == "eltwise-fix" else 1
            return "kernel" not in attrs and instruction["num"] == operands
        if init is None:
            return False
        if "kernel" in attrs:
            return list(attrs["kernel"]) == [init["kernel_w"], init["kernel_h"]]
        return self.op.type not in ("eltwise-fix", "concat-fix")


@dataclass
class _State:
    conv: dict[int, int] = field(default_factory=dict)
    depthwise: dict[int, int] = field(default_factory=dict)
    init: Instruction | None = None
    last: int = UNKNOWN
    waiting: list[int] = field(default_factory=list)
    computed: dict[int, int] = field(default_factory=dict)


class _Map:
    """Where the tensor of op number `index` lies, as part of another one where it is joined to that."""

    def __init__(self, start: int, index: int, op: Op) -> None:
        shape = op.tensor.shape
        strides = [prod(shape[n:]) for n in range(1, len(shape) + 1)]
        if len(op.tensor.attrs.get("stride", ())) == len(shape):
            strides = op.tensor.attrs["stride"]
        self.start, self.index, self.channels = start, index, shape[-1]
        self.extent = 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        self.pixel = max(1, strides[-2] if len(shape) > 1 else self.extent)

    def holds(self, address: int) -> bool:
        """Whether the byte is one of its own."""
        offset = address - self.start
        return 0 <= offset < self.extent and offset % self.pixel < self.channels


def layers_of(
    graph: Graph, program: DpuProgram, instructions: Sequence[Instruction]
) -> tuple[list[str], list[int]]:
    """(names of the subgraph's ops that compute, index into them for each instruction or UNKNOWN)."""
    machine = machine_for(program.fingerprint, program.name)
    (subgraph,) = (subgraph for subgraph in graph.subgraphs("DPU") if subgraph.name == program.name)
    inside = set(subgraph.op_names)
    ops = [op for op in graph.ops if op.name in inside and op.type not in SILENT]
    parameters, maps = _addresses(graph, ops)
    pending = [
        _Open(index, op, _entries(op, machine)) for index, op in enumerate(ops) if "weights" not in op.inputs
    ]
    state, found = _State(), [UNKNOWN] * len(instructions)
    for number, op in enumerate(instructions):
        if op.name == "LOAD" and op["bank_id"] >= machine.image_banks:
            found[number] = _parameter(op, machine, parameters, state)
        elif op.name in ("CONV", "ALU", "ELEW"):
            state.last = _computing(op, state, pending)
            state.computed[state.last] = number
            for earlier in (number, *state.waiting):
                found[earlier] = state.last
            state.waiting = []
        elif op.name == "SAVE":
            found[number] = _saved(maps.get(op["reg_id"], ()), op["ddr_addr"], state)
        elif op.name == "END":
            found[number] = state.last
        else:
            state.waiting.append(number)
            state.init = op if op.name == "ALUINIT" else state.init
    return [op.name for op in ops], found


def _addresses(graph, ops):
    """(sorted (start, stop, index of the op) of parameters, {register: computed maps})."""
    parameters: list[tuple[int, int, int]] = []
    maps: dict[int, list[_Map]] = {}
    for index, op in enumerate(ops):
        for key in ("weights", "bias"):
            for name in op.inputs.get(key, ()):
                tensor = graph.op(name).tensor
                if tensor.attrs.get("reg_id") == 0:
                    start = tensor.attrs["ddr_addr"]
                    parameters.append((start, start + prod(tensor.shape), index))
        attrs = op.tensor.attrs
        # what stays on the chip has no strides; what a later map takes the place of has
        if "ddr_addr" in attrs and (attrs.get("location") == 1 or "stride" in attrs):
            maps.setdefault(attrs["reg_id"], []).append(_Map(attrs["ddr_addr"], index, op))
    return sorted(parameters), maps


def _saved(maps, address, state):
    """Index of the op whose map a SAVE takes to an address: of those that lie there the last computed one."""
    found = (m.index for m in maps if m.holds(address))
    return max(found, key=lambda index: state.computed.get(index, UNKNOWN), default=state.last)


def _entries(op, machine):
    shape = op.tensor.shape
    return prod(shape[1:-1]) * machine.groups(shape[-1]) if len(shape) > 1 else 1


def _parameter(op, machine, parameters, state):
    index = UNKNOWN
    if op["reg_id"] == 0 and not op["broadcast"]:
        before = bisect_right(parameters, (op["ddr_addr"], 1 << 62)) - 1
        if before >= 0 and op["ddr_addr"] < parameters[before][1]:
            index = parameters[before][2]
    if op["bank_id"] != machine.bias_bank:
        depthwise = op["bank_id"] == machine.depthwise_bank
        owners = state.depthwise if depthwise else state.conv
        for pixel in range(op["length"]):
            first = op["bank_addr"] + pixel * op["jump_write"]
            for entry in range(first, first + machine.groups(op["channel"])):
                owners[entry % BANK_DEPTH] = index
    return index


def _computing(op, state, pending):
    if op.name == "CONV":
        return state.conv.get(op["bank_addr_weights"] % BANK_DEPTH, UNKNOWN)
    entries = op["valid_pixel_parallel"]
    if op.name == "ALU":
        if state.init is None:
            return UNKNOWN
        if state.init["exec_mode"] in (DEPTHWISE, DEPTHWISE_NO_BIAS, PRELU):
            return state.depthwise.get(op["bank_addr_weights"] % BANK_DEPTH, UNKNOWN)
        entries *= state.init["length"] * state.init["channel_group"]
    else:
        entries *= op["length"] * op["channel_group"]
    for candidate in pending:
        if candidate.left > 0 and candidate.matches(op, state.init):
            candidate.left -= entries
            return candidate.index
    return UNKNOWN
