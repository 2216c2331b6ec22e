"""Frozen GraphDef -> `dpuflow.network.Network`, from the graph alone (no Keras, no session).

The reader walks back from the output, turns each TensorFlow node into a layer, and
evaluates everything that depends on constants only. Per-channel arithmetic with
constants (bias, batch normalisation fused or decomposed into Rsqrt / Mul / Sub / Add)
becomes `batch_norm` layers, y = x * weights + bias; neighbours merge, and an offset
right behind a conv or dense layer becomes its bias. Folding proper is the quantizer's
(`dpuflow.quantize.folding`).
"""

import math
import re
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError, about
from dpuflow.network import WEIGHTED, Layer, Network
from dpuflow.tfgraph.graph_def import read_graph_def
from dpuflow.tfgraph.node_translation import HANDLERS, INPUTS
from dpuflow.tfgraph.node_values import Tensor

MAX_ELEMENTS = 2**31
"""Values of one feature map: more cannot be addressed on a DPU (`xir.validate.MAX_ELEMENTS`)."""
COMPUTED_ELEMENTS = 2**24
"""Elements of constants that a file may describe without holding them, on top of four times its bytes."""

IGNORED_SINKS = {"Const", "NoOp", "Assert", "Placeholder", "PlaceholderWithDefault", "SaveV2", "RestoreV2"}


def read_network(path, input_name=None, output_name=None, input_shape=None, name=None):
    """Read a frozen graph file.

    Parameters
    ----------
    path : binary GraphDef with every variable frozen to a constant.
    input_name, output_name : node names; None: the single placeholder and the single
        node that nothing reads.
    input_shape : (H, W, C), needed only when the placeholder leaves sizes open.
    name : name of the network (None: the file's stem).

    Returns
    -------
    Network with ops of `dpuflow.network.OPS`, unfolded; dropout and identities are gone.

    Raises
    ------
    UserError : unreadable file, several inputs or outputs, an unsupported op (named with its node).
    """
    return read_network_and_nodes(path, input_name, output_name, input_shape, name)[0]


def read_network_and_nodes(path, input_name=None, output_name=None, input_shape=None, name=None):
    """As `read_network`, but returns (Network, {"input": node name, "output": node name})."""
    translator = GraphTranslator(read_graph_def(path), str(path), input_shape)
    with about(path):
        network = translator.network(name or Path(path).stem, input_name, output_name)
    return network, {"input": translator.input_node, "output": translator.output_node}


def split_reference(reference):
    """Input reference of a NodeDef -> (node name, output index): "bn:1" -> ("bn", 1)."""
    node, _, index = reference.partition(":")
    if index and not re.fullmatch("[0-9]{1,9}", index):
        raise UserError(f"input reference {reference!r}: expected NODE or NODE:OUTPUT; the graph is damaged")
    return node, int(index or 0)


class GraphTranslator:
    """State of one translation: nodes by name, values of finished nodes, layers so far."""

    def __init__(self, graph, where, input_shape=None):
        self.where = where
        self.nodes = {}
        for node in graph.node:
            if not node.name or node.name in self.nodes:
                raise UserError(f"{where}: node name {node.name!r} is empty or used twice")
            self.nodes[node.name] = node
        self.unspent = COMPUTED_ELEMENTS + 4 * graph.ByteSize()
        self.input_shape = tuple(input_shape) if input_shape else None
        self.values = {}
        self.layers = {}

    # -- interface of the handlers in node_translation -------------------------------------

    def fail(self, node, problem):
        """Raise the UserError that names the graph, the node and its op."""
        raise UserError(f"{self.where}: node {node.name!r} (op {node.op}): {problem}")

    def emit(self, node, op, inputs, shape, weights=None, bias=None, **attrs):
        """Append the layer that `node` computes; returns its Tensor."""
        shape = tuple(int(n) for n in shape)
        if not 0 < math.prod(shape) < MAX_ELEMENTS or min(shape, default=0) < 1:
            self.fail(node, f"its output would have the impossible shape {shape}")
        for values in (weights, bias):
            if values is not None and not np.isfinite(values).all():
                self.fail(node, "its constants are not finite (NaN or infinity)")
        if node.name in self.layers:
            self.fail(node, "a node that this op stands for is in the graph, too; rename it")
        self.layers[node.name] = Layer(node.name, op, list(inputs), shape, attrs, weights, bias)
        return Tensor(node.name)

    def layer(self, tensor):
        """The layer that makes `tensor`."""
        return self.layers[tensor.layer]

    def spend(self, node, elements):
        """Account for the elements of a constant that has to be computed; fail before memory runs out."""
        self.unspent -= elements
        if self.unspent < 0:
            self.fail(node, "its constants take far more memory than the file holds; is it damaged?")

    # -- walking ---------------------------------------------------------------------------

    def network(self, name, input_name, output_name):
        """Translate what `output_name` depends on."""
        self.output_node = output = self._find_output(output_name)
        order = self._ancestors(output)
        self.input_node = self._find_input(order, input_name)
        for node_name in order:
            self._translate(self.nodes[node_name])
        value = self.values[output]
        if not isinstance(value, Tensor):
            raise UserError(f"{self.where}: output node {output!r} does not depend on the input")
        layers = self._reachable(value.layer)
        layers = merge_affine(layers)
        return Network(name, shorten_names(layers))

    def _find_output(self, wanted):
        if wanted is not None:
            wanted = split_reference(wanted)[0]
            if wanted not in self.nodes:
                raise UserError(f"{self.where}: no node {wanted!r} for the output; sinks: {self._sinks()}")
            return wanted
        sinks = self._sinks()
        if len(sinks) != 1:
            raise UserError(
                f"{self.where}: expected one output (a node that nothing reads), found {len(sinks)}: "
                f"{', '.join(sinks[:8]) or 'none'}; name the one to use"
            )
        return sinks[0]

    def _sinks(self):
        read = {split_reference(r.lstrip("^"))[0] for node in self.nodes.values() for r in node.input}
        return [n for n, node in self.nodes.items() if n not in read and node.op not in IGNORED_SINKS]

    def _find_input(self, order, wanted):
        placeholders = [n for n in order if self.nodes[n].op == "Placeholder"]
        if wanted is not None:
            wanted = split_reference(wanted)[0]
            if wanted not in self.nodes:
                raise UserError(
                    f"{self.where}: no node {wanted!r} for the input; placeholders: {placeholders}"
                )
            return wanted
        if len(placeholders) != 1:
            raise UserError(
                f"{self.where}: expected one input placeholder, found {len(placeholders)}: "
                f"{', '.join(placeholders[:8]) or 'none'}; freeze a training switch to a constant first"
            )
        return placeholders[0]

    def _ancestors(self, output):
        """Names of the nodes `output` depends on, inputs first (iterative depth-first search)."""
        order, state, stack = [], {}, [output]
        while stack:
            name = stack[-1]
            if state.get(name) == "done":
                stack.pop()
                continue
            if name not in self.nodes:
                raise UserError(f"{self.where}: node {name!r} is read but missing; the graph is incomplete")
            inputs = [split_reference(r)[0] for r in self.nodes[name].input if not r.startswith("^")]
            if state.get(name) == "open":
                if any(state.get(i) == "open" for i in inputs):
                    raise UserError(
                        f"{self.where}: node {name!r} is part of a loop; only feed-forward graphs work"
                    )
                state[name] = "done"
                order.append(name)
                stack.pop()
                continue
            state[name] = "open"
            stack.extend(i for i in reversed(inputs) if state.get(i) != "done")
        return order

    def _translate(self, node):
        if node.name == self.input_node:
            self.values[node.name] = self._emit_input(node)
            return
        handler = HANDLERS.get(node.op)
        if handler is None:
            self.fail(node, _advice(node.op))
        references = [split_reference(r) for r in node.input if not r.startswith("^")]
        inputs = [self._value_of(node, name, index) for name, index in references]
        least, most = INPUTS.get(node.op, (1, 1))
        if not least <= len(inputs) <= most:
            self.fail(
                node, f"has {len(inputs)} inputs; expected {least if least == most else f'{least} or more'}"
            )
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused where it gets into a layer
                self.values[node.name] = handler(self, node, inputs)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # NumPy checks how shapes, axes and types go together; here its complaint gets the node's name
            self.fail(node, f"its inputs or attributes do not fit each other ({error})")

    def _value_of(self, node, name, index):
        value = self.values[name]
        if isinstance(value, list):  # Switch: one value per output
            if index >= len(value):
                self.fail(node, f"reads output {index} of {name!r}, which has {len(value)}")
            return value[index]
        if index:
            self.fail(
                node, f"reads output {index} of {name!r}, which only training needs; freeze for inference"
            )
        return value

    def _emit_input(self, node):
        shape = self.input_shape
        if shape is None:
            dims = [dim.size for dim in node.attr["shape"].shape.dim]
            if len(dims) not in (2, 4) or any(d <= 0 for d in dims[1:]):
                self.fail(
                    node, f"input shape {dims} is not (batch, H, W, C) with known sizes; give input_shape"
                )
            shape = dims[1:]
        return self.emit(node, "input", [], shape)

    def _reachable(self, output):
        wanted, stack = set(), [output]
        while stack:
            name = stack.pop()
            if name not in wanted:
                wanted.add(name)
                stack.extend(self.layers[name].inputs)
        return [layer for name, layer in self.layers.items() if name in wanted]


_ADVICE = {
    "VariableV2": "the graph is not frozen; turn variables into constants first",
    "VarHandleOp": "the graph is not frozen; turn variables into constants first",
    "ReadVariableOp": "the graph is not frozen; turn variables into constants first",
    "Sigmoid": "the DPU has no sigmoid; use ReLU, or end the graph before this node (output_name)",
    "Tanh": "the DPU has no tanh; use ReLU",
    "Elu": "the DPU has no ELU; use ReLU or LeakyReLU(0.1)",
    "ArgMax": "name the softmax or logits node as the output instead",
    "SpaceToBatchND": "dilated convolution in its batch form; freeze it as Conv2D with dilations",
    "PartitionedCall": "a function call; inline functions when freezing (constant folding does it)",
    "StatefulPartitionedCall": "a function call; inline functions when freezing (constant folding does it)",
}


def _advice(op):
    advice = _ADVICE.get(op, "retrain the network without it, or end the graph before it (output_name)")
    return f"not supported on the DPU path: {advice}. Supported ops: {', '.join(sorted(HANDLERS))}"


def merge_affine(layers):
    """Merge chains of batch_norm layers, and turn a pure offset behind a weighted layer into its bias."""
    while True:
        by_name = {layer.name: layer for layer in layers}
        readers = {}
        for layer in layers:
            for name in layer.inputs:
                readers.setdefault(name, []).append(layer)
        for layer in layers:
            if layer.op != "batch_norm":
                continue
            before = by_name[layer.inputs[0]]
            if len(readers[before.name]) == 1 and _absorb(before, layer):
                layers = bypass(layers, layer.name, before.name)
                break
            if np.all(layer.weights == 1) and np.all(layer.bias == 0) and before.op != "input":
                layers = bypass(layers, layer.name, before.name)
                break
        else:
            return layers


def _absorb(before, affine):
    """Merge `affine` into `before` if that is batch_norm, or a weighted layer and affine a mere offset."""
    if before.op == "batch_norm":
        before.bias = (before.bias * affine.weights + affine.bias).astype(np.float32)
        before.weights = (before.weights * affine.weights).astype(np.float32)
        return True
    if before.op in WEIGHTED and np.all(affine.weights == 1):
        before.bias = affine.bias if before.bias is None else (before.bias + affine.bias).astype(np.float32)
        return True
    return False


def bypass(layers, removed, replacement):
    """The layers without `removed`, whose readers read `replacement` instead."""
    for layer in layers:
        layer.inputs = [replacement if name == removed else name for name in layer.inputs]
    return [layer for layer in layers if layer.name != removed]


def shorten_names(layers):
    """Name layers after their scope: "model/conv2d/Conv2D" -> "conv2d", where that stays unique.

    The input keeps its node's name, because the evaluation graph is fed under it.
    """
    paths = {layer.name: layer.name.split("/") for layer in layers}
    scoped = {name: parts[:-1] if len(parts) > 1 else parts for name, parts in paths.items()}
    prefix = 0
    inner = [scoped[layer.name] for layer in layers if layer.op != "input"]
    while inner and all(len(parts) > prefix + 1 for parts in inner) and len({p[prefix] for p in inner}) == 1:
        prefix += 1
    final, taken = {}, set()
    for layer in layers:
        short = layer.name if layer.op == "input" else "/".join(scoped[layer.name][prefix:])
        if short in taken:  # a second op of the same scope, say the ReLU of a dense layer
            short = "/".join(paths[layer.name][prefix:])
        final[layer.name] = short
        taken.add(short)
    if len(set(final.values())) != len(final):
        return layers
    for layer in layers:
        layer.inputs = [final[name] for name in layer.inputs]
        layer.name = final[layer.name]
    return layers
