"""The quantized, uncompiled graph of the vendor's quantizers (or ours) -> QuantizedNetwork, fix_points kept.

The way back of `quantized_graph`. A value is rounded where a `fix` op stands; an activation belongs to the op
before it; ops that only move values may leave the rounding to the op behind them, and take its fix_point.
"""

from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError, about
from dpuflow.base.numerics import ROUNDING, Grid
from dpuflow.base.pixels import Scaling
from dpuflow.compiler import quantized_forms, quantized_tails
from dpuflow.compiler.quantized_values import HINT, MOVING, Values
from dpuflow.device.dpuczdx8g import HARD_SIGMOID_FACTOR, LEAKY_RELU_SLOPE, average_pool_factor
from dpuflow.network import QuantizedNetwork
from dpuflow.network.check import MAX_FIX_POINT, check
from dpuflow.network.groups import dense_kernel
from dpuflow.xir import Graph, Op
from dpuflow.xir.input_scaling import agreed_scaling

CONVOLUTIONS = {
    "conv2d": "conv",
    "depthwise-conv2d": "depthwise_conv",
    "transposed-conv2d": "transposed_conv",
    "transposed-depthwise-conv2d": "transposed_depthwise_conv",
}
"""Type of an op -> kind of the layer."""
NCHW, NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
SLOPES = (LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1], 0.1)
"""Slopes of a leaky ReLU that the DPU's 26/256 stands for: itself, and the tenth of the vendor's tools."""


def is_compiled(graph: Graph) -> bool:
    """Whether a graph has been through a compiler: it has subgraphs for the DPU, or its fused ops."""
    return bool(graph.subgraphs("DPU")) or any(op.type.endswith("-fix") for op in graph.ops)


def read_quantized_graph(path: Path | str, name: str, scaling: Scaling | None) -> QuantizedNetwork:
    """Read an uncompiled quantized xmodel.

    Parameters
    ----------
    path : the file. name : of the network. scaling : how pixels become its input, None: as the file records.

    Raises
    ------
    UserError : another kind of file, a compiled one, an op or a form of it that has no layer here (by its
        name), a value that is used without a `fix` op, a network that is not whole.
    """
    return quantized_network(path, Graph.load(path), name, scaling)


def quantized_network(path: Path | str, graph: Graph, name: str, scaling: Scaling | None) -> QuantizedNetwork:
    """`read_quantized_graph` of a graph that is read already; path : of its file, for messages."""
    if is_compiled(graph):
        raise UserError(f"{path}: is a compiled xmodel; name it with models.NAME.xmodel instead of quantized")
    try:
        with about(path):
            quantized = _Reader(path, graph).network(name, agreed_scaling(graph, scaling, path))
            check(quantized)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no quantized graph that dpuflow can read ({error}); {HINT}") from None
    return quantized


class _Reader(Values):
    """What each type of op means."""

    def __init__(self, path: Path | str, graph: Graph) -> None:
        super().__init__(path, graph)
        self.tail = quantized_tails.tail_of(graph)

    def read(self, op: Op) -> None:
        """Take over one op, its inputs being read already."""
        if op.name in self.tail:
            quantized_tails.read(self, op)
            return
        if op.type not in HANDLERS:
            self.fail(op, "is not among the ops that are read from a quantized graph")
        HANDLERS[op.type](self, op)

    def finish(self) -> None:
        """Let what only moves values find them on one grid."""
        quantized_forms.share_grids(self)

    def const(self, op: Op) -> None:
        array = op.array()
        if array is None:
            self.fail(op, "holds no values")
        self.constants[op.name] = np.asarray(array)

    def data(self, op: Op) -> None:
        self.add(op, "input", [], {})

    def fix(self, op: Op) -> None:
        """Rounding, of a parameter or of a layer's values."""
        fix_point, (name,) = self._fix_point(op), op.inputs["input"]
        if name in self.constants:
            data = Grid(fix_point).integers(self.constants[name], op.attr("round_mode"))
            self.integers[op.name] = data.astype(np.int8), fix_point
            return
        if name in self.turned:
            self.turned[op.name] = self.turned[name]
        inner = name
        if name in self.padded:
            inner, _ = self.padded[op.name] = self.padded[name]
        layer = self.layer_of(op, inner)
        if layer in self.borrowed and len(self.graph.consumers(name)) == 1:
            self.borrowed.remove(layer)  # a part of a map may be rounded behind
            self.fix_points.pop(layer)
        if self.fix_points.get(layer, fix_point) != fix_point:
            self.fail(op, f"rounds to fix_point {fix_point} what has fix_point {self.fix_points[layer]}")
        self._settle(layer, fix_point)
        if inner == name:
            self.value[op.name] = layer

    def _settle(self, layer, fix_point):
        """Round here, and with it what is only moved here."""
        self.fix_points[layer] = fix_point
        if self.layers[layer].op in MOVING:
            for source in self.layers[layer].inputs:
                if source not in self.fix_points:
                    self._settle(source, fix_point)

    def _fix_point(self, op):
        fix_point, bits, signed = op.attr("fix_point"), op.attr("bit_width"), op.attr("if_signed")
        if bits != 8 or not signed:
            self.fail(op, f"rounds to {bits} bits{'' if signed else ' without sign'}, expected 8 with sign")
        if op.attr("round_mode") not in ROUNDING:
            self.fail(op, f"its round_mode {op.attr('round_mode')!r} is unknown")
        if abs(fix_point) > MAX_FIX_POINT:
            self.fail(op, f"its fix_point {fix_point} is beyond {MAX_FIX_POINT}")
        return int(fix_point)

    def activation(self, op: Op) -> None:
        """A fused activation: the op before it must wait for it, and nobody else read its values."""
        (name,) = op.inputs["input"]
        layer = self.layer_of(op, name)
        found = self.layers[layer]
        if layer in self.fix_points or len(self.graph.consumers(name)) != 1 or name in self.turned:
            self.fail(op, "does not stand right behind a convolution, a dense layer or an addition")
        if found.attrs.get("activation") != "NONE":
            self.fail(op, f"no activation fits behind {layer!r} ({found.op})")
        found.attrs["activation"] = self._activation(op)
        self.value[op.name] = layer

    def _activation(self, op):
        if op.type == "leaky-relu":
            alpha = float(op.attr("alpha"))
            if not any(abs(alpha - slope) < 1e-6 for slope in SLOPES):
                self.fail(op, f"its slope is {alpha:g}, the DPU's {SLOPES[0]:g}")
            return "LEAKYRELU"
        return {"relu": "RELU", "relu6": "RELU6"}[op.type]

    def _window(self, op, source, around=(0, 0, 0, 0)):
        """kernel, stride and pad of a window op, whatever its pad_mode; around : zeros in front of it."""
        height, width, _ = self.layers[source].shape
        height, width = height + around[2] + around[3], width + around[0] + around[1]
        kernel, stride = (tuple(int(n) for n in op.attr(key)) for key in ("kernel", "stride"))
        if "global" in op.attrs and op.attr("global"):
            kernel, stride = (width, height), (1, 1)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, op.attrs.get("dilation", (1, 1)), strict=True)]
        left, right, top, bottom = (int(n) for n in op.attr("pad"))
        outputs = op.tensor.shape[2], op.tensor.shape[1]
        pads = []
        for size, out, k, s, (before, after) in zip(
            (width, height), outputs, reach, stride, ((left, right), (top, bottom)), strict=True
        ):
            needed = max(0, (out - 1) * s + k - size)
            mode = op.attr("pad_mode")
            if mode == "SAME":
                before, after = needed // 2, needed - needed // 2
            elif mode == "CEIL":
                after = max(after, needed - before)
            elif mode not in ("FLOOR", "VALID"):
                self.fail(op, f"its pad_mode {mode!r} is unknown")
            pads += [before, after]
        pad = tuple(own + there for own, there in zip(pads, around, strict=True))
        return {"kernel": kernel, "stride": stride, "pad": pad}

    def convolution(self, op: Op) -> None:
        source, around = self.padded_source(op)
        attrs = self._window(op, source, around)
        attrs |= {"dilation": tuple(int(n) for n in op.attr("dilation")), "activation": "NONE"}
        kind = CONVOLUTIONS[op.type]
        if kind.startswith("transposed") and (op.attr("pad_mode") != "FLOOR" or any(around)):
            self.fail(op, f"its pad_mode is {op.attr('pad_mode')}, expected FLOOR, and no padding before it")
        self.add(op, kind, [source], attrs)
        self._parameters(op, op.inputs["weights"], op.inputs.get("bias", ()))
        groups = 1 if "depthwise" in kind else op.attrs.get("group", 1)
        if groups != 1:
            self._ungroup(op, groups, self.layers[source].shape[-1])

    def _ungroup(self, op, groups, channels):
        """A full convolution with zeros between the groups."""
        data, fix_point = self.weights[op.name]
        if op.type != "conv2d" or data.shape[3] * groups != channels or data.shape[0] % groups:
            self.fail(op, f"weights {list(data.shape)} in {groups} groups on {channels} channels")
        data = np.ascontiguousarray(dense_kernel(data.transpose(1, 2, 3, 0), channels).transpose(3, 0, 1, 2))
        self.weights[op.name] = data, fix_point
        self.layers[op.name].weights = Grid(fix_point).reals(data).astype(np.float32)

    def matmul(self, op: Op) -> None:
        _, second = op.inputs["input"]
        if op.attr("transpose_a") or second not in self.integers:
            self.fail(op, "is no dense layer with constant int8 weights behind a fix op")
        source = quantized_forms.vector(self, op)
        self.add(op, "dense", [source], {"activation": "NONE"})
        if not op.attr("transpose_b"):
            data, fix_point = self.integers[second]
            self.integers[second] = np.ascontiguousarray(data.T), fix_point
        self._parameters(op, [second], op.inputs.get("bias", ()))

    def _parameters(self, op, weights, bias):
        layer = self.layers[op.name]
        for names, table, key in ((weights, self.weights, "weights"), (bias, self.biases, "bias")):
            for name in names:
                if name not in self.integers:
                    self.fail(op, f"its {key} are no int8 constants behind a fix op")
                data, fix_point = self.integers[name]
                data = data.reshape(-1) if key == "bias" else data
                table[op.name] = data, fix_point
                setattr(layer, key, Grid(fix_point).reals(data).astype(np.float32))

    def max_pool(self, op: Op) -> None:
        source = self.moved(op)
        attrs = self._window(op, source)
        if attrs["kernel"] == (1, 1) and attrs["stride"] != (1, 1) and not any(attrs["pad"]):
            self.add(op, "downsample", [source], {"factor": attrs["stride"]})
        else:
            self.add(op, "max_pool", [source], attrs)

    def average_pool(self, op: Op) -> None:
        source, around = self.padded_source(op)
        attrs = self._window(op, source, around)
        inside = any(attrs["pad"]) and not op.attr("count_include_pad")
        if inside and any(around):
            self.fail(op, "counts some of the zeros around its map and others not")
        self.add(op, "avg_pool_inside" if inside else "avg_pool", [source], attrs)

    def hard_sigmoid(self, op: Op) -> None:
        self.add(op, "hard_sigmoid", [self.source(op)], {})
        self.unscaled[op.name] = op.name

    def multiply(self, op: Op) -> None:
        """A product, or the DPU's stand-in for the division of a mean or of a hard sigmoid."""
        names = op.inputs["input"]
        factors = [name for name in names if name in self.constants or name in self.integers]
        if not factors:
            self.add(op, "multiply", [self.source(op, k) for k in range(len(names))], {})
            return
        (name,) = (name for name in names if name not in factors)
        layer = self.value[name]
        kind = self.layers[layer].op
        if layer in self.fix_points or len(self.graph.consumers(name)) != 1:
            self.fail(op, "multiplies by a constant")
        if kind == "hard_sigmoid":
            wanted = 6 * HARD_SIGMOID_FACTOR[0] / 2 ** HARD_SIGMOID_FACTOR[1]
        elif kind == "avg_pool":
            width, height = self.layers[layer].attrs["kernel"]
            multiplier, shift = average_pool_factor(height, width)
            wanted = width * height * multiplier / 2**shift
        elif kind == "avg_pool_inside":
            wanted = self.array(factors[0])  # the layer's own, by its windows
        else:
            self.fail(op, "multiplies by a constant")
        if not np.allclose(self.array(factors[0]), wanted, rtol=1e-5, atol=0):
            self.fail(op, f"its factor is {self.array(factors[0]).reshape(-1)[0]:g}, the DPU's {wanted:g}")
        self.unscaled.pop(layer, None)
        found = self.layers.pop(layer)  # both ops are one layer, with the name of the second
        found.name, self.layers[op.name] = op.name, found
        self.value[name] = self.value[op.name] = op.name

    def addition(self, op: Op) -> None:
        self.add(
            op, "add", [self.source(op, k) for k in range(len(op.inputs["input"]))], {"activation": "NONE"}
        )

    def concat(self, op: Op) -> None:
        sources = [self.moved(op, k) for k in range(len(op.inputs["input"]))]
        self.add(op, "concat", sources, {"axis": int(op.attr("axis")) % len(op.tensor.shape)})

    def pixel_shuffle(self, op: Op) -> None:
        self.add(op, "pixel_shuffle", [self.moved(op)], {key: op.attr(key) for key in ("scale", "upscale")})

    def reshape(self, op: Op) -> None:
        """A flattened map, or one pixel in another shape."""
        (name,) = op.inputs["input"]
        source = self.layer_of(op, name)
        shape, new = self.layers[source].shape, tuple(op.tensor.shape)[1:]
        channels = shape[-1]
        if name in self.turned and shape != (1, 1, channels):
            self.fail(op, "reshapes a map with the channels first")
        if sorted(n for n in new if n != 1) == sorted(n for n in shape if n != 1) and len(new) == 3:
            if int(np.prod(shape)) != channels:
                self.fail(op, "turns a map around")
            self.value[op.name] = source
            if new[-1] != channels:
                self.turned[op.name] = set()
            return
        if len(new) != 1 or int(np.prod(new)) != int(np.prod(shape)):
            self.fail(op, f"reshapes {list(shape)} to {list(new)}")
        if shape == new:
            self.value[op.name] = source
            return
        self.add(op, "flatten", [self.moved(op) if name not in self.turned else source], {})

    def transpose(self, op: Op) -> None:
        """To channels first for a mean, and back."""
        (name,) = op.inputs["input"]
        order = [int(n) for n in op.attr("order")]
        if order == NCHW and name not in self.turned:
            self.turned[op.name] = set()
        elif order != NHWC or self.turned.get(name):
            self.fail(op, f"turns the axes to {order}")
        self.value[op.name] = self.layer_of(op, name)

    def mean(self, op: Op) -> None:
        """aten::mean, which names no axes: those that became 1; reduction_mean, which names them."""
        (name,) = op.inputs["input"]
        layer = self.layer_of(op, name)
        before, after = (tuple(self.graph.op(n).tensor.shape) for n in (name, op.name))
        first = 2 if name in self.turned else 1
        if op.type == "reduction_mean":
            axes = {int(axis) % len(before) for axis in op.attr("axis")}
            after = tuple(1 if k in axes else n for k, n in enumerate(before))
        else:
            axes = {k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
        if not axes or not axes <= {first, first + 1} or any(after[k] != 1 for k in axes):
            self.fail(op, "is no mean over height and width")
        reduced = {k - first for k in axes} | self.turned.get(name, set())
        pending = name in self.turned and self.turned[name]
        if not pending:
            self.close(layer, op)
        height, width, channels = self.layers[layer].shape
        missing = {0: height, 1: width}
        if reduced >= {k for k, n in missing.items() if n != 1}:
            attrs = {"kernel": (width, height), "stride": (1, 1), "pad": (0, 0, 0, 0)}
            self.add(op, "avg_pool", [layer], attrs, (1, 1, 1, channels))
            reduced = set()
        elif len(self.graph.consumers(op.name)) != 1 or name not in self.turned:
            self.fail(op, "is no mean over height and width")
        else:
            self.value[op.name] = layer
        if name in self.turned:
            self.turned[op.name] = reduced

    def softmax(self, op: Op) -> None:
        self.add(op, "softmax", [self.source(op)], {})

    def stack(self, op: Op) -> None:
        """The shape of a reshape, which its output tells."""


HANDLERS = {
    "const": _Reader.const,
    "data": _Reader.data,
    "fix": _Reader.fix,
    **dict.fromkeys(CONVOLUTIONS, _Reader.convolution),
    "matmul": _Reader.matmul,
    **dict.fromkeys(("relu", "relu6", "leaky-relu"), _Reader.activation),
    "maxpool2d": _Reader.max_pool,
    "avgpool2d": _Reader.average_pool,
    "hard-sigmoid": _Reader.hard_sigmoid,
    "mul": _Reader.multiply,
    "add": _Reader.addition,
    "concat": _Reader.concat,
    "resize": quantized_forms.resize,
    "strided_slice": quantized_forms.strided_slice,
    "pad": quantized_forms.pad,
    "scale": quantized_forms.scale,
    "pixel-shuffle": _Reader.pixel_shuffle,
    **dict.fromkeys(("reshape", "flatten", "squeeze"), _Reader.reshape),
    "transpose": _Reader.transpose,
    **dict.fromkeys(("aten::mean", "reduction_mean"), _Reader.mean),
    "softmax": _Reader.softmax,
    "stack": _Reader.stack,
}
"""Type of an op -> what reads it."""
