"""`quantize_eval_model.pb`: the quantized network as a GraphDef for stock TensorFlow, 1.15 and later.

Every activation is a float tensor of whole numbers in [-128, 127]; rounding and
saturation are Floor and ClipByValue, so the graph's integers equal the emulator's
(docs/reference/numerics.md). float32 sums are exact below 2**24; what may exceed that
is added in float64 (`eval_weighted`). Only ops and attributes of TensorFlow 1.15 occur, and attributes
that equal their default are left out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.numerics import INT8_MIN
from dpuflow.base.pixels import network_gain
from dpuflow.base.protobuf_seal import sealed_file
from dpuflow.base.totality import Total
from dpuflow.device.dpuczdx8g import HARD_SIGMOID_FACTOR, average_pool_factor
from dpuflow.network import WEIGHTED, Layer, QuantizedNetwork, folded_ops
from dpuflow.ops import kinds
from dpuflow.ops.arithmetic import EXACT_FLOAT32
from dpuflow.ops.gating import HardSigmoid
from dpuflow.ops.pooling import AveragePool, InsideAveragePool
from dpuflow.ops.rearranging import shuffled
from dpuflow.quantize import eval_resampling
from dpuflow.quantize.eval_weighted import WeightedNodes
from dpuflow.tfgraph import float_nodes
from dpuflow.tfgraph.graph_def import (
    DT_DOUBLE,
    DT_FLOAT,
    add_constant,
    add_node,
    encoded,
    message,
    new_graph,
)

SCOPE = "quantized"
LOGITS_INT8 = f"{SCOPE}/logits_int8"
LOGITS = f"{SCOPE}/logits"


def write_eval_graph(
    path: Path | str,
    quantized: QuantizedNetwork,
    output_node: str | Mapping[str, str] = f"{SCOPE}/output",
) -> dict[str, Any]:
    """Write the evaluation graph; returns its node names: {"input", "output"}, and more.

    Input: float32 placeholder of the frozen graph's name and shape, already scaled
    ((pixel - subtract) / divide). Output: what the network gives in real units, under the name
    `output_node` (the frozen graph's, so that what runs the one runs the other); of several, each under
    {output's name: node}, or its own name. Where the output is the logits or their softmax:
    "logits_int8" and "logits", too; of several ends "inputs" (list) and "outputs" {output's name: node}.
    """
    with sealed_file(path) as write:
        writer = GraphWriter(quantized, output_node, write)
        names = writer.build()
        write(encoded(writer.graph))
        write(encoded(new_graph()))
    return names


class GraphWriter(WeightedNodes):
    """Emits the nodes of one QuantizedNetwork.

    Attributes
    ----------
    graph : the nodes since the last layer's were given to `write`: in memory are the weights of one layer.
    constants : of the CPU, by their nodes' names: what reads them looks at them.
    """

    def __init__(
        self,
        quantized: QuantizedNetwork,
        output_node: str | Mapping[str, str],
        write: Callable[[bytes], None],
    ) -> None:
        super().__init__(quantized)
        self.write = write
        nodes: Mapping[str, str] = {} if isinstance(output_node, str) else output_node
        self.output_nodes = nodes
        self.output_node = output_node if isinstance(output_node, str) else next(iter(output_node.values()))
        self.reals: dict[str, str] = {}
        self.constants: dict[str, Any] = {}

    def build(self) -> dict[str, Any]:
        """Emit every layer; returns the names of input and outputs."""
        network = self.quantized.network
        outputs, last = network.outputs, network.last_quantized
        simple = len(outputs) == 1 and all(o.op == "softmax" or o is last[0] for o in outputs.values())
        first = next(iter(outputs.values()))
        simple = simple and len(last) == 1 and self._ends_in_logits(first, last[0])
        for layer in network.layers:
            if not (simple and layer is first and layer.op == "softmax"):  # which gets its node last
                self.tensors[layer.name] = LAYERS[layer.op](self, layer, f"{SCOPE}/{layer.name}")
                self.write(encoded(self.graph))
                self.graph = message("GraphDef")()
        if simple:
            return self._logits()
        names: dict[str, Any] = {"input": network.inputs[0].name, "output": self.output_node, "outputs": {}}
        if len(network.inputs) > 1:
            names["inputs"] = [layer.name for layer in network.inputs]
        for end, layer in outputs.items():
            node = self.output_node if len(outputs) == 1 else self.output_nodes.get(end, end)
            if node in [layer.name for layer in network.inputs]:  # which is a node already
                node = f"{node}/output"
            add_node(self.graph, "Identity", node, [self.real(layer.name)], T=("type", DT_FLOAT))
            names["outputs"][end] = node
        names["output"] = next(iter(names["outputs"].values()))
        return names

    def real(self, name: str) -> str:
        """The node that holds a layer's output in real numbers."""
        if name not in self.reals:
            fix_point = self.quantized.fix_points.get(name)
            node = self.tensors[name]
            if fix_point is not None:
                node = self._binary("Mul", f"{SCOPE}/{name}/real", node, 2.0**-fix_point)
            self.reals[name] = node
        return self.reals[name]

    @staticmethod
    def _ends_in_logits(output: Layer, logits: Layer) -> bool:
        return output is logits or output.inputs == [logits.name]

    def _logits(self) -> dict[str, Any]:
        """Output of a classifier: its logits, or their softmax."""
        network = self.quantized.network
        last = network.output
        logits = network[last.inputs[0]] if last.op == "softmax" else last
        add_node(self.graph, "Identity", LOGITS_INT8, [self.tensors[logits.name]], T=("type", DT_FLOAT))
        self._binary("Mul", LOGITS, LOGITS_INT8, 2.0 ** -self.quantized.fix_points[logits.name])
        names: dict[str, Any] = {
            "input": network.inputs[0].name,
            "logits_int8": LOGITS_INT8,
            "logits": LOGITS,
            "output": self.output_node,
        }
        if len(network.inputs) > 1:
            names["inputs"] = [layer.name for layer in network.inputs]
        op = "Softmax" if last.op == "softmax" else "Identity"
        add_node(self.graph, op, self.output_node, [LOGITS], T=("type", DT_FLOAT))
        return names

    # -- layers ------------------------------------------------------------------------------

    def _input(self, layer: Layer, scope: str) -> str:
        shape = ("shape", [-1, *layer.shape])
        add_node(self.graph, "Placeholder", layer.name, dtype=("type", DT_FLOAT), shape=shape)
        # float64, because float32 would round 0.49999997 + 0.5 up to 1
        x = self._cast(f"{scope}/double", layer.name, DT_FLOAT, DT_DOUBLE)
        scale = 2.0 ** self.quantized.fix_points[layer.name] * network_gain(self.quantized.input_scaling)
        x = self._binary("Mul", f"{scope}/scale", x, scale, DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE)

    def _max_pool(self, layer: Layer, scope: str) -> str:
        x = self.tensors[layer.inputs[0]]
        in_shape = self.quantized.network[layer.inputs[0]].shape
        x, padding = self._padded(scope, layer, x, DT_FLOAT, in_shape, INT8_MIN)
        (kw, kh), (sw, sh) = layer.attrs["kernel"], layer.attrs["stride"]
        x = add_node(
            self.graph, "MaxPool", f"{scope}/MaxPool", [x],
            T=("type", DT_FLOAT), ksize=[1, kh, kw, 1], strides=[1, sh, sw, 1], padding=padding,
        )  # fmt: skip
        return self._requantized(scope, x, layer.inputs[0], layer.name)

    def _avg_pool(self, layer: Layer, scope: str) -> str:
        """Window sums by a convolution with ones: AvgPool itself would round in float32."""
        kw, kh = layer.attrs["kernel"]
        multiplier, shift = average_pool_factor(kh, kw)
        operator = layer.operator
        assert isinstance(operator, AveragePool)  # by the table's row
        dtype = DT_DOUBLE if operator.needs_float64() else DT_FLOAT
        x = self._window_sums(layer, scope, dtype)
        exponent = self.quantized.fix_points[layer.name] - self.quantized.fix_points[layer.inputs[0]] - shift
        x = self._binary("Mul", f"{scope}/factor", x, multiplier * 2.0**exponent, dtype)
        return self._round_and_saturate(scope, x, dtype)

    def _avg_pool_inside(self, layer: Layer, scope: str) -> str:
        """Window sums, each times the factor of its pixels inside the map."""
        operator, fixes = layer.operator, self.quantized.fix_points
        assert isinstance(operator, InsideAveragePool)  # by the table's row
        x = self._window_sums(layer, scope, DT_DOUBLE)
        factors = operator.factors(self.quantized.network[layer.inputs[0]].shape)
        step = 2.0 ** (fixes[layer.name] - fixes[layer.inputs[0]])
        x = self._binary("Mul", f"{scope}/factor", x, factors * step, DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE)

    def _window_sums(self, layer: Layer, scope: str, dtype: int) -> str:
        (kw, kh), channels = layer.attrs["kernel"], layer.shape[-1]
        sums = DT_FLOAT if 128 * kh * kw < EXACT_FLOAT32 else dtype
        x = self._cast(f"{scope}/double", self.tensors[layer.inputs[0]], DT_FLOAT, sums)
        if (kh, kw) == self.quantized.network[layer.inputs[0]].shape[:2] and not any(layer.attrs["pad"]):
            axes = add_constant(self.graph, f"{scope}/axes", np.array([1, 2], np.int32))
            x = add_node(self.graph, "Sum", f"{scope}/Sum", [x, axes], T=("type", sums), keep_dims=True)
        else:
            x = self._depthwise(layer, scope, x, np.ones((1, kh, kw, channels), np.int8), sums)
        return self._cast(f"{scope}/sums", x, sums, dtype)

    def _add(self, layer: Layer, scope: str) -> str:
        fixes = [self.quantized.fix_points[name] for name in layer.inputs]
        lowest, fix = min(fixes), self.quantized.fix_points[layer.name]
        total = ""
        for k, (name, fix_in) in enumerate(zip(layer.inputs, fixes, strict=True)):
            x, scale = self.tensors[name], 2.0 ** (fix - fix_in)
            if fix_in - lowest > 7:  # finer than the sum's last bit
                x = self._binary("Mul", f"{scope}/{k}/cut", x, 2.0 ** (7 - (fix_in - lowest)))
                x = add_node(self.graph, "Floor", f"{scope}/{k}/floor", [x], T=("type", DT_FLOAT))
                scale = 2.0 ** (fix - lowest - 7)
            if scale != 1:
                x = self._binary("Mul", f"{scope}/{k}/scale", x, scale)
            total = (
                add_node(self.graph, "Add", f"{scope}/sum{k}", [total, x], T=("type", DT_FLOAT)) if k else x
            )
        double = layer.attrs["activation"] == "LEAKYRELU"
        dtype = DT_DOUBLE if double else DT_FLOAT
        total = self._cast(f"{scope}/double", total, DT_FLOAT, dtype)
        return self._finish(scope, total, dtype, layer.attrs["activation"], fix)

    def _hard_sigmoid(self, layer: Layer, scope: str) -> str:
        """In float64: the line's offset may have more bits than float32."""
        fix_in, fix = (self.quantized.fix_points[name] for name in (layer.inputs[0], layer.name))
        factor = HARD_SIGMOID_FACTOR[0]
        x = self._cast(f"{scope}/double", self.tensors[layer.inputs[0]], DT_FLOAT, DT_DOUBLE)
        x = self._binary("Mul", f"{scope}/slope", x, factor, DT_DOUBLE)
        x = self._binary("Add", f"{scope}/offset", x, 3 * factor * 2.0**fix_in, DT_DOUBLE)
        x = self._binary("Mul", f"{scope}/shift", x, 2.0 ** -HardSigmoid.shift(fix_in, fix), DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE, low=0)

    def _multiply(self, layer: Layer, scope: str) -> str:
        tensors = []
        for k, name in enumerate(layer.inputs):
            x, shape = self.tensors[name], self.quantized.network[name].shape
            if len(shape) < len(layer.shape):
                over_map = add_constant(
                    self.graph, f"{scope}/{k}/shape", np.array([-1, 1, 1, *shape], np.int32)
                )
                x = add_node(self.graph, "Reshape", f"{scope}/{k}", [x, over_map], T=("type", DT_FLOAT))
            tensors.append(x)
        x = add_node(self.graph, "Mul", f"{scope}/product", tensors, T=("type", DT_FLOAT))
        shift = sum(self.quantized.fix_points[name] for name in layer.inputs)
        shift -= self.quantized.fix_points[layer.name]
        x = self._binary("Mul", f"{scope}/shift", x, 2.0**-shift)
        return self._round_and_saturate(scope, x, DT_FLOAT)

    def _pixel_shuffle(self, layer: Layer, scope: str) -> str:
        """Reshape, Transpose, Reshape: DepthToSpace has another order of channels."""
        cut, order = shuffled(layer.attrs["scale"], layer.attrs["upscale"], layer.shape)
        source = layer.inputs[0]
        x = self._requantized(scope, self.tensors[source], source, layer.name)
        for name, shape in (("cut", cut), ("joined", layer.shape)):
            constant = add_constant(self.graph, f"{scope}/{name}/shape", np.array([-1, *shape], np.int32))
            x = add_node(self.graph, "Reshape", f"{scope}/{name}", [x, constant], T=("type", DT_FLOAT))
            if name == "cut":
                constant = add_constant(self.graph, f"{scope}/order", np.array(order, np.int32))
                x = add_node(self.graph, "Transpose", f"{scope}/moved", [x, constant], T=("type", DT_FLOAT))
        return x

    def _concat(self, layer: Layer, scope: str) -> str:
        parts = [
            self._requantized(f"{scope}/{k}", self.tensors[name], name, layer.name)
            for k, name in enumerate(layer.inputs)
        ]
        axis = add_constant(self.graph, f"{scope}/axis", np.asarray(layer.attrs["axis"], np.int32))
        return add_node(
            self.graph, "ConcatV2", f"{scope}/concat", [*parts, axis], N=len(parts), T=("type", DT_FLOAT)
        )

    def _to_grid(self, layer: Layer, scope: str) -> str:
        # float64, because float32 would round 0.49999997 + 0.5 up to 1
        x = self._cast(f"{scope}/double", self.tensors[layer.inputs[0]], DT_FLOAT, DT_DOUBLE)
        x = self._binary("Mul", f"{scope}/scale", x, 2.0 ** self.quantized.fix_points[layer.name], DT_DOUBLE)
        return self._round_and_saturate(scope, x, DT_DOUBLE)

    def _on_cpu(self, layer: Layer, scope: str) -> str:
        reals = [self.real(name) for name in layer.inputs]
        begin, nodes = len(self.graph.node), self.graph.node
        looked_at = [self.constants[real] for real in dict.fromkeys(reals) if real in self.constants]
        nodes.extend(looked_at)
        made = float_nodes.NODES[layer.op](self.graph, layer, scope, reals)
        del nodes[begin : begin + len(looked_at)]  # which are written already
        if layer.op == "constant":
            self.constants[made] = next(node for node in nodes if node.name == made)
        return made

    def _flatten(self, layer: Layer, scope: str) -> str:
        shape = add_constant(self.graph, f"{scope}/shape", np.array([-1, layer.shape[0]], np.int32))
        return add_node(
            self.graph,
            "Reshape",
            f"{scope}/Reshape",
            [self.tensors[layer.inputs[0]], shape],
            T=("type", DT_FLOAT),
        )


LAYERS = Total(
    "quantize.eval_graph: nodes of a layer",
    folded_ops,
    {
        **dict.fromkeys(WEIGHTED, GraphWriter._weighted),
        "input": GraphWriter._input,
        "max_pool": GraphWriter._max_pool,
        "avg_pool": GraphWriter._avg_pool,
        "avg_pool_inside": GraphWriter._avg_pool_inside,
        "upsample": eval_resampling.picked,
        "downsample": eval_resampling.picked,
        "resize_bilinear": eval_resampling.bilinear,
        "add": GraphWriter._add,
        "hard_sigmoid": GraphWriter._hard_sigmoid,
        "multiply": GraphWriter._multiply,
        "pixel_shuffle": GraphWriter._pixel_shuffle,
        "concat": GraphWriter._concat,
        "flatten": GraphWriter._flatten,
        "to_grid": GraphWriter._to_grid,
        **dict.fromkeys(kinds(lambda operator: not operator.quantized), GraphWriter._on_cpu),
    },
)
