"""Small Keras H5 files of many kinds that are read, as other people's tools write them.

Each maker writes a file and returns what the network computes: a function of float32 images (N, 8, 8, C).
"""

import json

import numpy as np
from h5_writing import (
    CLASSES,
    COLOUR,
    GREY,
    RNG,
    as_keras,
    conv,
    functional,
    head,
    layers,
    randomized,
    top,
    write,
)

from dpuflow.base.tensorflow_env import keras, tensorflow


def sequential(path):
    return write(head(conv()), path)


def fixed_batch(path):
    K = keras()
    model = randomized(
        K.Sequential([K.Input(batch_shape=(4, *GREY)), conv(), K.layers.Flatten(), K.layers.Dense(3)])
    )
    model.save(path)
    free = K.Sequential([K.Input(GREY), *[type(x).from_config(x.get_config()) for x in model.layers]])
    free.set_weights(model.get_weights())
    return as_keras(free)


def vector_input(path):
    L = keras().layers
    model = keras().Sequential([keras().Input((64,)), L.Dense(5, activation="relu"), L.Dense(CLASSES)])
    write(randomized(model), path)
    return as_keras(model, (64,))


def vector_input_reshaped(path):
    L = keras().layers
    model = keras().Sequential(
        [keras().Input((64,)), L.Reshape((8, 8, 1)), conv(), L.Flatten(), L.Dense(CLASSES)]
    )
    write(randomized(model), path)
    return as_keras(model, (64,))


def matrix_input(path):
    L = keras().layers
    model = keras().Sequential(
        [L.Flatten(input_shape=(8, 8)), L.Dense(5, activation="relu"), L.Dense(CLASSES)]
    )
    write(randomized(model), path)
    return as_keras(model, (8, 8))


def matrix_input_expanded(path):
    tf = tensorflow()
    model = functional(lambda x: top(tf.expand_dims(x, -1)), (8, 8))
    write(model, path)
    return as_keras(model, (8, 8))


def matrix_input_newaxis(path):
    tf = tensorflow()
    model = functional(lambda x: top(x[..., tf.newaxis]), (8, 8))
    write(model, path)
    return as_keras(model, (8, 8))


def open_size(path):
    return write(head(conv(), shape=(None, None, 1)), path)


def open_size_colour(path):
    return write(head(conv(), shape=(None, None, 3)), path)


def never_built(path):
    model = keras().Sequential([conv(), keras().layers.Flatten()])
    model.add(keras().layers.Dense(CLASSES))
    model(np.zeros((2, *GREY), np.float32))
    return write(randomized(model), path)


def augmentation(path):
    L = keras().layers
    layers = [L.RandomFlip(), L.RandomRotation(0.2), L.RandomZoom(0.2), L.RandomTranslation(0.1, 0.1)]
    layers += [L.RandomContrast(0.2), L.RandomBrightness(0.1), L.GaussianNoise(0.3)]
    return write(head(*layers, L.Rescaling(1 / 255), conv(), L.Dropout(0.5)), path)


def augmentation_as_a_model(path):
    L = keras().layers
    inner = keras().Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1)], name="augmentation")
    return write(head(inner, conv()), path)


def rescaling(path):
    L = keras().layers
    return write(head(L.Rescaling(1 / 127.5, offset=-1), conv()), path)


def normalization(path):
    L = keras().layers
    layer = L.Normalization(axis=-1)
    layer.adapt(RNG.uniform(0, 255, (20, *COLOUR)))
    model = keras().Sequential(
        [keras().Input(COLOUR), layer, conv(), L.GlobalMaxPooling2D(), L.Dense(CLASSES, activation="softmax")]
    )
    return write(model, path)


def preprocess_tf(path):
    K = keras()
    return write(functional(lambda x: top(K.applications.mobilenet_v2.preprocess_input(x)), COLOUR), path)


def preprocess_caffe(path):
    K = keras()
    return write(functional(lambda x: top(K.applications.resnet.preprocess_input(x)), COLOUR), path)


def reversal_through_layers(path):
    """BGR through padding, depthwise, batch norm, a branch and a Flatten."""
    L = keras().layers

    def build(x):
        x = L.ZeroPadding2D(1)(x[..., ::-1] * 2.0 + [1.0, 2.0, 3.0])
        x = L.BatchNormalization()(L.DepthwiseConv2D(3, depth_multiplier=2)(x))
        x = L.Concatenate()([x, L.ReLU()(x)])
        return L.Dense(CLASSES, activation="softmax")(L.Flatten()(L.MaxPooling2D()(x)))

    return write(functional(build, COLOUR), path)


def operators(path):
    tf, L = tensorflow(), keras().layers

    def build(x):
        x = tf.cast(x, tf.float32) / 255.0
        x = conv()(1.0 - x)
        y = tf.nn.relu6(-x + [0.1, 0.2, 0.3, 0.4])
        return L.Dense(CLASSES)(tf.reduce_mean(tf.nn.relu(x) + y, [1, 2]))

    return write(functional(build), path)


def mixed_float16(path):
    K = keras()
    K.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = head(conv())
        model.save(path)
    finally:
        K.mixed_precision.set_global_policy("float32")
    full = head(conv())
    full.set_weights(model.get_weights())
    return as_keras(full)


def uint8_input(path):
    K = keras()
    images = K.Input(GREY, dtype="uint8")
    model = randomized(K.Model(images, top(K.layers.Rescaling(1 / 255)(images))))
    write(model, path)

    def compute(x):  # the file is meant for whole numbers; in float32 they are the same
        full = functional(lambda x: top(K.layers.Rescaling(1 / 255)(x)))
        full.set_weights(model.get_weights())
        return as_keras(full)(x)

    return compute


def cut_and_broadcast(path):
    """Every second pixel, side by side, as a Focus layer has them; a gate per pixel; exp at the end."""
    tf, L = tensorflow(), keras().layers

    def build(x):
        x = tf.concat([x[:, i::2, j::2, :] for i in (0, 1) for j in (0, 1)], -1)
        x = x * L.Conv2D(1, 1, activation="sigmoid")(x)
        return tf.exp(L.Dense(CLASSES)(L.GlobalAveragePooling2D()(conv()(x[:, 1:4]))))

    return write(functional(build), path)


def nested(path):
    """Transfer learning: an application without its top inside a Sequential, behind augmentation."""
    L = keras().layers
    base = functional(lambda x: L.MaxPooling2D()(L.BatchNormalization()(conv()(x))), COLOUR)
    base.trainable = False
    return write(head(L.RandomFlip(), base, conv(), shape=COLOUR), path)


def nested_functional(path):
    """The tutorial: base_model(x, training=False) behind preprocess_input; names that occur twice."""
    K, L = keras(), keras().layers
    base = functional(lambda x: L.BatchNormalization(name="bn")(conv(name="conv")(x)), COLOUR)

    def build(x):
        x = K.applications.mobilenet_v2.preprocess_input(L.RandomFlip()(x))
        x = L.Dropout(0.2)(base(x, training=False))
        return L.Dense(CLASSES)(L.GlobalAveragePooling2D()(conv(name="conv")(x)))

    return write(functional(build, COLOUR), path)


def own_class(path):
    """A class of one's own that changes the training step only: its configuration is that of a graph."""

    def change(config):
        config["class_name"] = "Custom>Distiller"

    return write(functional(top), path, change)


def shared_layer(path):
    L = keras().layers
    twice = conv(4)

    def build(x):
        x = conv(4)(x)
        return L.Dense(CLASSES)(L.Flatten()(L.Add()([twice(x), twice(twice(x))])))

    return write(functional(build), path)


def dense_on_a_map(path):
    L = keras().layers
    model = keras().Sequential(
        [keras().Input(GREY), conv(), L.Dense(6, "relu"), L.GlobalMaxPooling2D(), L.Dense(3)]
    )
    return write(randomized(model), path)


def dilated(path):
    return write(head(conv(dilation_rate=2)), path)


def ends_in_one_by_one(path):
    L = keras().layers
    return write(
        functional(lambda x: L.Softmax()(L.Conv2D(CLASSES, 1)(L.AveragePooling2D(8)(conv()(x))))), path
    )


def relu6_by_name(path):
    """MobileNet of Keras 2.1: Activation with the custom object relu6, classes of keras.applications."""
    L = keras().layers
    model = head(conv(activation=None), L.Activation("relu"))
    full = head(conv(activation=None), L.ReLU(6.0))
    full.set_weights(model.get_weights())

    def change(config):
        layers(config, "Activation")[0]["activation"] = "relu6"

    write(model, path, change, keras_version="2.1.6")
    return as_keras(full)


def keras_2_0_list(path):
    """A Sequential of Keras 2.0: its config is the list of layers; few keys."""

    def change(config):
        kept = []
        for layer in config["config"]["layers"][1:]:
            for key in ("dtype", "groups", "keepdims"):
                layer["config"].pop(key, None)
            kept.append({"class_name": layer["class_name"], "config": layer["config"]})
        kept[0]["config"]["batch_input_shape"] = [None, *GREY]
        config["config"] = kept

    return write(head(conv()), path, change, keras_version="2.0.4")


def one_sigmoid(path):
    L = keras().layers
    model = keras().Sequential([keras().Input(GREY), conv(), L.Flatten(), L.Dense(1, activation="sigmoid")])
    write(randomized(model), path)
    return lambda x: np.concatenate([1 - (p := as_keras(model)(x)), p], 1)


def sigmoid_apart(path):
    L = keras().layers
    model = keras().Sequential(
        [keras().Input(GREY), conv(), L.Flatten(), L.Dense(1), L.Activation("sigmoid")]
    )
    write(randomized(model), path)
    return lambda x: np.concatenate([1 - (p := as_keras(model)(x)), p], 1)


def graph_op_layer(path):
    """x / 127.5 - 1 as TensorFlow 2.0 to 2.3 wrote it."""
    model = functional(lambda x: top(x / 127.5 - 1.0))
    values = {"tf.math.truediv": ("RealDiv", 127.5), "tf.math.subtract": ("Sub", 1.0)}

    def change(config):
        renamed = []
        for layer in config["config"]["layers"]:
            old = next((v for k, v in values.items() if layer["name"].startswith(k)), None)
            if old is None:
                continue
            op, constant = old
            node = {"name": op, "op": op, "input": ["x", f"{op}/y"], "attr": {"T": {"type": "DT_FLOAT"}}}
            layer["class_name"] = "TensorFlowOpLayer"
            layer["config"] = {"name": layer["name"], "trainable": True, "dtype": "float32"}
            layer["config"] |= {"node_def": node, "constants": {"1": constant}}
            layer["inbound_nodes"] = [[[*layer["inbound_nodes"][0][:3], {}]]]
            renamed.append(layer["name"])
        text = json.dumps(config)
        for name in renamed:  # the layer's name has a prefix, its config's has not
            text = text.replace(f'[["{name}",', f'[["tf_op_layer_{name}",').replace(
                f'"name": "{name}", "inbound', f'"name": "tf_op_layer_{name}", "inbound'
            )
        return json.loads(text)

    return write(model, path, change, keras_version="2.4.0")
