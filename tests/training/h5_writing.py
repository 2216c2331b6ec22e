"""Writing small Keras H5 files, and editing them into what other tools write."""

import json

import h5py
import numpy as np

from dpuflow.base.tensorflow_env import keras

CLASSES = 3
GREY, COLOUR = (8, 8, 1), (8, 8, 3)
RNG = np.random.default_rng(5)


def start_over(name):
    """The random weights depend on the case alone, not on the cases before it."""
    RNG.bit_generator.state = np.random.default_rng(list(name.encode())).bit_generator.state


def randomized(model):
    """Weights of every kind, so that a mistake with one of them shows."""
    model.set_weights([RNG.uniform(0.1, 0.9, w.shape) - 0.4 * (w.ndim > 1) for w in model.get_weights()])
    return model


def write(model, path, change=None, **attrs):
    """Save as H5; change(config) edits its model_config, attrs its attributes (None: taken out)."""
    model.save(path, save_format="h5")
    edit(path, change, **attrs)
    return as_keras(model)


def edit(path, change=None, **attrs):
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config = (change(config) if change else None) or config
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)
        for key, value in attrs.items():
            for place in (file, file["model_weights"]):
                place.attrs.pop(key, None)
                if value is not None:
                    place.attrs[key] = value


def as_keras(model, shape=None):
    """What Keras says, images reshaped to what the model takes."""

    def compute(x):
        x = x if shape is None else x.reshape(len(x), *shape)
        return np.asarray(model(x, training=False), np.float32)

    return compute


def layers(config, kind):
    """The configs of the layers of a class, at the top level."""
    listed = config["config"]["layers"] if isinstance(config["config"], dict) else config["config"]
    return [layer["config"] for layer in listed if layer["class_name"] == kind]


def head(*middle, shape=GREY, name=None):
    """Sequential: the given layers, then global pooling and softmax."""
    K = keras()
    tail = [K.layers.GlobalAveragePooling2D(), K.layers.Dense(CLASSES, activation="softmax")]
    first = [] if shape is None else [K.Input(shape)]
    return randomized(K.Sequential([*first, *middle, *tail], name=name))


def conv(filters=4, **options):
    return keras().layers.Conv2D(filters, 3, **({"padding": "same", "activation": "relu"} | options))


def functional(build, shape=GREY):
    """build(x) on an Input of the shape."""
    K = keras()
    images = K.Input(shape)
    return randomized(K.Model(images, build(images)))


def top(x):
    """Convolution, pooling, softmax behind x."""
    L = keras().layers
    return L.Dense(CLASSES, activation="softmax")(L.GlobalAveragePooling2D()(conv()(x)))
