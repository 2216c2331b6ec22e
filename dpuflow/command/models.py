"""Any model file -> its network in the DPU's terms, without a data set."""

import gc
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import HDF5_SIGNATURE, ONNX_BEGINS, is_keras_archive
from dpuflow.base.outputs import NONE
from dpuflow.compiler.quantized_reading import is_compiled, quantized_network
from dpuflow.network import Network
from dpuflow.xir import Graph
from dpuflow.xir.input_scaling import recorded_scaling

Shape = tuple[int, int, int]

KINDS = (
    "an ONNX file, a Keras H5 file or .keras archive, a frozen graph (.pb), the folder of a SavedModel, "
    "an .xmodel"
)
ANY_SCALING = {"subtract": 0, "divide": 1}
"""Stands in where nothing but the layers is asked for."""


@dataclass
class Model:
    """A model file as it was read.

    Attributes
    ----------
    key : of the configuration, `models.NAME.KEY`. shape : (H, W, C) of its input; open : whether the file
        leaves height and width open and `shape` is a guess.
    network : None of a compiled xmodel; graph : of an xmodel. scaling : how pixels become the input, where
        the file says.
    """

    path: str
    key: str
    shape: Shape
    open: bool = False
    network: Network | None = None
    graph: Graph | None = None
    scaling: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def kind_of(path: Path | str) -> str:
    """Key of the configuration that a model file is named with; UserError when it is none."""
    path = Path(path).expanduser()
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return "saved_model"
    try:
        head = b"" if path.is_dir() else path.open("rb").read(16)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {KINDS}") from None
    if head.startswith(HDF5_SIGNATURE) or is_keras_archive(path):
        return "keras_h5"
    if path.suffix.lower() == ".xmodel":
        return "quantized" if not is_compiled(Graph.load(path)) else "xmodel"
    if path.suffix.lower() == ".onnx" or (head.startswith(ONNX_BEGINS) and path.suffix.lower() != ".pb"):
        return "onnx"
    if path.suffix.lower() == ".pb":
        return "frozen_pb"
    raise UserError(f"{path}: no model file that dpuflow knows; expected {KINDS}")


def read_model(path: Path | str, size: tuple[int, int] | None = None, weights: bool = True) -> Model:
    """Read a model file.

    weights : False where only the layers count: of a Keras model the weights are then any.
    size : height and width of the images, where the file leaves them open (None: 224 x 224).

    UserError as the reader of its kind raises it: an operator that is not supported, by name and with what
    to do, a damaged file, several inputs.
    """
    path, key = Path(path).expanduser(), kind_of(path)
    if key == "keras_h5":
        return _keras(str(path), key, size, weights)
    return READERS[key](str(path), key, size)


def _sized(given, size):
    """((H, W), whether both were open) of a shape with None for what is open."""
    height, width = size or (OPEN_SIZE, OPEN_SIZE)
    return (given[0] or height, given[1] or width), not (given[0] and given[1])


OPEN_SIZE = 224


def _onnx(path, key, size):
    from dpuflow.onnx_graph.model_file import open_model
    from dpuflow.onnx_graph.model_file import read_model as read_onnx_file
    from dpuflow.onnx_graph.reader import read_onnx

    model = read_onnx_file(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise UserError(f"{path}: has {len(inputs)} inputs ({names}); one for images is needed here")
    dims = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim][1:]
    if len(dims) != 3:
        raise UserError(f"{path}: its input has the shape {dims} behind the batch; three axes expected")
    first = dims[0] in (1, 3) and dims[2] not in (1, 3)
    channels, place = (dims[0], dims[1:]) if first else (dims[2], dims[:2])
    if not channels:
        raise UserError(f"{path}: its input says no number of channels; export it with a fixed input size")
    found, is_open = _sized(place, size)
    shape = (*found, channels)
    network = read_onnx(open_model(path, shape), shape, _name(path))
    return Model(path, key, shape, is_open, network)


def _keras(path, key, size, weights):
    from dpuflow.keras_models.keras_config import plain_config
    from dpuflow.keras_models.keras_file import built_from_config, save_model
    from dpuflow.keras_models.keras_import import import_model
    from dpuflow.keras_models.rebuild import rebuild
    from dpuflow.keras_models.stored_weights import give_any_values, without_values
    from dpuflow.tfgraph.checkpoint import convert
    from dpuflow.tfgraph.freeze import freeze
    from dpuflow.tfgraph.graph_reader import network_of_nodes

    config, shape, is_open = _keras_input(path, size)
    plain, turned = plain_config(path, config, shape)
    with without_values():
        original = built_from_config(path, plain)
    output = original.output_shape
    # a map, or one of several outputs, is no class of a picture that the copy would have to end with
    answer = None if isinstance(output, tuple) and len(output) == 2 else NONE
    classes, notes = max(2, int(output[-1] or 0)) if answer is None else 2, []
    if weights:
        model, notes = import_model(path, shape, classes, answer)
    else:
        give_any_values(original)
        ways = {"theano": False, "turned": turned, "channels_first": turned is not None}
        model = rebuild(path, original, shape, classes, answer=answer, **ways)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, f"{folder}/model.h5")
        del model, original
        gc.collect()  # which refer to each other
        nodes = convert(f"{folder}/model.h5", Path(folder))
        freeze(folder, nodes, f"{folder}/graph.pb")
        try:
            network = network_of_nodes(f"{folder}/graph.pb", nodes, _name(path))
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}/graph.pb", path)) from None
    return Model(path, key, shape, is_open, network, notes=notes)


def _keras_input(path, size):
    """(configuration in the terms of Keras 2, (H, W, C), whether the size was open)."""
    from dpuflow.keras_models.keras_config import is_keras_3, real_layers
    from dpuflow.keras_models.keras_file import read_description
    from dpuflow.keras_models.keras_import import translated

    written, versions = read_description(path)
    config = written
    if is_keras_archive(path) or is_keras_3(versions):
        config = translated(path, written, keras_3=is_keras_3(versions))
    shapes = [options.get("batch_input_shape") for _, _, options in real_layers(config)]
    shapes = [shape for shape in shapes if shape]
    if not shapes or len(shapes[0]) != 4:
        raise UserError(f"{path}: says no shape of its input (height, width, channels); build it with one")
    given = shapes[0][1:]
    if "channels_first" in str(config):
        given = [*given[1:], given[0]]
    found, is_open = _sized(given[:2], size)
    return config, (*found, given[2] or 3), is_open


def _frozen(path, key, size):
    from dpuflow.tfgraph.graph_reader import read_network

    return _from_graph(path, key, size, lambda shape: read_network(path, None, None, shape, _name(path)))


def _saved(path, key, size):
    from dpuflow.tfgraph.graph_reader import read_network
    from dpuflow.tfgraph.saved_model import freeze_saved_model

    graph, first, ends, notes = freeze_saved_model(path)
    last = list(ends.values())
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder, "signature.pb")
        frozen.write_bytes(graph)
        try:
            model = _from_graph(
                path,
                key,
                size,
                lambda shape: read_network(
                    frozen, first, last if len(last) > 1 else last[0], shape, _name(path)
                ),
            )
        except UserError as error:
            raise UserError(str(error).replace(str(frozen), path)) from None
    model.notes = notes
    return model


def _from_graph(path, key, size, read):
    """A graph's network; where it leaves the size open, that of 224 x 224 in colour."""
    try:
        network, is_open = read(None), False
    except UserError as error:
        if "size" not in str(error) and "shape" not in str(error):
            raise
        network, is_open = read((*(size or (OPEN_SIZE, OPEN_SIZE)), 3)), True
    return Model(path, key, _three(path, network.input.shape), is_open, network)


def _quantized(path, key, size):
    graph = Graph.load(path)
    scaling = recorded_scaling(graph)
    network = quantized_network(path, graph, _name(path), scaling or ANY_SCALING).network
    shape = _three(path, network.input.shape)
    return Model(path, key, shape, False, network, graph, scaling)


def _compiled(path, key, size):
    graph = Graph.load(path)
    inputs = [op for op in graph.ops if op.type in ("data", "data-fix")]
    if len(inputs) != 1:
        raise UserError(f"{path}: has {len(inputs)} inputs; one for images is needed here")
    shape = _three(path, inputs[0].tensor.shape[1:])
    return Model(path, key, shape, False, None, graph, recorded_scaling(graph))


def _three(path, shape):
    if len(shape) != 3:
        raise UserError(f"{path}: its input has the shape {tuple(shape)}; an image (H, W, C) expected")
    return tuple(int(n) for n in shape)


def _name(path):
    return Path(path).stem or "model"


READERS = {
    "onnx": _onnx,
    "frozen_pb": _frozen,
    "saved_model": _saved,
    "quantized": _quantized,
    "xmodel": _compiled,
}
