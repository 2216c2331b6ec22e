"""Somebody's compiled xmodel -> the same graph, ready to be run on a data set.

Ops, parameters and machine code stay; what a foreign file does not say (how pixels become its input, which op
gives the answers) is written into its attributes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.outputs import NONE, ONLY, answer_of
from dpuflow.base.pixels import Scaling
from dpuflow.compiler.quantized_reading import is_compiled
from dpuflow.device.targets import Target, describe_fingerprint
from dpuflow.emulator import Emulator
from dpuflow.emulator.outputs import named_outputs
from dpuflow.keras_models.foreign_model import input_mismatch, several_inputs
from dpuflow.xir import Graph
from dpuflow.xir.input_scaling import agreed_scaling, scaling_attributes


def prepared(
    path: Path | str,
    image_shape: Sequence[int],
    classes: int,
    scaling: Scaling | None,
    target: Target,
    output: str | Sequence[str] | Mapping[str, str] | None = None,
    answer: str | None = None,
) -> tuple[Graph, list[str]]:
    """(graph that says how pixels become its input and which op is its answer, notes: what is odd).

    image_shape : (H, W, C) of the data set; classes : how many it has. scaling : how pixels become the input,
    None: as the file records. output : name of an op that gives an output, a list of such, or {output's name:
    op}; None: all that the file has. answer : `models.NAME.output` (`base.outputs.answer_of`); None: of
    several outputs the only one with a value for each class, and the others are left out.

    Raises
    ------
    UserError : an xmodel that is not compiled, has several inputs, no output of so many values (so it has no
        accuracy), or ops that nobody here can run; another image size.
    """
    graph = Graph.load(path)
    if not is_compiled(graph):
        raise UserError(
            f"{path}: is not compiled (no DPU subgraph); name it with models.NAME.quantized instead of xmodel"
        )
    emulator = Emulator(graph, use_native=False)  # nothing is run
    wanted = tuple(emulator.input.tensor.shape[1:])
    if wanted != tuple(image_shape):
        raise UserError(f"{path}: {input_mismatch(wanted, image_shape)}")
    notes = [f"input {emulator.input.name!r}, fix_point {emulator.input_fix_point}"]
    if len(emulator.inputs) != 1:
        raise UserError(f"{path}: {several_inputs(len(emulator.inputs))}")
    ends, left_out = _ends(path, emulator, classes, output, answer)
    notes += left_out
    notes.append(f"output {', '.join(repr(op.name) for op in ends.values())}")
    for key, value in scaling_attributes(agreed_scaling(graph, scaling, path)).items():
        graph.attrs[key] = value
    graph.attrs["return_ops"] = [op.name for op in ends.values()]
    graph.attrs.pop("output_names", None)
    if len(ends) > 1:
        graph.attrs["output_names"] = list(ends)
    if answer != NONE:
        graph.attrs["class_count"] = classes
    for subgraph in graph.subgraphs("DPU"):
        fingerprint = subgraph.attrs.get("dpu_fingerprint")
        if fingerprint is not None and fingerprint != target.fingerprint:
            made_for = describe_fingerprint(fingerprint) or hex(fingerprint)
            notes.append(
                f"compiled for {made_for}, not for target {target.name}: emulated all the same, but no board "
                "of this target runs it"
            )
            break
    return graph, notes


def _ends(path, emulator, classes, output, answer):
    """({output's name: op}, notes on what is left out)."""
    found = _named(path, emulator, output)
    sizes = {name: math.prod(op.tensor.shape[1:]) for name, op in found.items()}
    shown = ", ".join(f"{op.name!r} {list(op.tensor.shape[1:])}" for op in found.values())
    if answer is not None:
        shapes = {name: (size,) for name, size in sizes.items()}
        chosen = answer_of(shapes, answer, path)
        if chosen is None or sizes[chosen] == classes:
            return found, []
    fitting = [name for name, size in sizes.items() if size == classes]
    if answer is None and len(fitting) == 1:
        others = [repr(op.name) for name, op in found.items() if name != fitting[0]]
        note = f"outputs {', '.join(others)} are left out; with models.NAME.output: {fitting[0]} they stay"
        return {ONLY: found[fitting[0]]}, [note] if others else []
    if answer is None and fitting:
        raise UserError(
            f"{path}: {len(fitting)} outputs have one value per class ({', '.join(map(repr, fitting))}); "
            "name one with models.NAME.output_node, or with models.NAME.output, and all stay"
        )
    raise UserError(
        f"{path}: no output has one value for each of the data set's {classes} classes, so it has no "
        f"accuracy; its outputs: {shown}; models.NAME.output: none compares stages without one"
    )


def _named(path, emulator, output):
    """{output's name: op} of what `output` asks for."""
    if output is None:
        return named_outputs(emulator)
    listed = [output] if isinstance(output, str) else output
    named = dict(listed) if isinstance(listed, Mapping) else {name: name for name in listed}
    for name in named.values():
        if name not in emulator.graph:
            shown = ", ".join(f"{op.name!r} {list(op.tensor.shape[1:])}" for op in emulator.outputs)
            raise UserError(f"{path}: has no op {name!r} (models.NAME.output_node); its outputs are {shown}")
    ends = {name: emulator.graph.op(source) for name, source in named.items()}
    return ends if len(ends) > 1 else {ONLY: next(iter(ends.values()))}
