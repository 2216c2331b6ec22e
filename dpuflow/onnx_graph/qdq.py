"""ONNX with QuantizeLinear and DequantizeLinear -> the uncompiled quantized graph of XIR, NHWC.

Power-of-two scales without zero points become `fix` ops, so that what reads the vendor's quantized graphs
(`compiler.quantized_reading`) reads these, too. The DPU rounds halves up, where ONNX rounds them to even.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX, Grid
from dpuflow.device.dpuczdx8g import HARD_SIGMOID_FACTOR
from dpuflow.onnx_graph.external_data import load_external_data
from dpuflow.onnx_graph.model_file import legal_name, read_model
from dpuflow.xir import Graph

WAY_OUT = (
    "quantize with int8, zero point 0 and power-of-two scales (as the vendor's quantizer for a DPU does), "
    "or give the float model with models.NAME.onnx"
)
PASSING = ("Identity", "Dropout")


def qdq_graph(path: Path | str) -> tuple[Graph, list[str]]:
    """(graph, notes: what was rounded) of a QDQ model.

    UserError names the node: a scale that is no power of two, a zero point, another type than int8, weights
    that are not quantized, an operator that is not read.
    """
    model = read_model(path)
    load_external_data(model, str(path))
    try:
        return _Writer(str(path), model).build()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: no quantized ONNX graph that dpuflow can read ({error}); {WAY_OUT}"
        ) from None


class _Writer:
    def __init__(self, path: str, model: Any) -> None:
        from onnx import numpy_helper

        self.path, self.model = path, model.graph
        self.constants = {t.name: np.asarray(numpy_helper.to_array(t)) for t in model.graph.initializer}
        self.graph = Graph(model.graph.name or "network")
        self.value: dict[str, str] = {}  # tensor -> op
        self.rounded: dict[str, tuple[str, int]] = {}  # quantized tensor -> (op, fix_point)
        self.real: dict[str, tuple[np.ndarray, int]] = {}  # constant tensor -> (values, fix_point)
        self.map: dict[str, tuple[int, int, int]] = {}  # op of a flattened map -> its (H, W, C)
        self.notes: list[str] = []

    def build(self) -> tuple[Graph, list[str]]:
        """Write every node."""
        self._input()
        for node in self.model.node:
            handler = HANDLERS.get(node.op_type)
            if handler is None:
                self.fail(node, f"is not among the operators read here ({', '.join(HANDLERS)})")
            handler(self, node)
        ends = [self.value[output.name] for output in self.model.output]
        self.graph.attrs["return_ops"] = ends
        names = [legal_name(output.name) for output in self.model.output]
        if len(ends) > 1 and all(names) and len(set(names)) == len(names):
            self.graph.attrs["output_names"] = names
        root = self.graph.proto.subg_root
        root.subgraph_name = "root"
        root.op_name.extend(op.name for op in self.graph.ops)
        return self.graph, self.notes

    def fail(self, node: Any, problem: str) -> NoReturn:
        raise UserError(f"{self.path}: node {_name(node)!r} ({node.op_type}): {problem}; {WAY_OUT}")

    def _input(self):
        entries = [entry for entry in self.model.input if entry.name not in self.constants]
        if len(entries) != 1:
            raise UserError(f"{self.path}: {len(entries)} inputs, expected one")
        dims = [d.dim_value for d in entries[0].type.tensor_type.shape.dim][1:]
        if len(dims) != 3 or min(dims) < 1:
            raise UserError(
                f"{self.path}: input {entries[0].name!r} has the shape {dims}, expected one image"
            )
        name = entries[0].name
        readers = [node for node in self.model.node if name in node.input]
        turned = bool(readers) and all(n.op_type == "Transpose" for n in readers)  # NHWC outside
        shape = dims if turned else [dims[1], dims[2], dims[0]]
        self._op(name, name, "data", attrs={"shape": [1, *shape], "data_type": "FLOAT32"})

    # -- writing -----------------------------------------------------------------------------

    def _op(self, tensor, name, kind, inputs=None, attrs=None):
        """Append an op that gives `tensor`."""
        unique, number = name, 0
        while unique in self.graph:
            number += 1
            unique = f"{name}_{number}"
        self.value[tensor] = self.graph.add_op(unique, kind, inputs, attrs).name
        return unique

    def _const(self, name, array):
        array = np.ascontiguousarray(array, "<f4")
        attrs = {"shape": list(array.shape), "data_type": "FLOAT32", "data": array.tobytes()}
        return self._op(f"{name} (constant)", name, "const", attrs=attrs)

    def _parameter(self, node, position, change=None):
        """The `fix` op behind a constant input."""
        name = node.input[position]
        if name not in self.real:
            self.fail(node, f"its input {name!r} is no int8 constant behind a DequantizeLinear")
        values, fix_point = self.real[name]
        const = self._const(name, values if change is None else change(values))
        attrs = Grid(fix_point).attributes()
        return self._op(f"{name} (rounded)", f"{name}_fix", "fix", {"input": const}, attrs)

    def _from(self, node, position=0):
        name = node.input[position]
        if name not in self.value:
            self.fail(node, f"its input {name!r} is no activation in floats")
        return self.value[name]

    # -- rounding ----------------------------------------------------------------------------

    def _fix_point(self, node):
        """-log2(scale) of a node."""
        scales = np.unique(self.constants[node.input[1]]).astype(np.float64)
        if scales.size != 1:
            self.fail(node, f"has {scales.size} scales, one for each channel; the DPU has one per tensor")
        mantissa, exponent = math.frexp(float(scales[0]))
        if mantissa != 0.5:
            self.fail(node, f"its scale {scales[0]:g} is no power of two")
        if len(node.input) > 2 and node.input[2]:
            point = self.constants[node.input[2]]
            if point.dtype not in (np.int8, np.int32) or np.any(point):
                self.fail(
                    node, f"its zero point is {point.reshape(-1)[:1]} of {point.dtype}, expected 0 of int8"
                )
        elif node.op_type == "QuantizeLinear":
            self.fail(node, "has no zero point, so it makes uint8; expected 0 of int8")
        return 1 - exponent

    def quantize(self, node: Any) -> None:
        fix_point, name = self._fix_point(node), node.input[0]
        if name in self.constants:
            data = np.rint(np.ldexp(self.constants[name].astype(np.float64), fix_point))
            self.constants[node.output[0]] = np.clip(data, -128, 127).astype(np.int8)
            return
        self.rounded[node.output[0]] = self._from(node), fix_point

    def dequantize(self, node: Any) -> None:
        fix_point, name, out = self._fix_point(node), node.input[0], node.output[0]
        if name in self.constants:
            self.real[out] = self._integers(node, self.constants[name], fix_point)
            return
        if name not in self.rounded:
            self.fail(node, f"its input {name!r} comes from no QuantizeLinear")
        source, wanted = self.rounded[name]
        if wanted != fix_point:
            self.fail(node, "has another scale than the QuantizeLinear before it")
        readers = [op.name for op in self.graph.consumers(source) if op.type == "fix"]
        found = next((op for op in readers if self.graph.op(op).attr("fix_point") == fix_point), None)
        if found is None:
            attrs = Grid(fix_point).attributes()
            found = self._op(out, f"{source}_fix", "fix", {"input": source}, attrs)
        self.value[out] = found
        if source in self.map:
            self.map[found] = self.map[source]

    def _integers(self, node, data, fix_point):
        """(values, fix_point) of a constant; a bias of int32 in the finest int8 that holds it."""
        if data.dtype == np.int8:
            return Grid(fix_point).reals(data), fix_point
        if data.dtype != np.int32 or data.ndim != 1:
            self.fail(node, f"holds {data.dtype}, expected int8")
        largest = int(np.abs(data.astype(np.int64)).max(initial=0))
        coarser = max(0, math.ceil(math.log2((largest + 0.5) / (INT8_MAX + 0.5)))) if largest else 0
        values, kept = Grid(fix_point).reals(data), fix_point - coarser
        if np.any(data.astype(np.int64) % 2**coarser):
            self.notes.append(f"{node.input[0]}: a bias of int32, rounded to int8 at fix_point {kept}")
        return values, kept

    # -- layers ------------------------------------------------------------------------------

    def convolution(self, node: Any) -> None:
        options, source = _attributes(node), self._from(node)
        shape, group = (
            self.real[node.input[1]][0].shape if node.input[1] in self.real else (),
            options.get("group", 1),
        )
        channels = self.graph.op(source).tensor.shape[-1]
        if len(shape) != 4:
            self.fail(node, "its weights are not int8 of two dimensions behind a DequantizeLinear")
        depthwise = group > 1 and group == channels == shape[0] and shape[1] == 1
        if group > 1 and not depthwise:
            self.fail(node, f"a convolution in {group} groups of {channels} channels")
        axes = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        inputs = {"input": source, "weights": self._parameter(node, 1, lambda w: w.transpose(axes))}
        if len(node.input) > 2 and node.input[2]:
            inputs["bias"] = self._parameter(node, 2)
        attrs = self._window(node, options, shape[2:]) | {"bias_term": "bias" in inputs}
        attrs["dilation"] = list(options.get("dilations", [1, 1]))[::-1]
        attrs |= {"in_dim": channels, "out_dim": shape[0]}
        if not depthwise:
            attrs["group"] = 1
        self._op(node.output[0], _name(node), "depthwise-conv2d" if depthwise else "conv2d", inputs, attrs)

    def _window(self, node, options, kernel):
        auto = options.get("auto_pad", b"NOTSET")
        if auto not in (b"NOTSET", b"VALID"):
            self.fail(node, f"auto_pad {auto.decode()}; export it with explicit pads")
        top, left, bottom, right = options.get("pads", [0, 0, 0, 0])
        mode = "CEIL" if options.get("ceil_mode") else "FLOOR"
        return {
            "kernel": list(kernel)[::-1],
            "stride": list(options.get("strides", [1, 1]))[::-1],
            "pad": [left, right, top, bottom],
            "pad_mode": mode,
        }

    def dense(self, node: Any) -> None:
        options, source = _attributes(node), self._from(node)
        if options.get("alpha", 1.0) != 1 or options.get("beta", 1.0) != 1 or options.get("transA"):
            self.fail(node, "with alpha, beta or transA")
        turn = not options.get("transB", 0)
        order = self.map.get(source)

        def change(weights: np.ndarray) -> np.ndarray:
            weights = weights.T if turn else weights
            if order is None:
                return weights
            height, width, channels = order
            maps = weights.reshape(len(weights), channels, height, width)
            return maps.transpose(0, 2, 3, 1).reshape(len(weights), -1)

        inputs: dict[str, Any] = {"input": [source, self._parameter(node, 1, change)]}
        if len(node.input) > 2 and node.input[2]:
            inputs["bias"] = self._parameter(node, 2)
        attrs = {"transpose_a": False, "transpose_b": True}
        self._op(node.output[0], _name(node), "matmul", inputs, attrs)

    def add(self, node: Any) -> None:
        constant = [k for k, name in enumerate(node.input) if name in self.real]
        if not constant:
            self._op(node.output[0], _name(node), "add", {"input": [self._from(node, k) for k in range(2)]})
            return
        source = self._from(node, 1 - constant[0])
        op = self.graph.op(source)
        if op.type != "matmul" or "bias" in op.inputs:
            self.fail(node, "adds a constant to what is no dense layer")
        op.set_input("bias", [self._parameter(node, constant[0], lambda b: b.reshape(-1))])
        self.value[node.output[0]] = source

    def multiply(self, node: Any) -> None:
        self._op(node.output[0], _name(node), "mul", {"input": [self._from(node, k) for k in range(2)]})

    def activation(self, node: Any) -> None:
        kinds = {"Relu": "relu", "LeakyRelu": "leaky-relu", "Clip": "relu6"}
        options, source = _attributes(node), self._from(node)
        attrs = {"alpha": float(options.get("alpha", 0.01))} if node.op_type == "LeakyRelu" else {}
        if node.op_type == "Clip":
            bounds = [options.get("min"), options.get("max")]
            for k, name in enumerate(list(node.input)[1:]):
                bounds[k] = float(self._number(node, name))
            if bounds != [0.0, 6.0]:
                self.fail(node, f"clips to {bounds}, read are 0 and 6")
        self._op(node.output[0], _name(node), kinds[node.op_type], {"input": source}, attrs)
        if source in self.map:
            self.map[self.value[node.output[0]]] = self.map[source]

    def _number(self, node, name):
        values = self.real[name][0] if name in self.real else self.constants.get(name)
        if values is None or np.size(values) != 1:
            self.fail(node, f"its input {name!r} is no constant number")
        return np.reshape(values, -1)[0]

    def hard_sigmoid(self, node: Any) -> None:
        options = _attributes(node)
        if abs(options.get("alpha", 0.2) - 1 / 6) > 1e-4 or options.get("beta", 0.5) != 0.5:
            self.fail(node, "the DPU's is relu6(x + 3) / 6: alpha 1/6, beta 0.5")
        gate = self._op(
            f"{node.output[0]} (gate)", f"{_name(node)}_i0", "hard-sigmoid", {"input": self._from(node)}
        )
        factor, bits = HARD_SIGMOID_FACTOR
        scale = self._const(f"{_name(node)}_i1", np.full(1, 6 * factor / 2**bits))
        self._op(node.output[0], _name(node), "mul", {"input": [gate, scale]})

    def pool(self, node: Any) -> None:
        options, source = _attributes(node), self._from(node)
        height, width = self.graph.op(source).tensor.shape[1:3]
        whole = node.op_type.startswith("Global")
        if whole:
            options = {"kernel_shape": [height, width]}
        attrs = self._window(node, options, options["kernel_shape"]) | {"global": whole}
        if node.op_type == "MaxPool":
            if any(n != 1 for n in options.get("dilations", [1])):
                self.fail(node, "with dilations")
            self._op(node.output[0], _name(node), "maxpool2d", {"input": source}, attrs)
            return
        attrs |= {"count_include_pad": bool(options.get("count_include_pad")) or not any(attrs["pad"])}
        attrs["count_include_invalid"] = True
        self._op(node.output[0], _name(node), "avgpool2d", {"input": source}, attrs)

    def concat(self, node: Any) -> None:
        sources = [self._from(node, k) for k in range(len(node.input))]
        rank = len(self.graph.op(sources[0]).tensor.shape)
        if _attributes(node)["axis"] % rank != 1 or any(source in self.map for source in sources):
            self.fail(node, "joins another axis than the channels'")
        self._op(node.output[0], _name(node), "concat", {"input": sources}, {"axis": rank - 1})

    def flatten(self, node: Any) -> None:
        """Flatten, and a Reshape or Squeeze that does the same."""
        source = self._from(node)
        shape = tuple(self.graph.op(source).tensor.shape)
        if node.op_type == "Reshape":
            target = [int(n) for n in self.constants[node.input[1]]]
            if len(target) != 2 or target[1] not in (-1, math.prod(shape[1:])):
                self.fail(node, f"reshapes {list(shape)} to {target}; only flattening is read")
        if node.op_type == "Flatten" and _attributes(node).get("axis", 1) != 1:
            self.fail(node, "flattens the batch, too")
        if len(shape) == 2:
            self.value[node.output[0]] = source
            return
        if node.op_type == "Squeeze" and shape[1:3] != (1, 1):
            self.fail(node, f"squeezes {list(shape)}")
        attrs = {"start_axis": 1, "end_axis": 3}
        name = self._op(node.output[0], _name(node), "flatten", {"input": source}, attrs)
        if shape[1] * shape[2] > 1:
            self.map[name] = shape[1], shape[2], shape[3]

    def softmax(self, node: Any) -> None:
        source = self._from(node)
        rank = len(self.graph.op(source).tensor.shape)
        if rank != 2 or _attributes(node).get("axis", -1) % rank != 1 or source in self.map:
            self.fail(node, "is not taken over the classes at the end")
        self._op(node.output[0], _name(node), "softmax", {"input": source}, {"axis": 1})

    def transpose(self, node: Any) -> None:
        source = self._from(node)
        if self.graph.op(source).type not in ("data", "fix") or list(_attributes(node)["perm"]) != [
            0,
            3,
            1,
            2,
        ]:
            self.fail(node, "turns the axes of a map")
        self.value[node.output[0]] = source

    def passing(self, node: Any) -> None:
        self.value[node.output[0]] = self._from(node)

    def constant(self, node: Any) -> None:
        from onnx import numpy_helper

        self.constants[node.output[0]] = np.asarray(numpy_helper.to_array(_attributes(node)["value"]))


def _name(node):
    return node.name or node.output[0]


def _attributes(node):
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


HANDLERS: dict[str, Callable[[_Writer, Any], None]] = {
    "QuantizeLinear": _Writer.quantize,
    "DequantizeLinear": _Writer.dequantize,
    "Conv": _Writer.convolution,
    **dict.fromkeys(("Gemm", "MatMul"), _Writer.dense),
    "Add": _Writer.add,
    "Mul": _Writer.multiply,
    **dict.fromkeys(("Relu", "LeakyRelu", "Clip"), _Writer.activation),
    "HardSigmoid": _Writer.hard_sigmoid,
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool"), _Writer.pool),
    "Concat": _Writer.concat,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), _Writer.flatten),
    "Softmax": _Writer.softmax,
    "Transpose": _Writer.transpose,
    **dict.fromkeys(PASSING, _Writer.passing),
    "Constant": _Writer.constant,
}
"""Operator -> what writes it."""
