"""Weights read one at a time: those that Keras reads, and errors where there are others."""

import h5py
import numpy as np
import pytest

from dpuflow.base.aligned import ALIGNMENT, aligned
from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import seal
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.keras_models import keras_file
from dpuflow.keras_models.keras_file import inference_model, load_model, save_model
from dpuflow.keras_models.prediction import predictor
from dpuflow.keras_models.stored_weights import (
    give_any_values,
    share_values,
    stored_weights,
    values_of,
    without_values,
)


def networks():
    """{name: model}: plain, with layers that were not trained, as a list of layers, with a model inside."""
    K = keras()
    L = K.layers
    x = K.Input((6, 6, 3))
    y = L.Conv2D(4, 3, groups=1, trainable=False, name="fixed")(x)
    y = L.BatchNormalization(name="norm")(y)
    y = L.DepthwiseConv2D(3, name="depthwise")(L.ReLU()(y))
    plain = K.Model(x, [L.Conv2D(2, 1, name="map")(y), L.Dense(3, name="class")(L.Flatten()(y))])
    of_layers = K.Sequential(
        [K.Input((6, 6, 3)), L.BatchNormalization(trainable=False), L.Flatten(), L.Dense(2)]
    )
    inner = K.Sequential([K.Input((6, 6, 3)), L.Conv2D(2, 3), L.BatchNormalization()], name="inner")
    nested = K.Model(x, L.Dense(2)(L.Flatten()(inner(x))))
    return {"plain": plain, "of_layers": of_layers, "nested": nested}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{name: H5 file}, with random weights."""
    rng, found = np.random.default_rng(3), {}
    for name, model in networks().items():
        model.set_weights([rng.uniform(0.1, 1, w.shape).astype(np.float32) for w in model.get_weights()])
        found[name] = tmp_path_factory.mktemp("models") / f"{name}.h5"
        save_model(model, found[name])
    return found


@pytest.mark.parametrize("name", ["plain", "of_layers", "nested"])
def test_a_model_for_inference_is_the_one_that_keras_reads(files, name, monkeypatch):
    of_keras = load_model(files[name])
    by_keras = []
    built = keras_file.built_by_keras
    monkeypatch.setattr(keras_file, "built_by_keras", lambda *a, **k: by_keras.append(a) or built(*a, **k))
    model = inference_model(files[name])
    assert bool(by_keras) == (name == "nested"), "layers that models share are found by Keras alone"
    assert [w.name for w in model.weights] == [w.name for w in of_keras.weights]
    for found, expected in zip(model.get_weights(), of_keras.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype(np.float32)
    for found, expected in zip(predictor(model)(x), predictor(of_keras)(x), strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(values_of(model), of_keras.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_are_where_they_were_read_to(files, monkeypatch):
    """TensorFlow neither copies nor begins with random numbers."""
    given = []

    def kept(*arguments, **options):
        given.append(aligned(*arguments, **options))
        return given[-1]

    monkeypatch.setattr("dpuflow.keras_models.stored_weights.aligned", kept)
    model = inference_model(files["plain"])
    read = given[-len(model.weights) :]
    assert {array.ctypes.data for array in read} == {array.ctypes.data for array in values_of(model)}
    assert all(array.ctypes.data % ALIGNMENT == 0 for array in read)


@pytest.mark.parametrize("change", ["missing", "left over", "another shape", "no names", "of no layer"])
def test_other_weights_than_the_configuration_has_are_refused(files, tmp_path, change):
    path = tmp_path / "m.h5"
    path.write_bytes(files["plain"].read_bytes())
    with h5py.File(path, "r+") as file:
        group = file["model_weights/class"]
        names = list(group.attrs["weight_names"])
        if change == "missing":
            group.attrs["weight_names"] = names[:1]
        elif change == "left over":
            group.attrs["weight_names"] = [*names, names[0]]
        elif change == "another shape":
            del group["class/bias:0"]
            group["class/bias:0"] = np.zeros(7, np.float32)
        elif change == "no names":
            del group.attrs["weight_names"]
        else:
            top = file["model_weights/top_level_model_weights"]
            top["scale:0"] = np.zeros(1, np.float32)
            top.attrs["weight_names"] = [b"scale:0"]
    seal(path)
    with pytest.raises(UserError, match=r"m\.h5: Keras cannot load this model \(its weights: "):
        inference_model(path)


def test_names_that_keras_wrote_in_parts_are_one_list(files, tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes(files["plain"].read_bytes())
    with h5py.File(path, "r+") as file:
        group = file["model_weights/norm"]
        names = group.attrs["weight_names"]
        del group.attrs["weight_names"]
        group.attrs["weight_names0"], group.attrs["weight_names1"] = names[:3], names[3:]
    with h5py.File(path, "r") as file, tensorflow().Graph().as_default():
        model = keras_file.built_from_config(path, keras_file.read_config(path))
        found = {variable.name: dataset.name for variable, dataset in stored_weights(path, file, model)}
    assert found["norm/moving_variance:0"] == "/model_weights/norm/norm/moving_variance:0"
    assert len(found) == 12


def test_any_values_are_neither_zero_nor_a_power_of_two(files):
    """Which a reader of the network would take for a choice of channels."""
    with without_values():
        model = keras_file.built_from_config("m.h5", keras_file.read_config(files["plain"]))
    give_any_values(model)
    for value in model.get_weights():
        assert value.min() > 0.5 and value.max() < 1 and value.dtype == np.float32


def test_values_are_shared_with_another_model(files):
    first, second = inference_model(files["plain"]), load_model(files["plain"])
    for layer in second.layers:
        share_values(layer, [np.ascontiguousarray(v[::-1]) for v in values_of(first.get_layer(layer.name))])
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one[::-1], other)
    share_values(second, values_of(first))
    kernel, of_first = second.get_layer("class").kernel, first.get_layer("class").kernel.numpy()
    np.testing.assert_array_equal(kernel, of_first)
    kernel.assign_add(np.ones(kernel.shape, np.float32))
    np.testing.assert_array_equal(kernel, of_first + 1)
    np.testing.assert_array_equal(first.get_layer("class").kernel, of_first)
    with pytest.raises(ValueError, match=r"class/bias:0 of the shape \(3,\) cannot be \(4,\)"):
        share_values(second.get_layer("class"), [of_first, np.zeros(4, np.float32)])
