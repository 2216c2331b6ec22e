"""Operations of Keras 3 (`x / 127.5 - 1`, `keras.ops.relu(x)`) -> the layers that Keras 2 writes for them.

In a file of Keras 3 an operation stands among the layers, with its settings and the arguments of its call;
Keras 2 writes `TFOpLambda` with the name of TensorFlow's function, which `keras_config.check_code` limits to
functions that touch nothing but their arguments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError


@dataclass(frozen=True)
class Tensor:
    """A `__keras_tensor__` of a configuration: output `index` of call `node` of layer `name`."""

    name: str
    node: int
    index: int


@dataclass(frozen=True)
class _Function:
    """What an operation is in Keras 2.

    name : of TensorFlow's function.
    arguments : names of its arguments, in the order of the operation's call.
    settings : operation's setting -> argument.
    fixed : settings that must have this value, which the function has no argument for.
    """

    name: str
    arguments: tuple[str, ...] = ("x",)
    settings: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


_TWO = ("x", "y")
OPERATIONS = {
    "Add": _Function("math.add", _TWO),
    "Subtract": _Function("math.subtract", _TWO),
    "Multiply": _Function("math.multiply", _TWO),
    "Divide": _Function("math.divide", _TWO),
    "TrueDivide": _Function("math.truediv", _TWO),
    "Negative": _Function("math.negative"),
    "Maximum": _Function("math.maximum", _TWO),
    "Minimum": _Function("math.minimum", _TWO),
    "Relu": _Function("nn.relu"),
    "Relu6": _Function("nn.relu6"),
    "LeakyRelu": _Function("nn.leaky_relu", settings={"negative_slope": "alpha"}),
    "Sigmoid": _Function("nn.sigmoid"),
    "Silu": _Function("nn.silu"),
    "Tanh": _Function("math.tanh"),
    "Elu": _Function("nn.elu", fixed={"alpha": 1.0}),
    "Selu": _Function("nn.selu"),
    "Softmax": _Function("nn.softmax", settings={"axis": "axis"}),
    "Mean": _Function("math.reduce_mean", settings={"axis": "axis", "keepdims": "keepdims"}),
    "Max": _Function(
        "math.reduce_max", settings={"axis": "axis", "keepdims": "keepdims"}, fixed={"initial": None}
    ),
    "Concatenate": _Function("concat", settings={"axis": "axis"}),
    "Clip": _Function("clip_by_value", settings={"x_min": "clip_value_min", "x_max": "clip_value_max"}),
    "Cast": _Function("cast", settings={"dtype": "dtype"}),
    "ExpandDims": _Function("expand_dims", settings={"axis": "axis"}),
    "Squeeze": _Function("squeeze", settings={"axis": "axis"}),
    "Reshape": _Function("reshape", settings={"newshape": "shape"}),
    "Flip": _Function("reverse", settings={"axis": "axis"}),
}
"""Class of an operation -> the function. The slices of GetItem stand apart."""


def is_operation(found: Mapping[str, Any]) -> bool:
    """Whether a layer of a graph is an operation: it has none of the settings that each layer has."""
    return not {"trainable", "dtype", "layers"} & found["config"].keys() or ".ops." in str(
        found.get("module")
    )


def operation_layer(
    path: Path | str, found: Mapping[str, Any], address: Callable[[Tensor], list[Any]]
) -> dict[str, Any]:
    """The layer of Keras 2 for an operation; UserError where there is none.

    address : tensor -> [layer, node, index] in Keras 2.
    """
    kind, name, settings = found["class_name"], found["name"], dict(found["config"])
    nodes = [_arguments(node) for node in found["inbound_nodes"]]
    settings.pop("name", None)
    if kind == "GetItem":
        return _layer("SlicingOpLambda", name, "__operators__.getitem", [_sliced(n, address) for n in nodes])
    function = OPERATIONS.get(kind)
    if function is None:
        raise UserError(
            f"{path}: layer {name!r} ({kind}): an operation of Keras 3 that dpuflow does not read; of these "
            f"only {', '.join(sorted((*OPERATIONS, 'GetItem')))} are; rebuild the model without it"
        )
    options: dict[str, Any] = {}
    for key, value in settings.items():
        if key in function.settings:
            options[function.settings[key]] = plain(value)
        elif function.fixed.get(key, None) != value and value is not None:
            raise UserError(
                f"{path}: layer {name!r} ({kind}): its setting {key}={value!r} is not read; leave it out"
            )
    if kind == "Reshape":
        options["shape"] = [-1, *options["shape"][1:]]
    if kind == "Flip":
        options["axis"] = options["axis"] if isinstance(options["axis"], list) else [options["axis"]]
    return _layer(
        "TFOpLambda", name, function.name, [_call(path, found, function, n, options, address) for n in nodes]
    )


def _arguments(node):
    return [*plain(node["args"]), *plain(node["kwargs"]).values()]


def _layer(kind, name, function, nodes):
    options = {"name": name, "trainable": True, "dtype": "float32", "function": function}
    return {"class_name": kind, "config": options, "name": name, "inbound_nodes": nodes}


def _sliced(arguments, address):
    tensor, spec = arguments
    spec = spec if isinstance(spec, list) else [spec]
    return [*address(tensor), {"slice_spec": spec}]


def _call(path, found, function, arguments, options, address):
    first, *others = arguments
    if isinstance(first, list):
        if others or not all(isinstance(tensor, Tensor) for tensor in first):
            raise _odd(path, found)
        return [[*address(tensor), dict(options)] for tensor in first]
    if len(arguments) != len(function.arguments) or not any(isinstance(a, Tensor) for a in arguments):
        raise _odd(path, found)
    named = {
        key: address(value) if isinstance(value, Tensor) else value
        for key, value in zip(function.arguments[1:], others, strict=True)
    }
    head = address(first) if isinstance(first, Tensor) else ["_CONSTANT_VALUE", -1, first]
    return [*head, {**named, **options}]


def _odd(path, found):
    return UserError(
        f"{path}: layer {found['name']!r} ({found['class_name']}): is called with arguments that are not read"
    )


def plain(value: Any) -> Any:
    """A value of a configuration of Keras 3 without its wrappers: tensors, slices, arrays, tuples."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, options = value.get("class_name"), value.get("config", {})
    if kind == "__keras_tensor__":
        return _tensor(options)
    if kind == "__ellipsis__":
        return {"class_name": "__ellipsis__"}
    if kind == "__slice__":
        return {key: plain(options[key]) for key in ("start", "stop", "step")}
    if kind in ("__numpy__", "__tensor__"):
        return plain(options["value"])
    return {key: plain(item) for key, item in value.items()}


def _tensor(options):
    name, node, index = options["keras_history"]
    if not isinstance(name, str) or type(node) is not int or type(index) is not int or node < 0 or index:
        raise ValueError(f"keras_history {options['keras_history']}")
    return Tensor(name, node, index)
