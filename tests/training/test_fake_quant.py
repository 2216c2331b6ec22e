"""Fake quantization: values on the grid, gradients through it, the same function as the quantizer."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.keras_models.prediction import predictor
from dpuflow.training.fake_quant import fake_quantized
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


@pytest.fixture
def model():
    seed_everything(2)
    model = build_model(LAYERS, (8, 8, 1), 3, "m")
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


@pytest.fixture
def images():
    return np.random.default_rng(1).uniform(-1, 1, (64, 8, 8, 1)).astype(np.float32)


def test_points_are_those_of_the_quantizer(model, images):
    wrapped = fake_quantized(model, images)
    assert set(wrapped.positions) == {
        "input", "conv1_relu", "depthwise1", "conv2_bn", "residual1_relu", "conv3_relu", "conv4",
        "concat1", "global_average_pool1", "logits",
    }  # fmt: skip
    assert set(wrapped.weight_positions) == {"conv1", "depthwise1", "conv2", "conv3", "conv4", "logits"}


def test_output_is_near_the_float_model_and_not_equal(model, images):
    expected = predictor(model)(images)
    actual = predictor(fake_quantized(model, images))(images)
    assert 1e-5 < np.abs(actual - expected).max() < 0.05


def test_activations_lie_on_their_grid(model, images):
    tf = tensorflow()
    wrapped = fake_quantized(model, images)
    x = tf.constant([-3.0, -0.3, 0.5 / 16, 1.0, 100.0])
    assert wrapped.rounded(x, 4, "half_up").numpy().tolist() == [-3.0, -5 / 16, 1 / 16, 1.0, 127 / 16]
    assert wrapped.rounded(-x, 4, "half_away").numpy().tolist() == [3.0, 5 / 16, -1 / 16, -1.0, -8.0]


def test_the_gradient_passes_inside_and_stops_where_values_saturate(model, images):
    tf = tensorflow()
    wrapped = fake_quantized(model, images)
    x = tf.Variable([0.3, 20.0, -20.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(wrapped.rounded(x, 4, "half_up"))
    assert tape.gradient(y, x).numpy().tolist() == [1.0, 0.0, 0.0]


def test_training_it_changes_the_model_underneath_but_not_its_statistics(model, images):
    before = {w.name: w.numpy() for w in model.weights}
    labels = np.random.default_rng(3).integers(0, 3, 64)
    pixels = ((images * 127) + 128).astype(np.uint8)
    settings = {"optimizer": "adam", "learning_rate": 1e-2, "batch_size": 16, "epochs": 1}
    wrapped = fake_quantized(model, images)
    history = train(
        wrapped, (pixels, labels), (pixels, labels), settings, {"subtract": 128, "divide": 128}, 1
    )
    assert len(history) == 1
    changed = {name for name, value in before.items() if not (model_weight(model, name) == value).all()}
    assert {"conv1/kernel:0", "logits/bias:0", "conv1_bn/gamma:0"} <= changed
    assert not any("moving" in name for name in changed)


def model_weight(model, name):
    return next(w.numpy() for w in model.weights if w.name == name)


def test_an_unsupported_layer_is_named(images):
    K = keras()
    x = K.Input((8, 8, 1))
    y = K.layers.Activation("softmax")(K.layers.Flatten()(K.layers.UpSampling2D(name="up")(x)))
    with pytest.raises(UserError, match="'up' is a UpSampling2D"):
        fake_quantized(K.Model(x, y), images)
