"""Fake quantization: the quantizer's own network and positions, and gradients through them."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import MODES, quantize_pixels, scale_pixels
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.keras_models.keras_file import save_model
from dpuflow.keras_models.prediction import predictor
from dpuflow.network import folded_ops
from dpuflow.ops import kinds
from dpuflow.quantize.calibration import to_grid
from dpuflow.quantize.engine import run_integer
from dpuflow.quantize.folding import fold
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import freeze
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.training import fake_quant
from dpuflow.training.fake_quant import fake_quantized, rounded
from dpuflow.training.keras_network import read_keras
from dpuflow.training.model_builder import build_model
from dpuflow.training.trainer import seed_everything, train

POINTWISE = {"conv": {"filters": 6, "kernel": 1, "batch_norm": "before_activation"}}
LAYERS = [
    {"conv": {"filters": 6, "batch_norm": "before_activation", "activation": "relu"}},
    {"residual": {"layers": ["depthwise_conv", POINTWISE]}},
    {"max_pool": 2},
    {"concat": {"branches": [[{"conv": {"filters": 3, "activation": "relu"}}], [{"conv": {"filters": 2}}]]}},
    "global_average_pool",
    {"dropout": 0.5},
]  # fmt: skip
LEAKY = {"filters": 5, "activation": "leaky_relu", "batch_norm": "after_activation"}
MODELS = {
    "residual, concat, global average": LAYERS,
    "BN behind the activation, in front of padding": [
        {"conv": LEAKY}, {"max_pool": 2}, {"conv": {"filters": 4, "activation": "relu6"}}, "flatten",
        {"dense": {"units": 7, "activation": "relu", "batch_norm": "after_activation"}},
    ],
    "average pools of all kinds": [
        {"conv": LEAKY | {"batch_norm": "before_activation"}}, {"avg_pool": 2},
        {"conv": {"filters": 3, "batch_norm": "after_activation", "stride": 2}},
        {"avg_pool": {"kernel": 2, "stride": 1}}, "flatten",
    ],
    "concat of unequal ranges, pooled": [
        {"concat": {"branches": [
            [{"conv": {"filters": 3, "kernel": 1}},
             {"max_pool": {"kernel": 3, "stride": 1, "padding": "same"}}],
            [{"conv": {"filters": 8, "kernel": 5, "activation": "relu"}}],
            [{"depthwise_conv": {"activation": "relu6"}}],
        ]}},
        {"max_pool": 2}, {"conv": {"filters": 4, "padding": "valid"}}, "flatten",
    ],
    "gated": [
        {"conv": {"filters": 6, "activation": "relu"}}, {"squeeze_excite": 3}, {"max_pool": 2},
        {"conv": {"filters": 4}}, "global_average_pool",
    ],
    "resized": [
        {"conv": LEAKY}, {"upsample": 2}, {"avg_pool": {"kernel": 3, "stride": 2, "padding": "same"}},
        {"conv": {"filters": 4, "stride": 2}}, {"transposed_conv": {"filters": 5, "kernel": 3}},
        {"max_pool": 2},
        {"upsample": {"factor": 2, "interpolation": "bilinear"}}, "global_average_pool",
    ],
    "hard swish, groups, dilation": [
        {"conv": {"filters": 6, "activation": "hard_swish", "batch_norm": "before_activation"}},
        {"conv": {"filters": 4, "groups": 2, "dilation": 2, "activation": "hard_sigmoid"}},
        {"depthwise_conv": {"multiplier": 2, "activation": "relu"}},
        {"depthwise_conv": {"kernel": 2, "dilation": 2}},
        {"conv": {"filters": 5}}, "global_max_pool", {"dense": {"units": 4, "activation": "hard_swish"}},
    ],
    "blocks of pixels": [
        {"conv": {"filters": 4, "activation": "relu"}}, {"space_to_depth": 2}, {"max_pool": 2},
        {"conv": {"filters": 8, "activation": "relu"}}, {"depth_to_space": 2}, {"conv": {"filters": 2}},
        "flatten",
    ],
}  # fmt: skip
SCALING = {"subtract": 128, "divide": 128}


def built(layers, seed=2, classes=3, channels=1):
    """A model with parameters that are no longer the initial ones."""
    seed_everything(seed)
    model = build_model(layers, (8, 8, channels), classes, "m")
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def frozen(model, folder):
    """frozen_graph.pb of a model."""
    save_model(model, folder / "model.h5")
    freeze(folder / "tf", convert(folder / "model.h5", folder / "tf"), folder / "frozen_graph.pb")
    return folder / "frozen_graph.pb"


@pytest.fixture
def model():
    return built(LAYERS)


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)


@pytest.fixture
def images(pixels):
    return (pixels.astype(np.float32) - 128) / 128


@pytest.mark.parametrize("name", MODELS)
def test_network_and_positions_are_those_that_the_quantizer_makes_of_the_frozen_graph(
    name, tmp_path, images, pixels
):
    model = built(MODELS[name])
    ours = fake_quantized(model, images).quantized
    theirs, _ = quantize(read_network(frozen(model, tmp_path)), pixels, fake_quant.SETTINGS, SCALING)
    assert described(ours.network) == described(theirs.network)
    assert ours.fix_points == theirs.fix_points
    for kind in ("weights", "biases"):
        mine, other = getattr(ours, kind), getattr(theirs, kind)
        assert {key: fix for key, (_, fix) in mine.items()} == {key: fix for key, (_, fix) in other.items()}
        for key, (values, _) in mine.items():
            # a batch norm rounded in float32 may tip a value over
            assert np.abs(values.astype(int) - other[key][0]).max() <= 1


def described(network):
    return {layer.name: (layer.op, layer.inputs, layer.shape, layer.attrs) for layer in network.layers}


@pytest.mark.parametrize("name", MODELS)
def test_the_forward_pass_is_the_integer_network(name, images, pixels):
    wrapped = fake_quantized(built(MODELS[name]), images)
    quantized = wrapped.quantized
    grid = to_grid(images, quantized.fix_points[quantized.network.input.name])
    expected = run_integer(quantized, grid)[quantized.network.output.name]
    np.testing.assert_allclose(predictor(wrapped)(images), expected, atol=1e-5)


def test_the_heads_of_a_detector_are_those_of_the_integer_network(images, pixels):
    layers = [
        {"conv": {"filters": 6, "stride": 2, "batch_norm": "before_activation", "activation": "relu"}},
        {"concat": {"branches": [
            [], [{"conv": {"filters": 8, "stride": 2, "activation": "relu"}}, {"head": {"anchors": 1}},
                 {"upsample": 2}],
        ]}},
        {"head": {"anchors": 2}},
    ]  # fmt: skip
    seed_everything(2)
    wrapped = fake_quantized(build_model(layers, (8, 8, 1), 3, "m", "detection"), images)
    quantized = wrapped.quantized
    assert [layer.shape for layer in quantized.network.outputs.values()] == [(2, 2, 8), (4, 4, 16)]
    expected = run_integer(quantized, to_grid(images, quantized.fix_points[quantized.network.input.name]))
    found = predictor(wrapped)(images)
    assert len(found) == 2
    for values, layer in zip(found, quantized.network.outputs.values(), strict=True):
        step = 2.0 ** -quantized.fix_points[layer.name]
        np.testing.assert_allclose(values, expected[layer.name] * step, atol=1e-5)


def test_channels_divided_by_different_numbers_train_on_the_grid_that_the_quantizer_chooses(tmp_path):
    scaling = {**MODES["torch"], "order": "bgr"}
    pixels = np.random.default_rng(1).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
    model = built(LAYERS, channels=3)
    wrapped = fake_quantized(model, pixels, scaling)
    actual = predictor(wrapped)(scale_pixels(pixels, scaling))
    theirs, _ = quantize(read_network(frozen(model, tmp_path)), pixels, fake_quant.SETTINGS, scaling)
    assert wrapped.quantized.fix_points == theirs.fix_points
    assert wrapped.quantized.input_scaling == theirs.input_scaling and "gain" in theirs.input_scaling
    fix_point = theirs.fix_points[theirs.network.input.name]
    grid = quantize_pixels(pixels, theirs.input_scaling, fix_point).astype(np.float32)
    expected = run_integer(theirs, grid)[theirs.network.output.name]
    # parameters folded in float32 may tip a value over, and with it one step of a logit
    assert np.abs(actual - expected).max() < 0.05 and (actual.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_the_models_hold_every_operator():
    networks = [fold(read_keras(built(layers))[0])[0] for layers in MODELS.values()]
    found = {layer.op for network in networks for layer in network.layers}
    # no layer of `layers:` makes one
    floats = set(kinds(lambda operator: not operator.quantized)) - {"softmax"}
    others = {"downsample", "transposed_depthwise_conv"}
    assert found == set(folded_ops()) - others - floats - {"to_grid"}


def test_output_is_near_the_float_model_and_not_equal(model, images):
    expected = predictor(model)(images)
    actual = predictor(fake_quantized(model, images))(images)
    assert 1e-5 < np.abs(actual - expected).max() < 0.05


def test_an_activation_inside_a_layer_counts(images):
    K = keras()
    x = K.Input((8, 8, 1))
    y = K.layers.Conv2D(4, 3, activation="relu", name="c")(x)
    y = K.layers.Dense(3, activation="softmax", name="d")(K.layers.GlobalAveragePooling2D()(y))
    wrapped = fake_quantized(K.Model(x, y), images)
    assert wrapped.quantized.network["c"].attrs["activation"] == "RELU"
    assert np.allclose(predictor(wrapped)(images).sum(axis=1), 1)


def test_values_lie_on_their_grid():
    x = tensorflow().constant([-3.0, -0.3, 0.5 / 16, 1.0, 100.0])
    assert rounded(x, 4, "half_up").numpy().tolist() == [-3.0, -5 / 16, 1 / 16, 1.0, 127 / 16]
    assert rounded(-x, 4, "half_away").numpy().tolist() == [3.0, 5 / 16, -1 / 16, -1.0, -8.0]


def test_the_gradient_passes_inside_and_stops_where_values_saturate():
    tf = tensorflow()
    x = tf.Variable([0.3, 20.0, -20.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(rounded(x, 4, "half_up"))
    assert tape.gradient(y, x).numpy().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", list(MODELS)[:2])
def test_training_it_changes_the_model_underneath_but_not_its_statistics(name, images, pixels):
    model = built(MODELS[name])
    before = {w.name: w.numpy() for w in model.weights}
    labels = np.random.default_rng(3).integers(0, 3, 64)
    settings = {"optimizer": "adam", "learning_rate": 1e-2, "batch_size": 16, "epochs": 1}
    wrapped = fake_quantized(model, images)
    history = train(wrapped, (pixels, labels), (pixels, labels), settings, SCALING, 1)
    assert len(history) == 1
    changed = {w.name for w in model.weights if not (w.numpy() == before[w.name]).all()}
    assert changed == {name for name in before if "moving" not in name}


def test_an_unsupported_layer_is_named(images):
    K = keras()
    x = K.Input((8, 8, 1))
    y = K.layers.Activation("softmax")(K.layers.Flatten()(K.layers.Cropping2D(name="cut")(x)))
    with pytest.raises(UserError, match="'cut' is a Cropping2D"):
        fake_quantized(K.Model(x, y), images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda L: L.Rescaling(2.0, name="g"), "'g' is a Rescaling that is no part of relu6"),
        (lambda L: L.Rescaling(1.0, 3.0, name="g"), "'flatten' reads 'g', which is no part of a whole relu6"),
        (lambda L: L.Conv2D(2, 3, activation="elu", name="g"), "'g' has the activation 'elu'"),
        (lambda L: L.ReLU(4.0, name="g"), "'g' is a ReLU other than"),
        (lambda L: L.Dense(3, name="g"), r"'g' reads a map of shape \(8, 8, 2\)"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(make, message, images):
    K = keras()
    x = K.Input((8, 8, 1))
    y = make(K.layers)(K.layers.Conv2D(2, 1, name="first")(x))
    y = K.layers.Dense(3)(K.layers.Flatten(name="flatten")(y))
    with pytest.raises(UserError, match=message):
        fake_quantized(K.Model(x, y), images)
