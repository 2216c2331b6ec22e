"""QuantizedNetwork -> the quantized, uncompiled graph that the vendor's compiler takes.

Float ops with fake quantisation: a `fix` op behind every constant, the input and every
quantized activation, parameters as float32 values on the grid (docs/reference/xmodel.md).
"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import Grid
from dpuflow.base.totality import Total
from dpuflow.compiler import float_ops
from dpuflow.compiler.naming import Names, input_attributes, output_attributes
from dpuflow.compiler.representable import require_representable
from dpuflow.compiler.resizing import resize_attributes
from dpuflow.compiler.workload import map_shape
from dpuflow.device.dpuczdx8g import HARD_SIGMOID_FACTOR, LEAKY_RELU_SLOPE, average_pool_factor
from dpuflow.network import QuantizedNetwork, folded_ops
from dpuflow.ops import ACTIVATIONS, kinds
from dpuflow.ops.pooling import InsideAveragePool
from dpuflow.xir import Graph
from dpuflow.xir.shape_checks import ShapeError

_ACTIVATIONS = Total(
    "compiler.quantized_graph: type and attributes of the op of an activation (None: no op)",
    ACTIVATIONS,
    {
        "NONE": None,
        "RELU": ("relu", {}),
        "RELU6": ("relu6", {}),
        "LEAKYRELU": ("leaky-relu", {"alpha": LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]}),
    },
)


def quantized_graph(quantized: QuantizedNetwork) -> Graph:
    """xir.Graph with one op per layer, named after it, plus constants, activations and `fix` ops.

    Exact against the integer form.
    UserError names the layer that cannot be represented.
    """
    require_representable(quantized)
    return _Builder(quantized).build()


def _real(data: np.ndarray, fix_point: int) -> np.ndarray:
    """int8 values as float32, which is exact: 8 bits times a power of two."""
    real = data.astype(np.float32)
    return np.ldexp(real, -fix_point, out=real)


class _Builder:
    def __init__(self, quantized):
        self.quantized = quantized
        self.network = quantized.network
        self.graph = Graph(self.network.name)
        self.names = Names(layer.name for layer in self.network.layers)
        self.value = {}

    def build(self) -> Graph:
        for layer in self.network.layers:
            try:
                self.value[layer.name] = LAYERS[layer.op](self, layer)
            except ShapeError as error:
                raise UserError(f"layer {layer.name!r} ({layer.op}): {error}") from None
        outputs = {name: self.value[layer.name] for name, layer in self.network.outputs.items()}
        for name, value in output_attributes(self.quantized, outputs).items():
            self.graph.attrs[name] = value
        for name, value in input_attributes(self.quantized).items():
            self.graph.attrs[name] = value
        root = self.graph.proto.subg_root
        root.subgraph_name = "root"
        root.op_name.extend(op.name for op in self.graph.ops)
        return self.graph

    def _sources(self, layer):
        return [self.value[name] for name in layer.inputs]

    def _fix(self, op, fix_point):
        attrs = Grid(fix_point).attributes()
        return self.graph.add_op(self.names.unique(f"{op}_fix"), "fix", {"input": op}, attrs).name

    def _finish(self, layer, op):
        """Activation, then `fix`: never between the op and its activation."""
        activation = _ACTIVATIONS[layer.attrs.get("activation", "NONE")]
        if activation:
            type_, attrs = activation
            op = self.graph.add_op(self.names.unique(f"{op}_{type_}"), type_, {"input": op}, attrs).name
        return self._fix(op, self.quantized.fix_points[layer.name])

    def _const(self, name, array):
        attrs = {"shape": list(array.shape), "data_type": "FLOAT32"}
        attrs["data"] = np.ascontiguousarray(array, "<f4").tobytes()
        del array  # of VGG16's first dense layer 411 MB, like the bytes and their copy in the graph
        return self.graph.add_op(self.names.unique(name), "const", attrs=attrs).name

    def _parameters(self, layer):
        """Names of the `fix` ops behind weights and bias, by argument."""
        tables = {"weights": self.quantized.weights, "bias": self.quantized.biases}
        found = {}
        for kind, table in tables.items():
            if layer.name in table:
                data, fix_point = table[layer.name]
                const = self._const(f"{layer.name}_{kind}", _real(data, fix_point))
                found[kind] = self._fix(const, fix_point)
        return found

    def _input(self, layer):
        attrs = {"shape": [1, *layer.shape], "data_type": "FLOAT32"}
        op = self.graph.add_op(layer.name, "data", attrs=attrs)
        return self._fix(op.name, self.quantized.fix_points[layer.name])

    def _conv(self, layer, type_="conv2d"):
        attrs = {name: list(layer.attrs[name]) for name in ("kernel", "stride", "dilation", "pad")}
        attrs["pad_mode"] = "FLOOR"
        if type_ == "conv2d":
            attrs["group"] = 1
        attrs["bias_term"] = layer.name in self.quantized.biases
        attrs["in_dim"] = map_shape(self.network[layer.inputs[0]].shape)[2]
        attrs["out_dim"] = map_shape(layer.shape)[2]
        inputs = {"input": self._sources(layer), **self._parameters(layer)}
        return self._finish(layer, self.graph.add_op(layer.name, type_, inputs, attrs).name)

    def _depthwise_conv(self, layer):
        return self._conv(layer, "depthwise-conv2d")

    def _transposed(self, layer):
        return self._conv(layer, "transposed-conv2d")

    def _transposed_depthwise(self, layer):
        return self._conv(layer, "transposed-depthwise-conv2d")

    def _dense(self, layer):
        (source,) = self._sources(layer)
        if len(self.graph.op(source).tensor.shape) > 2:
            source = self._flat(f"{layer.name}_flatten", source)
        parameters = self._parameters(layer)
        inputs = {"input": [source, parameters["weights"]]}
        if "bias" in parameters:
            inputs["bias"] = parameters["bias"]
        attrs = {"transpose_a": False, "transpose_b": True}
        return self._finish(layer, self.graph.add_op(layer.name, "matmul", inputs, attrs).name)

    def _flat(self, name, source):
        last = len(self.graph.op(source).tensor.shape) - 1
        attrs = {"start_axis": 1, "end_axis": last}
        return self.graph.add_op(self.names.unique(name), "flatten", {"input": source}, attrs).name

    def _flatten(self, layer):
        (source,) = self._sources(layer)
        last = len(self.graph.op(source).tensor.shape) - 1
        attrs = {"start_axis": 1, "end_axis": last}
        return self.graph.add_op(layer.name, "flatten", {"input": source}, attrs).name

    def _window(self, layer):
        attrs = {name: list(layer.attrs[name]) for name in ("kernel", "stride", "pad")}
        return {**attrs, "pad_mode": "FLOOR", "global": False}

    def _max_pool(self, layer):
        op = self.graph.add_op(layer.name, "maxpool2d", {"input": self._sources(layer)}, self._window(layer))
        return self._finish(layer, op.name)

    def _avg_pool(self, layer):
        """avgpool2d, then a `mul` by what the DPU's M / 2**S makes of 1 / (KH KW)."""
        width, height = layer.attrs["kernel"]
        multiplier, shift = average_pool_factor(height, width)
        attrs = {**self._window(layer), "count_include_pad": True, "count_include_invalid": True}
        pool = self.names.unique(f"{layer.name}_i0")
        self.graph.add_op(pool, "avgpool2d", {"input": self._sources(layer)}, attrs)
        scale = self._const(f"{layer.name}_i1", np.full(1, width * height * multiplier / 2**shift))
        return self._finish(layer, self.graph.add_op(layer.name, "mul", {"input": [pool, scale]}).name)

    def _avg_pool_inside(self, layer):
        """The same, each window with the factor of its pixels inside the map."""
        operator, shape = layer.operator, self.network[layer.inputs[0]].shape
        assert isinstance(operator, InsideAveragePool)  # by the table's row
        attrs = {**self._window(layer), "count_include_pad": False, "count_include_invalid": True}
        pool = self.names.unique(f"{layer.name}_i0")
        self.graph.add_op(pool, "avgpool2d", {"input": self._sources(layer)}, attrs)
        rows, columns = operator.counts(shape)
        area = np.outer(rows, columns)[:, :, None]
        scale = self._const(f"{layer.name}_i1", (operator.factors(shape) * area)[None])
        return self._finish(layer, self.graph.add_op(layer.name, "mul", {"input": [pool, scale]}).name)

    def _add(self, layer):
        return self._finish(layer, self.graph.add_op(layer.name, "add", {"input": self._sources(layer)}).name)

    def _hard_sigmoid(self, layer):
        """hard-sigmoid, then a `mul` by what the DPU's 2731 / 2**14 makes of 1 / 6."""
        gate = self.names.unique(f"{layer.name}_i0")
        self.graph.add_op(gate, "hard-sigmoid", {"input": self._sources(layer)})
        factor, bits = HARD_SIGMOID_FACTOR
        scale = self._const(f"{layer.name}_i1", np.full(1, 6 * factor / 2**bits))
        return self._finish(layer, self.graph.add_op(layer.name, "mul", {"input": [gate, scale]}).name)

    def _multiply(self, layer):
        """A vector of factors in the shape in which it goes over a map."""
        inputs = self._sources(layer)
        for k, source in enumerate(inputs):
            shape = self.graph.op(source).tensor.shape
            if len(shape) < len(layer.shape) + 1:
                name, attrs = self.names.unique(f"{layer.name}_{k}"), {"shape": [1, 1, 1, shape[-1]]}
                inputs[k] = self.graph.add_op(name, "reshape", {"input": source}, attrs).name
        return self._finish(layer, self.graph.add_op(layer.name, "mul", {"input": inputs}).name)

    def _pixel_shuffle(self, layer):
        inputs, attrs = {"input": self._sources(layer)}, dict(layer.attrs)
        return self._finish(layer, self.graph.add_op(layer.name, "pixel-shuffle", inputs, attrs).name)

    def _concat(self, layer):
        inputs, attrs = {"input": self._sources(layer)}, {"axis": layer.attrs["axis"]}
        return self._finish(layer, self.graph.add_op(layer.name, "concat", inputs, attrs).name)

    def _resize(self, layer):
        attrs, inputs = resize_attributes(layer, self.network), {"input": self._sources(layer)}
        return self._finish(layer, self.graph.add_op(layer.name, "resize", inputs, attrs).name)

    def _downsample(self, layer):
        """A pool of one pixel, which the vendor's compiler makes a downsample-fix of."""
        window = {"kernel": [1, 1], "stride": list(layer.attrs["factor"]), "pad": [0, 0, 0, 0]}
        attrs, inputs = {**window, "pad_mode": "FLOOR", "global": False}, {"input": self._sources(layer)}
        return self._finish(layer, self.graph.add_op(layer.name, "maxpool2d", inputs, attrs).name)

    def _on_cpu(self, layer):
        if layer.operator.holds_value:
            return self.graph.add_op(layer.name, "const", attrs=float_ops.constant(layer)).name
        type_, attrs = float_ops.OPS[layer.op](layer)
        return self.graph.add_op(layer.name, type_, {"input": self._sources(layer)}, attrs).name

    def _to_grid(self, layer):
        attrs = Grid(self.quantized.fix_points[layer.name]).attributes()
        return self.graph.add_op(layer.name, "fix", {"input": self._sources(layer)}, attrs).name


LAYERS = Total(
    "compiler.quantized_graph: ops of a layer",
    folded_ops,
    {
        "input": _Builder._input,
        "conv": _Builder._conv,
        "depthwise_conv": _Builder._depthwise_conv,
        "dense": _Builder._dense,
        "transposed_conv": _Builder._transposed,
        "transposed_depthwise_conv": _Builder._transposed_depthwise,
        "max_pool": _Builder._max_pool,
        "avg_pool": _Builder._avg_pool,
        "avg_pool_inside": _Builder._avg_pool_inside,
        "add": _Builder._add,
        "hard_sigmoid": _Builder._hard_sigmoid,
        "multiply": _Builder._multiply,
        "pixel_shuffle": _Builder._pixel_shuffle,
        "concat": _Builder._concat,
        **dict.fromkeys(("upsample", "resize_bilinear"), _Builder._resize),
        "downsample": _Builder._downsample,
        "flatten": _Builder._flatten,
        "to_grid": _Builder._to_grid,
        **dict.fromkeys(kinds(lambda operator: not operator.quantized), _Builder._on_cpu),
    },
)
