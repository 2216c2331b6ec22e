"""Small Keras H5 files that must be refused. Each maker writes one."""

import h5py
from h5_writing import CLASSES, COLOUR, GREY, conv, functional, head, layers, randomized, top, write

from dpuflow.base.tensorflow_env import keras, tensorflow


def other_size(path):
    write(head(conv(), shape=(9, 8, 1)), path)


def colour_on_grey(path):
    write(head(conv(), shape=COLOUR), path)


def other_classes(path):
    write(
        randomized(
            keras().Sequential([keras().Input(GREY), keras().layers.Flatten(), keras().layers.Dense(4)])
        ),
        path,
    )


def two_inputs(path):
    K, L = keras(), keras().layers
    a, b = K.Input(GREY, name="left"), K.Input(GREY, name="right")
    write(K.Model([a, b], top(L.Add()([a, b]))), path)


def two_outputs(path):
    K, L = keras(), keras().layers
    a = K.Input(GREY)
    x = L.Flatten()(a)
    write(K.Model(a, [L.Dense(CLASSES, name="letter")(x), L.Dense(2, name="hand")(x)]), path)


def renamed(kind, new, extra=None):
    """A file whose first layer of class `kind` is called `new`."""

    def maker(path):
        def change(config):
            layer = next(x for x in config["config"]["layers"] if x["class_name"] == kind)
            layer["class_name"] = new
            layer["config"] |= extra or {}

        write(head(conv(name="first"), keras().layers.Dropout(0.1, name="drop")), path, change)

    return maker


def attribute(**attrs):
    def maker(path):
        write(head(conv()), path, **attrs)

    return maker


def keras_1(path):
    def change(config):
        layer = config["config"]["layers"][1]["config"]
        layer |= {"nb_filter": 4, "nb_row": 3, "nb_col": 3, "border_mode": "same"}
        for key in ("filters", "kernel_size", "padding"):
            layer.pop(key)

    write(head(conv(name="first")), path, change, keras_version="1.2.2")


def recurrent(path):
    L = keras().layers
    write(keras().Sequential([keras().Input((8, 8)), L.LSTM(4, name="memory"), L.Dense(CLASSES)]), path)


def calls_a_function(path):
    tf = tensorflow()
    write(functional(lambda x: top(tf.image.rot90(x))), path)


def cuts_behind_a_change_of_channels(path):
    write(functional(lambda x: top(x[..., ::-1][..., :2]), COLOUR), path)


def resizes(path):
    write(head(keras().layers.Resizing(16, 16, name="bigger"), conv()), path)


def dropout_at_inference(path):
    keras().utils.set_random_seed(1)
    L = keras().layers
    write(functional(lambda x: top(L.Dropout(0.5, name="drop")(x, training=True))), path)


def theano_same_pool(path):
    L = keras().layers
    write(head(conv(), L.MaxPooling2D(2, padding="same", name="pool")), path, backend="theano")


def channels_first_permute(path):
    L = keras().layers

    def change(config):
        layers(config, "Conv2D")[0]["data_format"] = "channels_first"

    write(head(conv(), L.Permute((2, 1, 3), name="turned")), path, change)


def weights_only(path):
    head(conv()).save_weights(path)


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = [1]


KIND = {cuts_behind_a_change_of_channels: "colour"}
"""Maker -> kind of images of its model, where those are not grey."""
