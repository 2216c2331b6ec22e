"""Somebody's compiled xmodel -> the same graph, ready to be run on a data set.

Ops, parameters and machine code stay; what a foreign file does not say (how pixels become its input, which op
gives the answers) is written into its attributes.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import Scaling
from dpuflow.compiler.quantized_reading import is_compiled
from dpuflow.device.targets import Target, describe_fingerprint
from dpuflow.emulator import Emulator
from dpuflow.keras_models.foreign_model import input_mismatch
from dpuflow.xir import Graph
from dpuflow.xir.input_scaling import agreed_scaling, scaling_attributes


def prepared(
    path: Path | str,
    image_shape: Sequence[int],
    classes: int,
    scaling: Scaling | None,
    target: Target,
    output: str | None = None,
) -> tuple[Graph, list[str]]:
    """(graph that says how pixels become its input and which op is its answer, notes: what is odd).

    image_shape : (H, W, C) of the data set; classes : how many it has. scaling : how pixels become the input,
    None: as the file records. output : name of the op whose values
    are the answers, of several; None: the only one of that many values.

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
    answer = _answer(path, emulator, classes, output)
    notes.append(f"output {answer!r}")
    for key, value in scaling_attributes(agreed_scaling(graph, scaling, path)).items():
        graph.attrs[key] = value
    graph.attrs["return_ops"] = [answer]
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


def _answer(path, emulator, classes, output):
    sizes = {op.name: math.prod(op.tensor.shape[1:]) for op in emulator.outputs}
    shown = ", ".join(f"{op.name!r} {list(op.tensor.shape[1:])}" for op in emulator.outputs)
    if output is not None:
        if output not in emulator.graph:
            raise UserError(
                f"{path}: has no op {output!r} (models.NAME.output_node); its outputs are {shown}"
            )
        sizes = {output: math.prod(emulator.graph.op(output).tensor.shape[1:])}
    fitting = [name for name, size in sizes.items() if size == classes]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(
            f"{path}: {len(fitting)} outputs have one value per class ({', '.join(map(repr, fitting))}); "
            "name one with models.NAME.output_node"
        )
    raise UserError(
        f"{path}: no output has one value for each of the data set's {classes} classes, so it has no "
        f"accuracy; its outputs: {shown}"
    )
