"""An ONNX model -> `dpuflow.network.Network`.

The folded graph (`graph`) is walked once; each node becomes a layer, or only changes how the values behind it
are seen (`axes`). Affine layers and choices of channels merge as those of other origins do
(`network.merging`); folding proper is the quantizer's.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.memory_limit import bounded_memory
from dpuflow.network import Layer, Network, marked, reaching, unmarked
from dpuflow.network.devices import only_behind
from dpuflow.network.gates import recognise
from dpuflow.network.merging import merge
from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph import float_nodes
from dpuflow.onnx_graph.graph import VIEWS, Graph, Node, folded
from dpuflow.onnx_graph.model_file import OpenedModel, legal_name
from dpuflow.onnx_graph.node_translation import HANDLERS, advice
from dpuflow.onnx_graph.values import NO_PAD, Constant, Tensor, Value, flattened

MAX_ELEMENTS = 2**31
"""Values of one feature map: more cannot be addressed on a DPU (`xir.validate.MAX_ELEMENTS`)."""
INPUT = "input"
"""Name of the input layer where the model's own cannot be one."""


@dataclass(frozen=True)
class Layout:
    """Where ONNX's values of an output stand in the network's.

    Attributes
    ----------
    shape : of the network's layer, maps (H, W, C). places : for each value in ONNX's order its place in the
        layer's flattened output; None: the same. pair : ONNX has one sigmoid, the network two classes.
    """

    shape: tuple[int, ...]
    places: np.ndarray | None = None
    pair: bool = False

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """ONNX's values (N, ...) as the network's, (N, *shape) float32."""
        values = values.reshape(len(values), -1).astype(np.float32, copy=False)
        if self.pair:
            values = np.concatenate([1 - values, values], axis=1)
        if self.places is not None:
            arranged = np.empty_like(values)
            arranged[:, self.places] = values
            values = arranged
        return values.reshape(len(values), *self.shape)


def read_onnx(opened: OpenedModel, image_shape: tuple[int, int, int], name: str) -> Network:
    """The Network of an opened model, unfolded; UserError for what the DPU path does not know."""
    return read_onnx_and_layouts(opened, image_shape, name)[0]


def read_onnx_and_layouts(
    opened: OpenedModel, image_shape: tuple[int, int, int], name: str
) -> tuple[Network, dict[str, Layout]]:
    """As `read_onnx`, and {output's name: Layout}."""
    with bounded_memory(opened.path, opened.model.ByteSize()):
        reader = ModelReader(folded(opened), image_shape)
        network = reader.network(name)
    return network, reader.layouts


class ModelReader:
    """State of one reading: `values.Reader` says what handlers may ask."""

    def __init__(self, graph: Graph, image_shape: tuple[int, int, int]) -> None:
        self.graph, self.image_shape = graph, image_shape
        self.where, self.opset, self.outputs = graph.where, graph.opset, graph.outputs
        self.cpu = False
        """Whether layers of the CPU may stand behind those of the DPU."""
        self._start()

    def _start(self) -> None:
        """Begin the reading (again)."""
        self.layouts: dict[str, Layout] = {}
        self.layers: dict[str, Layer] = {}
        self.values: dict[str, Value] = {
            name: Constant(array) for name, array in self.graph.constants.items()
        }
        self.unknown: Node | None = None
        """A node that nothing here can read."""
        self._made: dict[Any, Layer] = {}
        self._inside = float_nodes.inside(self.graph.nodes, HANDLERS) if self.cpu else set()
        self._of_dpu: set[str] = set()
        """Layers of nodes that the DPU must compute, because more of the DPU follows."""

    # -- what handlers ask -----------------------------------------------------------------

    def fail(self, node: Node, problem: str) -> NoReturn:
        """Raise the UserError that names the file, the node and its operator."""
        raise UserError(f"{self.where}: node {node.name!r} (op {node.op}): {problem}")

    def emit(
        self,
        node: Node,
        op: str,
        inputs: Iterable[str],
        shape: Iterable[int],
        weights: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        suffix: str = "",
        **attrs: Any,
    ) -> Layer:
        """Append a layer that `node` computes; suffix : where it computes more than one."""
        shape = tuple(int(n) for n in shape)
        if not 0 < math.prod(shape) < MAX_ELEMENTS or min(shape, default=0) < 1:
            self.fail(node, f"its output would have the impossible shape {shape}")
        for values in (weights, bias):
            if values is not None and not np.isfinite(values).all():
                self.fail(node, "its constants are not finite (NaN or infinity)")
        name = self._free(f"{_short(node)}/{suffix}" if suffix else _short(node))
        layer = Layer(name, op, list(inputs), shape, attrs, weights, bias)
        self.layers[name] = layer
        return layer

    def _free(self, name):
        """`name`, or with a number behind it where it is taken."""
        number, free = 1, name
        while free in self.layers:
            number += 1
            free = f"{name}_{number}"
        return free

    def once(self, key: Any, make: Callable[[], Layer]) -> Layer:
        """make(), once for each key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def shape(self, node: Node, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor, the batch (1) first."""
        if tensor not in self.graph.shapes:
            self.fail(
                node, "the shape of its output depends on more than the input's size; export with fixed sizes"
            )
        return self.graph.shapes[tensor]

    def only_viewed(self, tensor: str) -> bool:
        """Whether a tensor is an output, or is only seen with other axes until there."""
        while tensor not in self.outputs.values():
            readers = [node for node in self.graph.nodes if tensor in node.inputs]
            if len(readers) != 1 or readers[0].op not in VIEWS:
                return False
            tensor = readers[0].outputs[0]
        return True

    # -- walking ---------------------------------------------------------------------------

    def network(self, name: str) -> Network:
        """Translate all nodes.

        Everything as layers of the DPU where that is possible; else with layers of the CPU behind them
        (`float_nodes`). Where those would stand between layers of the DPU, the first refusal counts.
        """
        try:
            return self._network(name)
        except UserError:
            self.cpu = True
            try:
                self._start()
                network = self._network(name)
                fits = only_behind(network)
            except UserError:
                if self.unknown is not None:
                    raise  # the node that the network must end in front of
                fits = False
            if not fits:
                raise
            return network

    def _network(self, name):
        self._input()
        for node in self.graph.nodes:
            self._translate(node)
        ends = {output: self._end(output, tensor).name for output, tensor in self.outputs.items()}
        layers, ends = unmarked(merge(recognise(marked(reaching(self.layers, ends.values()), ends))))
        return Network(name, layers, ends if len(ends) > 1 else {})

    def _input(self):
        node = Node(INPUT, "Input", [], [self.graph.input])
        name = legal_name(self.graph.input) or INPUT
        layer = self.layers[name] = Layer(name, "input", [], tuple(self.image_shape))
        order = (2, 0, 1) if self.graph.order is None else self.graph.order
        axes = algebra.whole(layer.shape, order)
        if self.graph.order is None:  # grey images, flat or without the axis of the channel
            axes = algebra.reshaped(axes, self.shape(node, self.graph.input)[1:])
        self.values[self.graph.input] = Tensor(name, axes)

    def _translate(self, node):
        inputs = [self.values[name] if name else None for name in node.inputs]
        on_dpu, on_cpu = HANDLERS.get(node.op), float_nodes.HANDLERS.get(node.op) if self.cpu else None
        if on_dpu is None and on_cpu is None:
            self.unknown = node
            self.fail(node, advice(node.op))
        handlers = [on_dpu, on_cpu]
        if on_dpu is not None and self._inside.intersection(node.outputs):
            handlers = [on_dpu]
        elif node.op not in VIEWS and any(map(self._is_float, inputs)):
            handlers = [on_cpu, on_dpu]
        first, *second = [handler for handler in handlers if handler is not None]
        self._try(node, inputs, first, second)
        if self._inside.intersection(node.outputs):
            self._of_dpu.update(self.layers)

    def _try(self, node, inputs, first, second):
        """`first`, else what is in `second`."""
        layers, made = dict(self.layers), dict(self._made)
        try:
            self._handled(node, inputs, first)
        except UserError:
            if not second:
                raise
            self.layers, self._made = layers, made
            self._handled(node, inputs, *second)

    def _is_float(self, value):
        return float_nodes.is_float(self.layers, self._of_dpu, value)

    def _handled(self, node, inputs, handler):
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused where it gets into a layer
                found = handler(self, node, inputs)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # NumPy checks how shapes, axes and types go together; here its complaint gets the node's name
            self.fail(node, f"its inputs or attributes do not fit each other ({error})")
        results = found if isinstance(found, list) else [found]
        for tensor, value in zip(node.outputs, results, strict=False):
            self._check_shape(node, tensor, value)
            self.values[tensor] = value

    def _check_shape(self, node, tensor, value):
        """What was read must have the shape that ONNX's own inference found."""
        known = self.graph.shapes.get(tensor)
        if known is None or not isinstance(value, Tensor) or value.pad != NO_PAD:
            return
        if known != (1, *algebra.sizes(value.axes)) and tensor not in self.outputs.values():
            self.fail(
                node, f"was read with the shape (1, {algebra.sizes(value.axes)}), and ONNX gives it {known}"
            )

    def _end(self, output, tensor):
        """The layer of an output: a vector, or a map whose values ONNX may see with other axes."""
        node = next(node for node in self.graph.nodes[::-1] if tensor in node.outputs)
        value = self.values[tensor]
        if not isinstance(value, Tensor):
            self.fail(node, f"the output {tensor!r} does not depend on the input")
        if value.pad != NO_PAD:
            self.fail(node, "the output is padded, and no convolution follows")
        if sum(bool(axis) for axis in value.axes) > 1:
            return self._map_end(output, node, value)
        flat = flattened(self, node, value)
        layer = self.layers[flat.layer]
        if not algebra.has_whole(tuple(atom for axis in flat.axes for atom in axis), layer.shape, 0):
            self.fail(node, "the output's values stand in another order than the layer's")
        known = self.graph.shapes.get(tensor, ())
        pair = layer.shape == (2,) and bool(known) and math.prod(known) == 1
        self.layouts[output] = Layout(layer.shape, pair=pair)
        return layer

    def _map_end(self, output, node, value):
        layer = self.layers[value.layer]
        places = algebra.positions(value.axes, layer.shape)
        if not np.array_equal(np.sort(places), np.arange(math.prod(layer.shape))):
            self.fail(
                node,
                f"the output has the axes {algebra.sizes(value.axes)}, which are not all values of one layer "
                "in some order; name other tensors (models.NAME.output_node)",
            )
        same = np.array_equal(places, np.arange(len(places)))
        self.layouts[output] = Layout(layer.shape, None if same else places)
        return layer


def _short(node):
    """Name of a node's layer: its path without the operator that exporters put at the end."""
    path = legal_name(node.name) or legal_name(node.outputs[0]) or "layer"
    scope, _, last = path.rpartition("/")
    return scope if scope and re.fullmatch(rf"{node.op}(_\d+)?", last) else path
