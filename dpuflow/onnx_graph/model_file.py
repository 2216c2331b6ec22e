"""Somebody's ONNX file, opened: its ends, its layout, its weights, and nothing from outside its folder.

The ends are one input of images and one output; which, may be named. Exporters leave the batch open or fix
it, count pixels as NCHW or NHWC, and keep weights in files beside the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import check_is_onnx
from dpuflow.onnx_graph.external_data import load_external_data

ModelProto = Any
"""onnx.ModelProto."""

STANDARD_DOMAINS = ("", "ai.onnx")
FLOAT = 1
QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul"}


@dataclass(frozen=True)
class OpenedModel:
    """An ONNX model with its weights, and what its ends are.

    Attributes
    ----------
    model : onnx.ModelProto, weights inside; its only output is `output`.
    path : the file. input, output : names of tensors.
    order : which axis of an image (H, W, C) each axis of the input behind the batch is: (2, 0, 1) for NCHW;
        None where the input is flat or a map without channel.
    dims : the input's shape behind the batch, for the images.
    batch : the number of images that the input fixes, or None.
    """

    model: ModelProto
    path: str
    input: str
    output: str
    order: tuple[int, ...] | None
    dims: tuple[int, ...]
    batch: int | None


def open_model(
    path: Path | str,
    image_shape: Sequence[int],
    input_name: str | None = None,
    output_name: str | None = None,
) -> OpenedModel:
    """Open an ONNX file for images of one shape.

    Parameters
    ----------
    path : ONNX file; weights in files of their own must lie in its folder.
    image_shape : (H, W, C) of the data set.
    input_name, output_name : name of a tensor or of the node that makes it; None: the only one.

    Raises
    ------
    UserError : no ONNX, several ends and none named, an input of another shape or type.
    """
    path = str(path)
    model = read_model(path)
    load_external_data(model, path)
    _check_operators(model, path)
    entry = _input(model, path, input_name)
    output = _output(model, path, output_name)
    order, dims, batch = _layout(entry, tuple(image_shape), path)
    return OpenedModel(model, path, entry.name, output, order, dims, batch)


def read_model(path: Path | str) -> ModelProto:
    """The model without weights that lie in other files; UserError for anything but an ONNX model."""
    import onnx
    from google.protobuf.message import DecodeError

    check_is_onnx(path)
    try:
        model = onnx.load_model_from_string(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (DecodeError, ValueError):
        raise UserError(f"{path}: is not an ONNX model, or damaged; export or copy it again") from None
    if not model.graph.node or not model.opset_import:
        raise UserError(f"{path}: holds no ONNX graph; export or copy it again")
    return model


def _check_operators(model, path):
    """Refuse what no tool could fold or run here: operators of other vendors, networks quantized already."""
    functions = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        if node.op_type in QUANTIZED:
            raise UserError(
                f"{path}: {_called(node)}: the network is already quantized, and dpuflow quantizes itself: "
                "export the float network that went into the quantizer, or, with power-of-two scales, name "
                "the file with models.NAME.quantized"
            )
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in functions:
            raise UserError(
                f"{path}: {_called(node)}: an operator of {node.domain!r}, not of ONNX; export without "
                "operators of its own (for PyTorch: without custom_opsets), or with standard layers instead"
            )


def _called(node):
    return f"node {node.name or node.output[0]!r} (op {node.op_type})"


def _input(model, path, wanted):
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    if wanted is not None:
        found = [entry for entry in inputs if entry.name == wanted]
        if not found:
            names = ", ".join(entry.name for entry in inputs)
            raise UserError(f"{path}: no input {wanted!r}; its inputs: {names} (models.NAME.input_node)")
        inputs = found
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs[:8]) or "none"
        raise UserError(
            f"{path}: expected one input, found {len(inputs)}: {names}; name the one for the images "
            "(models.NAME.input_node) and export the others as constants"
        )
    return inputs[0]


def _output(model, path, wanted):
    """The tensor that becomes the model's only output."""
    import onnx

    outputs = {entry.name: entry for entry in model.graph.output}
    if wanted is not None:
        made = {name: name for node in model.graph.node for name in node.output if name}
        by_node = {node.name: node.output[0] for node in model.graph.node if node.name}
        tensor = made.get(wanted) or by_node.get(wanted)
        if tensor is None:
            raise UserError(
                f"{path}: no tensor or node {wanted!r} for the output; its outputs: {', '.join(outputs)} "
                "(models.NAME.output_node)"
            )
    elif len(outputs) != 1:
        raise UserError(
            f"{path}: expected one output, found {len(outputs)}: {', '.join(list(outputs)[:8]) or 'none'}; "
            "name the one to use (models.NAME.output_node)"
        )
    else:
        tensor = next(iter(outputs))
    if set(outputs) != {tensor}:
        entry = outputs.get(tensor) or onnx.ValueInfoProto(name=tensor)
        del model.graph.output[:]
        model.graph.output.append(entry)
    return tensor


def _layout(entry, shape, path):
    """(order, dims, batch) of the input for images (H, W, C)."""
    tensor = entry.type.tensor_type
    what = f"{path}: input {entry.name!r}"
    if tensor.elem_type != FLOAT:
        import onnx

        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise UserError(
            f"{what} has the data type {kind}; images come as float32: export it with a float32 input"
        )
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if not dims:
        raise UserError(f"{what} has no known number of axes; export with a fixed input size")
    batch, given = dims[0] or None, dims[1:]
    height, width, channels = shape
    forms = [
        ((2, 0, 1), (channels, height, width)),
        ((0, 1, 2), (height, width, channels)),
        *([(None, (height, width)), (None, (height * width,))] if channels == 1 else []),
    ]
    for order, form in forms:
        if len(form) == len(given) and all(a in (None, b) for a, b in zip(given, form, strict=True)):
            return order, form, batch
    shown = ", ".join("?" if n is None else str(n) for n in given)
    raise UserError(
        f"{what} takes (images, {shown}), the data set has images of {height}x{width} with {channels} "
        f"channels, so (images, {channels}, {height}, {width}) or (images, {height}, {width}, {channels}); "
        "give the data set that size (datasets.NAME.image), or export the network for it"
    )
