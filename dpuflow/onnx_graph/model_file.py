"""Somebody's ONNX file, opened: its ends, its layout, its weights, and nothing from outside its folder.

The ends are one input of images and the outputs; which, may be named. Exporters leave the batch open or fix
it, count pixels as NCHW or NHWC, and keep weights in files beside the model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import check_is_onnx
from dpuflow.base.outputs import ONLY
from dpuflow.base.protobuf_pieces import pieces
from dpuflow.base.protobuf_seal import sealed_file, unsealed_file, without_seal
from dpuflow.onnx_graph.external_data import load_external_data
from dpuflow.onnx_graph.number_types import bytes_as_floats, widen

ModelProto = Any
"""onnx.ModelProto."""

STANDARD_DOMAINS = ("", "ai.onnx")
FLOAT = 1
OutputNames = str | Sequence[str] | Mapping[str, str] | None
"""Of one output, of several, or {name of one's own: name in the file}; None: the only one."""
QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul"}


@dataclass(frozen=True)
class OpenedModel:
    """An ONNX model with its weights, and what its ends are.

    Attributes
    ----------
    model : onnx.ModelProto, weights inside; its outputs are those of `outputs`.
    path : the file. input : name of a tensor.
    outputs : output's name (`base.outputs`) -> name of its tensor, in order.
    order : which axis of an image (H, W, C) each axis of the input behind the batch is: (2, 0, 1) for NCHW;
        None where the input is flat or a map without channel.
    dims : the input's shape behind the batch, for the images.
    batch : the number of images that the input fixes, or None. takes_bytes : whether the file's input is
        uint8; the opened model's is float32.
    """

    model: ModelProto
    path: str
    input: str
    outputs: dict[str, str]
    order: tuple[int, ...] | None
    dims: tuple[int, ...]
    batch: int | None
    takes_bytes: bool = False


def open_model(
    path: Path | str,
    image_shape: Sequence[int],
    input_name: str | None = None,
    output_name: OutputNames = None,
    own: bool = False,
) -> OpenedModel:
    """Open an ONNX file for images of one shape.

    Parameters
    ----------
    path : ONNX file; weights in files of their own must lie in its folder.
    image_shape : (H, W, C) of the data set.
    input_name : name of the input's tensor; None: the only one.
    output_name : name of a tensor or of the node that makes it, a list of them, or {output's name: such a
        name}; None: what the file calls its outputs.
    own : whether it is a file that dpuflow wrote, with its seal.

    Raises
    ------
    UserError : no ONNX, several inputs and none named, an output that is not there or not of real numbers,
        an input of another shape or type.
    """
    path = str(path)
    model = read_model(path, own)
    load_external_data(model, path)
    _check_operators(model, path)
    widen(model)
    entry = _input(model, path, input_name)
    takes_bytes = bytes_as_floats(model, entry.name)
    outputs = _outputs(model, path, output_name)
    order, dims, batch = _layout(entry, tuple(image_shape), path)
    return OpenedModel(model, path, entry.name, outputs, order, dims, batch, takes_bytes)


def read_model(path: Path | str, own: bool = False) -> ModelProto:
    """The model without weights that lie in other files; UserError for anything but an ONNX model.

    own : whether it must hold our seal, and its content be what was sealed.
    """
    import onnx
    from google.protobuf.message import DecodeError

    check_is_onnx(path)
    try:
        model = onnx.load_model_from_string(
            unsealed_file(path, own=True) if own else without_seal(Path(path).read_bytes())
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (DecodeError, ValueError):
        raise UserError(f"{path}: is not an ONNX model, or damaged; export or copy it again") from None
    if not model.graph.node or not model.opset_import:
        raise UserError(f"{path}: holds no ONNX graph; export or copy it again")
    return model


def write_model(path: Path | str, opened: OpenedModel) -> None:
    """Write an opened model with a seal, byte-identical for equal content."""
    with sealed_file(path) as write:
        for piece in pieces(opened.model):
            write(piece)


def _check_operators(model, path):
    """Refuse what no tool could fold or run here: operators of other vendors, networks quantized already."""
    functions = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        if not node.output:
            raise UserError(f"{path}: a node {node.name!r} (op {node.op_type}) without output: damaged")
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
            "(models.NAME.input_node) and export the others as constants: a data set has one picture for "
            "each label. As a library several inputs work (docs/adding-a-model.md, Several outputs)"
        )
    return inputs[0]


def _outputs(model, path, wanted):
    """{output's name: tensor}; these tensors become the model's outputs, in this order."""
    import onnx

    entries = {entry.name: entry for entry in model.graph.output}
    made = {name: name for node in model.graph.node for name in node.output if name}
    by_node = {node.name: node.output[0] for node in model.graph.node if node.name}

    def tensor(name: str) -> str:
        found = made.get(name) or by_node.get(name)
        if found is None:
            raise UserError(
                f"{path}: no tensor or node {name!r} for the output; its outputs: {', '.join(entries)} "
                "(models.NAME.output_node)"
            )
        return found

    if isinstance(wanted, str):
        wanted = [wanted]
    if isinstance(wanted, Mapping):
        outputs = {name: tensor(source) for name, source in wanted.items()}
    else:
        tensors = [tensor(name) for name in (entries if wanted is None else wanted)]
        outputs = {legal_name(name) or f"output_{k}": name for k, name in enumerate(tensors)}
        if len(outputs) < len(tensors):
            raise UserError(
                f"{path}: outputs {', '.join(tensors)}: names that differ in signs only, or one twice; give "
                "them names: models.NAME.output_node: {NAME: TENSOR, ...}"
            )
    if not outputs:
        raise UserError(f"{path}: has no output (models.NAME.output_node names tensors)")
    chosen = list(dict.fromkeys(outputs.values()))
    if list(entries) != chosen:
        kept = [entries.get(name) or onnx.ValueInfoProto(name=name) for name in chosen]
        del model.graph.output[:]
        model.graph.output.extend(kept)
    return outputs if len(outputs) > 1 else {ONLY: chosen[0]}


def legal_name(name: str) -> str:
    """A name of a tensor as one that TensorFlow takes for a node, too; "" where nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9_./-]+", "_", name).strip("/.-_")


def _layout(entry, shape, path):
    """(order, dims, batch) of the input for images (H, W, C)."""
    tensor = entry.type.tensor_type
    what = f"{path}: input {entry.name!r}"
    if tensor.elem_type != FLOAT:
        import onnx

        known = tensor.elem_type in onnx.TensorProto.DataType.values()
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if known else tensor.elem_type
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
