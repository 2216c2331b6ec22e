"""Files of Keras 3: each gives what Keras 3 computes, or is refused in one line; damage is noticed."""

import io
import json
import os
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras_import import import_model
from dpuflow.keras_models.prediction import predictor
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.tfgraph.saved_model import freeze_saved_model

READ = (
    *("sequential", "no_input_layer", "operations", "shared", "transfer", "ends_in_a_model", "every_layer"),
    *("activations", "normalization", "mixed", "regularized", "mobilenet"),
)
CASES = [(name, form) for name in READ for form in ("keras", "h5")]
REFUSED = {
    "code": "layer 'twice' is a Lambda, which carries Python code",
    "own_class": r"layer 'mine' \(.*Own\): its class is not one of Keras",
    "hard": r"layer 'gate' \(Conv2D\): its activation 'hard_sigmoid' .*ReLU\(6\.0\)\(x \+ 3\.0\)",
    "operation": r"layer 'erf.*' \(Erf\): an operation of Keras 3 that dpuflow does not read",
    "quantized": r"layer 'classes' \(Dense\): the model is already quantized",
    "recurrent": r"layer 'memory' \(LSTM\): recurrent",
}


@pytest.fixture(scope="module")
def zoo(repo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras3")
    environment = os.environ | {"PYTHONPATH": str(repo)}
    command = [
        sys.executable,
        repo / "tests/training/keras3_zoo.py",
        folder,
        ",".join(READ),
        ",".join(REFUSED),
    ]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    return folder


@pytest.mark.parametrize(("name", "form"), CASES)
def test_a_file_of_keras_3_gives_what_keras_3_computes(zoo, name, form):
    answers = np.load(zoo / f"{name}.npz")
    x, y = answers["x"], answers["y"]
    model, _ = import_model(zoo / f"{name}.{form}", x.shape[1:], 3)
    assert np.ptp(y) > 1e-4
    found = predictor(model)(x)
    # float16 rounds to three digits
    tolerance = 5e-3 if name == "mixed" else 2e-5
    np.testing.assert_allclose(found, y, rtol=0, atol=tolerance * np.abs(y).max())


def test_a_saved_model_that_keras_3_exports_gives_what_it_computes(zoo, tmp_path):
    answers = np.load(zoo / "shared.npz")
    graph, first, ends, notes = freeze_saved_model(zoo / "shared")
    (last,) = ends.values()
    (tmp_path / "f.pb").write_bytes(graph)
    found = FrozenGraph(tmp_path / "f.pb", first, last).run(answers["x"])
    np.testing.assert_allclose(found, answers["y"], rtol=0, atol=2e-5 * np.abs(answers["y"]).max())
    assert "serving_default" in notes[0]
    assert read_network(tmp_path / "f.pb", first, last, (8, 8, 1)).output.shape == (3,)


def test_what_is_left_out_of_a_network_does_nothing_in_keras_3(zoo):
    found = np.load(zoo / "augmentation.npz")
    assert len(found.files) >= 20
    assert [name for name in found.files if not found[name]] == []


@pytest.mark.fault("models", "model of Keras 3 that the chain cannot take over", "refused")
@pytest.mark.parametrize(
    ("name", "form"), [(n, f) for n in REFUSED for f in ("keras", "h5") if (n, f) != ("quantized", "h5")]
)
def test_what_keras_2_has_no_equal_of_is_refused_by_name(zoo, name, form):
    with pytest.raises(UserError, match=REFUSED[name]) as raised:
        import_model(zoo / f"{name}.{form}", (8, 8, 1), 3)
    assert f"{name}.{form}" in str(raised.value) and "\n" not in str(raised.value)


def rewritten(source, target, change):
    """A copy of a .keras file, its members changed: change({name: bytes})."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target


def weights(change):
    """Change of model.weights.h5: change(open file)."""

    def apply(members):
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            change(file)
        members["model.weights.h5"] = buffer.getvalue()

    return apply


def linked(file):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/passwd", "/x")


def moved(file):
    file.move("layers/dense", "layers/other")


def renamed(file):
    file["layers/dense/vars"].attrs["name"] = "somebody"


def turned(file):
    values = file["layers/dense/vars/0"][()].T
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = values


def not_finite(file):
    file["layers/dense/vars/1"][0] = np.nan


def text(file):
    del file["layers/dense/vars/1"]
    file["layers/dense/vars/1"] = np.array([b"a", b"b", b"c"])


def bomb(members):
    members["model.weights.h5"] = bytes(8 << 20)


def edited(change):
    """Change of config.json: change(its config)."""

    def apply(members):
        config = json.loads(members["config.json"])
        change(config["config"])
        members["config.json"] = json.dumps(config).encode()

    return apply


def put(layer, key, value):
    return edited(lambda config: config["layers"][layer]["config"].update({key: value}))


DAMAGE = {
    "a link to another file": (
        weights(linked),
        r"layer 'dense.*' has weights of the shapes .*, the file holds",
    ),
    "weights elsewhere": (weights(moved), r"holds \[\]"),
    "weights of another layer": (weights(renamed), r"layers/dense is of 'somebody', expected 'dense"),
    "weights turned": (
        weights(turned),
        r"shapes \[\(36, 3\), \(3,\)\], the file holds \[\(3, 36\), \(3,\)\]",
    ),
    "not finite": (weights(not_finite), "not finite"),
    "texts for weights": (weights(text), "expected float32"),
    "a bomb": (bomb, "would take 8388608 bytes unpacked"),
    "no weights": (lambda members: members.pop("model.weights.h5"), "without model.weights.h5"),
    "no version": (lambda members: members.pop("metadata.json"), "without metadata.json"),
    "weights cut": (lambda m: m.update({"model.weights.h5": m["model.weights.h5"][:900]}), "HDF5"),
    "no JSON": (lambda members: members.update({"config.json": b"{"}), r"config\.json in it is not JSON"),
    "deep JSON": (
        lambda members: members.update({"config.json": b"[" * 99999}),
        "config.json in it is not JSON",
    ),
    "layers that are none": (edited(lambda config: config.update(layers=[3])), "has not the form"),
    "a setting of its own": (put(1, "wonder", 5), r"layer 'conv2d.*' \(Conv2D\): its setting wonder=5"),
    "lora": (put(1, "lora_rank", 4), "its setting lora_rank=4"),
}


@pytest.mark.fault("models", "damaged or dressed-up .keras file", "refused")
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_archive_is_one_line(zoo, what, tmp_path):
    change, message = DAMAGE[what]
    path = rewritten(zoo / "sequential.keras", tmp_path / "m.keras", change)
    with pytest.raises(UserError, match=message) as raised:
        import_model(path, (8, 8, 1), 3)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_code_in_an_initializer_is_not_looked_at(zoo, tmp_path):
    """Any class may be named there, and Keras 3 would import it."""
    evil = {"module": "os", "class_name": "function", "config": "abort", "registered_name": "abort"}
    change = edited(lambda config: config["layers"][1]["config"].update(kernel_initializer=evil))
    path = rewritten(zoo / "sequential.keras", tmp_path / "m.keras", change)
    model, _ = import_model(path, (8, 8, 1), 3)
    answers = np.load(zoo / "sequential.npz")
    np.testing.assert_allclose(predictor(model)(answers["x"]), answers["y"], rtol=0, atol=1e-5)


def test_paths_as_windows_writes_them_are_read(zoo, tmp_path):
    def change(members):
        old, new = h5py.File(io.BytesIO(members["model.weights.h5"])), io.BytesIO()
        with h5py.File(new, "w") as file:
            old.visititems(lambda name, item: _put(file, name, item))
        members["model.weights.h5"] = new.getvalue()

    def _put(file, name, item):
        if isinstance(item, h5py.Dataset):
            folder, _, key = name.rpartition("/")
            file.require_group(folder.replace("/", "\\"))[key] = item[()]

    path = rewritten(zoo / "sequential.keras", tmp_path / "m.keras", change)
    model, _ = import_model(path, (8, 8, 1), 3)
    answers = np.load(zoo / "sequential.npz")
    np.testing.assert_allclose(predictor(model)(answers["x"]), answers["y"], rtol=0, atol=1e-5)


def test_a_keras_file_of_keras_2_is_read(tmp_path):
    K = keras()
    inner = K.Sequential([K.Input((8, 8, 4)), K.layers.BatchNormalization(), K.layers.ReLU(6.0)])
    x = K.Input((8, 8, 1))
    y = inner(K.layers.Conv2D(4, 3, padding="same", activation="hard_sigmoid")(x / 127.5 - 1.0))
    model = K.Model(x, K.layers.Dense(3)(K.layers.Flatten()(inner(y))))
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape) for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    images = rng.uniform(0, 255, (4, 8, 8, 1)).astype(np.float32)
    expected = model.predict(images, verbose=0)
    found, _ = import_model(tmp_path / "m.keras", (8, 8, 1), 3)
    np.testing.assert_allclose(predictor(found)(images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.fault("models", "cut or flipped .keras file", "noticed or the same")
def test_a_cut_or_flipped_archive_is_noticed(zoo, tmp_path):
    """Members have a CRC; what is flipped elsewhere is refused or means nothing."""
    data = (zoo / "sequential.keras").read_bytes()
    answers = np.load(zoo / "sequential.npz")
    rng, path, noticed = np.random.default_rng(7), tmp_path / "m.keras", 0
    for number in range(40):
        broken = bytearray(data)
        position = int(rng.integers(len(data)))
        if number % 4:
            broken[position] ^= 1 << int(rng.integers(8))
        else:
            del broken[position:]
        path.write_bytes(broken)
        try:
            model, _ = import_model(path, (8, 8, 1), 3)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            noticed += 1
            continue
        np.testing.assert_allclose(predictor(model)(answers["x"]), answers["y"], rtol=0, atol=1e-5)
    assert noticed > 25
