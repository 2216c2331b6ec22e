"""An ONNX model as nodes, constants and shapes for one image: folded by onnxruntime, shapes by onnx.

Everything that depends on constants or on shapes alone is gone then, also what exporters write about the
batch: the model is folded for batches of one.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.time_limit import in_bounded_time
from dpuflow.base.writing import WriteError
from dpuflow.onnx_graph.large_weights import large_weights, without
from dpuflow.onnx_graph.model_file import OpenedModel

KEPT_APART = [
    "BatchNormalizationAddFusion",
    "ConvAddFusion",
    "ConvBNFusion",
    "ConvMulFusion",
    "MatMulAddFusion",
    "MatMulBNFusion",
    "MatMulScaleFusion",
]
"""onnxruntime's steps that calculate with weights (folding is the quantizer's, the same for every origin), or
that join the images with the pixels."""


BROADCASTING = ("Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum")
"""Operators that repeat axes of size 1."""
VIEWS = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that change the form of a tensor alone: their handlers only note how values are seen."""


@dataclass
class Node:
    """One node: name (that of its first output where it has none), operator, tensors, attributes."""

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """What a folded model computes for one image.

    Attributes
    ----------
    where : the file. nodes : in topological order, only what the outputs depend on.
    constants : name -> array. shapes : name of a tensor -> its shape, the batch (1) first.
    opset : version of ONNX's operators. input : name of a tensor. outputs, order : as in `OpenedModel`.
    """

    where: str
    nodes: list[Node]
    constants: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    opset: int
    input: str
    outputs: dict[str, str]
    order: tuple[int, ...] | None


def folded(opened: OpenedModel) -> Graph:
    """The model's Graph; UserError where onnxruntime cannot load it or shapes stay unknown."""
    import onnx
    from google.protobuf.message import EncodeError
    from onnx import numpy_helper

    apart = large_weights(opened.model)
    model = _optimised(_for_one_image(opened, apart), opened.path)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise UserError(f"{opened.path}: its shapes do not fit each other ({_first(error)})") from None
    except EncodeError:  # what protobuf makes of memory that is refused
        raise MemoryError from None
    graph = model.graph
    tensors = (*graph.initializer, *apart.values())
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    nodes = []
    for node in graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in attrs:
            constants[node.output[0]] = numpy_helper.to_array(attrs["value"])
            continue
        nodes.append(
            Node(node.name or node.output[0], node.op_type, list(node.input), list(node.output), attrs)
        )
    shapes = {name: array.shape for name, array in constants.items()}
    for entry in (*graph.value_info, *graph.input, *graph.output):
        dims = entry.type.tensor_type.shape.dim
        if entry.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[entry.name] = tuple(dim.dim_value for dim in dims)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    _without_repeats(nodes, shapes, opened.outputs.values())
    _picked_in_place(nodes, constants, shapes, opened.outputs.values())
    needed = _needed(nodes, opened.outputs.values())
    return Graph(opened.path, needed, constants, shapes, opset, opened.input, opened.outputs, opened.order)


def _without_repeats(nodes, shapes, outputs):
    """Let arithmetic read what an Expand or Tile in front of it repeats, which it repeats by itself."""
    for node in nodes:
        if node.op not in ("Expand", "Tile") or node.outputs[0] in outputs:
            continue
        before, whole = (shapes.get(name) for name in (node.inputs[0], node.outputs[0]))
        if before is None or whole is None or len(before) != len(whole):
            continue
        for reader in [other for other in nodes if node.outputs[0] in other.inputs]:
            others = [shapes.get(name) for name in reader.inputs if name != node.outputs[0]]
            if reader.op in BROADCASTING and whole in others:
                reader.inputs = [node.inputs[0] if n == node.outputs[0] else n for n in reader.inputs]


def _picked_in_place(nodes, constants, shapes, outputs):
    """x[:, [2, 1, 0]] as PyTorch's newer exporter writes it, transpose - GatherND - transpose: a Gather.

    The axis that is picked from is brought to the front, where the images were, and back. The last of the
    three becomes the transposition that is left, mostly none.
    """
    made = {name: node for node in nodes for name in node.outputs}
    for last in [node for node in nodes if node.op == "Transpose"]:
        pick = made.get(last.inputs[0])
        first = made.get(pick.inputs[0]) if pick is not None and pick.op == "GatherND" else None
        if first is None or first.op != "Transpose" or pick.outputs[0] in outputs:
            continue
        places = constants.get(pick.inputs[1])
        before, behind = (list(node.attrs.get("perm", ())) for node in (first, last))
        if places is None or places.ndim != 2 or places.shape[1] != 1 or pick.attrs.get("batch_dims", 0):
            continue
        if sorted(before) != sorted(behind) or sum(pick.outputs[0] in node.inputs for node in nodes) != 1:
            continue
        index = f"{pick.outputs[0]}/places"
        constants[index] = places[:, 0]
        pick.op, pick.attrs, pick.inputs = "Gather", {"axis": before[0]}, [first.inputs[0], index]
        shapes.pop(pick.outputs[0], None)  # as ONNX has it, with that axis in front
        last.attrs["perm"] = [before[axis] for axis in behind]


def _for_one_image(opened, apart):
    """A copy of the model for one image of the data set's size, without the weights `apart`."""
    model = without(opened.model, apart)
    del model.graph.value_info[:]
    for entry in model.graph.input:
        if entry.name == opened.input:
            shape = entry.type.tensor_type.shape
            del shape.dim[:]
            for size in (1, *opened.dims):
                shape.dim.add(dim_value=size)
    for entry in model.graph.output:
        if entry.HasField("type"):
            entry.type.tensor_type.ClearField("shape")
    return model


def _optimised(model, where):
    """The model behind onnxruntime's basic graph optimisation."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="dpuflow-onnx-") as folder:
        options.optimized_model_filepath = str(Path(folder, "folded.onnx"))

        def fold() -> None:
            onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=KEPT_APART,
            )

        try:
            in_bounded_time(where, fold, lambda: options.set_load_cancellation_flag(True))
        except (MemoryError, UserError):
            raise
        except Exception as error:  # onnxruntime has a class for each of its status codes, and no common one
            if "bad_alloc" in str(error):
                raise MemoryError from None
            if "serialization failed" in str(error):
                raise WriteError(
                    f"{Path(folder).parent}: onnxruntime cannot write the folded network there; free space "
                    "or set TMPDIR to a folder with some, raise the file size limit (ulimit -f), run again"
                ) from None
            raise UserError(
                f"{where}: onnxruntime cannot load this network for one image ({_first(error)}); export "
                "it with an open batch (PyTorch: dynamic_axes or dynamic_shapes) or a batch of one"
            ) from None
        return onnx.load_model_from_string(Path(options.optimized_model_filepath).read_bytes())


def _first(error):
    """The first line of a library's message, without its own addresses."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


def _needed(nodes, outputs):
    wanted = set(outputs)
    needed = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            needed.append(node)
            wanted.update(node.inputs)
    return needed[::-1]
