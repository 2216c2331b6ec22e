"""Compiler `reference`: QuantizedNetwork -> graph in the form of the vendor's compiled files.

data-fix (USER), upload, -fix ops with fused activations in superlayers, download (DPU),
fix2float and softmax (CPU), as docs/reference/xmodel.md describe them, without
machine code and register maps: the constants keep their bytes in the const-fix ops.
"""

from collections.abc import Collection
from math import prod

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import Grid
from dpuflow.base.totality import Total
from dpuflow.compiler import float_ops
from dpuflow.compiler.naming import input_attributes, output_attributes
from dpuflow.compiler.partition import build_tree
from dpuflow.compiler.placement import Placement
from dpuflow.compiler.representable import require_representable
from dpuflow.compiler.resizing import resize_attributes
from dpuflow.compiler.target_check import check
from dpuflow.compiler.workload import dense_on_array, layer_is_augmented, layer_workload, map_shape
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE, stored_bias
from dpuflow.device.targets import Target
from dpuflow.network import QuantizedNetwork, folded_ops
from dpuflow.ops import ACTIVATIONS, kinds
from dpuflow.ops.convolution import weighted
from dpuflow.ops.gating import HardSigmoid
from dpuflow.xir import Graph
from dpuflow.xir.shape_checks import ShapeError

NOTE = (
    "no mc_code: not executable on a board; hand {}.quantized.xmodel to vai_c_xir. "
    "Executable by a CPU reference runner or the emulator."
)
_NONLINEAR = Total(
    "compiler.reference: attribute `nonlinear` of an activation",
    ACTIVATIONS,
    {"NONE": "NONE", "RELU": "RELU", "RELU6": "RELU6", "LEAKYRELU": "LEAKYRELU"},
)
UNUSED = {"hsigmoid_in": -128, "shift_hsigmoid": -128, "shift_hswish": -128}


def lower(
    quantized: QuantizedNetwork,
    target: Target,
    on_cpu: Collection[str] | None = None,
    apart: dict[str, np.ndarray] | None = None,
) -> Graph:
    """Lower a QuantizedNetwork for a `targets.Target`.

    Layers become ops of the same name; activations keep a batch of 1 and four dimensions on
    the DPU, a vector being a 1 x 1 map. Layers beyond the target's limits
    (`target_check.check`), or those named in `on_cpu`, go to CPU subgraphs as the same -fix ops.

    apart : gets the int8 arrays of the const-fix ops by name, which then hold no bytes: for an emulator that
    needs no copy of the weights (`Emulator(graph, constants=apart)`).

    Returns an xir.Graph; UserError names the layer that cannot be represented.
    """
    require_representable(quantized)
    if on_cpu is None:
        on_cpu = {finding.layer for finding in check(quantized, target)}
    return _Lowering(quantized, target, on_cpu, apart).lower()


class _Lowering(Placement):
    def __init__(self, quantized, target, on_cpu, apart):
        super().__init__(quantized.network)
        self.quantized, self.target, self.on_cpu, self.apart = quantized, target, on_cpu, apart
        self.constants = {}  # (layer, number of a segment) -> the op of its value there
        self.floats = {}  # op of integers -> the op that makes floats of them
        self.shaped = {}  # (layer, shape) -> the op of its integers in that shape

    def lower(self) -> Graph:
        for layer in self._ordered():
            try:
                self._lower_layer(layer)
            except ShapeError as error:
                raise UserError(f"layer {layer.name!r} ({layer.op}): {error}") from None
        ends = {name: self._end(layer) for name, layer in self.network.outputs.items()}
        if len(ends) > 1:
            for name, value in output_attributes(self.quantized, ends).items():
                self.graph.attrs[name] = value
        for name, value in input_attributes(self.quantized).items():
            self.graph.attrs[name] = value
        self.graph.attrs["dpuflow_note"] = NOTE.format(self.network.name)
        build_tree(self.graph, self.segments, self.target)
        return self.graph

    def _ordered(self):
        """The layers in an order that changes devices as seldom as may be, else as they stand."""
        ordered = self.network.inputs
        known, here = {layer.name for layer in ordered}, "DPU"
        left = [layer for layer in self.network.layers if layer.op != "input"]
        while left:
            ready = [layer for layer in left if known.issuperset(layer.inputs)]
            at_once = [layer for layer in ready if self._device(layer) == here]
            layer = at_once[0] if at_once else ready[0]
            here = self._device(layer)
            left.remove(layer)
            known.add(layer.name)
            ordered.append(layer)
        return ordered

    def _device(self, layer):
        floats = not layer.operator.quantized or layer.op == "to_grid"
        return "CPU" if layer.name in self.on_cpu or floats else "DPU"

    def _end(self, layer):
        """Name of the op that gives an output in floats."""
        return self._float(layer)

    def _lower_layer(self, layer):
        op = LAYERS[layer.op](self, layer)
        if op is None:
            return
        expected = (1, *map_shape(layer.shape))
        if op.tensor.shape != expected:
            raise ShapeError(f"its output is {list(op.tensor.shape)}, the network says {list(expected)}")
        self.value[layer.name] = op.name

    def _enter(self, layer):
        """Continue on the device of `layer`."""
        self.segment(self._device(layer))

    # -- ops ---------------------------------------------------------------------------------

    def _compute(self, layer, type_, inputs, attrs, tensor_name=None, leaf=None):
        """An -fix op that computes a layer, with its workload."""
        op = self.graph.add_op(layer.name, type_, inputs, attrs, tensor_name)
        self.fixed(op, self.quantized.fix_points[layer.name])
        constants = [name for kind, names in op.inputs.items() if kind != "input" for name in names]
        self.place(op, constants, leaf)
        workload, on_arch = layer_workload(self.network, layer, self.target)
        if workload and op.device == "DPU":
            op.attrs["workload"], op.attrs["workload_on_arch"] = workload, on_arch
        return op

    def _parameters(self, layer, weights_shape=None):
        """{argument: const-fix op} for weights and bias."""
        tables = {"weights": self.quantized.weights, "bias": self.quantized.biases}
        found = {}
        for kind, table in tables.items():
            if layer.name not in table:
                continue
            data, fix_point = table[layer.name]
            if kind == "weights" and weights_shape:
                data = data.reshape(weights_shape)
            if kind == "bias" and self.segments[-1].device == "DPU":
                data = stored_bias(data, self.quantized.shift_bias(layer.name))
            name, data = self.names.unique(f"{layer.name}_{kind}"), np.ascontiguousarray(data, np.int8)
            attrs = {"shape": list(data.shape), "data_type": "XINT8", "data": b""}
            if self.apart is None:
                attrs["data"] = data.tobytes()
            else:
                self.apart[name] = data
            op = self.graph.add_op(name, "const-fix", attrs=attrs, tensor_name=f"{name}_fixneuron")
            # the label that the vendor's compiler puts on parameters; nothing is rounded any more
            self.fixed(op, fix_point, "PY3_ROUND")
            found[kind] = name
        return found

    def _input(self, layer):
        self.segment("USER")
        attrs = {"shape": [1, *layer.shape], "data_type": "XINT8"}
        op = self.graph.add_op(layer.name, "data-fix", attrs=attrs, tensor_name=f"{layer.name}_fix")
        self.place(self.fixed(op, self.quantized.fix_points[layer.name]))
        if len(layer.shape) == 3:
            return op
        self.value[layer.name] = op.name
        self.segment("DPU")
        return self._reshape(layer.name, f"{layer.name}_map", (1, *map_shape(layer.shape)))

    def _conv(self, layer):
        self._enter(layer)
        attrs = {name: list(layer.attrs[name]) for name in ("kernel", "stride", "dilation", "pad")}
        return self._weighted(layer, "conv2d-fix", attrs)

    def _depthwise_conv(self, layer):
        self._enter(layer)
        attrs = {name: list(layer.attrs[name]) for name in ("kernel", "stride", "dilation", "pad")}
        return self._weighted(layer, "depthwise-conv2d-fix", attrs)

    def _transposed(self, layer):
        self._enter(layer)
        attrs = {name: list(layer.attrs[name]) for name in ("kernel", "stride", "dilation", "pad")}
        depthwise = weighted(layer.operator).per_channel
        return self._weighted(layer, f"transposed-{'depthwise-' * depthwise}conv2d-fix", attrs)

    def _dense(self, layer):
        """A convolution whose kernel covers the whole map (docs/reference/xmodel.md), or what it is read
        as."""
        self._enter(layer)
        on_dpu = self.segments[-1].device == "DPU"
        (width, height), channels = dense_on_array(self.network, layer, self.target if on_dpu else None)
        attrs = {"kernel": [width, height], "stride": [1, 1], "dilation": [1, 1], "pad": [0, 0, 0, 0]}
        name, shape = layer.inputs[0], (1, height, width, channels)
        while self.network[name].op == "flatten":
            name = self.network[name].inputs[0]
        source = self.read(name)
        if self.graph.op(source).tensor.shape != shape:
            # the bytes of the map as one of another shape, as the vendor's compiler does it
            source = self._reshape(name, self.names.unique(f"{layer.name}_map"), shape).name
        return self._weighted(layer, "conv2d-fix", attrs, source, (layer.shape[-1], *shape[1:]))

    def _weighted(self, layer, type_, attrs, source=None, weights_shape=None):
        """Convolution of the op `source`, by default of the layer's input."""
        attrs.update(UNUSED, pad_mode="FLOOR", nonlinear=_NONLINEAR[layer.attrs["activation"]])
        if attrs["nonlinear"] == "LEAKYRELU":
            # the vendor's CPU runner dies without it (docs/reference/xmodel.md)
            attrs["LEAKYRELU_alpha"] = LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]
        if type_ == "conv2d-fix":
            attrs["group"] = 1
            if self.segments[-1].device == "DPU" and layer_is_augmented(self.network, layer, self.target):
                attrs["channel_augmentation"] = 1
        source = source or self.read(layer.inputs[0])
        inputs = {"input": [source], **self._parameters(layer, weights_shape)}
        return self._compute(layer, type_, inputs, attrs, f"{layer.name}_fix")

    def _max_pool(self, layer):
        return self._pool(layer, "MAX")

    def _avg_pool(self, layer):
        return self._pool(layer, "AVG")

    def _avg_pool_inside(self, layer):
        """With an attribute that XIR's op does not have: its own divisor at the border."""
        op = self._pool(layer, "AVG")
        op.attrs["count_include_pad"] = False
        return op

    def _pool(self, layer, type_):
        """A pool shares the superlayer of the convolution that only it reads."""
        self._enter(layer)
        source = self.read(layer.inputs[0])
        attrs = {name: list(layer.attrs[name]) for name in ("kernel", "stride", "pad")}
        leaf = None
        alone = self.network.readers(layer.inputs[0]) == 1
        if alone and self.graph.op(source).type == "conv2d-fix" and self.segments[-1].device == "DPU":
            leaf = self.segments[-1].leaf_of(source)
        inputs = {"input": [source]}
        return self._compute(layer, "pool-fix", inputs, {**attrs, "type": type_}, leaf=leaf)

    def _add(self, layer):
        self._enter(layer)
        inputs = {"input": [self.read(name) for name in layer.inputs]}
        attrs = {"nonlinear": _NONLINEAR[layer.attrs["activation"]], "type": "ADD"}
        return self._compute(layer, "eltwise-fix", inputs, attrs)

    def _hard_sigmoid(self, layer):
        self._enter(layer)
        fix_in, fix_out = (self.quantized.fix_points[name] for name in (layer.inputs[0], layer.name))
        attrs = {"hsigmoid_in": fix_in, "shift_hsigmoid": HardSigmoid.shift(fix_in, fix_out)}
        return self._compute(layer, "hard-sigmoid-fix", {"input": [self.read(layer.inputs[0])]}, attrs)

    def _multiply(self, layer):
        """eltwise-fix of two maps, depthwise-fix of a map and one factor per channel."""
        self._enter(layer)
        inputs = {"input": [self.read(name) for name in layer.inputs]}
        sizes = {prod(self.network[name].shape) for name in layer.inputs}
        if len(sizes) == 1:
            return self._compute(layer, "eltwise-fix", inputs, {"nonlinear": "NONE", "type": "MUL"})
        return self._compute(layer, "depthwise-fix", inputs, {"type": "MUL"})

    def _pixel_shuffle(self, layer):
        """With `upscale` and with `reverse`, as XIR calls it in the compiled form."""
        self._enter(layer)
        attrs = {**layer.attrs, "reverse": layer.attrs["upscale"]}
        return self._compute(layer, "pixel-shuffle-fix", {"input": [self.read(layer.inputs[0])]}, attrs)

    def _concat(self, layer):
        self._enter(layer)
        inputs = {"input": [self.read(name) for name in layer.inputs]}
        axis = layer.attrs["axis"] if len(layer.shape) == 3 else 3
        return self._compute(layer, "concat-fix", inputs, {"axis": axis})

    def _resize(self, layer, type_, attrs):
        self._enter(layer)
        return self._compute(layer, type_, {"input": [self.read(layer.inputs[0])]}, attrs)

    def _upsample(self, layer):
        return self._resize(layer, "upsample-fix", resize_attributes(layer, self.network))

    def _downsample(self, layer):
        return self._resize(layer, "downsample-fix", resize_attributes(layer, self.network))

    def _flatten(self, layer):
        """No op where a dense layer or the output reshapes anyway."""
        readers = {reader.op for reader in self.network.consumers(layer.name)}
        if readers <= {"dense", "softmax", "flatten"}:
            return None
        self._enter(layer)
        return self._reshape(layer.inputs[0], layer.name, (1, *map_shape(layer.shape)))

    def _reshape(self, layer_name, name, shape):
        source = self.read(layer_name)
        op = self.graph.add_op(name, "reshape-fix", {"input": source}, {"shape": list(shape)})
        self.fixed(op, self.graph.op(source).tensor.fix_point)
        return self.place(op, attrs={"skip_code_gen": True})

    # -- output ------------------------------------------------------------------------------

    def _on_cpu(self, layer):
        """An op of the CPU's, on floats; a constant is written where it is read."""
        if layer.operator.holds_value:
            return
        type_, attrs = float_ops.OPS[layer.op](layer)
        inputs = [self._float(self.network[name]) for name in layer.inputs]
        self.segment("CPU")
        op = self.place(self.graph.add_op(layer.name, type_, {"input": inputs}, attrs))
        if op.tensor.shape != (1, *layer.shape):
            raise ShapeError(f"its output is {list(op.tensor.shape)}, the network says {[1, *layer.shape]}")
        self.value[layer.name] = op.name

    def _float(self, layer):
        """Name of the op on the CPU that gives a layer's tensor in floats."""
        if layer.operator.quantized:
            return self._float_output(layer, layer)
        if not layer.operator.holds_value:
            return self.value[layer.name]
        here = self.segment("CPU")
        if (layer.name, id(here)) not in self.constants:
            name = layer.name if layer.name not in self.graph else self.names.unique(layer.name)
            op = self.place(self.graph.add_op(name, "const", attrs=float_ops.constant(layer)))
            self.constants[layer.name, id(here)] = op.name
        return self.constants[layer.name, id(here)]

    def _to_grid(self, layer):
        """float2fix on the CPU; what reads it on the DPU takes it in by an upload."""
        source, shape = self._float(self.network[layer.inputs[0]]), (1, *map_shape(layer.shape))
        self.segment("CPU")
        if self.graph.op(source).tensor.shape != shape:
            name = self.names.unique(f"{layer.name}_map")
            source = self.place(
                self.graph.add_op(name, "reshape", {"input": source}, {"shape": list(shape)})
            ).name
        attrs = Grid(self.quantized.fix_points[layer.name]).attributes()
        op = self.graph.add_op(layer.name, "float2fix", {"input": source}, attrs)
        return self.place(self.fixed(op, self.quantized.fix_points[layer.name]))

    def _float_output(self, layer, reader):
        """[1, N] or [1, H, W, C] floats of `layer` on the CPU; returns the fix2float op's name."""
        source, shape = self.unflattened(layer.name), (1, *reader.shape)
        # the layer's own value stays the map, which later layers read
        seen = self.shaped.get((source, shape), source)
        home = self.home[self.value[seen]]
        fits = self.graph.op(self.value[seen]).tensor.shape == shape
        if not fits and (home.device == "CPU" or home is self.segments[-1]):
            seen = self._reshape(source, self.names.unique(f"{source}_reshaped"), shape).name
            self.value[seen], self.shaped[source, shape], fits = seen, seen, True
        self.segment("CPU")
        op = self.read(seen)
        if op not in self.floats:
            attrs = Grid(self.graph.op(op).tensor.fix_point).attributes()
            name = self.names.unique(f"{source}_fix2float")
            self.floats[op] = self.place(self.graph.add_op(name, "fix2float", {"input": op}, attrs)).name
        if fits:
            return self.floats[op]
        name = self.names.unique(f"{source}_reshaped")
        attrs = {"shape": list(shape)}
        return self.place(self.graph.add_op(name, "reshape", {"input": self.floats[op]}, attrs)).name


LAYERS = Total(
    "compiler.reference: ops of a layer",
    folded_ops,
    {
        "input": _Lowering._input,
        "conv": _Lowering._conv,
        "depthwise_conv": _Lowering._depthwise_conv,
        "dense": _Lowering._dense,
        **dict.fromkeys(("transposed_conv", "transposed_depthwise_conv"), _Lowering._transposed),
        "max_pool": _Lowering._max_pool,
        "avg_pool": _Lowering._avg_pool,
        "avg_pool_inside": _Lowering._avg_pool_inside,
        "add": _Lowering._add,
        "hard_sigmoid": _Lowering._hard_sigmoid,
        "multiply": _Lowering._multiply,
        "pixel_shuffle": _Lowering._pixel_shuffle,
        "concat": _Lowering._concat,
        "upsample": _Lowering._upsample,
        "resize_bilinear": _Lowering._upsample,
        "downsample": _Lowering._downsample,
        "flatten": _Lowering._flatten,
        "to_grid": _Lowering._to_grid,
        **dict.fromkeys(kinds(lambda operator: not operator.quantized), _Lowering._on_cpu),
    },
)
