"""The network as the board's application runs it: its parts in order, CPU layers as plain data.

The DPU's subgraphs are run by the board's runtime from the xmodel. The CPU's are described here, op by
op, with everything settled that can be (shifts, clamps, output sizes, lookup tables), so that the
application (`foreign/board/cpu_ops.py`) needs neither XIR's attributes nor constants through the board's
`xir`: weights go into the bundle as arrays. What an op means is said by the emulator's tables alone
(`emulator.operations`, `emulator.plan`).
"""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.base.outputs import answer_of
from dpuflow.board import rare_parts
from dpuflow.board.integer_parts import describe_operation
from dpuflow.board.resizing_parts import describe_resample
from dpuflow.emulator import Emulator, axes, plan
from dpuflow.emulator.attributes import fix_point, inner_axis
from dpuflow.emulator.float_ops import output_size
from dpuflow.emulator.operations import INTEGER_OPS, Resample
from dpuflow.emulator.outputs import named_outputs
from dpuflow.xir import Graph
from dpuflow.xir.parameters import CONSTANT_TYPES
from dpuflow.xir.parameters import constants as graph_constants

BEHIND_THE_OUTPUT = ("softmax", "sigmoid", "fix2float", "reshape", "flatten", "squeeze", "identity")
"""Ops that may follow the int8 outputs: none changes which output is the largest."""


class Parameters:
    """Arrays for the bundle, each once: `key(array)` names them."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def key(self, array: np.ndarray) -> str:
        """Name of an array in the bundle."""
        name = f"a{len(self.arrays)}"
        self.arrays[name] = np.ascontiguousarray(array)
        return name


def describe_parts(
    emulator: Emulator, wanted: Collection[str] = ()
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """(list for meta.json, {key: array}) of the top-level subgraphs of a model, in order.

    Each part: device, subgraph (its name); the DPU's: inputs and outputs, each with the `value` it
    carries (name of the op that makes it), the `names` that a runtime may give its tensor, shape and
    fix_point; the CPU's: ops, constants and outputs, among them those ops of `wanted` that it holds.
    """
    graph, parameters = emulator.graph, Parameters()
    values = graph_constants(graph)
    parts = []
    for part in emulator.parts:
        entry: dict[str, Any] = {"device": part.device, "subgraph": part.name}
        if part.device == "DPU":
            entry["inputs"] = [_port(graph, op) for op in part.inputs]
            entry["outputs"] = [_port(graph, op) for op in part.outputs]
        elif part.device == "USER":
            entry["outputs"] = [op.name for op in part.outputs]
        else:
            entry.update(_cpu_part(emulator, part, values, parameters, wanted))
        parts.append(entry)
    return parts, parameters.arrays


def require_known(graph: Graph, source: Path | str) -> None:
    """UserError that names the ops of CPU subgraphs which the application cannot run."""
    known = {*DESCRIPTIONS, *plan.SOURCES, *CONSTANT_TYPES}
    left_over = [name for part in graph.subgraphs() if part.device != "DPU" for name in part.op_names]
    unknown = [graph.op(name) for name in left_over if graph.op(name).type not in known]
    if unknown:
        names = ", ".join(f"{op.name!r} ({op.type})" for op in unknown)
        raise UserError(
            f"{source}: {names} left to the CPU, which the board's application cannot run; without it every "
            "answer would be wrong. Replace the layer in the network, or compile a network that ends before "
            f"it. The application knows {', '.join(sorted(DESCRIPTIONS))}"
        )


def _port(graph, op):
    """A tensor at a DPU subgraph's border."""
    transfers = [other for other in graph.consumers(op.name) if other.type == "upload"]
    if op.type == "download":
        transfers.append(graph.op(op.input_names[0]))
    names = [op.tensor.name, op.name]
    names += [name for other in transfers for name in (other.tensor.name, other.name)]
    return {
        "value": op.name,
        "names": list(dict.fromkeys(names)),
        "shape": list(op.tensor.shape[1:]),
        "fix_point": fix_point(op),
    }


def _cpu_part(emulator, part, values, parameters, wanted):
    """ops, constants and outputs of a CPU subgraph."""
    graph, ops = emulator.graph, emulator.ops_of(part)
    outputs = [op.name for op in part.outputs]
    outputs += [op.name for op in ops if op.name in wanted and op.name not in outputs]
    steps = plan.build(graph, ops, [op.name for op in part.inputs], outputs, values, native=False)
    needed, live = set(outputs), []
    for step in reversed(steps.steps):  # the pool in front of a `mul` is computed with it
        if step.name in needed:
            needed.update(step.inputs)
            live.append(step)
    ops = [_describe(graph, step, steps.constants, parameters) for step in reversed(live)]
    used = {name: None for step in reversed(live) for name in step.inputs if name in steps.constants}
    return {
        "ops": ops,
        "constants": {name: parameters.key(steps.constants[name]) for name in used},
        "outputs": outputs,
    }


def _describe(graph, step, constants, parameters):
    op = graph.op(step.name)
    entry = {"name": op.name, "tensor": op.tensor.name, "type": op.type, "inputs": list(step.inputs)}
    described = DESCRIPTIONS[op.type](op, graph, constants)
    arrays = described.pop("arrays", {})
    entry.update(described)
    if arrays:
        entry["arrays"] = {name: parameters.key(array) for name, array in arrays.items()}
    return entry


# ---- integers


def _integer(op, graph, constants):
    operation: Any = INTEGER_OPS[op.type](op, graph, constants)
    return describe_operation(operation, graph.op(op.inputs["input"][0]).tensor.shape)


# ---- layout and floats


def _shape(op, graph, constants):
    return {"shape": list(op.tensor.shape[1:])}


def _attributes(*names):
    """Maker of a description that repeats attributes."""
    return lambda op, graph, constants: {name: op.attr(name) for name in names}


def _axis(op, graph, constants):
    return {"axis": inner_axis(op, op.attr("axis"))}


def _bounds(op, graph, constants):
    """Of a slice, settled: [begin, end, stride] of each axis behind the batch."""
    bounds = axes.slice_bounds(op, graph.op(op.input_names[0]).tensor.shape)
    return {"bounds": [list(each) for each in bounds]}


def _float_window(op, graph, kernel, dilation=(1, 1)):
    """Window of a float op with its padding settled; the whole map if it is `global`."""
    _, height, width, _ = graph.op(op.input_names[0]).tensor.shape
    stride, pad = tuple(op.attr("stride")), tuple(op.attr("pad"))
    if "global" in op.attrs and op.attr("global"):
        kernel, stride, pad = (width, height), (width, height), (0, 0, 0, 0)
    mode = op.attr("pad_mode")
    out_w, left, right = output_size(width, kernel[0], stride[0], dilation[0], pad[0], pad[1], mode)
    out_h, top, bottom = output_size(height, kernel[1], stride[1], dilation[1], pad[2], pad[3], mode)
    return {
        "kernel": list(kernel),
        "stride": list(stride),
        "dilation": list(dilation),
        "pad": [left, right, top, bottom],
        "out": [out_h, out_w],
    }


def _float_conv(op, graph, constants):
    weights = constants[op.inputs["weights"][0]]
    arrays = {"weights": weights}
    if op.inputs.get("bias"):
        arrays["bias"] = constants[op.inputs["bias"][0]]
    window = _float_window(op, graph, (weights.shape[2], weights.shape[1]), tuple(op.attr("dilation")))
    if op.type.startswith("transposed"):
        window |= _transposed_window(op, window)
    return {**window, "group": op.attr("group") if op.type == "conv2d" else 1, "arrays": arrays}


def _transposed_window(op, window):
    return {
        "spread": window["stride"],
        "stride": [1, 1],
        "pad": list(plan.around_spread(op, window["kernel"])),
        "out": list(op.tensor.shape[1:3]),
    }


def _float_pool(op, graph, constants):
    window = _float_window(op, graph, tuple(op.attr("kernel")))
    if op.type == "avgpool2d":
        window["count_include_pad"] = bool(op.attr("count_include_pad"))
    return window


def _mul(op, graph, constants):
    """A product, or a dividing op joined with the factor behind it, as the emulator joins them."""
    joined = plan.joined_factor(op, graph, constants)
    if joined is None or joined[1].ndim:
        return {}
    other, factor = joined[0], float(joined[1])
    if other.type == "hard-sigmoid":
        return {"joined": other.type, "scale": factor / 6}
    if other.type == "reduction_mean":
        mean, shape = _mean(other, graph, constants), graph.op(other.input_names[0]).tensor.shape
        return {**mean, "joined": other.type, "scale": factor / math.prod(shape[i] for i in mean["axes"])}
    window = _float_window(other, graph, tuple(other.attr("kernel")))
    return {**window, "joined": other.type, "scale": factor / (window["kernel"][0] * window["kernel"][1])}


def _resize(op, graph, constants):
    shape = graph.op(op.inputs["input"][0]).tensor.shape
    return describe_resample(Resample.of_grid(op, 0), shape)


def _norm(op, graph, constants):
    axis, keep = axes.norm_axis(op, graph)
    return {"axis": axis, "keep": keep}


def _mean(op, graph, constants):
    averaged, keep = axes.mean_axes(op, graph)
    return {"axes": list(averaged), "keep": keep}


def _grid(op, graph, constants):
    """fix and float2fix: the grid's limits from its width."""
    low, high = INT8_MIN, INT8_MAX
    if op.type == "fix":
        width, signed = op.attr("bit_width"), op.attr("if_signed")
        low, high = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if signed else (0, 2**width - 1)
    return {"fix_point": op.attr("fix_point"), "round_mode": op.attr("round_mode"), "low": low, "high": high}


DESCRIPTIONS = {
    **rare_parts.DESCRIPTIONS,
    **dict.fromkeys(
        (
            *("conv2d-fix", "depthwise-conv2d-fix", "pool-fix", "eltwise-fix", "depthwise-fix"),
            *("concat-fix", "hard-sigmoid-fix", "upsample-fix", "downsample-fix", "pixel-shuffle-fix"),
            *("transposed-conv2d-fix", "transposed-depthwise-conv2d-fix", "strided_slice-fix"),
        ),
        _integer,
    ),
    **dict.fromkeys(("upload", "download", "identity", "relu", "hard-sigmoid", "add", "sub"), _attributes()),
    **dict.fromkeys(("div", "sigmoid", "exp", "tanh"), _attributes()),
    **dict.fromkeys(("reshape-fix", "reshape", "flatten", "squeeze"), _shape),
    **dict.fromkeys(("fix", "float2fix"), _grid),
    **dict.fromkeys(
        ("conv2d", "depthwise-conv2d", "transposed-conv2d", "transposed-depthwise-conv2d"), _float_conv
    ),
    **dict.fromkeys(("maxpool2d", "avgpool2d"), _float_pool),
    "resize": _resize,
    "concat": _axis,
    "strided_slice": _bounds,
    "transpose": _attributes("order"),
    "fix2float": _attributes("fix_point"),
    "softmax": _axis,
    "nndct_normalize": _norm,
    **dict.fromkeys(("reduction_mean", "aten::mean"), _mean),
    "matmul": _attributes("transpose_a", "transpose_b"),
    "leaky-relu": _attributes("alpha"),
    "pixel-shuffle": _attributes("scale", "upscale"),
    "relu6": lambda op, graph, constants: {"limit": 6},
    "mul": _mul,
}
"""Type of an op -> function(op, graph, constants) -> its description for `foreign/board/cpu_ops.py`.

The application's table of operators has these types and no others (a test holds it)."""


# ---- the network's ends


def describe_output(emulator: Emulator, answer: str | None = None) -> dict[str, Any] | None:
    """The dict `output` of meta.json: which value holds the int8 outputs, and which ends the network.

    answer : `models.NAME.output`, the output that says the class (`base.outputs.answer_of`); None is
    returned where none does. Only ops that cannot change the order of the outputs may follow them
    (BEHIND_THE_OUTPUT). UserError names what else does.
    """
    ends = named_outputs(emulator)
    shapes = {name: tuple(op.tensor.shape[1:]) for name, op in ends.items()}
    name = answer_of(shapes, answer, emulator.source)
    if name is None:
        return None
    end = ends[name]
    op, softmaxes = end, []
    while op.tensor.data_type not in ("XINT", "INT"):
        if op.type not in BEHIND_THE_OUTPUT or len(op.input_names) != 1:
            raise UserError(
                f"{emulator.source}: op {op.name!r} ({op.type}) makes the answers in floats; a board's "
                "answer is its largest int8 output, behind which may come only "
                f"{', '.join(BEHIND_THE_OUTPUT)}"
            )
        if op.type == "softmax":
            softmaxes.append(op)
        op = emulator.graph.op(op.input_names[0])
    classes = int(np.prod(op.tensor.shape[1:]))
    for softmax in softmaxes:
        if softmax.tensor.shape[softmax.attr("axis")] != classes:
            raise UserError(
                f"{emulator.source}: op {softmax.name!r} (softmax) works on {softmax.tensor.shape} along "
                f"axis {softmax.attr('axis')}, not over the {classes} outputs; flatten in front of it"
            )
    return {
        "classes": classes,
        "fix_point": fix_point(op),
        "value": op.name,
        "final": end.name,
        "probabilities": bool(softmaxes),
    }


def describe_outputs(emulator: Emulator) -> dict[str, dict[str, Any]]:
    """The dict `outputs` of meta.json: the value of each output, and its fix_point where it is int8."""
    found: dict[str, dict[str, Any]] = {}
    for name, op in named_outputs(emulator).items():
        found[name] = {"value": op.name, "shape": list(op.tensor.shape[1:])}
        if op.tensor.data_type in ("XINT", "INT"):
            found[name]["fix_point"] = fix_point(op)
    return found
