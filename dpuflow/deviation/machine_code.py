"""Every map that a file's machine code computes, also those that stay on the chip.

A file does not say which instruction computes which layer. Code of the native compiler is written again from
the same file, and where both are the same instructions but for a few, the compiler's own notes (`Job.pieces`)
say it. Of other code the maps that are left in DDR are seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.engines import Memory
from dpuflow.dpuczdx8g.isa.left_in_memory import left_in_memory
from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.dpuczdx8g.isa.program import DpuProgram, read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.steps import Step
from dpuflow.dpuczdx8g.native.compile import generate_code
from dpuflow.dpuczdx8g.native.lowering import Lowered, lower_subgraph
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph

MOST_CHANGED = 0.1
"""Share of instructions that may differ from those that the native compiler writes, for code of its own."""


@dataclass
class Code:
    """The machine code of one DPU subgraph.

    Attributes
    ----------
    lowered : as the native compiler reads the subgraph; None where the code is not its own.
    changed : indices of instructions that it writes otherwise.
    simulator : None where the code breaks a rule of the DPU; then `stopped` says which.
    """

    program: DpuProgram
    lowered: Lowered | None
    changed: list[int]
    simulator: Simulator | None
    stopped: str | None

    def layer_of(self, index: int) -> str | None:
        """The layer that an instruction belongs to: that of the next one that computes something, or of the
        last; None where the code is not the native compiler's."""
        pieces = self.lowered.job.pieces if self.lowered else {}
        behind = [number for number in pieces if number >= index]
        return pieces[min(behind) if behind else max(pieces)].op if pieces else None


def read_code(graph: Graph, source: str) -> list[Code]:
    """The code of every DPU subgraph of a file; [] when it holds none."""
    if not any(subgraph.attrs.get("mc_code") for subgraph in graph.subgraphs("DPU")):
        return []
    found = []
    for program, subgraph in zip(read_programs(graph, source), graph.subgraphs("DPU"), strict=True):
        lowered, changed = _own_code(graph, subgraph, program)
        try:
            simulator, stopped = Simulator(program), None
        except UserError as error:
            simulator, stopped = None, str(error)
        found.append(Code(program, lowered, changed, simulator, stopped))
    return found


def _own_code(graph, subgraph, program):
    """(Lowered, instructions that differ) of code of the native compiler, else (None, [])."""
    try:
        lowered = lower_subgraph(graph, subgraph)
        written = generate_code(lowered.job, machine_for(program.fingerprint, program.name))
        there = decode(program.code, program.name)
    except UserError:  # an op that the native compiler does not know, code that cannot be decoded
        return None, []
    changed = [i for i, (ours, found) in enumerate(zip(written, there, strict=False)) if ours != found]
    if len(written) != len(there) or len(changed) > MOST_CHANGED * len(written):
        return None, []
    return lowered, changed


class _Maps:
    """Called behind every step: copies each map as it is computed (`Simulator.run`, watch)."""

    def __init__(self, lowered: Lowered) -> None:
        self.job = lowered.job
        self.maps = {op.name: lowered.maps[op.name] for op in self.job.operations}
        self.complete = self.job.whole_by_name(self.maps)
        self.values = {name: np.zeros(m.shape, np.int8) for name, m in self.maps.items()}
        self.seen = {name: np.zeros(m.shape, bool) for name, m in self.maps.items()}

    def __call__(self, step: Step, memory: Memory, first: int) -> None:
        piece = self.job.pieces.get(step.index)
        if piece is not None and step.outputs is not None:
            per_group, channels = memory.machine.channels, self.maps[piece.op].shape[2]
            start, end = piece.groups[0] * per_group, min(piece.groups[1] * per_group, channels)
            where = (*piece.where, slice(start, end))
            block = memory.image[step.outputs]  # [row, column, group, image, byte]
            rows, columns, groups, _, _ = block.shape
            data = block.transpose(3, 0, 1, 2, 4).reshape(-1, rows, columns, groups * per_group)[0]
            if data[..., : end - start].shape == self.values[piece.op][where].shape:
                self.values[piece.op][where] = data[..., : end - start]
                self.seen[piece.op][where] = True
        for name in self.complete.get(step.index, ()):
            self.values[name][:] = self.maps[name].view(memory.regions[self.maps[name].region])[0]
            self.seen[name][:] = True

    def whole(self) -> dict[str, np.ndarray]:
        """{op: (H, W, C)} of the maps that were computed as a whole."""
        return {name: array for name, array in self.values.items() if self.seen[name].all()}


def computed_maps(
    emulator: Emulator, codes: Iterable[Code], given: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the machine code makes of one image: {op: int8 (1, ...)} of every map that can be seen.

    given : input op -> int8 (1, H, W, C). Subgraphs of the CPU run in the emulator. A subgraph whose code the
    simulator refuses ends the walk.
    """
    by_name = {code.program.name: code for code in codes}
    values = dict(given)
    found: dict[str, np.ndarray] = {}
    for part in emulator.parts:
        if part.device == "USER":
            continue
        if any(op.name not in values for op in part.inputs):
            break
        if part.device != "DPU":
            values |= emulator.run_subgraph(part.name, {op.name: values[op.name] for op in part.inputs})
            continue
        code = by_name[part.name]
        if code.simulator is None:
            break
        program = code.program
        watch = _Maps(code.lowered) if code.lowered else None
        ports = {} if watch else left_in_memory(emulator.graph, program)
        arrays = code.simulator.run(
            [values[port.op] for port in program.inputs], maps=list(ports.values()), watch=watch
        )
        ends = len(program.outputs)
        values |= {port.op: array for port, array in zip(program.outputs, arrays[:ends], strict=True)}
        found |= dict(zip(ports, arrays[ends:], strict=True))
        if watch:
            found |= {name: array[None] for name, array in watch.whole().items()}
        for port, array in zip(program.outputs, arrays[:ends], strict=True):
            found[_computed(emulator.graph, port.op)] = array
    return found


def _computed(graph: Graph, name: str) -> str:
    """The op that computes what a download gives; reshapes in between only rename it."""
    op = graph.op(graph.op(name).input_names[0])
    while op.type == "reshape-fix":
        op = graph.op(op.input_names[0])
    return op.name


def changes(codes: Iterable[Code], most: int = 10) -> list[dict[str, Any]]:
    """Instructions that the native compiler writes otherwise: {instruction, name, layer}, the first few."""
    found = []
    for code in codes:
        there = decode(code.program.code, code.program.name) if code.changed else []
        for index in code.changed:
            found.append(
                {"instruction": index, "name": there[index].name, "layer": code.layer_of(index) or ""}
            )
    return found[:most]
