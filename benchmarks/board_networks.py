"""Networks of published board measurements with weights of ones: code leaves out zeros, and asks no more.

`tf_keras.applications` has most of them; the others are written here from their papers.
"""

import re
import tempfile
from pathlib import Path

import measuring  # noqa: F401  so that the package is found
import numpy as np

from benchmarks.networks.keras_makers import freeze
from dpuflow.base.tensorflow_env import keras
from dpuflow.compiler.reference import lower
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.network import QuantizedNetwork
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.graph_reader import read_network

LEAKY = 26 / 256


def _conv(x, filters, kernel, stride=1, activation="relu"):
    L = keras().layers
    x = L.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
    x = L.BatchNormalization()(x)
    if activation == "leaky":
        return L.LeakyReLU(alpha=LEAKY)(x)
    return L.ReLU(6.0 if activation == "relu6" else None)(x) if activation else x


def _classified(image, x):
    L = keras().layers
    return keras().Model(image, L.Dense(1000)(L.GlobalAveragePooling2D()(x)))


def squeezenet():
    """SqueezeNet 1.1 (Iandola et al. 2016)."""
    L = keras().layers
    image = L.Input((224, 224, 3))
    x = L.MaxPooling2D(3, 2)(L.Conv2D(64, 3, 2, activation="relu")(image))
    for squeezed, expanded, pool in (
        *((16, 64, False), (16, 64, True), (32, 128, False), (32, 128, True)),
        *((48, 192, False), (48, 192, False), (64, 256, False), (64, 256, False)),
    ):
        x = L.Conv2D(squeezed, 1, activation="relu")(x)
        sides = [L.Conv2D(expanded, k, padding="same", activation="relu")(x) for k in (1, 3)]
        x = L.Concatenate()(sides)
        x = L.MaxPooling2D(3, 2)(x) if pool else x
    x = L.Conv2D(1000, 1, activation="relu")(x)
    return keras().Model(image, L.GlobalAveragePooling2D()(x))


def resnet18():
    """ResNet-18 (He et al. 2015)."""
    L = keras().layers
    image = L.Input((224, 224, 3))
    x = L.MaxPooling2D(3, 2, "same")(_conv(image, 64, 7, 2))
    for filters, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        y = _conv(_conv(x, filters, 3, stride), filters, 3, activation=None)
        x = _conv(x, filters, 1, stride, activation=None) if stride > 1 else x
        x = L.ReLU()(L.Add()([y, x]))
    return _classified(image, x)


def inception_v1():
    """GoogLeNet (Szegedy et al. 2014) with batch norms, without its side heads.

    Its 5x5 convolutions are 3x3 as in TensorFlow's models: the published 3.0 GOP tell (3.2 with 5x5).
    """
    L = keras().layers
    image = L.Input((224, 224, 3))
    x = L.MaxPooling2D(3, 2, "same")(_conv(image, 64, 7, 2))
    x = L.MaxPooling2D(3, 2, "same")(_conv(_conv(x, 64, 1), 192, 3))
    for one, three_in, three, five_in, five, pooled, last in (
        *((64, 96, 128, 16, 32, 32, False), (128, 128, 192, 32, 96, 64, True)),
        *((192, 96, 208, 16, 48, 64, False), (160, 112, 224, 24, 64, 64, False)),
        *((128, 128, 256, 24, 64, 64, False), (112, 144, 288, 32, 64, 64, False)),
        *((256, 160, 320, 32, 128, 128, True), (256, 160, 320, 32, 128, 128, False)),
        (384, 192, 384, 48, 128, 128, False),
    ):
        pool = L.MaxPooling2D(3, 1, "same")(x)
        branches = [_conv(x, one, 1), _conv(_conv(x, three_in, 1), three, 3)]
        branches += [_conv(_conv(x, five_in, 1), five, 3), _conv(pool, pooled, 1)]
        x = L.Concatenate()(branches)
        x = L.MaxPooling2D(3, 2, "same")(x) if last else x
    return _classified(image, x)


def yolov3():
    """YOLOv3 at 416 x 416 (Redmon and Farhadi 2018): Darknet-53 and three heads of 255 channels."""
    L = keras().layers
    image = L.Input((416, 416, 3))
    x, steps = _conv(image, 32, 3, activation="leaky"), []
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = _conv(x, filters, 3, 2, "leaky")
        for _ in range(blocks):
            y = _conv(_conv(x, filters // 2, 1, activation="leaky"), filters, 3, activation="leaky")
            x = L.Add()([x, y])
        steps.append(x)
    heads, x = [], None
    for filters, source in ((512, steps[4]), (256, steps[3]), (128, steps[2])):
        if x is not None:
            up = L.UpSampling2D(2)(_conv(x, filters, 1, activation="leaky"))
            source = L.Concatenate()([up, source])
        x = source
        for _ in range(2):
            x = _conv(_conv(x, filters, 1, activation="leaky"), 2 * filters, 3, activation="leaky")
        x = _conv(x, filters, 1, activation="leaky")
        heads.append(L.Conv2D(255, 1)(_conv(x, 2 * filters, 3, activation="leaky")))
    return keras().Model(image, heads)


def ssd_mobilenet_v1():
    """SSD at 300 x 300 on MobileNet (Liu et al. 2016, Howard et al. 2017): six scales, 91 classes."""
    L = keras().layers
    image = L.Input((300, 300, 3))
    x, sources = _conv(image, 32, 3, 2, "relu6"), []
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for number, (filters, stride) in enumerate(rows):
        x = L.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
        x = _conv(L.ReLU(6.0)(L.BatchNormalization()(x)), filters, 1, activation="relu6")
        sources += [x] if number in (10, 12) else []
    for inner, filters in ((256, 512), (128, 256), (128, 256), (64, 128)):
        x = _conv(_conv(x, inner, 1, activation="relu6"), filters, 3, 2, "relu6")
        sources.append(x)
    heads = []
    for number, source in enumerate(sources):
        boxes = 6 if number else 3
        heads += [L.Conv2D(boxes * 4, 1)(source), L.Conv2D(boxes * 91, 1)(source)]
    return keras().Model(image, heads)


OWN = {
    "squeezenet_1.1_224": squeezenet,
    "resnet18_224": resnet18,
    "inception_v1_224": inception_v1,
    "yolov3_416": yolov3,
    "ssd_mobilenet_v1_300": ssd_mobilenet_v1,
}
CALL = re.compile(r"(\w+)\((?:alpha=([\d.]+))?(?:, )?(?:input_shape=\((\d+), (\d+), (\d+)\))?\)$")
"""How measured figures name a constructor of tf_keras.applications."""


def maker(name, entry):
    """The function that builds the Keras model of an entry of the published figures; None: nobody can."""
    if name in OWN:
        return OWN[name]
    found = CALL.match(entry.get("keras", ""))
    if not found:
        return None
    constructor, alpha, *shape = found.groups()
    options = {"alpha": float(alpha)} if alpha else {}
    options |= {"input_shape": tuple(map(int, shape))} if shape[0] else {}
    return lambda: getattr(keras().applications, constructor)(weights=None, **options)


def quantized(build):
    """The network of a Keras model as the compiler takes it: folded, all weights 1, every fix_point 4."""
    keras().backend.clear_session()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frozen.pb"
        outputs = freeze(build(), path)
        keras().backend.clear_session()
        network, _ = fold(read_network(path, output_name=outputs if len(outputs) > 1 else None))
    weighted = [layer for layer in network.layers if layer.weights is not None]
    return QuantizedNetwork(
        network,
        {layer.name: 4 for layer in network.layers},
        {layer.name: (np.ones(layer.weights.shape, np.int8), 6) for layer in weighted},
        {x.name: (np.zeros(x.bias.shape, np.int8), 8) for x in weighted if x.bias is not None},
        {"subtract": 128.0, "divide": 128.0},
    )


def our_code(network, target):
    """Instructions of every DPU subgraph as the native compiler makes them: [[Instruction]]."""
    graph = lower(network, target)
    compile_graph(graph)
    return code_of(graph)


def code_of(graph):
    """Instructions of every DPU subgraph of a compiled graph."""
    return [decode(program.code, program.name) for program in read_programs(graph)]
