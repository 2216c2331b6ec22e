"""Keras files as Keras 3 writes them, and what Keras 3 computes with them.

A program, keras3_zoo.py FOLDER READ REFUSED, apart from the tests because a process has either Keras 3 or
Keras 2. Each maker returns a model; of those to be READ and REFUSED (names with commas) NAME.keras and
NAME.h5 are written, of READ NAME.npz (x, y). `augmentation.npz` says which layers do nothing.
"""

import os
import sys
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}

import keras
import numpy as np

L = keras.layers
RNG = np.random.default_rng(3)
CLASSES = 3
GREY, COLOUR = (8, 8, 1), (8, 8, 3)


def graph(build, shape=GREY):
    x = keras.Input(shape)
    return keras.Model(x, build(x))


def top(x):
    return L.Dense(CLASSES, activation="softmax")(L.GlobalAveragePooling2D()(x))


def sequential():
    return keras.Sequential(
        [
            keras.Input(GREY),
            L.Conv2D(4, 3, activation="relu"),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(CLASSES),
        ]
    )


def no_input_layer():
    model = keras.Sequential([L.Conv2D(4, 3, use_bias=False), L.BatchNormalization(scale=False), L.ReLU(6.0)])
    model.add(L.GlobalMaxPooling2D())
    model.add(L.Dense(CLASSES, name="classes"))
    model.build((None, *GREY))
    return model


def operations():
    """Arithmetic, slices and functions, each once."""

    def build(x):
        x = (1.0 - x[..., ::-1] / 127.5) * np.array([0.5, 1.0, 2.0], np.float32)
        x = L.Conv2D(4, 3, padding="same")(-x + 0.25)
        y = keras.ops.relu6(x) + keras.ops.leaky_relu(x, 0.1) * keras.ops.sigmoid(x)
        y = keras.ops.concatenate([y, keras.ops.maximum(x, y) - keras.ops.clip(x, -1.0, 1.0)], axis=-1)
        return L.Dense(CLASSES)(keras.ops.mean(keras.ops.relu(y), axis=(1, 2)))

    return graph(build, COLOUR)


def shared():
    """A layer and an inner model that are called twice."""
    conv = L.Conv2D(4, 3, padding="same", activation="relu")
    inner = graph(lambda x: L.BatchNormalization()(L.Conv2D(4, 1)(x)), (8, 8, 4))
    chain = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 1, name="last")])

    def build(x):
        x = conv(L.Conv2D(4, 1, name="first")(x))
        y = inner(conv(x))
        return top(L.Concatenate()([inner(y), chain(chain(y)), x]))

    return graph(build)


def transfer():
    """The tutorial: augmentation, preprocessing, a frozen base whose layers have the same names."""
    base = graph(
        lambda x: L.ReLU(name="act")(L.BatchNormalization(name="bn")(L.Conv2D(4, 3, name="c")(x))), COLOUR
    )
    base.trainable = False
    augmentation = keras.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.2), L.RandomShear(0.1)])

    def build(x):
        x = keras.applications.mobilenet_v2.preprocess_input(augmentation(x))
        x = L.BatchNormalization(name="bn")(L.Conv2D(5, 3, name="c")(base(x, training=False)))
        return L.Dense(CLASSES)(L.Dropout(0.2)(L.GlobalAveragePooling2D()(x)))

    return graph(build, COLOUR)


def ends_in_a_model():
    """The last layer is an inner model, called twice."""
    head = graph(lambda x: L.Dense(CLASSES)(L.Dense(CLASSES, activation="tanh")(x)), (CLASSES,))
    return graph(lambda x: head(head(L.Dense(CLASSES)(L.Flatten()(x)))))


def every_layer():
    def build(x):
        x = L.Rescaling(1 / 127.5, offset=-1)(x)
        x = L.ZeroPadding2D(1)(x)
        x = L.SeparableConv2D(6, 3, depth_multiplier=2, padding="same", name="sep")(x)
        x = L.LeakyReLU(negative_slope=0.1)(x)
        y = L.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x)
        x = L.Add()([x, L.PReLU(shared_axes=[1, 2])(y)])
        x = L.Multiply()([x, L.Average()([x, y])])
        x = L.Subtract()([x, L.Minimum()([x, L.Maximum()([x, y])])])
        x = L.Cropping2D(1)(L.ELU(0.5)(x))
        x = L.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
        x = L.AveragePooling2D(3, strides=2, padding="same")(x)
        x = L.UpSampling2D(2)(L.MaxPooling2D(3, strides=2, padding="same")(x))
        x = L.Permute((2, 1, 3))(L.Identity()(x))
        x = L.GaussianNoise(0.1)(L.SpatialDropout2D(0.1)(x))
        x = L.ActivityRegularization(0.1)(L.GaussianDropout(0.1)(x))
        x = L.Reshape((-1, 4))(x)
        return L.Softmax()(L.Dense(CLASSES)(L.Flatten()(x)))

    return graph(build, COLOUR)


def activations():
    from dpuflow.keras_models.keras3_config import ACTIVATIONS

    def build(x):
        x = L.Conv2D(4, 3)(x)
        x = L.Rescaling(1 / 255)(x)
        maps = [L.Activation(name)(x) for name in ACTIVATIONS]
        maps.append(L.Conv2D(3, 1, activation="gelu")(x))
        return L.Dense(CLASSES)(L.Flatten()(L.Concatenate()(maps)))

    return graph(build)


def normalization():
    layer = L.Normalization(axis=-1)
    layer.adapt(RNG.uniform(0, 255, (50, *COLOUR)).astype(np.float32))
    return graph(lambda x: top(L.Conv2D(4, 3, activation="relu")(layer(x))), COLOUR)


def mixed():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return graph(
            lambda x: L.Activation("softmax", dtype="float32")(L.Dense(3)(L.Flatten()(L.Conv2D(4, 3)(x))))
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")


def regularized():
    options = {
        "kernel_regularizer": "l2",
        "kernel_initializer": keras.initializers.HeNormal(),
        "bias_constraint": "non_neg",
    }
    return graph(lambda x: top(L.Conv2D(4, 3, **options)(x)))


def mobilenet():
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=CLASSES)
    return model


class Own(keras.layers.Layer):
    def call(self, x):
        return x


def code():
    return graph(lambda x: top(L.Lambda(lambda v: v * 2, name="twice")(x)))


def own_class():
    return graph(lambda x: top(Own(name="mine")(x)))


def hard():
    return graph(lambda x: top(L.Conv2D(4, 3, activation="hard_sigmoid", name="gate")(x)))


def operation():
    return graph(lambda x: top(keras.ops.erf(x)))


def quantized():
    model = keras.Sequential([keras.Input(GREY), L.Flatten(), L.Dense(CLASSES, name="classes")])
    model.quantize("int8")
    return model


def recurrent():
    return keras.Sequential([keras.Input((8, 8)), L.LSTM(4, name="memory"), L.Dense(CLASSES)])


def idle(folder):
    """Which augmentation layers give back what they are given, at inference."""
    from dpuflow.keras_models.keras3_config import NOTHING

    x = RNG.uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    arguments = {
        "RandomRotation": (0.2,), "RandomZoom": (0.2,), "RandomTranslation": (0.1, 0.1),
        "RandomContrast": (0.2,),
        "RandomBrightness": (0.2,), "RandomShear": (0.2,), "RandomHue": (0.2,), "RandomPosterization": (4,),
        "RandomSaturation": (0.2,), "RandomSharpness": (0.2,), "RandomColorDegeneration": (0.2,),
        "RandomColorJitter": ((0, 255), 0.2),
    }  # fmt: skip
    found = {}
    for name in NOTHING:
        if hasattr(L, name):
            y = np.asarray(getattr(L, name)(*arguments.get(name, ()))(x, training=False))
            found[name] = y.shape == x.shape and bool((y == x).all())
    np.savez(folder / "augmentation.npz", **found)


def main(folder, read, refused):
    for name in (*read, *refused):
        keras.utils.set_random_seed(1)
        keras.backend.clear_session()
        model = globals()[name]()
        for weight in model.weights if name in read else ():
            if weight.dtype.startswith("float") and "/normalization/" not in f"/{weight.path}":
                weight.assign(RNG.uniform(0.1, 0.9, weight.shape) - 0.4 * (len(weight.shape) > 1))
        model.save(folder / f"{name}.keras")
        if name != "quantized":
            model.save(folder / f"{name}.h5")
        if name == "shared":
            model.export(folder / "shared", verbose=False)
        if name in read:
            x = RNG.uniform(0, 2, (4, *model.input_shape[1:])).astype(np.float32)
            np.savez(folder / f"{name}.npz", x=x, y=np.asarray(model(x, training=False)))
    idle(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(","))
