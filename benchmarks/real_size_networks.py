"""Networks of the size that people use, with random weights: frozen graphs of 224 x 224 colour images.

What they answer means nothing; their speed does not depend on it. MobileNet, MobileNetV2 and ResNet50 are
those of keras.applications; EfficientNet-Lite0 is Tan and Le's (2019) B0 with ReLU6, no squeezing.
"""

from pathlib import Path

import measuring  # noqa: F401  so that the package is found

from dpuflow.base.tensorflow_env import keras, tensorflow

CLASSES = 1000
BLOCKS = (  # expansion, kernel, channels, repeats, stride
    *((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2)),
    *((6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1)),
)


def _efficientnet_lite0(size):
    layers = keras().layers

    def normal(x, activation=True):
        x = layers.BatchNormalization()(x)
        return layers.ReLU(6.0)(x) if activation else x

    def pointwise(x, channels, activation=True):
        return normal(layers.Conv2D(channels, 1, use_bias=False)(x), activation)

    image = layers.Input((size, size, 3), name="image")
    x = normal(layers.Conv2D(32, 3, 2, "same", use_bias=False)(image))
    for expansion, kernel, channels, repeats, stride in BLOCKS:
        for repeat in range(repeats):
            y = pointwise(x, x.shape[-1] * expansion) if expansion > 1 else x
            step = 1 if repeat else stride
            y = normal(layers.DepthwiseConv2D(kernel, step, "same", use_bias=False)(y))
            y = pointwise(y, channels, activation=False)
            x = layers.Add()([x, y]) if repeat else y
    x = layers.GlobalAveragePooling2D()(pointwise(x, 1280))
    return keras().Model(image, layers.Dense(CLASSES, activation="softmax")(x))


def _application(name):
    def build(size):
        return getattr(keras().applications, name)(input_shape=(size, size, 3), weights=None, classes=CLASSES)

    return build


NETWORKS = {
    "ResNet50": _application("ResNet50"),
    "MobileNet": _application("MobileNet"),
    "MobileNetV2": _application("MobileNetV2"),
    "EfficientNet-Lite0": _efficientnet_lite0,
}
"""Name -> function(size of the image) -> Keras model."""


def freeze(name, size, path, images=None):
    """Write the frozen graph of one of NETWORKS to `path`.

    images : float32 (N, size, size, 3) that the batch norms take their statistics from, as training would;
        None: they do nothing.
    """
    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    keras().backend.clear_session()
    keras().utils.set_random_seed(0)
    model = NETWORKS[name](size)
    if images is not None:
        for layer in model.layers:
            if isinstance(layer, keras().layers.BatchNormalization):
                layer.momentum = 0.0
        model(images, training=True)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec((None, size, size, 3), tf.float32)
    )
    graph = convert_variables_to_constants_v2(function).graph.as_graph_def()
    Path(path).write_bytes(graph.SerializeToString())
