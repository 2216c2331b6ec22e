"""An operator that dpuflow does not have, `negate` (XIR type `negate-fix`), and how each place learns of it.

Each function of `PLACES` does to a table what an entry in the source would do. Their order and names are
those of docs/adding-an-operator.md.
"""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from dpuflow.compiler import quantized_graph, reference, target_check
from dpuflow.dpuczdx8g.native import lowering
from dpuflow.dpuczdx8g.native.operations import Operation
from dpuflow.emulator import operations, oracle
from dpuflow.emulator.attributes import check_output, fix_point, only_input
from dpuflow.ops import registry
from dpuflow.ops.activation import Elementwise
from dpuflow.quantize import eval_graph
from dpuflow.tfgraph import node_translation
from dpuflow.tfgraph.graph_def import DT_FLOAT
from dpuflow.tfgraph.values import each_value
from dpuflow.xir import opdefs

KIND, TYPE, NODE = "negate", "negate-fix", "Neg"


# -- 1: what it is


@dataclass(frozen=True)
class Negate(Elementwise):
    """-x."""

    kind: ClassVar[str] = KIND

    def real(self, inputs, weights=None, bias=None):
        """Float32 semantics."""
        return -inputs[0]

    def largest(self, sizes, weights=None, bias=None):
        """As large as its input."""
        return sizes[0]

    def result_range(self, fix_points, fix_out):
        """Of -127 and 128 steps of the input."""
        step = 2.0 ** (fix_out - fix_points[0])
        return -127 * step, 128 * step

    def operations(self, inputs, output):
        """One per value."""
        return prod(output)


# -- 2, 3: TensorFlow's nodes


def read_node(translator, node, inputs):
    """Neg -> layer."""
    layer = each_value(translator, node, inputs[0])
    return inputs[0].through(translator.emit(node, KIND, [layer.name], layer.shape))


def write_nodes(writer, layer, scope):
    """Layer -> x * -2**(fix_out - fix_in), rounded and saturated."""
    (source,), fixes = layer.inputs, writer.quantized.fix_points
    factor = -(2.0 ** (fixes[layer.name] - fixes[source]))
    x = writer._binary("Mul", f"{scope}/negative", writer.tensors[source], factor)
    return writer._round_and_saturate(scope, x, DT_FLOAT)


# -- 6, 7: XIR


def uncompiled_ops(builder, layer):
    """A product with -1 and its `fix`."""
    (source,) = builder._sources(layer)
    minus = builder._const(f"{layer.name}_minus", np.full(1, -1))
    return builder._finish(layer, builder.graph.add_op(layer.name, "mul", {"input": [source, minus]}).name)


def compiled_op(compiler, layer):
    """One op of the new type."""
    compiler._enter(layer)
    return compiler._compute(layer, TYPE, {"input": [compiler.read(layer.inputs[0])]}, {})


# -- 8, 9: the emulator


@dataclass(frozen=True)
class NegateOperation:
    """negate-fix: -x / 2**shift, shift = fix_in - fix_out."""

    shift: int

    @classmethod
    def of(cls, op, graph, constants):
        """From the op's fix points."""
        check_output(op)
        return cls(fix_point(only_input(op, graph)) - fix_point(op))


def exact(op, x):
    """In integers."""
    return oracle.saturate(oracle.Exact(-x.astype(np.int64)).scaled(-op.shift).round_half_up())


# -- 10: machine code


def instructions(reader, op):
    """A 1x1 depthwise convolution with -1, or what takes a finer output to its grid."""
    (source,) = op.inputs["input"]
    shift, channels = reader._fix_point(source) - op.tensor.fix_point, op.tensor.shape[-1]
    weights = np.full(channels, -(2 ** max(0, -shift)), np.int8)
    reader.job.operations.append(
        Operation(
            op.name,
            "depthwise",
            [reader.map_of(source)],
            reader.new_map(op),
            bias=reader.bias(op, channels),
            weights=reader.place(weights.tobytes()),
            shift_cut=max(0, shift),
            shift_bias=1,
        )
    )


def _defined(patch):
    patch.setitem(registry.OPERATORS, KIND, Negate)


def _xir_type(patch):
    row = ("input", "XINT", (), "same")
    patch.setitem(opdefs.TABLE, TYPE, row)
    patch.setitem(opdefs.OPDEFS, TYPE, opdefs.define(TYPE, *row))


def _entry(table, key, value):
    entries = getattr(table, "_entries", table)  # of a `base.totality.Total`, which is read-only
    return lambda patch: patch.setitem(entries, key, value)


PLACES = {
    "ops.registry.OPERATORS": _defined,
    "tfgraph.node_translation.HANDLERS": _entry(node_translation.HANDLERS, NODE, read_node),
    "quantize.eval_graph.LAYERS": _entry(eval_graph.LAYERS, KIND, write_nodes),
    "compiler.target_check.RULES": _entry(target_check.RULES, KIND, lambda subject, network: ()),
    "xir.opdefs.TABLE": _xir_type,
    "compiler.reference.LAYERS": _entry(reference.LAYERS, KIND, compiled_op),
    "compiler.quantized_graph.LAYERS": _entry(quantized_graph.LAYERS, KIND, uncompiled_ops),
    "emulator.operations.INTEGER_OPS": _entry(operations.INTEGER_OPS, TYPE, NegateOperation.of),
    "emulator.oracle.SEMANTICS": _entry(oracle.SEMANTICS, NegateOperation, exact),
    "dpuczdx8g.native.lowering.HANDLERS": _entry(lowering.HANDLERS, TYPE, instructions),
}
"""Table -> function(monkeypatch) that makes its entry."""
