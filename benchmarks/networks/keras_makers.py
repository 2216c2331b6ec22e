"""Networks of tf_keras with random weights and batch norms calibrated on random pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.networks.images import scaled
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.tfgraph.graph_reader import read_network

SEED, PICTURES = 1, 4


@dataclass(frozen=True)
class KerasMaker:
    """A function that builds a Keras model, and where it comes from."""

    kind: str
    build: Callable[[], Any]

    def network(self, folder):
        """The network as the chain reads it: frozen with TensorFlow, read from the graph."""
        tensorflow(2)
        keras().backend.clear_session()
        keras().utils.set_random_seed(SEED)
        model = self.build()
        calibrate(model)
        path = folder / "frozen.pb"
        outputs = freeze(model, path)
        del model
        keras().backend.clear_session()
        return read_network(path, output_name=outputs if len(outputs) > 1 else None)


def calibrate(model):
    """Give every batch norm the statistics of a batch of random pictures."""
    norms = [layer for layer in flat(model) if isinstance(layer, keras().layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    if norms:
        model(scaled(model.input_shape[1:], PICTURES), training=True)


def flat(model):
    """All layers, those of nested models too."""
    for layer in model.layers:
        yield from flat(layer) if hasattr(layer, "layers") else [layer]


def freeze(model, path):
    """Write the frozen graph of a Keras model; returns the names of its outputs."""
    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    )
    frozen = convert_variables_to_constants_v2(function)
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return [tensor.op.name for tensor in frozen.outputs]


def _application(name, size):
    def build():
        make = getattr(keras().applications, name)
        return make(input_shape=(size, size, 3), weights=None, classes=1000)

    return KerasMaker("tf_keras.applications", build)


SIZES = {
    **dict.fromkeys(("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"), 224),
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet50V2", "ResNet101V2", "VGG16", "VGG19"), 224),
    **{"InceptionV3": 299, "InceptionResNetV2": 299, "Xception": 299},
    **{"DenseNet121": 224, "EfficientNetB0": 224, "NASNetMobile": 224},
}
APPLICATIONS = {name: _application(name, size) for name, size in SIZES.items()}


def _double(x, filters):
    L = keras().layers
    for _ in range(2):
        x = L.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization()(x))
    return x


def _unet(up):
    """Ronneberger's U with four steps at 256 x 256, 32 to 512 channels, one class per pixel."""

    def build():
        L = keras().layers
        image = L.Input((256, 256, 3))
        x, skips = image, []
        for filters in (32, 64, 128, 256):
            x = _double(x, filters)
            skips.append(x)
            x = L.MaxPooling2D(2)(x)
        x = _double(x, 512)
        for filters, skip in zip((256, 128, 64, 32), reversed(skips), strict=True):
            x = L.Concatenate()([up(L, x, filters), skip])
            x = _double(x, filters)
        return keras().Model(image, L.Conv2D(2, 1)(x))

    return KerasMaker("Segmentation", build)


def _deeplab():
    """Dilated convolutions at rates 2, 4 and 6 over a small backbone, bilinear to a quarter and back."""
    L = keras().layers
    image = L.Input((256, 256, 3))
    x = image
    for filters in (32, 64, 128):
        x = L.Conv2D(filters, 3, 2, "same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization()(x))
    low = x
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(256, 3, padding="same", dilation_rate=2)(x)))
    branches = [L.ReLU()(L.Conv2D(64, 1)(x))]
    for rate in (2, 4, 6):
        branches.append(L.ReLU()(L.Conv2D(64, 3, padding="same", dilation_rate=rate)(x)))
    x = L.ReLU()(L.Conv2D(64, 1)(L.Concatenate()(branches)))
    x = L.Concatenate()([x, L.ReLU()(L.Conv2D(48, 1)(low))])
    x = L.UpSampling2D(4, interpolation="bilinear")(L.Conv2D(21, 1)(x))
    return keras().Model(image, L.UpSampling2D(2, interpolation="bilinear")(x))


def _leaky(x, filters, kernel=3):
    L = keras().layers
    x = L.Conv2D(filters, kernel, padding="same", use_bias=False)(x)
    return L.LeakyReLU(alpha=26 / 256)(L.BatchNormalization()(x))


def _yolov3_tiny():
    """Redmon's tiny network at 416 x 416, one of its two heads up to the other's concat."""
    L = keras().layers
    image = L.Input((416, 416, 3))
    x, fine = image, None
    for filters in (16, 32, 64, 128, 256):
        x = _leaky(x, filters)
        fine = x
        x = L.MaxPooling2D(2)(x)
    x = L.MaxPooling2D(2, 1, "same")(_leaky(x, 512))
    x = _leaky(_leaky(x, 1024), 256, 1)
    coarse = L.Conv2D(255, 1, name="coarse")(_leaky(x, 512))
    x = L.Concatenate()([L.UpSampling2D(2)(_leaky(x, 128, 1)), fine])
    return keras().Model(image, [coarse, L.Conv2D(255, 1, name="fine")(_leaky(x, 256))])


def _ssd():
    """SSD heads of two scales on a MobileNet at 224 x 224: boxes and classes as maps."""
    L = keras().layers
    base = keras().applications.MobileNet(input_shape=(224, 224, 3), weights=None, include_top=False)
    first, last = base.get_layer("conv_pw_11_relu").output, base.output
    heads = [
        L.Conv2D(6 * outputs, 3, padding="same", name=f"{name}_{what}")(source)
        for name, source in (("first", first), ("last", last))
        for what, outputs in (("boxes", 4), ("classes", 21))
    ]
    return keras().Model(base.input, heads)


def _csp(x, filters, repeats, split, shortcut=True):
    """A block of two branches: v8's keeps every step (C2f), v5's the last alone (C3)."""
    L, half = keras().layers, filters // 2
    if split:
        x = _leaky(x, filters, 1)
        parts = [x[..., :half], x[..., half:]]
    else:
        parts = [_leaky(x, half, 1), _leaky(x, half, 1)]
    for _ in range(repeats):
        y = _leaky(_leaky(parts[-1], half), half)
        y = L.Add()([parts[-1], y]) if shortcut else y
        parts = [*parts, y] if split else [parts[0], y]
    return _leaky(L.Concatenate()(parts), filters, 1)


def _yolo(split):
    """Backbone with CSP blocks, SPPF, a path up and down, three heads; nano width at 640 x 640."""

    def build():
        L = keras().layers

        def down(x, filters):
            x = L.Conv2D(filters, 3, 2, "same", use_bias=False)(x)
            return L.LeakyReLU(alpha=26 / 256)(L.BatchNormalization()(x))

        image = L.Input((640, 640, 3))
        x = _csp(down(down(image, 16), 32), 32, 1, split)
        low = _csp(down(x, 64), 64, 2, split)
        mid = _csp(down(low, 128), 128, 2, split)
        x = _csp(down(mid, 256), 256, 1, split)
        pools = [_leaky(x, 128, 1)]
        for _ in range(3):
            pools.append(L.MaxPooling2D(5, 1, "same")(pools[-1]))
        high = _leaky(L.Concatenate()(pools), 256, 1)
        a = _csp(L.Concatenate()([L.UpSampling2D(2)(high), mid]), 128, 1, split, shortcut=False)
        b = _csp(L.Concatenate()([L.UpSampling2D(2)(a), low]), 64, 1, split, shortcut=False)
        c = _csp(L.Concatenate()([down(b, 64), a]), 128, 1, split, shortcut=False)
        d = _csp(L.Concatenate()([down(c, 128), high]), 256, 1, split, shortcut=False)
        return keras().Model(image, [L.Conv2D(144, 1)(x) for x in (b, c, d)])

    return KerasMaker("Detection", build)


OWN = {
    "UNet, nearest": _unet(lambda L, x, filters: L.UpSampling2D(2)(x)),
    "UNet, bilinear": _unet(lambda L, x, filters: L.UpSampling2D(2, interpolation="bilinear")(x)),
    "UNet, transposed": _unet(lambda L, x, filters: L.Conv2DTranspose(filters, 2, 2)(x)),
    "DeepLab-like": KerasMaker("Segmentation", _deeplab),
    "YOLOv3-tiny": KerasMaker("Detection", _yolov3_tiny),
    "YOLOv5n-like": _yolo(False),
    "YOLOv8n-like": _yolo(True),
    "SSD heads on MobileNet": KerasMaker("Detection", _ssd),
}
