"""The layers of a Keras H5 as its configuration lists them, checked before Keras sees the file.

A file is data here: what could run code of the file's author is refused, and what Keras would read
wrongly without a word (kernels of another backend, configurations of another Keras) as well. Every
message names the layer.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras, tensorflow

BACKENDS = ("tensorflow", "theano", "jax", "torch", "numpy", "openvino")
"""Whose kernels are understood: `rebuild` turns those of Theano; those of Keras 3 all store alike."""

ARITHMETIC = {
    **dict.fromkeys(("math.add", "__operators__.add", "nn.bias_add"), "add"),
    **dict.fromkeys(("math.subtract", "__operators__.sub"), "subtract"),
    **dict.fromkeys(("math.multiply", "__operators__.mul"), "multiply"),
    **dict.fromkeys(("math.truediv", "math.divide", "__operators__.truediv", "realdiv"), "divide"),
    **dict.fromkeys(("math.negative", "__operators__.neg"), "negative"),
}
"""Function of a TFOpLambda -> operation of `arithmetic`."""
SHAPES = ("cast", "identity", "reshape", "expand_dims", "compat.v1.squeeze", "squeeze", "reverse")
"""Functions that move values, or change their type, and compute nothing."""
COMPUTED = (
    *("nn.relu", "nn.relu6", "nn.leaky_relu", "nn.softmax", "nn.sigmoid", "math.sigmoid", "nn.silu"),
    *("math.reduce_mean", "math.reduce_max", "math.maximum", "math.minimum", "clip_by_value", "concat"),
    *(
        "nn.space_to_depth",
        "nn.depth_to_space",
        "nn.max_pool2d",
        "nn.avg_pool2d",
        "pad",
        "keras.backend.mean",
        "math.tanh",
        "math.exp",
        "math.abs",
        "math.reduce_sum",
        "math.square",
        "transpose",
        "image.resize",
        "compat.v1.image.resize_bilinear",
        "compat.v1.image.resize_nearest_neighbor",
        "nn.elu",
        "nn.selu",
    ),
)
"""Functions of one value of the public TensorFlow API that neither read nor write anything else; they
stay, and the reader of the frozen graph says which of them a DPU can run."""
SLICING = "__operators__.getitem"
GRAPH_OPS = {
    **{"Add": "add", "AddV2": "add", "BiasAdd": "add", "Sub": "subtract", "Mul": "multiply"},
    **{"RealDiv": "divide", "Neg": "negative", "Cast": "cast", "Identity": "identity"},
}
"""Op of a TensorFlowOpLayer (TensorFlow 2.0 to 2.3) -> what it is here."""

QUANTIZED = (
    "fixneuron",
    "vitisquantize",
    "quantizewrapper",
    "quantizelayer",
    "fakequant",
    "quantizeannotate",
)
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM2D", "Bidirectional", "TimeDistributed")
NO_IMAGE = ("Embedding", "Attention", "AdditiveAttention", "MultiHeadAttention", "TextVectorization")
ONE_DIMENSION = (
    "Conv1D",
    "Conv3D",
    "SeparableConv1D",
    "MaxPooling1D",
    "GlobalAveragePooling1D",
    "MaxPooling3D",
)
MODELS = ("Sequential", "Functional", "Model")
OPERATIONS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "InputLayer")
KERAS_1 = ("nb_filter", "nb_row", "border_mode", "dim_ordering", "subsample", "output_dim")
KERAS_1_LAYERS = ("Dense", "Convolution2D", "MaxPooling2D", "AveragePooling2D", "ZeroPadding2D", "Conv2D")


def layer_configs(value: Any) -> Iterator[dict[str, Any]]:
    """Every {"class_name": ..., "config": ...} mapping, however deep."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for child in value.values():
            yield from layer_configs(child)
    elif isinstance(value, list):
        for child in value:
            yield from layer_configs(child)


def real_layers(config: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, class name, config) of each layer and nested model; not of initializers and the like."""
    for found in layer_configs(config):
        options = found.get("config")
        name = options.get("name", found.get("name")) if isinstance(options, dict) else None
        if isinstance(options, dict) and isinstance(name, str):
            yield name, str(found["class_name"]), options


def check_code(path: Path | str, config: Any) -> None:
    """UserError for a layer whose configuration carries code, or names a function that might do anything.

    Of `TFOpLambda` (an operation written with Python operators or `tf.` functions) the file holds the
    name only; those of ARITHMETIC, SHAPES and COMPUTED touch nothing but their arguments.
    """
    for found in layer_configs(config):
        if "Lambda" in str(found["class_name"]) or "function_type" in str(found.get("config", "")):
            function = _mapping(found.get("config")).get("function")
            if found["class_name"] == "TFOpLambda" and function in (*ARITHMETIC, *SHAPES, *COMPUTED):
                continue
            if found["class_name"] == "SlicingOpLambda" and function == SLICING:
                continue
            name = _mapping(found.get("config")).get("name")
            if found["class_name"] in ("TFOpLambda", "SlicingOpLambda"):
                raise UserError(
                    f"{path}: layer {name!r} calls tf.{function}, which is not among the functions that "
                    "dpuflow runs from a file (arithmetic, activations, pooling, reshaping); rebuild the "
                    "model without it"
                )
            raise UserError(
                f"{path}: layer {name!r} is a {found['class_name']}, which carries Python code and has no "
                "place on a DPU; rebuild the model without it"
            )
        if found["class_name"] == "TensorFlowOpLayer":
            op = _graph_op(found)
            if op not in GRAPH_OPS:
                name = _mapping(found.get("config")).get("name")
                raise UserError(
                    f"{path}: layer {name!r} is the TensorFlow operation {op!r}; of these only "
                    f"{', '.join(sorted(GRAPH_OPS))} are read; rebuild the model without it"
                )


def is_keras_3(versions: Mapping[str, str | None]) -> bool:
    """Whether Keras 3 wrote the file that says this of its versions (`check_foreign`)."""
    return (versions.get("keras_version") or "").split(".")[0] == "3"


def check_foreign(path: Path | str, config: dict[str, Any], versions: Mapping[str, str | None]) -> None:
    """UserError unless the model of this `model_config` is one that dpuflow can read as it was meant.

    versions : {"keras_version", "backend"} as the file says, None where it does not.
    """
    version, backend = (versions.get(key) for key in ("keras_version", "backend"))
    if (version or "").split(".")[0] not in ("", "1", "2", "3"):
        raise UserError(
            f"{path}: written by Keras {version}; dpuflow reads files of Keras 2 and 3. Save it again with "
            "one of these, or freeze it and name the graph with frozen_pb"
        )
    layers = list(real_layers(config))
    _check_keras_1(path, version, layers)
    check_code(path, config)
    for name, kind, options in layers:
        problem = layer_problem(kind, options)
        if problem:
            raise UserError(f"{path}: layer {name!r} ({kind}): {problem}")
    for found in layer_configs(config):
        if _trains(found.get("inbound_nodes")):
            raise UserError(
                f"{path}: layer {found.get('name')!r} ({found['class_name']}): is called with training=True, "
                "so it acts at random or by the batch; build the model without that and save it again"
            )
    if config["class_name"] not in MODELS and not _is_graph(config):
        raise UserError(
            f"{path}: the model is of the class {config['class_name']!r}, whose code is not in the file; "
            "build it with Sequential or the functional API, or name its frozen graph with frozen_pb"
        )
    if backend is not None and backend not in BACKENDS:
        raise UserError(
            f"{path}: trained with the Keras backend {backend!r}, whose convolutions may mean something "
            f"else; expected {' or '.join(BACKENDS)}: load it there with the backend tensorflow, test it and "
            "save it again"
        )


def _check_keras_1(path, version, layers):
    old = next(
        (
            (name, key)
            for name, kind, options in layers
            if kind in KERAS_1_LAYERS
            for key in KERAS_1
            if key in options
        ),
        None,
    )
    if old or (version or "").startswith("1."):
        where = f" (layer {old[0]!r} has {old[1]!r})" if old else ""
        raise UserError(
            f"{path}: written by Keras 1{where}; dpuflow reads Keras 2 files: load it with Keras 2.0 to 2.2, "
            "which still knows this form, and save it again"
        )


def _is_graph(config):
    """Whether a model's configuration is that of a graph of layers, whatever its class is called.

    A class of one's own made from inputs and outputs (to change the training step) is saved as one.
    """
    return {"layers", "input_layers", "output_layers"} <= _mapping(config.get("config")).keys()


def _trains(nodes):
    """Whether a call is written with training=True."""
    if isinstance(nodes, dict):
        return nodes.get("training") is True or any(_trains(value) for value in nodes.values())
    return isinstance(nodes, list) and any(_trains(value) for value in nodes)


def layer_problem(kind: str, options: Mapping[str, Any]) -> str | None:
    """What keeps a layer of this class out, or None."""
    plain = kind.rpartition(">")[2]
    if any(word in plain.lower() for word in QUANTIZED) or (plain.startswith("Q") and plain[1:2].isupper()):
        return "the model is already quantized; give the float model, dpuflow quantizes it itself"
    if plain == "PruneLowMagnitude":
        return "a wrapper for pruning; take it off with strip_pruning and save the model again"
    if kind in RECURRENT:
        return "recurrent and time-distributed layers do not run on a DPU; retrain the model without them"
    if kind in NO_IMAGE:
        return "does not take images and does not run on a DPU; retrain the model without it"
    if kind in ONE_DIMENSION:
        return "only layers of two dimensions (Conv2D, MaxPooling2D, ...) run on a DPU; retrain with those"
    layers = keras().layers
    preprocessing = layers.experimental.preprocessing
    known = hasattr(layers, kind) or hasattr(preprocessing, kind) or kind in (*MODELS, *OPERATIONS)
    if not known and "trainable" in options and not _is_graph({"config": options}):
        return "its class is not one of Keras, and its code is not in the file; rebuild the model without it"
    return _activation_problem(options.get("activation"))


def _activation_problem(activation):
    """What is wrong with an activation named by its function, or None."""
    if isinstance(activation, str):
        try:
            keras().activations.get(activation)
        except ValueError:
            return (
                f"its activation {activation!r} is not one of Keras and its code not in the file; retrain "
                "the model with one of Keras, ReLU best"
            )
    return None


def _graph_op(found):
    """Name of the operation of a TensorFlowOpLayer, whose node is JSON or (TensorFlow 2.0) a protobuf."""
    node = _mapping(found.get("config")).get("node_def")
    if isinstance(node, str):
        try:
            return tensorflow().compat.v1.NodeDef.FromString(node.encode()).op
        except Exception:  # protobuf's DecodeError; what cannot be read is not among the known ones
            return None
    return _mapping(node).get("op")


def _mapping(value):
    return value if isinstance(value, dict) else {}


# -- one form for all ----------------------------------------------------------------------


def plain_config(
    path: Path | str, config: dict[str, Any], image_shape: Sequence[int]
) -> tuple[dict[str, Any], set[str] | None]:
    """(configuration that Keras 2 builds in float32, with a free batch and channels last; layers to turn).

    - `dtype` and policies (mixed_float16, uint8 inputs) become float32: parameters of mixed precision are
      stored as float32 anyway.
    - The batch size becomes free. A Sequential that never heard of its input gets the data set's shape.
    - `channels_first` becomes `channels_last`: kernels are stored alike for both, so only shapes and axes
      change, and the order in which a Flatten that does not know its layout (before Keras 2.2, or left at
      channels_last) reads the map. The second result is the set of those layers' names (None: nothing
      was channels first).
    """
    config = copy.deepcopy(config)
    for found in layer_configs(config):
        if found["class_name"] not in MODELS and _is_graph(found):
            found["class_name"] = "Functional"
    layers = list(real_layers(config))
    first = {name for name, _, options in layers if options.get("data_format") == "channels_first"}
    turned = _to_channels_last(path, layers) if first else None
    for _, _, options in layers:
        _float32(options)
        for key in ("batch_input_shape", "build_input_shape"):
            if isinstance(options.get(key), list) and options[key]:
                options[key][0] = None
    _float32_arguments(config)
    _give_shape(config, image_shape)
    return config, turned


def _float32(options):
    if "dtype" in options:
        options["dtype"] = "float32"


def _float32_arguments(value):
    """Casts between float types vanish: {"dtype": "float16"} among the arguments of a call."""
    if isinstance(value, dict):
        if value.get("dtype") in ("float16", "bfloat16", "float64"):
            value["dtype"] = "float32"
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            _float32_arguments(child)


def _give_shape(config, image_shape):
    options = config.get("config")
    if config["class_name"] != "Sequential" or not isinstance(options, dict):
        return
    known = options.get("build_input_shape") or any(
        "batch_input_shape" in layer for _, _, layer in real_layers(options)
    )
    if not known:
        options["build_input_shape"] = [None, *image_shape]


MOVES_WITH_CHANNELS = {"BatchNormalization", "Concatenate"}
ANY_LAYOUT = {
    *(
        "Activation",
        "ReLU",
        "LeakyReLU",
        "ELU",
        "ThresholdedReLU",
        "Dropout",
        "GaussianNoise",
        "GaussianDropout",
    ),
    *("ActivityRegularization", "Add", "Average", "Maximum", "Dense", "InputLayer", "Rescaling", "Softmax"),
}


def _to_channels_last(path, layers):
    """Change layouts in place; returns the names of the Flatten layers that read channels first."""
    turned = set()
    for name, kind, options in layers:
        if kind == "InputLayer" or "batch_input_shape" in options:
            shape = options.get("batch_input_shape")
            if isinstance(shape, list) and len(shape) == 4:
                options["batch_input_shape"] = [shape[0], shape[2], shape[3], shape[1]]
        if kind == "Flatten":
            if options.get("data_format") != "channels_first":
                turned.add(name)
            options["data_format"] = "channels_last"
        elif "data_format" in options:
            if options["data_format"] not in ("channels_first", None):
                raise UserError(
                    f"{path}: layer {name!r} ({kind}) works channels_last, other layers channels_first; "
                    "rebuild the model with one layout, channels_last"
                )
            options["data_format"] = "channels_last"
        elif kind in MOVES_WITH_CHANNELS:
            axis = options.get("axis", -1)
            options["axis"] = -1 if axis in (1, [1]) else axis
            if axis not in (1, [1]):
                turned.add(name)
        elif kind not in ANY_LAYOUT and kind not in MODELS:
            raise UserError(
                f"{path}: layer {name!r} ({kind}) in a channels_first model: what it does to the axes is not "
                "clear; rebuild the model with channels_last"
            )
    return turned
