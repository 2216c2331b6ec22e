"""Machine code onto a compiled graph: the last step of the native compiler.

Attribute names, kinds and conventions: docs/reference/xmodel.md.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.code import Instruction, encode
from dpuflow.dpuczdx8g.isa.machine import Machine, machine_for
from dpuflow.dpuczdx8g.isa.steps import Region
from dpuflow.dpuczdx8g.native.generator import Generator
from dpuflow.dpuczdx8g.native.lowering import Lowered, align, lower_subgraph
from dpuflow.dpuczdx8g.native.operations import PARAMETERS, WORKSPACE, Job
from dpuflow.dpuczdx8g.native.synchronise import synchronise
from dpuflow.dpuczdx8g.native.workspace import share_workspace
from dpuflow.xir import Graph
from dpuflow.xir.parameters import constants

STATUS = "compiled by dpuflow, verified on a simulator, not yet on hardware"
"""What reports and the file itself say of such code."""

CONTEXT = {"REG_0": "CONST", "REG_1": "DATA", "REG_2": "DATA", "REG_3": "DATA"}
CONTEXT_V2 = {"REG_0": "CONST", "REG_1": "WORKSPACE", "REG_2": "INTERFACE", "REG_3": "INTERFACE"}
HW_SEGMENT = {"REG_0": "W0", "REG_1": "D0", "REG_2": "D0", "REG_3": "D0"}


@dataclass(frozen=True)
class CompiledSubgraph:
    """What was made for one DPU subgraph.

    Attributes
    ----------
    code_bytes : length of mc_code.
    instructions : instruction name -> how many.
    region_sizes : "REG_n" -> bytes.
    on_chip, spilled : names of the feature maps that stay in the banks, that go through DDR.
    lowered : the subgraph as it was compiled.
    """

    name: str
    machine: str
    code_bytes: int
    instructions: dict[str, int]
    region_sizes: dict[str, int]
    on_chip: list[str]
    spilled: list[str]
    lowered: Lowered = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """All but `lowered`, as a dict for reports."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "lowered"}


def generate_code(job: Job, machine: Machine) -> list[Instruction]:
    """Instructions of a Job with their dependency masks; completes job.region_sizes and job.pieces."""
    generator = Generator(machine, job)
    instructions = generator.generate()
    job.pieces = generator.writer.pieces
    job.region_sizes[WORKSPACE] = max(align(1), align(share_workspace(instructions, job, generator.rooms)))
    job.region_sizes = dict(sorted(job.region_sizes.items()))
    synchronise(instructions, machine, job_regions(job))
    return instructions


def job_regions(job: Job) -> dict[str, Region]:
    """ "REG_n" -> steps.Region of a Job, inputs and parameters filled."""
    filled: dict[str, list[tuple[int, int]]] = {name: [] for name in job.region_sizes}
    filled[PARAMETERS] = [(0, len(job.parameters))]
    for feature_map in job.inputs:
        filled[feature_map.region].append((feature_map.address, feature_map.address + feature_map.size))
    return {name: Region(size, tuple(filled[name])) for name, size in job.region_sizes.items()}


def compile_graph(graph: Graph, weights: Mapping[str, np.ndarray] | None = None) -> list[CompiledSubgraph]:
    """Generate machine code for every DPU subgraph of a compiled graph, in place.

    Parameters
    ----------
    graph : xir.Graph as `compiler.reference` makes it: USER, DPU and CPU subgraphs, a
        DPUCZDX8G fingerprint, weights in the const-fix ops.
    weights : int8 arrays of const-fix ops that hold none (`compiler.reference.lower`, `apart`), by name;
        where no machine code reads them they get them here.

    Returns
    -------
    List of CompiledSubgraph. UserError names the op that has no machine code on this DPU.
    """
    subgraphs = graph.subgraphs("DPU")
    if not subgraphs:
        raise UserError(f"graph {graph.name!r} has no DPU subgraph to compile")
    known = constants(graph, weights)
    compiled = [_compile_subgraph(graph, subgraph, known) for subgraph in subgraphs]
    placed = {name for program in compiled for name in program.lowered.slots}
    for name, array in (weights or {}).items():
        if name not in placed:
            graph.op(name).attrs["data"] = array.tobytes()
    graph.attrs["dpuflow_note"] = STATUS
    return compiled


def _compile_subgraph(graph, subgraph, known):
    fingerprint = subgraph.attrs.get("dpu_fingerprint", 0)
    machine = machine_for(fingerprint, subgraph.name)
    lowered = lower_subgraph(graph, subgraph, known)
    job = lowered.job
    instructions = generate_code(job, machine)
    code = encode(instructions)
    attrs = subgraph.attrs
    attrs.set("mc_code", code, "bytes")
    attrs.set("mc_code_preload", b"", "bytes")
    attrs.set("reg_id_to_context_type", CONTEXT, "map_string_2_string")
    attrs.set("reg_id_to_context_type_v2", CONTEXT_V2, "map_string_2_string")
    attrs.set("reg_id_to_hw_segment", HW_SEGMENT, "map_string_2_string")
    attrs.set("reg_id_to_size", job.region_sizes, "map_string_2_int32")
    attrs.set("reg_id_to_parameter_value", {PARAMETERS: job.parameters}, "map_string_2_bytes")
    attrs.set("debug_mode", "null", "string")
    attrs.set("if_prefetch", True, "bool")
    _set_children(graph, subgraph)
    _set_tensors(graph, lowered)
    _drop_augmentation(graph, lowered, machine)
    maps = list({id(m): m for m in lowered.maps.values()}.values())
    return CompiledSubgraph(
        subgraph.name,
        machine.name,
        len(code),
        dict(sorted(Counter(i.name for i in instructions).items())),
        job.region_sizes,
        [m.name for m in maps if m.region == WORKSPACE and not m.spilled],
        [m.name for m in maps if m.region == WORKSPACE and m.spilled],
        lowered,
    )


def _set_children(graph, subgraph):
    """children_topological_sort and skip_code_gen: compute children, and those without code."""
    computing = []
    for child in subgraph.children:
        types = {graph.op(name).type for name in child.op_names}
        if "download" in types:
            continue
        if types <= {"upload", "reshape-fix"}:
            child.attrs.set("skip_code_gen", True, "bool")
        if "upload" not in types:
            computing.append(child.name)
    subgraph.attrs.set("children_topological_sort", computing, "string_vec")


def _set_tensors(graph, lowered):
    """DDR addresses on the tensors; location 1: in DDR when the program has ended (when it is dumped)."""
    for name, feature_map in lowered.maps.items():
        tensor = graph.op(name).tensor
        in_ddr = feature_map.spilled or feature_map.region != WORKSPACE
        tensor.attrs.set("reg_id", int(feature_map.region.removeprefix("REG_")), "int32")
        tensor.attrs.set("ddr_addr", feature_map.address, "int32")
        tensor.attrs.set("location", int(in_ddr and not feature_map.overwritten), "int32")
        if in_ddr:
            strides = _strides(tensor.shape)
            if feature_map.strides:  # it is part of a concat's output
                strides = [feature_map.shape[0] * feature_map.row_bytes, *feature_map.strides, 1]
            tensor.attrs.set("stride", strides, "int32_vec")
    for name, address in lowered.slots.items():
        # as in the vendor's files: the bytes lie in reg_id_to_parameter_value alone
        graph.op(name).attrs["data"] = b""
        tensor = graph.op(name).tensor
        for key, value in (("reg_id", 0), ("ddr_addr", address), ("location", 1)):
            tensor.attrs.set(key, value, "int32")


def _strides(shape):
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def _drop_augmentation(graph, lowered, machine):
    """Where the code does not fold kernel columns into channels, say so, and what it costs.

    workload_on_arch without augmentation: docs/reference/targets.md.
    """
    for name in lowered.maps:
        op = graph.op(name)
        if "channel_augmentation" not in op.attrs or name in lowered.augmented:
            continue
        del op.attrs["channel_augmentation"]
        _, height, width, channels = op.tensor.shape
        _, kernel_h, kernel_w, inputs = graph.op(op.inputs["weights"][0]).tensor.shape
        taps = 2 * kernel_h * kernel_w * align(inputs, machine.channels) + 1
        work = align(height, machine.pixels) * width * align(channels, machine.channels) * taps
        more = work - op.attrs["workload_on_arch"]
        for holder in (op, *(node for _, node in graph.root.walk() if name in node.op_names)):
            holder.attrs["workload_on_arch"] += more
