"""Networks of tf_keras.applications with a head of one's own: names, weights, stages."""

import importlib

import h5py
import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import MODES, scale_pixels
from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras_file import load_model, save_model
from dpuflow.training import applications
from dpuflow.training.application_names import APPLICATIONS, RAW
from dpuflow.training.applications import Transfer
from dpuflow.training.trainer import seed_everything
from dpuflow.training.weights_file import load_weights
from dpuflow.workflow.config import check

SHAPE = (32, 32, 3)
NARROW = {"application": "MobileNetV2", "alpha": 0.1, "weights": "none"}
TRAINING = {"optimizer": "adam", "learning_rate": 0.003, "batch_size": 16, "epochs": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a narrow MobileNetV2 for 7 classes, {kind of file: path}; the network without its top."""
    K, folder = keras(), tmp_path_factory.mktemp("weights")
    seed_everything(5)
    options = {"input_shape": SHAPE, "alpha": 0.1, "weights": None}
    top = K.applications.MobileNetV2(classes=7, **options)
    base = K.applications.MobileNetV2(include_top=False, **options)
    for layer, source in zip(base.layers, top.layers, strict=False):
        layer.set_weights(source.get_weights())
    top.save_weights(folder / "top.h5")
    base.save_weights(folder / "notop.h5")
    top.save(folder / "whole.h5")
    return {kind: folder / f"{kind}.h5" for kind in ("top", "notop", "whole")}, base


@pytest.fixture(scope="module")
def data():
    """Two classes told apart by their colour; 64 + 24 images."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 88)
    images = random.integers(0, 120, (88, *SHAPE), dtype=np.uint8)
    images[labels == 1, ..., 0] += 120
    images[labels == 0, ..., 2] += 120
    return (images[:64], labels[:64]), (images[64:], labels[64:])


def test_the_names_are_those_of_keras_and_their_inputs_those_of_preprocess_input():
    K = keras().applications
    classes = {n for n in dir(K) if n[0].isupper() and callable(getattr(K, n))}
    assert set(APPLICATIONS) == classes
    pixels = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    for name, scaling in APPLICATIONS.items():
        module = importlib.import_module(getattr(K, name).__module__)
        expected = module.preprocess_input(pixels.astype(np.float32))
        close = np.isclose(scale_pixels(pixels, scaling), expected, rtol=2e-6, atol=2e-6)
        assert close.all(), name
    assert APPLICATIONS["MobileNetV2"] == MODES["tf"] and APPLICATIONS["EfficientNetB0"] == RAW


@pytest.mark.parametrize("kind", ["top", "notop", "whole"])
def test_weights_with_and_without_the_top_become_those_of_the_network(weights, kind):
    files, base = weights
    transfer = Transfer(NARROW | {"weights": str(files[kind])}, SHAPE, 3, "m")
    assert transfer.model.output_shape == (None, 3)
    x = np.random.default_rng(2).normal(size=(2, *SHAPE)).astype(np.float32)
    features = keras().Model(transfer.model.input, transfer.model.get_layer("out_relu").output)
    np.testing.assert_array_equal(features(x), base(x))


def test_layers_that_keras_numbers_go_by_their_order(weights, tmp_path):
    files, base = weights
    with h5py.File(files["notop"]) as old, h5py.File(tmp_path / "n.h5", "w") as new:
        names = [name for name in old.attrs["layer_names"] if len(old[name].attrs["weight_names"])]
        for number, name in enumerate(names):
            old.copy(name, new, f"layer_{number}")
        new.attrs["layer_names"] = [f"layer_{number}".encode() for number in range(len(names))]
    transfer = Transfer(NARROW | {"weights": str(tmp_path / "n.h5")}, SHAPE, 3, "m")
    got, expected = (
        transfer.model.get_layer("block_3_project").get_weights(),
        base.get_layer("block_3_project"),
    )
    np.testing.assert_array_equal(got[0], expected.get_weights()[0])


@pytest.mark.fault("models", "weights of {id}", "refused")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"alpha": 0.35},
            r"layer 'Conv1' of MobileNetV2 has weights of 3 x 3 x 3 x 16, 'Conv1' of the file 3",
        ),
        (
            {"application": "MobileNet", "alpha": None},
            r"layer 'conv1' of MobileNet has weights of 3 x 3 x 3 x 32, 'Conv1' of the file 3 x",
        ),
        ({"weights": "text"}, r"is not an HDF5 file"),
        ({"weights": "empty"}, r"holds no weights as Keras 2 writes them \(no attribute layer_names\)"),
        ({"weights": "nan"}, r"'Conv1' has weights that are no finite numbers"),
    ],
    ids=["another width", "another network", "another kind of file", "no layers", "numbers that are none"],
)
def test_weights_that_do_not_fit_are_refused_by_layer(weights, tmp_path, change, message):
    path = tmp_path / "w.h5"
    path.write_bytes(weights[0]["notop"].read_bytes())
    kind = change.get("weights")
    if kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        h5py.File(path, "w").close()
    elif kind == "nan":
        with h5py.File(path, "r+") as file:
            file["Conv1/Conv1/kernel:0"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match=message):
        if kind is None:
            entry = NARROW | {"weights": str(path)} | change
            Transfer({key: value for key, value in entry.items() if value is not None}, SHAPE, 3, "m")
        else:
            load_weights(path, weights[1], "MobileNetV2")


@pytest.mark.fault("models", "layers and images that an application does not have", "refused")
def test_layers_and_images_that_do_not_fit_are_named():
    with pytest.raises(
        UserError, match=r"freeze_until: MobileNetV2 has no layer 'blok_3_expand'; did you mean"
    ):
        Transfer(NARROW | {"freeze_until": "blok_3_expand"}, SHAPE, 3, "m")
    with pytest.raises(UserError, match=r"models.m: MobileNetV2 does not take images of 8 x 8 x 3: Input"):
        Transfer(NARROW, (8, 8, 3), 3, "m")
    with pytest.raises(UserError, match=r"models.m.head: the last layer leaves a map"):
        Transfer(NARROW | {"head": [{"dropout": 0.1}]}, SHAPE, 3, "m")


def test_what_is_frozen_stays_and_fine_tuning_moves_all_but_the_norms(weights, data, tmp_path):
    entry = NARROW | {
        "weights": str(weights[0]["top"]),
        "freeze_until": "head",
        "fine_tuning": {"epochs": 1, "learning_rate": 0.001, "freeze_until": "block_12_add"},
    }
    transfer = Transfer(entry, SHAPE, 2, "m")
    before = {layer.name: layer.get_weights() for layer in transfer.model.layers}
    (first, frozen), (second, kept) = transfer.stages(TRAINING)
    assert (first["epochs"], second["epochs"], second["learning_rate"]) == (2, 1, 0.001)
    assert frozen == transfer.base and "block_12_add" in kept and "block_16_project_BN" in kept
    assert "block_16_project" not in kept and second["batch_size"] == 16
    history = transfer.train(TRAINING | {"restore_best": False}, data, MODES["tf"], 3)
    assert [row["epoch"] for row in history] == [1, 2, 3] and [row["kept"] for row in history] == [0, 0, 1]
    moved = {
        name
        for name, old in before.items()
        if any((a != b).any() for a, b in zip(old, transfer.model.get_layer(name).get_weights(), strict=True))
    }
    assert moved >= {"logits", "block_16_project", "Conv_1"} and not moved & set(kept)
    save_model(transfer.model, tmp_path / "m.h5")
    again = load_model(tmp_path / "m.h5", compile=True)
    assert all(layer.trainable for layer in again.layers)


@pytest.mark.parametrize(
    ("accuracies", "restore", "kept"),
    [((0.5, 0.9, 0.4), True, 2), ((0.5, 0.9, 0.95), True, 3), ((0.5, 0.9, 0.4), False, 3)],
    ids=["spoiled by the second stage", "better after it", "the last epoch"],
)
def test_the_best_epoch_of_both_stages_is_kept(monkeypatch, accuracies, restore, kept):
    entry = NARROW | {"fine_tuning": {"epochs": 1, "learning_rate": 0.1}}
    transfer, left = Transfer(entry, SHAPE, 2, "m"), list(accuracies)
    bias = transfer.model.get_layer("logits").bias

    def fake_train(model, train_data, validation_data, settings, scaling, seed):
        """As `trainer.train`: the bias says how accurate the epoch was whose weights stay."""
        found = [left.pop(0) for _ in range(settings["epochs"])]
        chosen = max(found) if restore else found[-1]
        bias.assign([chosen, 0.0])
        return [
            {"epoch": number, "validation_accuracy": a, "validation_loss": 1 - a, "kept": int(a == chosen)}
            for number, a in enumerate(found, 1)
        ]

    monkeypatch.setattr(applications, "train", fake_train)
    history = transfer.train(TRAINING | {"restore_best": restore}, (None, None), MODES["tf"], 3)
    assert [(row["epoch"], row["kept"]) for row in history] == [(n, int(n == kept)) for n in (1, 2, 3)]
    assert bias.numpy()[0] == pytest.approx(accuracies[kept - 1])


@pytest.mark.fault("configuration", "application of Keras with {id}", "message")
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"application": "MobilNetV2"},
            "models.m.application: Keras has no 'MobilNetV2'; did you mean",
        ),
        (
            {"application": "VGG16"},
            "models.m: application needs the key weights: an H5 file with those of",
        ),
        (NARROW | {"application": "ResNet50"}, "models.m.alpha: ResNet50 has one width; only MobileNet, "),
        (
            NARROW | {"freeze_until": "head"},
            "models.m.freeze_until: would keep random weights (weights: none);",
        ),
        ({"keras_h5": "m.h5", "head": ["flatten"]}, "models.m.head: only beside application; leave it out"),
        (NARROW | {"training": None}, "models.m: has application, so it needs the key training, too"),
    ],
    ids=[
        "a name that is near",
        "no weights",
        "a width",
        "frozen random weights",
        "no application",
        "no training",
    ],
)
def test_entries_that_cannot_work_are_said_before_anything_runs(config, schema, entry, message):
    config["models"]["m"] = {k: v for k, v in ({"training": TRAINING} | entry).items() if v is not None}
    if "keras_h5" in entry:
        del config["models"]["m"]["training"]
    with pytest.raises(UserError) as caught:
        check(config, schema)
    assert message in str(caught.value)
