"""Stand-in for the package that registers the FixNeuron op: importing a graph replaces it by stock ops.

y = clip(floor(x * 2**pos + 0.5), -128, 127) * 2**-pos, weights rounded half away from zero.
"""

import numpy as np
import tensorflow as tf

_v1 = tf.compat.v1
_import_graph_def = _v1.import_graph_def


def _import(graph_def, *args, **kwargs):
    replaced = _v1.GraphDef()
    replaced.versions.CopyFrom(graph_def.versions)
    for node in graph_def.node:
        if node.op == "FixNeuron":
            _replace(replaced, node)
        else:
            replaced.node.add().CopyFrom(node)
    return _import_graph_def(replaced, *args, **kwargs)


def _replace(graph, fix):
    position = fix.attr["quantize_pos"].i
    half_away = fix.name.endswith("/wquant")

    def constant(name, value):
        node = graph.node.add(name=f"{fix.name}/{name}", op="Const")
        node.attr["dtype"].type = 1
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(value)))
        return node.name

    def operation(op, name, *inputs):
        node = graph.node.add(name=name, op=op)
        node.input.extend(inputs)
        node.attr["T"].type = 1
        return node.name

    x = operation("Mul", f"{fix.name}/scaled", fix.input[0], constant("scale", 2.0**position))
    if half_away:
        sign = operation("Sign", f"{fix.name}/sign", x)
        x = operation("Abs", f"{fix.name}/abs", x)
    x = operation("AddV2", f"{fix.name}/half", x, constant("point_five", 0.5))
    x = operation("Floor", f"{fix.name}/round", x)
    if half_away:
        x = operation("Mul", f"{fix.name}/signed", x, sign)
    x = operation("Minimum", f"{fix.name}/upper", x, constant("high", 127))
    x = operation("Maximum", f"{fix.name}/lower", x, constant("low", -128))
    operation("Mul", fix.name, x, constant("step", 2.0**-position))


_v1.import_graph_def = _import
