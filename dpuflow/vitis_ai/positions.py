"""Positions that the vendor's quantizers chose, read from their files without TensorFlow.

vai_q_tensorflow puts a FixNeuron node behind every quantized tensor, NODE/wquant behind weights and biases,
NODE/aquant behind activations, with its position in the attribute quantize_pos
(docs/reference/quantizers.md).
vai_q_tensorflow2 keeps each position in a variable whose name ends in `_pos`, in the layer's group.
"""

from pathlib import Path
from typing import Any

import h5py

from dpuflow.base.errors import UserError
from dpuflow.tfgraph.graph_def import read_graph_def
from dpuflow.tfgraph.node_order import split_reference
from dpuflow.vitis_ai.tool_logs import layer_name

Row = dict[str, Any]
"""Row of `layers` in quantization.json."""

COMPUTE = {
    "Conv2D": "conv",
    "DepthwiseConv2dNative": "depthwise_conv",
    "MatMul": "dense",
    "Conv2DBackpropInput": "transposed_conv",
}
OTHER = {
    "Placeholder": "input",
    "MaxPool": "max_pool",
    "AvgPool": "avg_pool",
    "Mean": "avg_pool",
    "Add": "add",
    "AddV2": "add",
    "Mul": "mul",
    "ConcatV2": "concat",
    "Reshape": "flatten",
}
CHAIN = {"BiasAdd", "Relu", "Relu6", "LeakyRelu", "Identity", "Squeeze", "Reshape", "Pad"}
"""Ops between a layer's sum and the FixNeuron of its output."""


def graph_layers(path: Path | str) -> list[Row]:
    """Layers of a quantize_eval_model.pb, as rows of quantization.json (`layer_row`).

    UserError when the graph holds no FixNeuron, so is no output of vai_q_tensorflow.
    """
    graph = _Graph(read_graph_def(path))
    if not graph.fixes:
        raise UserError(f"{path}: holds no FixNeuron node, so vai_q_tensorflow did not write it")
    rows, seen = [], set()
    for node in graph.nodes.values():
        row = None
        if node.op in COMPUTE:
            row, fix = graph.compute_row(node)
            seen.add(fix)
        elif node.op == "FixNeuron" and node.name.endswith("/aquant") and node.name not in seen:
            row = graph.other_row(node)
        if row:
            rows.append({key: value for key, value in row.items() if value is not None})
    return rows


class _Graph:
    """A GraphDef with its edges both ways."""

    def __init__(self, graph):
        self.nodes = {node.name: node for node in graph.node}
        self.consumers = {}
        for node in graph.node:
            for reference in node.input:
                self.consumers.setdefault(split_reference(reference)[0], []).append(node)
        self.fixes = [node for node in graph.node if node.op == "FixNeuron"]

    def input(self, node: Any, index: int) -> Any:
        return self.nodes[split_reference(node.input[index])[0]]

    def behind(self, node: Any) -> tuple[Any, Any]:
        """The FixNeuron that quantizes what `node` puts out, and the last other node before it."""
        while True:
            readers = self.consumers.get(node.name, [])
            fix = next((reader for reader in readers if reader.op == "FixNeuron"), None)
            if fix is not None:
                return fix, node
            if len(readers) != 1 or readers[0].op not in CHAIN:
                return None, node
            node = readers[0]

    def position_before(self, node: Any) -> int | None:
        """Position of the quantized tensor that `node` is, or was shaped from; None if there is none."""
        while node.op != "FixNeuron":
            if not node.input or node.op in COMPUTE:
                return None
            node = self.input(node, 0)
        return _position(node)

    def bias_of(self, node: Any) -> int | None:
        """Position of the bias added right behind a layer's sum."""
        for reader in self.consumers.get(node.name, []):
            if reader.op in ("BiasAdd", "Add", "AddV2"):
                bias = self.input(reader, 1)
                return _position(bias) if bias.op == "FixNeuron" else None
        return None

    def compute_row(self, node: Any) -> tuple[Row, str | None]:
        fix, _ = self.behind(node)
        kernel = self.input(node, 1)
        x, bias = self.position_before(self.input(node, 0)), self.bias_of(node)
        weights = _position(kernel) if kernel.op == "FixNeuron" else None
        out = _position(fix) if fix is not None else None
        return layer_row(layer_name(node.name), COMPUTE[node.op], x, weights, bias, out), fix and fix.name

    def other_row(self, fix: Any) -> Row:
        node = self.input(fix, 0)
        x = self.position_before(self.input(node, 0)) if node.input else None
        name = layer_name(node.name)
        return layer_row(name, OTHER.get(node.op, node.op.lower()), x, None, None, _position(fix))


def _position(fix):
    return int(fix.attr["quantize_pos"].i)


def layer_row(
    name: str, op: str, x: int | None, weights: int | None, bias: int | None, out: int | None
) -> Row:
    """Row of quantization.json's `layers`; shifts as in docs/reference/numerics.md."""
    cut = x + weights - out if x is not None and weights is not None and out is not None else None
    shift = x + weights - bias if x is not None and weights is not None and bias is not None else None
    return {
        "layer": name,
        "op": op,
        "input_fix_point": x,
        "weights_fix_point": weights,
        "bias_fix_point": bias,
        "fix_point": out,
        "shift_cut": cut,
        "shift_bias": shift,
    }


def keras_layers(path: Path | str) -> list[Row]:
    """Layers of a model saved by VitisQuantizer: as `graph_layers`, without what the order of layers decides.

    UserError when the file holds no positions.
    """
    found: dict[str, Row] = {}
    try:
        with h5py.File(path, "r") as file:
            weights = file.get("model_weights", file)
            weights.visititems(lambda name, item: _note_position(found, name, item))
    except OSError as error:
        raise UserError(f"{path}: not a readable HDF5 file ({error})") from None
    if not found:
        raise UserError(f"{path}: holds no positions (variables *_pos); vai_q_tensorflow2 did not write it")
    return [{"layer": name, **row} for name, row in found.items()]


_PARTS = {"bias": "bias_fix_point", "kernel": "weights_fix_point"}
"""What a variable's name holds -> the key of its position; any other is the layer's output."""


def _note_position(found, path, item):
    """Enter one variable's position; the part of the layer is told by the variable's name."""
    variable = path.rpartition("/")[2].partition(":")[0]
    if not isinstance(item, h5py.Dataset) or not variable.endswith("_pos") or item.size != 1:
        return
    key = next((key for part, key in _PARTS.items() if part in variable), "fix_point")
    row = found.setdefault(path.partition("/")[0].removeprefix("quant_"), {})
    row[key] = int(item[()].reshape(-1)[0])
