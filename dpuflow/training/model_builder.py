"""Keras model from a config's layer list.

Each entry of the list is a name (``flatten``) or a one-key mapping (``{conv: {...}}``);
`LAYERS` is the vocabulary. The output layer is not listed, its width is the dataset's: dense with one unit
per class and a softmax, or for segmentation a 1x1 convolution with a channel per class. A detector's outputs
are its entries `head`, wherever they stand.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.training import Entry

ANCHORS = 3
"""Of a head that does not say how many."""
MOMENTUM = 0.95
"""Of batch norms in detectors and segmenting networks, which see few batches in an epoch: with Keras's 0.99
their means and deviations are still those of the beginning when a short training ends."""
RARE = 0.01
"""What an untrained head says of objects: nearly everywhere there is nothing, and a head that began at a half
would spend its first epoch learning that."""


def build_model(
    layers: Sequence[Entry],
    image_shape: Sequence[int],
    classes: int,
    name: str,
    task: str = "classification",
) -> Any:
    """Build the (uncompiled) model.

    Parameters
    ----------
    layers : list of layer entries.
    image_shape : (H, W, C) of the input.
    classes : number of class names.
    name : the model's name, part of the H5 and of error messages.
    task : of the data set: classification, detection or segmentation.

    Raises
    ------
    UserError : unknown layer or a shape that does not fit, naming the entry.
    """
    source, where, model_name = (
        keras().Input(image_shape, name="input"),
        f"models.{name}.layers",
        re.sub(r"\W", "_", name),
    )
    if task == "classification":
        return with_head(source, source, layers, where, classes, model_name)
    builder = _Builder(keras(), model_name, classes if task == "detection" else None, MOMENTUM)
    x = builder.stack(source, layers, where)
    if task == "segmentation":
        check_map(where, tuple(x.shape[1:]), tuple(image_shape))
        x = builder.K.layers.Conv2D(classes, 1, name="logits")(x)
        return builder.K.Model(source, x, name=model_name)
    check_last(where, layers)
    model = builder.K.Model(source, builder.heads, name=model_name)
    for head in builder.heads:
        _begin_rare(model.get_layer(head.node.layer.name), classes)
    return model


def _begin_rare(layer, classes):
    """The objectness of a head begins at RARE (see there), its classes at equal shares."""
    kernel, bias = layer.get_weights()
    values, share = bias.reshape(-1, 5 + classes), 1 / max(2, classes)
    values[:, 4], values[:, 5:] = np.log(RARE / (1 - RARE)), np.log(share / (1 - share))
    layer.set_weights([kernel, bias])


def check_map(where: str, found: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
    """UserError unless a segmentation's last layer has a pixel for each of the picture."""
    if found[:-1] != image_shape[:-1]:
        raise UserError(
            f"{where}: the last layer leaves {' x '.join(map(str, found))}, but the mask has a class for "
            f"each of {image_shape[0]} x {image_shape[1]} pixels; upsample or transposed_conv bring a map "
            "back to that size"
        )


def check_last(where: str, layers: Sequence[Entry]) -> None:
    """UserError unless a detector's list ends with a head: what came behind it would serve nothing."""
    if kind_of(layers[-1]) != "head":
        raise UserError(f"{where}: the list of a detector ends with a head (head: {{anchors: 3}})")


def kind_of(entry: Entry) -> str:
    """The kind of a layer of the list."""
    return next(iter(entry)) if isinstance(entry, dict) else entry


def with_head(
    model_input: Any, x: Any, layers: Sequence[Entry], where: str, classes: int, model_name: str
) -> Any:
    """A model from `model_input` by way of `x` and the listed layers to the output layer.

    where : the list's key, for messages. UserError as of `build_model`.
    """
    builder = _Builder(keras(), model_name)
    x = builder.stack(x, layers, where)
    if len(x.shape) != 2:
        raise UserError(
            f"{where}: the last layer leaves a map of shape {tuple(x.shape[1:])}; "
            "end the list with flatten, global_average_pool or dense"
        )
    x = builder.K.layers.Dense(classes, name="logits")(x)
    x = builder.K.layers.Activation("softmax", name="probabilities")(x)
    return builder.K.Model(model_input, x, name=model_name)


class _Builder:
    def __init__(self, K, model_name, detected=None, momentum=0.99):
        """detected : number of classes that a head tells apart; None where heads have no place.

        momentum : of batch norms' means and deviations, by default Keras's.
        """
        self.K = K
        self.momentum = momentum
        self.model_name = model_name
        self.counts = {}
        self.detected = detected
        self.heads = []

    def name(self, kind: str) -> str:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{kind}{self.counts[kind]}"

    def stack(self, x: Any, layers: Sequence[Entry], path: str) -> Any:
        for index, entry in enumerate(layers):
            where = f"{path}[{index}]"
            kind, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, None)
            make = LAYERS.get(kind)
            if make is None:
                raise UserError(f"{where}: unknown layer {kind!r}, expected one of {', '.join(LAYERS)}")
            try:
                x = make(self, x, options, where)
            except (ValueError, TypeError) as error:
                raise UserError(f"{where}: {kind} does not fit here ({error})") from None
            if any(side == 0 for side in x.shape[1:]):
                raise UserError(f"{where}: {kind} leaves an empty map {tuple(x.shape[1:])}")
        return x

    def activate(self, x: Any, options: Any, prefix: str) -> Any:
        """Batch norm and activation in the order the entry asks for."""
        activation = options.get("activation", "none")
        batch_norm = options.get("batch_norm", "none")
        if batch_norm == "before_activation":
            x = self.batch_norm(x, prefix)
        if activation == "leaky_relu":
            # the DPU's only slope (docs/reference/numerics.md); Keras stores it in the layer
            x = self.K.layers.LeakyReLU(alpha=26 / 256, name=f"{prefix}_leaky_relu")(x)
        elif activation == "relu6":
            x = self.K.layers.ReLU(max_value=6.0, name=f"{prefix}_relu6")(x)
        elif activation == "relu":
            x = self.K.layers.Activation("relu", name=f"{prefix}_relu")(x)
        elif activation == "hard_sigmoid":
            x = self.hard_sigmoid(x, prefix)
        elif activation == "hard_swish":
            gate = self.hard_sigmoid(x, prefix)
            x = self.K.layers.Multiply(name=f"{prefix}_hard_swish")([x, gate])
        if batch_norm == "after_activation":
            x = self.batch_norm(x, prefix)
        return x

    def hard_sigmoid(self, x: Any, prefix: str) -> Any:
        """relu6(x + 3) / 6, of layers that every Keras has; Keras's own function of that name is another."""
        layers = self.K.layers
        shifted = layers.Rescaling(1.0, 3.0, name=f"{prefix}_plus_3")(x)
        cut = layers.ReLU(max_value=6.0, name=f"{prefix}_relu6")(shifted)
        return layers.Rescaling(1 / 6, name=f"{prefix}_hard_sigmoid")(cut)

    def batch_norm(self, x: Any, prefix: str) -> Any:
        return self.K.layers.BatchNormalization(momentum=self.momentum, name=f"{prefix}_bn")(x)

    def conv(self, x: Any, options: Any, where: str) -> Any:
        name = self.name("conv")
        x = self.K.layers.Conv2D(
            options["filters"],
            options.get("kernel", 3),
            strides=options.get("stride", 1),
            padding=options.get("padding", "same"),
            dilation_rate=options.get("dilation", 1),
            groups=options.get("groups", 1),
            name=name,
        )(x)
        return self.activate(x, options, name)

    def depthwise_conv(self, x: Any, options: Any, where: str) -> Any:
        name = self.name("depthwise")
        options = options or {}
        x = self.K.layers.DepthwiseConv2D(
            options.get("kernel", 3),
            strides=options.get("stride", 1),
            padding=options.get("padding", "same"),
            depth_multiplier=options.get("multiplier", 1),
            dilation_rate=options.get("dilation", 1),
            name=name,
        )(x)
        return self.activate(x, options, name)

    def transposed_conv(self, x: Any, options: Any, where: str) -> Any:
        name = self.name("transposed")
        kernel, stride = options.get("kernel", 2), options.get("stride", 2)
        make = self.K.layers.Conv2DTranspose
        x = make(options["filters"], kernel, strides=stride, padding="same", name=name)(x)
        return self.activate(x, options, name)

    def dense(self, x: Any, options: Any, where: str) -> Any:
        name = self.name("dense")
        options = {"units": options} if isinstance(options, int) else options
        x = self.K.layers.Dense(options["units"], name=name)(x)
        return self.activate(x, options, name)

    def pool(self, x: Any, options: Any, kind: str) -> Any:
        options = {"kernel": options} if isinstance(options, int) else (options or {})
        kernel = options.get("kernel", 2)
        make = self.K.layers.MaxPooling2D if kind == "max_pool" else self.K.layers.AveragePooling2D
        stride, padding = options.get("stride", kernel), options.get("padding", "valid")
        return make(kernel, strides=stride, padding=padding, name=self.name(kind))(x)

    def upsample(self, x: Any, options: Any, where: str) -> Any:
        options = {"factor": options} if isinstance(options, int) else options
        interpolation = options.get("interpolation", "nearest")
        make = self.K.layers.UpSampling2D
        return make(options["factor"], interpolation=interpolation, name=self.name("upsample"))(x)

    def squeeze_excite(self, x: Any, options: Any, where: str) -> Any:
        """Factors (1, 1, C) of the map's means; Keras's hard sigmoid, 0.2 x + 0.5 cut to 0 ... 1."""
        layers, name = self.K.layers, self.name("squeeze_excite")
        _, height, width, channels = x.shape
        squeezed = layers.AveragePooling2D((height, width), name=f"{name}_squeeze")(x)
        narrow = layers.Conv2D(max(1, channels // options), 1, activation="relu", name=f"{name}_narrow")
        excited = layers.Conv2D(channels, 1, name=f"{name}_wide")(narrow(squeezed))
        gate = layers.Activation("hard_sigmoid", name=f"{name}_gate")(excited)
        return layers.Multiply(name=name)([x, gate])

    def residual(self, x: Any, options: Any, where: str) -> Any:
        name = self.name("residual")
        body = self.stack(x, options["layers"], f"{where}.residual.layers")
        shortcut = x
        if tuple(body.shape[1:]) != tuple(x.shape[1:]):
            stride = -(-x.shape[1] // body.shape[1])
            conv = self.K.layers.Conv2D(
                body.shape[-1], 1, strides=stride, padding="same", name=f"{name}_shortcut"
            )
            shortcut = self.batch_norm(conv(x), f"{name}_shortcut")
        x = self.K.layers.Add(name=name)([body, shortcut])
        return self.activate(x, {"activation": options.get("activation", "relu")}, name)

    def concat(self, x: Any, options: Any, where: str) -> Any:
        name = self.name("concat")
        branches = [
            self.stack(x, branch, f"{where}.concat.branches[{i}]")
            for i, branch in enumerate(options["branches"])
        ]
        return self.K.layers.Concatenate(name=name)(branches)

    def head(self, x: Any, options: Any, where: str) -> Any:
        """An output beside the way of the layers: what is behind it reads what it read."""
        anchors = (options or {}).get("anchors", ANCHORS)
        if self.detected is None:
            raise UserError(f"{where}: a head is for data sets of the task detection")
        head = self.K.layers.Conv2D(anchors * (5 + self.detected), 1, name=self.name("head"))
        self.heads.append(head(x))
        return x

    def global_average_pool(self, x: Any, options: Any, where: str) -> Any:
        return self.K.layers.GlobalAveragePooling2D(name=self.name("global_average_pool"))(x)

    def global_max_pool(self, x: Any, options: Any, where: str) -> Any:
        return self.K.layers.GlobalMaxPooling2D(name=self.name("global_max_pool"))(x)

    def space_to_depth(self, x: Any, options: Any, where: str) -> Any:
        return tensorflow().nn.space_to_depth(x, options, name=self.name("space_to_depth"))

    def depth_to_space(self, x: Any, options: Any, where: str) -> Any:
        return tensorflow().nn.depth_to_space(x, options, name=self.name("depth_to_space"))

    def flatten(self, x: Any, options: Any, where: str) -> Any:
        return self.K.layers.Flatten(name=self.name("flatten"))(x)

    def dropout(self, x: Any, options: Any, where: str) -> Any:
        return self.K.layers.Dropout(options, name=self.name("dropout"))(x)


LAYERS = {
    "conv": _Builder.conv,
    "depthwise_conv": _Builder.depthwise_conv,
    "transposed_conv": _Builder.transposed_conv,
    "dense": _Builder.dense,
    "max_pool": lambda b, x, options, where: b.pool(x, options, "max_pool"),
    "avg_pool": lambda b, x, options, where: b.pool(x, options, "avg_pool"),
    "global_average_pool": _Builder.global_average_pool,
    "global_max_pool": _Builder.global_max_pool,
    "upsample": _Builder.upsample,
    "space_to_depth": _Builder.space_to_depth,
    "depth_to_space": _Builder.depth_to_space,
    "squeeze_excite": _Builder.squeeze_excite,
    "residual": _Builder.residual,
    "concat": _Builder.concat,
    "head": _Builder.head,
    "flatten": _Builder.flatten,
    "dropout": _Builder.dropout,
}
"""Layer kinds a config may name."""
