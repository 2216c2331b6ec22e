"""Model builder, augmentation, training and the H5 file, on tiny data."""

import h5py
import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import seal
from dpuflow.base.pixels import scale_pixels
from dpuflow.keras_models.keras_file import load_model, read_config, save_model
from dpuflow.keras_models.prediction import predictor
from dpuflow.training.augmentation import augmenter
from dpuflow.training.model_builder import build_model
from dpuflow.training.trainer import history_csv, seed_everything, train

SCALING = {"subtract": 128, "divide": 128}
LAYERS = [
    {"conv": {"filters": 4, "batch_norm": "before_activation", "activation": "relu"}},
    {"max_pool": 2},
    "flatten",
    {"dropout": 0.2},
    {"dense": {"units": 8, "activation": "relu"}},
]
SETTINGS = {
    "optimizer": "adam",
    "learning_rate": 0.01,
    "schedule": "cosine",
    "batch_size": 16,
    "epochs": 3,
    "augmentation": {"shift": 0.1, "brightness": 0.1},
}


@pytest.fixture(scope="module")
def data():
    """Two classes told apart by which half of an 8x8 image is bright; 90 + 30 images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    images = rng.integers(0, 80, (120, 8, 8, 1), np.uint8)
    images[labels == 1, :4] += 120
    images[labels == 0, 4:] += 120
    return (images[:90], labels[:90]), (images[90:], labels[90:])


def trained(data, seed=3, **changes):
    seed_everything(seed)
    model = build_model(LAYERS, (8, 8, 1), 2, "tiny")
    history = train(model, *data, SETTINGS | changes, SCALING, seed)
    return model, history


@pytest.fixture(scope="module")
def model_and_history(data):
    return trained(data)


def test_training_learns_and_keeps_the_best_epoch(data, model_and_history):
    model, history = model_and_history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    best = max(history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    assert [row["kept"] for row in history] == [int(row is best) for row in history]
    x, y = data[1]
    accuracy = (predictor(model)(scale_pixels(x, SCALING)).argmax(1) == y).mean()
    assert accuracy == pytest.approx(best["validation_accuracy"]) and accuracy > 0.9
    assert history[-1]["learning_rate"] < history[0]["learning_rate"]
    assert history_csv(history).splitlines()[0].startswith("epoch,learning_rate,loss,accuracy")


def test_same_seed_same_bytes_other_seed_other_bytes(data, model_and_history, tmp_path):
    save_model(model_and_history[0], tmp_path / "a.h5")
    save_model(trained(data)[0], tmp_path / "b.h5")
    save_model(trained(data, seed=4)[0], tmp_path / "c.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "c.h5").read_bytes()


def test_h5_is_in_the_form_that_old_releases_read(model_and_history, tmp_path):
    path = tmp_path / "m.h5"
    save_model(model_and_history[0], path)
    with h5py.File(path) as file:
        # an ASCII string is what h5py 2 (TensorFlow 2.3) hands out as bytes
        assert h5py.check_string_dtype(file.attrs.get_id("model_config").dtype).encoding == "ascii"
        assert '"optional"' not in file.attrs["model_config"]
        assert '"class_name": "Adam"' in file.attrs["training_config"]
    x = np.random.default_rng(1).normal(size=(5, 8, 8, 1)).astype(np.float32)
    assert (predictor(load_model(path))(x) == predictor(model_and_history[0])(x)).all()


@pytest.mark.fault("models", "training that diverges", "refused")
def test_diverging_training_says_what_to_change(data):
    with pytest.raises(UserError, match="learning_rate"):
        trained(data, optimizer="sgd", learning_rate=1e30, schedule="constant")


@pytest.mark.fault("models", "H5 that is no model", "refused")
@pytest.mark.parametrize("content", [b"", b"not hdf5", None])
def test_load_refuses_what_is_no_model(tmp_path, content):
    path = tmp_path / "m.h5"
    if content is None:
        h5py.File(path, "w").close()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"m\.h5"):
        load_model(path)


@pytest.mark.fault("models", "H5 with a Lambda layer", "refused")
def test_a_lambda_layer_is_refused_before_it_can_run(model_and_history, tmp_path):
    path = tmp_path / "evil.h5"
    save_model(model_and_history[0], path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"].replace('"class_name": "Flatten"', '"class_name": "Lambda"')
        del file.attrs["model_config"]
        file.attrs["model_config"] = config
    seal(path)  # whoever writes such a file can do that, too
    assert "Lambda" in str(read_config(path))
    with pytest.raises(UserError, match="Lambda, which carries Python code"):
        load_model(path)


@pytest.mark.fault("models", "H5 truncated", "refused")
def test_a_truncated_h5_is_refused(model_and_history, tmp_path):
    path = tmp_path / "t.h5"
    save_model(model_and_history[0], path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"t\.h5"):
        load_model(path)


@pytest.mark.fault("models", "layers that do not fit each other", "refused")
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"conv": {"filters": 4}}], r"models\.m\.layers: the last layer leaves a map of shape \(8, 8, 4\)"),
        ([{"max_pool": 4}, {"max_pool": 4}, "flatten"], r"layers\[1\]: max_pool"),
        (["flatten", {"conv": {"filters": 4}}], r"layers\[1\]: conv does not fit here"),
        ([{"nonsense": 3}], r"layers\[0\]: unknown layer 'nonsense', expected one of conv"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, message):
    with pytest.raises(UserError, match=message):
        build_model(layers, (8, 8, 1), 2, "m")


def test_the_tutorials_networks_have_the_published_parameter_counts(repo):
    import yaml

    models = yaml.safe_load((repo / "config/config.yaml").read_text())["models"]
    counts = {
        name: build_model(models[name]["layers"], (28, 28, 1), 25, name) for name in ("baseline", "optimal")
    }
    assert counts["baseline"].count_params() == 1_635_809 and len(counts["baseline"].weights) == 16
    assert counts["optimal"].count_params() == 1_182_497 and len(counts["optimal"].weights) == 24


def test_every_layer_kind_builds():
    layers = [
        {"conv": {"filters": 4, "activation": "leaky_relu"}},
        {"residual": {"layers": ["depthwise_conv", {"conv": {"filters": 4, "kernel": 1}}]}},
        {"residual": {"layers": [{"conv": {"filters": 8, "stride": 2}}], "activation": "none"}},
        {
            "concat": {
                "branches": [[{"conv": {"filters": 2, "activation": "relu6"}}], [{"conv": {"filters": 3}}]]
            }
        },
        {"avg_pool": 2},
        "global_average_pool",
        {"dense": 6},
    ]
    model = build_model(layers, (8, 8, 1), 3, "all")
    assert model.output_shape == (None, 3)
    assert model.get_layer("concat1").output_shape == (None, 4, 4, 5)


def test_augmentation_is_stateless_bounded_and_identity_when_off():
    images = np.random.default_rng(2).integers(0, 256, (6, 8, 8, 1)).astype(np.float32)
    options = {"rotation": 20, "zoom": 0.2, "shift": 0.2, "shear": 0.1, "contrast": 0.3, "noise": 5.0}
    augment = augmenter(options, seed=1, image_shape=(8, 8, 1))
    once, again, other = augment(3, images).numpy(), augment(3, images).numpy(), augment(4, images).numpy()
    assert (once == again).all() and not (once == other).all()
    assert once.min() >= 0 and once.max() <= 255 and not (once == images).all()
    assert augmenter({"rotation": 0}, 1, (8, 8, 1)) is None


def test_brightness_changes_all_pixels_of_an_image_alike():

    images = np.full((4, 8, 8, 1), 100, np.float32)
    moved = augmenter({"brightness": 0.1}, 5, (8, 8, 1))(0, images).numpy()
    assert (moved == moved[:, :1, :1]).all()
    assert (np.abs(moved - 100) <= 25.5).all() and len(np.unique(moved)) == 4


def test_hue_and_saturation_keep_the_grey_of_each_pixel():
    images = np.random.default_rng(2).integers(60, 190, (5, 4, 4, 3)).astype(np.float32)
    changed = augmenter({"hue": 30, "saturation": 0.3}, 1, (4, 4, 3))(0, images).numpy()
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(changed @ luma, images @ luma, atol=0.05)
    assert np.abs(changed - images).max(axis=(1, 2, 3)).min() > 1
    # saturation alone stretches the distance from grey, of all pixels of an image alike
    changed = augmenter({"saturation": 0.3}, 1, (4, 4, 3))(0, images).numpy()
    grey = (images @ luma)[..., None]
    factors = np.linalg.norm(changed - grey, axis=-1) / np.linalg.norm(images - grey, axis=-1)
    assert (factors.std(axis=(1, 2)) < 0.02).all() and (np.abs(factors - 1) < 0.32).all()
    with pytest.raises(UserError, match="hue and saturation is for images of 3 channels, these have 1"):
        augmenter({"hue": 30, "saturation": 0.3}, 1, (4, 4, 1))


def test_a_crop_shows_a_part_of_the_image_in_full_size():
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (40, 64, 64, 1)).copy()
    cropped = augmenter({"crop": 0.5}, 7, (64, 64, 1))(0, ramp).numpy()
    assert (np.abs(np.diff(cropped, axis=2)) < 1e-3).all(), "columns stay alike"
    ends = cropped[:, [1, -2], 5, 0]
    shares = (ends[:, 1] - ends[:, 0]) / 61
    assert ends[:, 0].min() >= 0.4 and ends[:, 1].max() <= 62.6
    assert 0.49 < shares.min() < 0.7 and 0.8 < shares.max() < 1.01
    middles = cropped.mean(axis=(1, 2, 3))
    assert middles.min() < 29 and middles.max() > 34


def test_a_data_set_with_nothing_to_train_on_is_refused(data):
    model = build_model(LAYERS, (8, 8, 1), 2, "tiny")
    nothing = np.empty((0, 8, 8, 1), np.uint8), np.empty(0, np.uint8)
    with pytest.raises(UserError, match=r"no images to train on .* keras_h5 or frozen_pb"):
        train(model, nothing, data[1], SETTINGS, SCALING, 3)
