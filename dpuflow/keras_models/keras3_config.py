"""A configuration as Keras 3 writes it -> the one that Keras 2 (tf_keras) writes for the same network.

Of files of Keras 3, and of `.keras` files of Keras 2, which have some of its forms. A layer is taken over
where both have it and compute the same, LAYERS; each of its settings, too. What is left is refused by name.
What only tells how weights begin and how they are trained (initializers, regularizers, constraints) goes:
nobody looks at it here, and it may name any Python class.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras3_operations import Tensor, is_operation, operation_layer, plain
from dpuflow.keras_models.keras_config import check_code, layer_problem

LAYERS = (
    *("InputLayer", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense"),
    *("BatchNormalization", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "MaxPooling2D"),
    *("AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Flatten", "Reshape", "Permute"),
    *("ZeroPadding2D", "Cropping2D", "UpSampling2D", "Dropout", "SpatialDropout2D", "GaussianNoise"),
    *("GaussianDropout", "AlphaDropout", "ActivityRegularization", "Add", "Subtract", "Multiply"),
    *("Average", "Maximum", "Minimum", "Concatenate", "Rescaling", "Normalization", "Resizing", "CenterCrop"),
)
"""Layers of both, equal but for names of settings."""
KERAS_2_LAYERS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
"""More of them in a .keras file of Keras 2."""

AUGMENTATION = (
    *(
        "RandomFlip",
        "RandomRotation",
        "RandomZoom",
        "RandomTranslation",
        "RandomContrast",
        "RandomBrightness",
    ),
    *("RandomShear", "RandomColorJitter", "RandomColorDegeneration", "RandomGrayscale", "RandomHue"),
    *("RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomErasing", "RandomGaussianBlur"),
    *("RandomElasticTransform", "RandomPerspective", "RandomInvert", "RandomHeight", "RandomWidth"),
    *("MixUp", "CutMix", "AugMix", "RandAugment"),
)
"""Layers that do nothing at inference, also where they are called with training=True: that is the default
of their calls, and Keras 3 writes it down."""
NOTHING = ("Identity", *AUGMENTATION)

RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
"""Layer class -> {setting in Keras 3: its name in Keras 2}."""
SILENT = {"data_format": "channels_last", "renorm_momentum": 0.99, "fill_mode": "constant", "fill_value": 0.0}
"""Settings that Keras 2 lacks, and the value at which they say nothing, as None and False do."""
TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
"""Ends of the names of settings that are left out."""

ACTIVATIONS = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "softplus", "softsign", "tanh", "sigmoid"),
    *("softmax", "log_softmax", "gelu", "silu", "swish", "mish", "exponential"),
)
"""Activations that both have, with equal values. hard_sigmoid is another function in Keras 2."""

KERAS_2_INPUT = ("batch_input_shape", "batch_shape")
QUANTIZED_POLICIES = ("int8", "int4", "gptq", "awq", "float8")


def translated(path: Path | str, config: Mapping[str, Any], *, keras_3: bool) -> dict[str, Any]:
    """`config`, the file's model_config, as Keras 2 would write it.

    keras_3 : whether Keras 3 wrote it (else it is that of a .keras file of Keras 2).

    Raises
    ------
    UserError : a layer that carries code (`keras_config.check_code`), a layer, setting, activation or
        operation without an equal in Keras 2, a quantized model, a configuration of another form.
    """
    check_code(path, config)
    try:
        return _Translator(path, keras_3).model(config)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: its configuration has not the form that Keras writes ({type(error).__name__}: {error})"
        ) from None


class _Translator:
    def __init__(self, path: Path | str, keras_3: bool) -> None:
        self.path = path
        self.keras_3 = keras_3

    def fail(self, name: Any, kind: Any, problem: str) -> UserError:
        return UserError(f"{self.path}: layer {name!r} ({kind}): {problem}")

    # -- models ------------------------------------------------------------------------------

    def model(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """A Sequential or a graph of layers, its inner models as well."""
        options = found["config"]
        kind = found["class_name"]
        if kind == "Sequential":
            return {"class_name": kind, "config": self._sequential(options)}
        if not is_graph(found):
            raise self.fail(
                options.get("name"),
                kind,
                "a model class of its own, whose code is not in the file; build it "
                "with Sequential or the functional API, or export it as a SavedModel",
            )
        listed = options["layers"]
        first = {layer["name"]: _first_node(layer) for layer in listed}
        layers = [self._node_layer(layer, first) for layer in listed]
        ends = {}
        for key in ("input_layers", "output_layers"):
            ends[key] = [self._end(end, listed, first) for end in _ends(options[key])]
        config = {"name": options["name"], "layers": layers, **ends}
        return {"class_name": "Functional", "config": config}

    def _sequential(self, options):
        listed = options["layers"] if isinstance(options, dict) else options
        layers = [self._layer(layer) for layer in listed]
        config = {"name": options["name"], "layers": layers}
        shape = options.get("build_input_shape")
        if shape is not None and not _has_input(listed):
            config["build_input_shape"] = shape
        return config

    def _end(self, end, listed, first):
        """One of input_layers or output_layers: Keras 3 counts the calls of a Functional from 1."""
        name, node, index = end
        layer = next(layer for layer in listed if layer["name"] == name)
        if self.keras_3:
            node = node - (is_graph(layer)) + first[name]
            if len(layer["inbound_nodes"]) <= 1:
                node = first[name]
        return [name, node, index]

    # -- layers ------------------------------------------------------------------------------

    def _layer(self, found):
        """A layer or an inner model without its calls."""
        kind, options = found["class_name"], found["config"]
        if kind == "Sequential" or is_graph(found):
            return self.model(found) | {"name": options["name"]}
        name = options["name"]
        kind = found.get("registered_name") if ">" in str(found.get("registered_name")) else kind
        if kind in NOTHING:
            return _written("ActivityRegularization", {"name": name})  # nothing at inference, too
        if kind in KERAS_2_LAYERS and not self.keras_3:
            return _written(kind, dict(options))
        if kind not in LAYERS:
            problem = layer_problem(str(kind), options) or (
                "is not among the layers of Keras 3 that dpuflow reads (docs/operators.md); build the model "
                "without it"
            )
            raise self.fail(name, kind, problem)
        self._check_float(name, kind, options.get("dtype"))
        return _written(kind, self._options(name, kind, options))

    def _options(self, name, kind, options):
        accepted = {*_accepted(kind), "name", "trainable"}
        result: dict[str, Any] = {}
        for key, value in options.items():
            key = RENAMED.get(kind, {}).get(key, key)
            if key == "dtype" or key.endswith(TRAINING_ONLY):
                continue
            if kind == "InputLayer" and key in KERAS_2_INPUT:
                result["batch_input_shape"] = value
            elif key in ("activation", "recurrent_activation"):
                result[key] = self._activation(name, kind, value)
            elif key in accepted or (key == "batch_input_shape" and not self.keras_3):
                result[key] = plain(value)
            elif value is not None and value is not False and SILENT.get(key) != value:
                raise self.fail(
                    name,
                    kind,
                    f"its setting {key}={value!r} does not exist in Keras 2, by which dpuflow "
                    "reads the model; build the layer without it",
                )
        return result

    def _activation(self, name, kind, value):
        if isinstance(value, dict):  # {"class_name": "function", "config": "relu"}
            value = value.get("config") if value.get("class_name") == "function" else value.get("class_name")
        if value is None or value in ACTIVATIONS or (not self.keras_3 and isinstance(value, str)):
            return value
        hint = "retrain the model with one of Keras 2, ReLU best"
        if value == "hard_sigmoid":
            hint = "write it as layers.ReLU(6.0)(x + 3.0) * (1 / 6), which is the same"
        raise self.fail(name, kind, f"its activation {value!r} is not one that dpuflow reads; {hint}")

    def _check_float(self, name, kind, policy):
        text = str(policy).lower()
        if any(f"'name': '{word}" in text or text.startswith(word) for word in QUANTIZED_POLICIES) or (
            isinstance(policy, dict) and "quantized" in str(policy.get("class_name")).lower()
        ):
            raise self.fail(
                name,
                kind,
                "the model is already quantized; give the float model, dpuflow quantizes it itself",
            )

    # -- calls -------------------------------------------------------------------------------

    def _node_layer(self, found, first):
        nodes = found["inbound_nodes"]
        if self.keras_3 and is_operation(found):
            return operation_layer(self.path, found, lambda tensor: _address(tensor, first))
        layer = self._layer(found) | {"name": found["name"]}
        layer["inbound_nodes"] = [
            self._call(found, node, first) if isinstance(node, Mapping) else node for node in nodes
        ]
        return layer

    def _call(self, found, node, first):
        """A call of a layer: [[name, node, index, keyword arguments], ...]."""
        args, kwargs = (plain(node[key]) for key in ("args", "kwargs"))
        args = [*args, *([kwargs.pop("inputs")] if "inputs" in kwargs else [])]
        kwargs = {k: v for k, v in kwargs.items() if v is not None}
        if found["class_name"] in NOTHING:
            kwargs = {}
        tensors = args[0] if len(args) == 1 and isinstance(args[0], list) else args[:1]
        if len(args) != 1 or not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise self.fail(
                found["name"],
                found["class_name"],
                "is called with other arguments than activations; rebuild the model without that",
            )
        return [[*_address(tensor, first), dict(kwargs)] for tensor in tensors]


def is_graph(found: Mapping[str, Any]) -> bool:
    """Whether a {"class_name", "config"} is a graph of layers, whatever its class is called."""
    options = found.get("config")
    return isinstance(options, dict) and {"layers", "input_layers", "output_layers"} <= options.keys()


def _written(kind, options):
    return {"class_name": kind, "config": options}


def _has_input(listed):
    first = listed[0] if listed else {}
    return first.get("class_name") == "InputLayer" or "batch_input_shape" in first.get("config", {})


def _first_node(layer):
    """Number of a layer's first call in Keras 2, where an inner model that knows its input starts at 1."""
    options = layer["config"]
    if layer["class_name"] == "Sequential":
        return int(_has_input(options["layers"]))
    return int(is_graph(layer))


def _address(tensor, first):
    return [tensor.name, tensor.node + first[tensor.name], tensor.index]


def _ends(value: Any) -> list[Sequence[Any]]:
    """input_layers or output_layers as a list, however they are nested."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return [value]
    children = value.values() if isinstance(value, dict) else value
    return [end for child in children for end in _ends(child)]


def _accepted(kind):
    """Names of the settings of a layer of Keras 2."""
    layer = getattr(keras().layers, kind)
    found: set[str] = set()
    for part in layer.__mro__:
        if part is keras().layers.Layer:
            break
        found |= inspect.signature(part.__init__).parameters.keys()
    return found - {"self", "kwargs", "args"}
