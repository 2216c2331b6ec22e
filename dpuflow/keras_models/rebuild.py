"""A plain copy of a foreign Keras model: what its inference computes, in layers that a DPU's tools know.

The copy has one input of the data set's shape with a free batch, float32, no nested models, no layers that
act in training only (augmentation), and gives the same values:

- Rescaling, Normalization and arithmetic with constants (`x / 127.5 - 1`, `preprocess_input`) gather into
  one BatchNormalization with moving mean 0, variance 1 and epsilon 0, which is y = gamma * x + beta.
- A reversal of the channels (BGR) and a Flatten that reads channels first move into the weights of the
  layers that follow.
- Kernels that Theano trained are turned by 180 degrees: its convolutions are true ones, TensorFlow's are
  correlations (its depthwise kernels are stored the other way and stay); where its 'same' padding puts
  other zeros than TensorFlow's (even kernels, strides), a ZeroPadding2D puts Theano's.
- One sigmoid output for two classes becomes softmax over (-z/2, z/2), which is (1 - sigmoid(z), sigmoid(z)).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.outputs import ONLY
from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.copies import HANDLERS
from dpuflow.keras_models.foreign_model import check_answer, input_mismatch, several_inputs
from dpuflow.keras_models.operations import OPERATIONS
from dpuflow.keras_models.stored_weights import share_values, values_of, without_values
from dpuflow.keras_models.tracked import Tracked, leaves

NOTHING_AT_INFERENCE = (
    *(
        "RandomFlip",
        "RandomRotation",
        "RandomZoom",
        "RandomTranslation",
        "RandomContrast",
        "RandomBrightness",
    ),
    *(
        "RandomHeight",
        "RandomWidth",
        "GaussianNoise",
        "GaussianDropout",
        "AlphaDropout",
        "ActivityRegularization",
    ),
)
ORDER_PASSES = (
    *("Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "SpatialDropout2D", "ThresholdedReLU"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D"),
    *("ZeroPadding2D", "Cropping2D", "UpSampling2D"),
)
"""Layers that treat all channels alike."""
SAME_ORDER = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
"""Layers of several inputs that combine equal channels."""
SAME_POOLS = ("MaxPooling2D", "AveragePooling2D")


def rebuild(
    path: Path | str,
    model: Any,
    image_shape: Sequence[int],
    classes: int,
    *,
    answer: str | None = None,
    theano: bool = False,
    turned: Collection[str] | None = (),
    channels_first: bool = False,
) -> Any:
    """Return the plain copy of `model`, as a functional Keras model.

    Parameters
    ----------
    path : the file, for messages.
    model : Keras model built from `keras_config.plain_config`, weights loaded.
    image_shape : (H, W, C) of the data set. The model may take that, a vector of H * W * C, or (H, W)
        where there is one channel.
    classes : number of classes; the output that is the class of a picture has that many values.
    answer : which that is, as for `base.outputs.answer_of`.
    theano, turned, channels_first : what the file says about its kernels and layout.

    Raises
    ------
    UserError : several inputs, shapes that do not fit, a layer that cannot be copied exactly.
    """
    builder = Rebuilder(path, model, theano, turned, channels_first)
    names = _output_names(model)
    if classes == 2 and len(names) == 1 and answer is None:
        builder.binary = builder.sigmoid_output()
    elif classes == 2 and answer in names:
        builder.binary = builder.sigmoid_among(str(answer))
    K = keras()
    images = K.Input(tuple(image_shape), name=builder.unique(_input_name(model)))
    with without_values():
        values = builder.run_all(model, builder.enter(model, images))
        outputs = builder.leave(dict(zip(names, values, strict=True)), classes, answer)
    copied = K.Model(images, outputs if len(outputs) > 1 else outputs[0], name=model.name)
    for clone, weights in builder.weights:
        share_values(clone, weights)
    return copied


def _input_name(model):
    return model.input_names[0] if getattr(model, "input_names", None) else "input"


def _output_names(model):
    """What the outputs are called; ONLY where there is one."""
    names = [str(name) for name in getattr(model, "output_names", None) or [ONLY]]
    return names if len(names) > 1 else [ONLY]


def _sigmoid_of_one(layer, before):
    """(Dense,) or (Dense, Activation) of a sigmoid of one value, else (). before : stands before `layer`."""
    kind = type(layer).__name__
    if getattr(getattr(layer, "activation", None), "__name__", None) != "sigmoid":
        return ()
    if kind == "Dense" and layer.units == 1:
        return (layer,)
    if kind == "Activation" and type(before).__name__ == "Dense" and before.units == 1:
        return (before, layer) if before.activation.__name__ == "linear" else ()
    return ()


class Rebuilder:
    """State of one copy: the clones by layer, the names in use, the weights to set at the end."""

    def __init__(
        self, path: Path | str, model: Any, theano: bool, turned: Collection[str] | None, channels_first: bool
    ) -> None:
        self.path = path
        self.original = model
        self.theano = theano
        self.turned = turned or ()
        self.channels_first = channels_first
        self.clones: dict[int, tuple[Any, tuple[int, ...] | None]] = {}
        self.names: set[str] = set()
        self.weights: list[tuple[Any, Sequence[np.ndarray]]] = []
        self.binary: tuple[Any, ...] = ()

    def fail(self, layer: Any, problem: str) -> NoReturn:
        """Raise the UserError that names the file, the Keras layer and its class."""
        raise UserError(f"{self.path}: layer {layer.name!r} ({type(layer).__name__}): {problem}")

    def unique(self, name: str) -> str:
        """`name` as one scope of a graph, with a number where another model inside brought the same."""
        number, wanted = 1, name.replace("tf.__operators__.", "").replace("/", "_")
        while (unique := wanted if number == 1 else f"{wanted}_{number}") in self.names:
            number += 1
        self.names.add(unique)
        return unique

    # -- the ends --------------------------------------------------------------------------

    def enter(self, model: Any, images: Any) -> Tracked:
        """The data set's images in the shape that the model takes."""
        image_shape = tuple(images.shape[1:])
        wanted = self._one(model, "input")
        if wanted is None:
            return Tracked(images)
        height, width, channels = image_shape
        if len(wanted) == 3 and all(a in (None, b) for a, b in zip(wanted, image_shape, strict=True)):
            return Tracked(images)
        if wanted == (height * width * channels,) or (wanted == (height, width) and channels == 1):
            layer = keras().layers.Reshape(wanted, name=self.unique("image_as_trained"))
            return Tracked(layer(images), forms=(images,))
        raise UserError(f"{self.path}: {input_mismatch(wanted, image_shape)}")

    def leave(self, values: Mapping[str, Tracked], classes: int, answer: str | None) -> list[Any]:
        """The output tensors; the one that is the class of a picture has one value for each."""
        values = {name: self.settle(value) for name, value in values.items()}
        layer = getattr(self.original, "layers", [None])[-1]
        if any(value.order is not None for value in values.values()):
            self.fail(layer, "the reversed channels reach the output; rebuild the model without the reversal")
        shapes = {name: (classes,) if v.shape == (1, 1, classes) else v.shape for name, v in values.items()}
        chosen = check_answer(self.path, shapes, classes, answer)
        tensors = {name: value.tensor for name, value in values.items()}
        if chosen is not None and values[chosen].shape != (classes,):
            flat = "classes" if chosen == ONLY else f"{chosen}_classes"
            tensors[chosen] = keras().layers.Flatten(name=self.unique(flat))(tensors[chosen])
        if len(tensors) == 1:
            return list(tensors.values())
        return [self._named(tensor, name) for name, tensor in tensors.items()]

    def _named(self, tensor, name):
        """The tensor as the output of a layer called `name`, as Keras calls outputs."""
        if tensor.node.layer.name == name and tensor.node.layer._inbound_nodes[0] is tensor.node:
            return tensor
        if self.unique(name) != name:
            raise UserError(
                f"{self.path}: output {name!r} cannot keep its name, which a layer inside the network has; "
                "rename that layer"
            )
        return keras().layers.Activation("linear", name=name)(tensor)

    def _one(self, model, what):
        """Shape without the batch of the one input or output; None where the model was never told."""
        tensors = getattr(model, f"{what}s") or []
        if model is self.original and what == "input" and len(tensors) > 1:
            raise UserError(f"{self.path}: {several_inputs(len(tensors))}")
        if len(tensors) > 1 or (model.inputs and not tensors):
            names = ", ".join(repr(tensor.name.split("/")[0].split(":")[0]) for tensor in tensors)
            raise UserError(
                f"{self.path}: model {model.name!r} has {len(tensors)} {what}s{names and f' ({names})'}; "
                "dpuflow takes models with one"
            )
        return tuple(tensors[0].shape[1:]) if tensors else None

    def sigmoid_output(self) -> tuple[Any, ...]:
        """The layers that make sigmoid(z) of one value z at the end; () where the model ends otherwise."""
        layer: Any = self.original
        model: Any = None
        while hasattr(layer, "layers"):
            if not layer.layers:
                return ()
            model, layer = layer, layer.layers[-1]
        return _sigmoid_of_one(layer, model.layers[-2] if len(model.layers) > 1 else None)

    def sigmoid_among(self, output: str) -> tuple[Any, ...]:
        """The same of one output of several, whose layers nothing else reads."""
        layer = self.original.get_layer(output)
        above = getattr(layer.input, "node", None)  # of a functional Keras model
        before = above.layer if above is not None else None
        found = _sigmoid_of_one(layer, before)
        readers = [len(part._outbound_nodes) for part in found]
        return found if readers == [1, 0][-len(found) :] and found else ()

    # -- walking ---------------------------------------------------------------------------

    def run(self, model: Any, value: Tracked) -> Tracked:
        """What `model` with one output makes of `value`; nested models are taken apart."""
        self._one(model, "output")
        return self.run_all(model, value)[0]

    def run_all(self, model: Any, value: Tracked) -> list[Tracked]:
        """Every output that `model` makes of `value`."""
        K = keras()
        self._one(model, "input")
        if isinstance(model, K.Sequential):
            for layer in model.layers:
                value = self.call(layer, [value], {})
            return [value]
        values = {id(model.inputs[0]): value}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                args, kwargs = node.map_arguments(_Lookup(values))
                result = self.call(node.layer, args, kwargs)
                for tensor in leaves(node.outputs):
                    values[id(tensor)] = result
        return [values[id(tensor)] for tensor in model.outputs]

    def call(self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tracked:
        """The value of one call of `layer`."""
        kind = type(layer).__name__
        kwargs = dict(kwargs)
        for key in ("training", "mask"):
            kwargs.pop(key, None)
        values = [value for value in leaves([args, list(kwargs.values())]) if isinstance(value, Tracked)]
        try:
            if isinstance(layer, keras().Model):
                if len(values) != 1:
                    self.fail(
                        layer, f"a model with {len(values)} inputs inside; dpuflow takes models with one"
                    )
                return self.run(layer, values[0])
            if kind in OPERATIONS:
                return OPERATIONS[kind](self, layer, list(args), kwargs)
            return self._layer(layer, kind, values)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            self.fail(layer, f"cannot be rebuilt for images of this data set ({reason})")

    def _layer(self, layer, kind, values):
        if kind in NOTHING_AT_INFERENCE:
            return values[0]
        if self.channels_first:
            self._check_layout(layer, kind, values)
        handler = HANDLERS.get(kind)
        if handler is not None:
            return handler(self, layer, *values)
        values = [self.settle(value) for value in values]
        orders = {None if value.order is None else tuple(value.order) for value in values}
        if orders != {None} and (kind not in (*ORDER_PASSES, *SAME_ORDER) or len(orders) > 1):
            self.fail(layer, "stands behind a change of the channels' order that it cannot take over")
        if kind == "Activation" and layer in self.binary:  # its Dense is a softmax over two now
            return values[0]
        if self.theano and kind in SAME_POOLS and layer.padding == "same" and max(layer.pool_size) > 1:
            self.fail(
                layer, "pools with padding 'same' under Theano, whose windows lie elsewhere; use 'valid'"
            )
        tensors = [value.tensor for value in values]
        result = self.apply(layer, tensors if len(tensors) > 1 else tensors[0])
        return Tracked(result, values[0].order)

    def _check_layout(self, layer, kind, values):
        maps = any(len(value.shape) == 3 for value in values)
        softmax = getattr(getattr(layer, "activation", None), "__name__", "") == "softmax"
        axis = kind in ("BatchNormalization", "Concatenate") and layer.name in self.turned
        if maps and (axis or kind in ("Dense", "Softmax") or softmax):
            self.fail(
                layer, "works along the width of a channels_first map; rebuild the model with channels_last"
            )

    # -- clones ----------------------------------------------------------------------------

    def apply(
        self,
        layer: Any,
        tensors: Any,
        change: Mapping[str, Any] | None = None,
        weights: Sequence[np.ndarray] | None = None,
        order: np.ndarray | None = None,
        make: Callable[[str], Any] | None = None,
    ) -> Any:
        """Call the copy of `layer`; made at its first call, shared by the later ones.

        make : name -> another layer in its place.
        change : config entries that differ. weights : values of the copy (None: the original's).
        order : of the input, which must be the same at each call because the weights took it over.
        """
        key = None if order is None else tuple(order)
        if id(layer) not in self.clones:
            name = self.unique(layer.name)
            config = layer.get_config() | (change or {}) | {"name": name}
            config.pop("batch_input_shape", None)
            clone = make(name) if make else type(layer).from_config(config)
            self.clones[id(layer)] = clone, key
            result = clone(tensors)
            weights = values_of(layer) if weights is None else weights
            if weights:
                self.weights.append((clone, weights))
            return result
        clone, known = self.clones[id(layer)]
        if known != key:
            self.fail(layer, "is shared by inputs whose channels come in different orders")
        return clone(tensors)

    def settle(self, value: Tracked) -> Tracked:
        """`value` with its pending arithmetic done (once, whoever reads it)."""
        if value.scale is None:
            return value
        if value.settled is None:
            channels = value.channels
            gamma, beta = (
                np.broadcast_to(v, (channels,)).astype(np.float32) for v in (value.scale, value.offset)
            )
            layer = keras().layers.BatchNormalization(
                epsilon=0.0, trainable=False, name=self.unique(value.name)
            )
            tensor = layer(value.tensor)
            self.weights.append((layer, [gamma, beta, np.zeros_like(gamma), np.ones_like(gamma)]))
            value.settled = Tracked(tensor, value.order)
        return value.settled

    def reshape_to(self, layer: Any, value: Tracked, target: tuple[int, ...]) -> Tracked:
        """The value in another shape: one that it had before, else by a Reshape."""
        value = self.settle(value)
        count = int(np.prod(value.shape))
        if -1 in target:
            known = int(np.prod([n for n in target if n != -1]))
            target = tuple(count // known if n == -1 else n for n in target)
        if value.order is not None and target != value.shape:
            self.fail(layer, "reshapes what stands in another order of channels")
        for form in (value.tensor, *value.forms):
            if tuple(form.shape[1:]) == target:
                forms = tuple(f for f in (value.tensor, *value.forms) if f is not form)
                return Tracked(form, value.order, forms=forms)
        new = keras().layers.Reshape(target, name=self.unique(layer.name))
        source = value.forms[0] if value.forms and len(value.shape) != 3 else value.tensor
        return Tracked(new(source), forms=(*value.forms, value.tensor))


class _Lookup:
    """What `Node.map_arguments` takes: a list to pop from, for each tensor's id."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, key):
        return [self.values[int(key)]]
