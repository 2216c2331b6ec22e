"""Layers that stand for one TensorFlow operation: what Keras makes of `x / 127.5 - 1` or `x[..., ::-1]`.

Handlers of `rebuild.Rebuilder`: `handler(builder, layer, args, kwargs)` returns the `Tracked` result.
"""

from typing import Any

import numpy as np

from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras_config import ARITHMETIC, GRAPH_OPS
from dpuflow.keras_models.tracked import Tracked, leaves, per_channel


def _arithmetic(builder, layer, operation, operands):
    """`operation` on one value and constants (gathered), or the sum or product of two values."""
    tracked = [isinstance(operand, Tracked) for operand in operands]
    if operation == "negative":
        return operands[0].affine(-1.0, 0.0, layer.name)
    if all(tracked):
        kinds = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply"}
        if operation not in kinds:
            builder.fail(layer, "divides one activation by another, which no DPU can")
        return _joined(builder, layer, kinds[operation], operands)
    first = tracked[0]
    value, number = operands if first else operands[::-1]
    constant: Any = per_channel(number, value.channels)
    if constant is None:
        builder.fail(layer, "its constant is neither one number nor one per channel")
    if operation == "add":
        return value.affine(1.0, constant, layer.name)
    if operation == "subtract":
        return value.affine(1.0, -constant, layer.name) if first else value.affine(-1.0, constant, layer.name)
    if operation == "multiply":
        return value.affine(constant, 0.0, layer.name)
    if not first:
        builder.fail(layer, "divides a constant by an activation, which no DPU can")
    return value.affine(1 / constant, 0.0, layer.name)


def _joined(builder, layer, kind, values):
    values = [builder.settle(value) for value in values]
    if not _meet(*(value.shape for value in values)):
        builder.fail(layer, f"joins activations of different shapes {values[0].shape} and {values[1].shape}")
    if len({None if value.order is None else tuple(value.order) for value in values}) != 1:
        builder.fail(layer, "joins activations whose channels come in different orders")
    new = getattr(keras().layers, kind)(name=builder.unique(layer.name))
    return Tracked(new([value.tensor for value in values]), values[0].order)


def _meet(first, second):
    """Whether two shapes are equal, or axes of one place stand for those of the other."""
    return len(first) == len(second) and all(
        a == b or 1 in (a, b) for a, b in zip(first, second, strict=True)
    )


def _function(builder, layer, args, kwargs):
    """A TFOpLambda. Its arguments come as written; after loading all but the first by name."""
    function = layer.get_config()["function"]
    kwargs = {key: value for key, value in kwargs.items() if key != "name" and value is not None}
    if function in ARITHMETIC:
        operands = [*args, *(kwargs[key] for key in ("x", "y", "value", "bias") if key in kwargs)]
        return _arithmetic(builder, layer, ARITHMETIC[function], operands)
    value = args[0]
    if function == "cast":
        kind = np.dtype(str(getattr(kwargs.get("dtype"), "name", kwargs.get("dtype"))))
        return _float_only(builder, layer, value, kind)
    if function == "identity":
        return value
    if function == "reverse":
        axes = {int(axis) % (len(value.shape) + 1) for axis in np.atleast_1d(kwargs["axis"])}
        if axes != {len(value.shape)}:
            builder.fail(layer, "reverses another axis than the channels'")
        return value.reordered(np.arange(value.channels)[::-1])
    if function in ("reshape", "expand_dims", "squeeze", "compat.v1.squeeze"):
        return builder.reshape_to(layer, value, _new_shape(builder, layer, function, value.shape, kwargs))
    return _computed(builder, layer, function, args, kwargs)


def _float_only(builder, layer, value, kind):
    if kind.kind != "f":
        builder.fail(layer, f"casts to {kind}, which cuts off fractions; only float types are read")
    return value


def _new_shape(builder, layer, function, shape, kwargs):
    """Shape without the batch that a shape-changing function gives."""
    sizes = [None, *shape]
    if function == "reshape":
        wanted = kwargs["shape"]
        if not isinstance(wanted, (list, tuple)) or not all(isinstance(n, int) for n in wanted):
            builder.fail(layer, "its shape is not made of constants; use a Reshape layer")
        return tuple(wanted[1:])
    axis = kwargs.get("axis", [])
    if function == "expand_dims":
        sizes.insert(axis % (len(sizes) + 1), 1)
        return tuple(sizes[1:])
    axes = {int(a) % len(sizes) for a in np.atleast_1d(axis)} or {i for i, n in enumerate(sizes) if n == 1}
    return tuple(n for i, n in enumerate(sizes) if i and i not in axes)


def _computed(builder, layer, function, args, kwargs):
    """ReLU and the like: as a layer of Keras where there is one, else the same operation again."""
    values = [builder.settle(v) if isinstance(v, Tracked) else v for v in args]
    layers = keras().layers
    plain = {
        "nn.relu": layers.ReLU,
        "nn.softmax": layers.Softmax,
        "nn.relu6": lambda **options: layers.ReLU(6.0, **options),
    }
    value = values[0]
    over_channels = isinstance(value, Tracked) and kwargs.get("axis", -1) in (-1, len(value.shape))
    if function in plain and over_channels and not kwargs.keys() - {"axis"}:
        new = plain[function](name=builder.unique(layer.name))
        return Tracked(new(value.tensor), value.order)
    every = [v for v in leaves([values, list(kwargs.values())]) if isinstance(v, Tracked)]
    every = [builder.settle(v) for v in every]
    if any(v.order is not None for v in every):
        builder.fail(layer, "stands behind a change of the channels' order that it cannot take over")

    def tensors(item: Any) -> Any:
        if isinstance(item, Tracked):
            return builder.settle(item).tensor
        if isinstance(item, (list, tuple)):
            return [tensors(child) for child in item]
        return item

    new = type(layer).from_config(layer.get_config() | {"name": builder.unique(layer.name)})
    return Tracked(new(*tensors(values), **{key: tensors(item) for key, item in kwargs.items()}))


def _slicing(builder, layer, args, kwargs):
    """x[..., ::-1] (the reversal of RGB), x[..., newaxis], and cuts by constants, which stay as they are."""
    value = args[0]
    spec = kwargs.get("slice_spec", args[1] if len(args) > 1 else None)
    spec = [_slice(item) for item in (spec if isinstance(spec, (list, tuple)) else [spec])]
    rank = len(value.shape) + 1
    everything = slice(None, None, None)
    if Ellipsis in spec:
        position = spec.index(Ellipsis)
        named = sum(item is not None and item is not Ellipsis for item in spec)
        spec[position : position + 1] = [everything] * (rank - named)
    used = sum(item is not None for item in spec)
    spec += [everything] * (rank - used)
    if spec[1:] and all(item in (None, everything) for item in spec) and spec[0] == everything:
        sizes, shape = iter((None, *value.shape)), []
        for item in spec:
            shape.append(1 if item is None else next(sizes))
        return builder.reshape_to(layer, value, tuple(shape[1:]))
    if all(item == everything for item in spec[:-1]) and spec[-1] == slice(None, None, -1):
        return value.reordered(np.arange(value.channels)[::-1])
    settled = builder.settle(value)
    constant = all(isinstance(n, (int, type(None))) for item in spec for n in _numbers(item))
    if settled.order is not None or not constant:
        builder.fail(layer, "cuts out a part of the map behind a change of its channels, or by no constants")
    return Tracked(settled.tensor[tuple(spec)])


def _numbers(item):
    return (item.start, item.stop, item.step) if isinstance(item, slice) else (item,)


def _slice(item):
    if isinstance(item, dict):
        return slice(item["start"], item["stop"], item["step"])
    return item


def _graph_operation(builder, layer, args, kwargs):
    """A TensorFlowOpLayer: the op by name, its constants by the position of the input."""
    operation = GRAPH_OPS[layer.node_def.op]
    inputs = [v for v in leaves(args) if isinstance(v, Tracked)]
    if operation == "identity":
        return inputs[0]
    if operation == "cast":
        from tensorflow import dtypes

        return _float_only(
            builder, layer, inputs[0], np.dtype(dtypes.as_dtype(layer.node_def.attr["DstT"].type).name)
        )
    operands: list[Any] = list(inputs)
    for index, constant in sorted((int(k), v) for k, v in layer.constants.items()):
        operands.insert(index, np.asarray(constant))
    return _arithmetic(builder, layer, operation, operands)


OPERATIONS = {"TFOpLambda": _function, "SlicingOpLambda": _slicing, "TensorFlowOpLayer": _graph_operation}
"""Layer class -> its handler."""
