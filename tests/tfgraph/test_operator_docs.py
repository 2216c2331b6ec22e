"""docs/operators.md is current, and what it says of Keras layers is what becomes of them."""

import pytest

from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras_file import save_model
from dpuflow.keras_models.keras_import import import_model
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import freeze
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.tfgraph.operator_docs import KERAS, document

LAYERS = {
    "Conv2D": lambda L, x: L.Conv2D(4, 3)(x),
    "Conv2D, groups": lambda L, x: L.Conv2D(4, 3, groups=2)(x),
    "Conv2D, dilation_rate": lambda L, x: L.Conv2D(4, 3, dilation_rate=2)(x),
    "SeparableConv2D": lambda L, x: L.SeparableConv2D(4, 3)(x),
    "DepthwiseConv2D": lambda L, x: L.DepthwiseConv2D(3)(x),
    "Conv2DTranspose": lambda L, x: L.Conv2DTranspose(4, 3, 2, padding="same")(x),
    "Dense": lambda L, x: L.Dense(5)(L.Flatten()(x)),
    "Dense on a map": lambda L, x: L.Dense(5)(x),
    "MaxPooling2D": lambda L, x: L.MaxPooling2D(2)(x),
    "AveragePooling2D": lambda L, x: L.AveragePooling2D(2)(x),
    "AveragePooling2D, padding same": lambda L, x: L.AveragePooling2D(3, 1, padding="same")(x),
    "GlobalMaxPooling2D": lambda L, x: L.GlobalMaxPooling2D()(x),
    "GlobalAveragePooling2D": lambda L, x: L.GlobalAveragePooling2D()(x),
    "Add": lambda L, x: L.Add()([x, L.MaxPooling2D(3, 1, padding="same")(x)]),
    "Concatenate": lambda L, x: L.Concatenate()([x, L.MaxPooling2D(3, 1, padding="same")(x)]),
    "UpSampling2D": lambda L, x: L.UpSampling2D(2)(x),
    "UpSampling2D, bilinear": lambda L, x: L.UpSampling2D(2, interpolation="bilinear")(x),
    "BatchNormalization": lambda L, x: L.BatchNormalization()(x),
    "ReLU": lambda L, x: L.ReLU()(x),
    "LeakyReLU, alpha 0.1": lambda L, x: L.LeakyReLU(alpha=0.1)(x),
    "Activation relu": lambda L, x: L.Activation("relu")(x),
    "ZeroPadding2D": lambda L, x: L.Conv2D(4, 3)(L.ZeroPadding2D(1)(x)),
    "Flatten": lambda L, x: L.Flatten()(x),
    "Reshape": lambda L, x: L.Reshape((-1,))(x),
    "Dropout": lambda L, x: L.Dropout(0.5)(x),
    "SpatialDropout2D": lambda L, x: L.SpatialDropout2D(0.5)(x),
    "Rescaling": lambda L, x: x,
}
ADDED_BY_THE_TEST = {"Add": ["max_pool"], "Concatenate": ["max_pool"], "ZeroPadding2D": ["conv"]}


def test_the_page_is_current(repo):
    assert (repo / "docs/operators.md").read_text() == document(), "python -m dpuflow.tfgraph.operator_docs"


def ops_of(layer, folder):
    """Ops of the folded network with this layer between a convolution and the output."""
    L = keras().layers
    image = L.Input((12, 12, 1), name="input")
    x = L.Rescaling(1 / 128)(image) if layer == "Rescaling" else image
    x = LAYERS[layer](L, L.Conv2D(4, 3, use_bias=False)(x))
    if len(x.shape) == 4:
        x = L.Flatten()(x)
    model = keras().Model(image, L.Softmax()(L.Dense(3)(x)))
    save_model(model, folder / "own.h5")
    rebuilt, _ = import_model(folder / "own.h5", (12, 12, 1), 3)
    save_model(rebuilt, folder / "m.h5")
    freeze(folder / "tf", convert(folder / "m.h5", folder / "tf"), folder / "f.pb")
    folded, _ = fold(read_network(folder / "f.pb"))
    return sorted(layer.op for layer in folded.layers if layer.op != "flatten")


@pytest.mark.parametrize("layer", KERAS)
def test_a_keras_layer_becomes_what_the_page_says(tmp_path, layer):
    expected = ["input", "conv", "dense", "softmax", *filter(None, KERAS[layer].split(", "))]
    expected += ADDED_BY_THE_TEST.get(layer, [])
    assert ops_of(layer, tmp_path) == sorted(expected)
