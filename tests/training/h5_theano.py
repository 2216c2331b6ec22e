"""Small Keras H5 files as Theano wrote them: kernels turned, channels first, paddings of its own."""

import h5py
import numpy as np
from h5_writing import CLASSES, COLOUR, as_keras, conv, edit, head, layers, randomized, write

from dpuflow.base.tensorflow_env import keras


def turn(model, path, data_format, flatten=False, **options):
    """Write a model as Theano would have, `model` being what it computes: kernels turned; channels first."""
    turned = keras().models.clone_model(model)
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    for layer in turned.layers:
        values = weights[layer.name]
        if type(layer).__name__ == "Conv2D":
            values[0] = values[0][::-1, ::-1]
        layer.set_weights(values)

    def change(config):
        for layer in config["config"]["layers"]:
            options = layer["config"]
            if data_format == "channels_first":
                if "batch_input_shape" in options:
                    shape = options["batch_input_shape"]
                    options["batch_input_shape"] = [shape[0], shape[3], shape[1], shape[2]]
                if "data_format" in options:
                    options["data_format"] = data_format
                if layer["class_name"] == "BatchNormalization":
                    options["axis"] = [1]

    write(turned, path, change, backend="theano", keras_version="2.0.8")
    return as_keras(model)


def theano(path):
    L = keras().layers
    model = head(conv(), L.DepthwiseConv2D(3, padding="same"), conv())
    return turn(model, path, "channels_last")


def theano_channels_first(path):
    L = keras().layers
    model = keras().Sequential(
        [
            keras().Input(COLOUR),
            conv(),
            L.BatchNormalization(),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(CLASSES),
        ]
    )
    return turn(randomized(model), path, "channels_first")


def theano_flatten_of_old(path):
    """Before Keras 2.2 Flatten took channels first as they lay: the Dense's rows are in that order."""
    L = keras().layers
    model = keras().Sequential(
        [keras().Input(COLOUR), conv(4), L.MaxPooling2D(), L.Flatten(), L.Dense(CLASSES)]
    )
    turn(randomized(model), path, "channels_first")
    rows = np.arange(4 * 4 * 4).reshape(4, 4, 4).transpose(2, 0, 1).reshape(-1)

    def change(config):
        layers(config, "Flatten")[0].pop("data_format")

    edit(path, change)
    with h5py.File(path, "r+") as file:
        kernel = next(v for v in _datasets(file["model_weights"]) if v.shape == (64, CLASSES))
        kernel[...] = kernel[...][rows]
    return as_keras(model)


def _datasets(group):
    for item in group.values():
        if isinstance(item, h5py.Dataset):
            yield item
        else:
            yield from _datasets(item)


def theano_strided(path):
    """Theano pads the half kernel on both sides, here one row more in front than TensorFlow."""
    L = keras().layers
    meant = [L.ZeroPadding2D(1), conv(strides=2, padding="valid"), L.ZeroPadding2D(((1, 0), (1, 0)))]
    model = head(*meant, L.Conv2D(4, 2))
    written = head(conv(strides=2), L.Conv2D(4, 2, padding="same"))
    weights = model.get_weights()
    written.set_weights([w[::-1, ::-1] if w.ndim == 4 else w for w in weights])
    write(written, path, backend="theano", keras_version="2.1.2")
    return as_keras(model)
