"""Frozen GraphDef -> `dpuflow.network.Network`, from the graph alone (no Keras, no session).

The reader walks back from the output, turns each TensorFlow node into a layer, and
evaluates everything that depends on constants only. Per-channel arithmetic with
constants (bias, batch normalisation fused or decomposed into Rsqrt / Mul / Sub / Add)
becomes `batch_norm` layers, y = x * weights + bias; neighbours merge, and an offset
right behind a conv or dense layer becomes its bias (`merging`). Folding proper is the
quantizer's (`dpuflow.quantize.folding`).

What the network does not depend on may be anything: an op that cannot be read, on the dead
side of a training switch say, is an error only when the output needs its value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dpuflow.base.errors import UserError, about
from dpuflow.base.outputs import named_ends
from dpuflow.base.protobuf_pieces import Later
from dpuflow.network import Layer, Network, marked, reaching, unmarked
from dpuflow.network.devices import only_behind
from dpuflow.network.gates import recognise
from dpuflow.network.merging import merge
from dpuflow.network.network_file import save_network, save_refusal
from dpuflow.tfgraph import float_reading
from dpuflow.tfgraph.advice import advice
from dpuflow.tfgraph.condition_nodes import RANDOM
from dpuflow.tfgraph.graph_def import DT_BOOL, Message
from dpuflow.tfgraph.graph_ends import Names, emit_images, input_nodes, output_nodes
from dpuflow.tfgraph.large_graph import read_outline
from dpuflow.tfgraph.layer_names import layer_name, shorten_names
from dpuflow.tfgraph.node_order import ancestors, split_reference
from dpuflow.tfgraph.node_translation import HANDLERS, INPUTS
from dpuflow.tfgraph.values import ANY, DEAD, Constant, Node, Tensor

MAX_ELEMENTS = 2**31
"""Values of one feature map: more cannot be addressed on a DPU (`xir.validate.MAX_ELEMENTS`)."""
COMPUTED_ELEMENTS = 2**24
"""Elements of constants that a file may describe without holding them, on top of four times its bytes."""


@dataclass(frozen=True)
class Failed:
    """The value of a node that cannot be read, and why."""

    error: UserError


def read_network(
    path: Path | str,
    input_name: Names = None,
    output_name: Names = None,
    input_shape: Sequence[int] | None = None,
    name: str | None = None,
) -> Network:
    """Read a frozen graph file.

    Parameters
    ----------
    path : binary GraphDef with every variable frozen to a constant.
    input_name, output_name : node names, or lists of them; None: the single placeholder and the single
        node that nothing reads. Of several inputs and outputs each goes by its node's name.
    input_shape : (H, W, C) of the images, needed when the placeholder leaves sizes open. A placeholder
        that takes them reshaped (flattened, or grey ones without the channel) is read as one for images.
    name : name of the network (None: the file's stem).

    Returns
    -------
    Network with ops of `dpuflow.ops.OPERATORS`, unfolded; dropout and identities are gone.

    Raises
    ------
    UserError : unreadable file, several inputs or outputs, an unsupported op (named with its node).
    """
    return read_network_and_nodes(path, input_name, output_name, input_shape, name)[0]


def read_network_and_nodes(
    path: Path | str,
    input_name: Names = None,
    output_name: Names = None,
    input_shape: Sequence[int] | None = None,
    name: str | None = None,
) -> tuple[Network, dict[str, Any]]:
    """As `read_network`, but returns (Network, nodes).

    nodes : {"input": node name, "output": node name}, the first of each; of several also "inputs",
    "outputs": lists of all.
    """
    translator = GraphTranslator(*read_outline(path), str(path), input_shape)
    with about(path):
        network = translator.network(name or Path(path).stem, input_name, output_name)
    return network, translator.ends


def graph_to_network(path: Path | str, nodes: Mapping[str, Any], name: str, network_path: Path | str) -> None:
    """Write network.h5 of a frozen graph: its Network, or why it cannot be read as one.

    nodes : content of nodes.json; name : of the network. The vendor's tools may take a graph that cannot be
    read, so that is an error only where the network is needed.
    """
    try:
        network = network_of_nodes(path, nodes, name)
    except UserError as error:
        save_refusal(network_path, error)
    else:
        save_network(network_path, network)


def network_of_nodes(path: Path | str, nodes: Mapping[str, Any], name: str) -> Network:
    """`read_network` with the outputs of a nodes.json, each by its name there."""
    named = {end: entry["name"] for end, entry in named_ends(nodes).items()}
    network = read_network(path, nodes["input"]["name"], list(dict.fromkeys(named.values())), name=name)
    if len(named) > 1:
        found = network.outputs  # by their nodes, but an only one by its layer
        only = next(iter(found.values())) if len(found) == 1 else None
        network.ends = {end: (only or found[node]).name for end, node in named.items()}
    return network


class GraphTranslator:
    """State of one translation: nodes by name, values of finished nodes, layers so far."""

    def __init__(
        self,
        graph: Message,
        contents: Mapping[bytes, Later],
        where: str,
        input_shape: Sequence[int] | None = None,
    ) -> None:
        """graph, contents : as `large_graph.read_outline` gives them."""
        self.where, self.contents = where, contents
        self.nodes: dict[str, Node] = {}
        for node in graph.node:
            if not node.name or node.name in self.nodes:
                raise UserError(f"{where}: node name {node.name!r} is empty or used twice")
            self.nodes[node.name] = node
        self.bytes = graph.ByteSize() + sum(content.size for content in contents.values())
        self.input_shape = tuple(input_shape) if input_shape else None
        self.input_nodes: list[str] = []
        self.output_nodes: list[str] = []
        self.cpu = False
        """Whether layers of the CPU may stand behind those of the DPU."""
        self.inside: set[str] = set()
        """Nodes that only the DPU can compute then."""
        self.batch: int | None = None
        """Number of images that the placeholder fixes."""
        self.switches: dict[str, np.ndarray] = {}
        """Placeholder -> its value in inference."""
        self._start()

    def _start(self) -> None:
        """Begin the translation (again)."""
        self.unspent = COMPUTED_ELEMENTS + 4 * self.bytes
        self.values: dict[str, Any] = {}
        """Node -> its Value, a list of them (one per output) or Failed."""
        self.layers: dict[str, Layer] = {}
        self.of_dpu: set[str] = set()
        """Layers of nodes that more of the DPU follows (`inside`)."""
        self.cropped: set[str] = set()
        """Dilated convolutions whose output has been cropped."""
        self.fixed_batch: dict[str, tuple[int, ...]] = {}
        """Reshape node -> the shape that it stands for with any number of images."""
        self.binary_outputs: set[str] = set()
        """Sigmoid nodes that were read as the probabilities of two classes."""

    # -- interface of the handlers in node_translation -------------------------------------

    def fail(self, node: Node, problem: str) -> NoReturn:
        """Raise the UserError that names the graph, the node and its op."""
        layer = layer_name(node.name, self.nodes)
        of_layer = "" if layer is None else f"layer {layer!r}, "
        raise UserError(f"{self.where}: {of_layer}node {node.name!r} (op {node.op}): {problem}")

    def emit(
        self,
        node: Node,
        op: str,
        inputs: Iterable[str],
        shape: Iterable[int],
        weights: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        **attrs: Any,
    ) -> Tensor:
        """Append the layer that `node` computes; returns its Tensor."""
        shape = tuple(int(n) for n in shape)
        if not 0 < math.prod(shape) < MAX_ELEMENTS or min(shape, default=0) < 1:
            self.fail(node, f"its output would have the impossible shape {shape}")
        for values in (weights, bias):
            # of both ends, which NaN reaches, too: no array of truth values beside large weights
            if values is not None and values.size and not np.isfinite([values.min(), values.max()]).all():
                self.fail(node, "its constants are not finite (NaN or infinity)")
        if node.name in self.layers:
            self.fail(node, "a node that this op stands for is in the graph, too; rename it")
        self.layers[node.name] = Layer(node.name, op, list(inputs), shape, attrs, weights, bias)
        return Tensor(node.name)

    def layer(self, tensor: Tensor) -> Layer:
        """The layer that makes `tensor`."""
        return self.layers[tensor.layer]

    def spend(self, node: Node, elements: int) -> None:
        """Account for the elements of a constant that has to be computed; fail before memory runs out."""
        self.unspent -= elements
        if self.unspent < 0:
            self.fail(node, "its constants take far more memory than the file holds; is it damaged?")

    def note_fixed_batch(self, node: Node, first: int, times: int, others: Sequence[int]) -> None:
        """A reshape to a fixed number of images: the shape for any number."""
        self.fixed_batch[node.name] = (-1, *others)

    # -- walking ---------------------------------------------------------------------------

    @property
    def ends(self) -> dict[str, Any]:
        """Names of the nodes at the network's ends, as `read_network_and_nodes` returns them."""
        found: dict[str, Any] = {"input": self.input_nodes[0], "output": self.output_nodes[0]}
        if len(self.input_nodes) > 1:
            found["inputs"] = list(self.input_nodes)
        if len(self.output_nodes) > 1:
            found["outputs"] = list(self.output_nodes)
        return found

    def network(self, name: str, input_name: Names, output_name: Names) -> Network:
        """Translate what the outputs depend on.

        Everything as layers of the DPU where that is possible; else with layers of the CPU behind them
        (`float_reading`). Where those would stand between layers of the DPU, the first refusal counts.
        """
        try:
            return self._network(name, input_name, output_name)
        except UserError:
            self.cpu = True
            try:
                network = self._network(name, input_name, output_name)
                fits = only_behind(network)
            except (UserError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                fits = False  # nothing to be read in this way, either: a damaged graph may be anything
            if not fits:
                raise
            return network

    def _network(self, name, input_name, output_name):
        self.output_nodes = output_nodes(self.nodes, output_name, self.where)
        order = ancestors(self.nodes, self.output_nodes, self.where)
        self.input_nodes, self.switches = input_nodes(self.nodes, order, input_name, self.where)
        self.inside = float_reading.inside(self.nodes, order) if self.cpu else set()
        unknown = [
            n
            for n in order
            if self.nodes[n].op == "Placeholder"
            and n not in (*self.input_nodes, *self.switches)
            and self.nodes[n].attr["dtype"].type == DT_BOOL
        ]
        value = self._attempt(order, dict.fromkeys(unknown, np.array(False)))
        if unknown:
            value = self._settled(order, unknown, value)
        if isinstance(value, Failed):
            raise value.error
        outputs = dict(zip(self.output_nodes, (tensor.layer for tensor in value), strict=True))
        layers, ends = unmarked(merge(recognise(marked(reaching(self.layers, outputs.values()), outputs))))
        for layer in layers if not self.cpu else []:
            if layer.op == "sigmoid" and layer.name in ends.values():
                self.fail(self.nodes[layer.name], advice("Sigmoid"))
            if layer.op == "softmax" and any(layer.name in other.inputs for other in layers):
                self.fail(
                    self.nodes[layer.name],
                    "a softmax (or sigmoid) inside the network; only the last op can be one, on the CPU: end "
                    "the graph there (models.NAME.output_node of a frozen graph) or use ReLU",
                )
        by_name = {layer.name: layer for layer in layers}  # whose names get shorter
        given = {end: by_name[source] for end, source in ends.items()}
        layers = shorten_names(layers)
        names = {end: layer.name for end, layer in given.items()}
        return Network(name, layers, names if len(names) > 1 else {})

    def _settled(self, order, unknown, as_false):
        """The output's value with switches whose names say nothing: only inference can be read.

        as_false : the value when they are false.
        """
        as_true = self._attempt(order, dict.fromkeys(unknown, np.array(True)))
        if isinstance(as_true, Failed) and isinstance(as_false, Failed):
            return as_false
        if not isinstance(as_true, Failed) and not isinstance(as_false, Failed):
            self.fail(
                self.nodes[unknown[0]],
                "a switch, and the graph can be read with true and with false; freeze it to the constant "
                "that inference has",
            )
        self.switches |= dict.fromkeys(unknown, np.array(not isinstance(as_true, Failed)))
        return self._attempt(order, {})

    def _attempt(self, order, switches):
        """The outputs' Tensors, or Failed, with these values of the switches on top of the known ones."""
        self._start()
        for node_name in order:
            node = self.nodes[node_name]
            try:
                self.values[node_name] = self._translate(node, self.switches | switches)
            except UserError as error:
                self.values[node_name] = Failed(error)
        try:
            return [self._given(name) for name in self.output_nodes]
        except UserError as error:
            return Failed(error)

    def _given(self, name):
        """The Tensor of an output node; UserError when it has none."""
        node, value = self.nodes[name], self.values[name]
        if isinstance(value, Failed):
            raise value.error
        if not isinstance(value, Tensor):
            raise UserError(f"{self.where}: output node {name!r} does not depend on the input")
        if (value.pad, value.space) != (Tensor("").pad, None):
            self.fail(node, "the output is padded or cut into blocks, and no convolution follows")
        if self.cpu:
            return Tensor(float_reading.plain(self, node, value).name)
        if value.view and math.prod(value.view[1:]) != value.view[-1]:
            self.fail(node, "the output is a reshaped map, not one value for each class")
        return value

    def _translate(self, node, switches):
        """The value of `node`; UserError when it cannot be read."""
        if node.name in self.input_nodes:
            return emit_images(self, node, self.input_shape)
        if node.name in switches:
            return Constant(switches[node.name])
        references = [split_reference(r) for r in node.input if not r.startswith("^")]
        inputs = [self._value_of(node, name, index) for name, index in references]
        if node.op != "Merge" and any(value is DEAD for value in inputs):
            return DEAD
        failed = next((value for value in inputs if isinstance(value, Failed)), None)
        if failed and node.op not in RANDOM:
            return failed
        if self.cpu and (handler := float_reading.HANDLERS.get(node.op)):
            return self._on_either(node, inputs, handler)
        return self._handled(node, inputs)

    def _on_either(self, node, inputs, on_cpu):
        """The value of a node that may be a layer of the DPU or one of the CPU."""
        before = set(self.layers)
        if node.name in self.inside:
            found = self._handled(node, inputs)
            self.of_dpu |= self.layers.keys() - before
            return found
        if node.op in float_reading.ALWAYS or any(
            float_reading.is_float(self.layers, self.of_dpu, value) for value in inputs
        ):
            first, second = on_cpu, None
        else:
            first, second = None, on_cpu
        try:
            return self._handled(node, inputs, first)
        except UserError:
            for name in self.layers.keys() - before:
                del self.layers[name]
            return self._handled(node, inputs, second)

    def _handled(self, node, inputs, on_cpu=None):
        """What `on_cpu`, by default the DPU's handler of the op, makes of a node."""
        handler = on_cpu or HANDLERS.get(node.op)
        if handler is None:
            self.fail(node, advice(node.op))
        least, most = (1, ANY) if on_cpu else INPUTS.get(node.op, (1, 1))
        if not least <= len(inputs) <= most:
            self.fail(
                node, f"has {len(inputs)} inputs; expected {least if least == most else f'{least} or more'}"
            )
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused where it gets into a layer
                return handler(self, node, inputs)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # NumPy checks how shapes, axes and types go together; here its complaint gets the node's name
            self.fail(node, f"its inputs or attributes do not fit each other ({error})")

    def _value_of(self, node, name, index):
        value = self.values[name]
        if value is DEAD or isinstance(value, Failed):
            return value
        if isinstance(value, list):  # one value per output
            if index >= len(value):
                self.fail(node, f"reads output {index} of {name!r}, which has {len(value)}")
            value = value[index]
            index = 0 if value is not None else index
        if index:
            self.fail(
                node, f"reads output {index} of {name!r}, which only training needs; freeze for inference"
            )
        return value
