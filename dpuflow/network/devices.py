"""Which layers of a network compute in float on the CPU: settled before anything is folded.

Behind the DPU's last layers a network may transpose, reshape, join, scale and exponentiate as it likes. What
reads one kind of number reads only that: a layer that exists for the DPU and for the CPU (a sum, a
concatenation) becomes the CPU's where it reads real numbers and nothing of the DPU comes behind it; where
the DPU reads a layer of the CPU, a `to_grid` stands between them.
"""

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.network import Layer, Network, marked
from dpuflow.ops import OPERATORS

_FLOAT = {"add": "float_add", "multiply": "float_multiply", "concat": "float_concat"}
"""Kind of a layer of the DPU -> of one that computes the same on the CPU."""
_EITHER = (*_FLOAT, "flatten", "batch_norm", "sigmoid", "output")
_ARRANGE = ("transpose", "float_reshape", "float_slice")


def settle(layers: list[Layer]) -> list[Layer]:
    """The layers (outputs marked, `network.marked`) with each one's device settled; changed in place."""
    by_name = {layer.name: layer for layer in layers}
    behind = _behind(layers, by_name)
    settled: list[Layer] = []
    floats: set[str] = set()
    grids: dict[str, str] = {}
    for layer in layers:
        reads_floats = any(name in floats for name in layer.inputs)
        if layer.op == "sigmoid" and layer.name in behind:
            layer.op = "float_sigmoid"
        if layer.op == "output" or not (layer.operator.quantized and reads_floats):
            settled.append(layer)
        elif layer.name in behind:
            settled += _on_cpu(layer, by_name)
            floats.update(new.name for new in settled if not new.operator.quantized)
        else:
            if layer.op != "to_grid":
                settled += _to_grids(layer, floats, grids, by_name)
            settled.append(layer)
        if not layer.operator.quantized:
            floats.add(layer.name)
    return settled


def gives_floats(layers: Mapping[str, Layer], of_dpu: Container[str], name: str) -> bool:
    """Whether a layer of a network that is being read gives real numbers: itself, or by what it reads.

    layers : by name, as far as they are read. of_dpu : names of those that are the DPU's, whatever they are.
    """
    pending, seen = [name], set()
    while pending:
        layer = layers[pending.pop()]
        if layer.name in seen or layer.name in of_dpu:
            continue
        seen.add(layer.name)
        if not layer.operator.quantized or layer.op == "sigmoid":
            return True
        if not layer.operator.weighted:
            pending += layer.inputs
    return False


def of_shares(
    name: str, read: Callable[[str], tuple[str, Sequence[str]] | None], views: Container[str]
) -> bool:
    """Whether a tensor is a softmax's, in another form at most: what weighs it, takes a distribution's mean.

    read : name of a tensor -> (operator that makes it, names of what that reads), or None. views : operators
    that change a tensor's form alone.
    """
    found = read(name)
    while found is not None and found[0] in views and found[1]:
        found = read(found[1][0])
    return found is not None and found[0].lower() == "softmax"


def only_behind(network: Network) -> bool:
    """Whether no layer of the DPU reads what the CPU computes in float."""
    outputs = {name: layer.name for name, layer in network.outputs.items()}
    settled = settle(marked(copy.deepcopy(network.layers), outputs))
    return not any(layer.op == "to_grid" for layer in settled)


def _behind(layers, by_name):
    """Names of the layers that only layers of the CPU follow, or that could be."""
    readers: dict[str, list[str]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for name in layer.inputs:
            readers[name].append(layer.name)
    found: set[str] = set()
    for layer in reversed(layers):
        able = not layer.operator.quantized or layer.op in _EITHER or _weighs_shares(layer, by_name)
        able = able and layer.attrs.get("activation", "NONE") == "NONE"
        if able and found.issuperset(readers[layer.name]):
            found.add(layer.name)
    return found


def _weighs_shares(layer: Layer, by_name: Mapping[str, Layer]) -> bool:
    """Whether it is a 1x1 convolution over the shares of a softmax: the mean of a distribution."""
    if layer.op != "conv" or layer.attrs["kernel"] != (1, 1) or layer.attrs["stride"] != (1, 1):
        return False
    shares = of_shares(layer.inputs[0], lambda name: (by_name[name].op, by_name[name].inputs), _ARRANGE)
    return shares and not any(layer.attrs["pad"])


def _to_grids(
    layer: Layer, floats: set[str], grids: dict[str, str], by_name: dict[str, Layer]
) -> list[Layer]:
    """New `to_grid` layers for what `layer` reads of the CPU; one for all readers of a tensor."""
    new = []
    for k, name in enumerate(layer.inputs):
        if name not in floats:
            continue
        if name not in grids:
            grids[name] = f"{name}/to_grid"
            new.append(Layer(grids[name], "to_grid", [name], by_name[name].shape))
            by_name[grids[name]] = new[-1]
        layer.inputs[k] = grids[name]
    return new


def _on_cpu(layer: Layer, by_name: Mapping[str, Layer]) -> list[Layer]:
    """What computes the layer on the CPU; the last one has its name."""
    if layer.op == "flatten":
        layer.op, layer.attrs = "float_reshape", {"target": layer.shape}
    elif layer.op == "batch_norm":
        return _affine(layer, np.asarray(layer.weights), np.asarray(layer.bias))
    elif layer.op == "conv":
        return _product(layer)
    elif layer.op in _FLOAT and layer.op in OPERATORS:
        layer.op = _FLOAT[layer.op]
        layer.attrs = {name: layer.attrs[name] for name in OPERATORS[layer.op].attributes()}
        return [*_of_one_rank(layer, by_name), layer]
    return [layer]


def _of_one_rank(layer: Layer, by_name: Mapping[str, Layer]) -> list[Layer]:
    """Factors (C,) of a map (H, W, C) as (1, 1, C)."""
    new = []
    for k, name in enumerate(layer.inputs):
        shape = by_name[name].shape
        if len(shape) < len(layer.shape) and layer.op != "float_concat":
            wide = (*(1,) * (len(layer.shape) - len(shape)), *shape)
            new.append(Layer(f"{layer.name}/{k}", "float_reshape", [name], wide, {"target": wide}))
            layer.inputs[k] = new[-1].name
    return new


def _constant(name: str, value: np.ndarray) -> Layer:
    value = np.ascontiguousarray(value, np.float32)
    return Layer(name, "constant", [], value.shape, {}, value)


def _binary(op: str, name: str, source: str, value: Layer, shape: tuple[int, ...]) -> list[Any]:
    return [value, Layer(name, op, [source, value.name], shape)]


def _affine(layer: Layer, scale: np.ndarray, offset: np.ndarray) -> list[Layer]:
    """x * scale + offset."""
    name, shape, (source,) = layer.name, layer.shape, layer.inputs
    each = (*(1,) * (len(shape) - 1), shape[-1])
    scale, offset = (np.broadcast_to(values, shape[-1:]).reshape(each) for values in (scale, offset))
    if not offset.any():
        return _binary("float_multiply", name, source, _constant(f"{name}/scale", scale), shape)
    new = []
    if (scale != 1).any():
        new = _binary("float_multiply", f"{name}/scaled", source, _constant(f"{name}/scale", scale), shape)
        source = f"{name}/scaled"
    return [*new, *_binary("float_add", name, source, _constant(f"{name}/offset", offset), shape)]


def _product(layer: Layer) -> list[Layer]:
    """A 1x1 convolution as a product over the channels."""
    weights = np.asarray(layer.weights)
    matrix = _constant(f"{layer.name}/weights", weights.reshape(len(weights), -1).T)
    if layer.bias is None:
        return _binary("float_matmul", layer.name, layer.inputs[0], matrix, layer.shape)
    made = _binary("float_matmul", f"{layer.name}/product", layer.inputs[0], matrix, layer.shape)
    each = np.asarray(layer.bias).reshape(*(1,) * (len(layer.shape) - 1), -1)
    offset = _constant(f"{layer.name}/bias", each)
    return [*made, *_binary("float_add", layer.name, made[-1].name, offset, layer.shape)]
