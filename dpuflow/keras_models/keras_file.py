"""`keras_trained_model.h5`: legacy Keras H5 that old TensorFlow releases read, too."""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import check_is_hdf5, is_keras_archive
from dpuflow.base.hdf5 import check_seal, new_hdf5
from dpuflow.base.overlay import Overlay
from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras_archive import read_archive_description
from dpuflow.keras_models.keras_config import MODELS, check_code, layer_configs
from dpuflow.keras_models.stored_weights import give_weights, without_values

UNKNOWN_TO_OLD_KERAS = {
    "InputLayer": {"optional": False},  # refused up to TensorFlow 2.12
    "GlobalAveragePooling2D": {"keepdims": False},  # refused up to TensorFlow 2.5
}
"""Config keys per layer class, with their default, that the Keras of an old TensorFlow refuses
(measured; docs/reference/tutorial.md, "Compatibility"). At its default a key says nothing and is left out."""

WRAPPERS = ("Bidirectional", "TimeDistributed")


def save_model(model: Any, path: Path | str) -> None:
    """Save architecture, weights, training settings and optimizer state as H5, sealed (`base.hdf5`).

    The `model_config` is cleaned of keys that TensorFlow 2.3 to 2.12 does not know and
    kept as bytes, because TensorFlow 2.3 calls ``.decode`` on it.
    """
    with new_hdf5(path) as file:
        with warnings.catch_warnings():  # Keras recommends its newer format each time
            warnings.simplefilter("ignore")
            model.save(file, save_format="h5")
        for attribute in ("model_config", "training_config"):
            if attribute in file.attrs:
                value = json.loads(_text(file.attrs[attribute]))
                _strip_unknown(value)
                del file.attrs[attribute]
                file.attrs[attribute] = json.dumps(value).encode("utf-8")


def load_model(path: Path | str, *, compile: bool = False) -> Any:
    """Load an H5 model that `save_model` wrote; UserError for anything but a safe Keras H5 model.

    Its seal is checked first: a flipped bit in a weight would be another network.
    A Lambda layer is refused before Keras sees the file: its config holds Python
    bytecode that loading would execute (`keras_config.check_code`).
    """
    checked_config(path)
    return built_by_keras(path, path, compile=compile)


def inference_model(path: Path | str) -> Any:
    """As `load_model`, the same weights with a third of the memory, not to be trained further."""
    config = checked_config(path)
    inner = (found["class_name"] for found in layer_configs(config["config"]))
    if any(name in (*MODELS, *WRAPPERS) for name in inner):  # may share layers, which only Keras finds
        return built_by_keras(path, path)
    with without_values():
        model = built_from_config(path, config)
    give_weights(path, model)
    return model


def checked_config(path: Path | str) -> dict[str, Any]:
    """The configuration of an H5 model that `save_model` wrote, after the checks that `load_model` does."""
    check_is_hdf5(path)
    check_seal(path, "a trained Keras model")
    config = read_config(path)
    check_code(path, config)
    return config


def built_by_keras(path: Path | str, source: Path | str | h5py.File, *, compile: bool = False) -> Any:
    """The model that Keras builds from `source` (a path or an open h5py.File); UserError about `path`."""
    try:
        return keras().models.load_model(source, compile=compile)
    except Exception as error:  # whatever a damaged configuration makes of Keras: any kind
        raise UserError(f"{path}: Keras cannot load this model ({_reason(error)})") from None


def built_from_config(path: Path | str, config: dict[str, Any]) -> Any:
    """The model that Keras builds of a configuration alone, with whatever weights; UserError about `path`."""
    try:
        return keras().models.model_from_json(json.dumps(config))
    except Exception as error:
        raise UserError(f"{path}: Keras cannot load this model ({_reason(error)})") from None


def _reason(error):
    """The line of a message of Keras that says what went wrong; the first may be a whole configuration."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    cause = next((line for line in lines if line.startswith("Exception encountered")), lines[0])
    where = re.search(r"'name': '([^']+)'", lines[0])
    return f"layer {where[1]!r}: {cause[:300]}" if where else cause[:300]


def read_config(path: Path | str) -> dict[str, Any]:
    """The `model_config` of an H5 model or a .keras archive as a dict, without importing Keras.

    UserError for another kind of file, which the message names with what to do about it, and for weights
    without an architecture.
    """
    return read_description(path)[0]


def read_description(path: Path | str) -> tuple[dict[str, Any], dict[str, str | None]]:
    """(`model_config`, {"keras_version", "backend"}: None where the file does not say)."""
    if is_keras_archive(path):
        config, versions = read_archive_description(path)
        return _checked_form(path, config), versions
    check_is_hdf5(path)
    try:
        with h5py.File(path, "r") as file:
            if "model_config" not in file.attrs:
                raise UserError(f"{path}: {_without_model(file)}")
            config = json.loads(_text(file.attrs["model_config"]))
            versions = {}
            for key in ("keras_version", "backend"):
                places = (place.attrs for place in (file, file.get("model_weights")) if place is not None)
                found = next((attrs[key] for attrs in places if key in attrs), None)
                versions[key] = None if found is None else str(_text(found))
    except OSError as error:
        raise UserError(f"{path}: not a readable HDF5 file ({error})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: model_config is not JSON ({error})") from None
    return _checked_form(path, config), versions


def _checked_form(path, config):
    if not isinstance(config, dict) or "class_name" not in config or "config" not in config:
        raise UserError(f"{path}: model_config describes no Keras model (class_name or config is missing)")
    return config


def _without_model(file):
    """What an HDF5 file without model_config is."""
    if "layer_names" in file.attrs or "model_weights" in file:
        return (
            "holds weights only, no architecture (save_weights, save_weights_only, or a model class of its "
            "own); build the model, load_weights, and save the whole: model.save('model.h5')"
        )
    return "is an HDF5 file without model_config, so no Keras model; save the whole: model.save('model.h5')"


@contextmanager
def changed_copy(path: Path | str, config: dict[str, Any]) -> Iterator[h5py.File]:
    """The H5 file, open, with another `model_config` in memory; the file itself stays as it is."""
    with Overlay(path) as stream, h5py.File(stream, "r+") as file:
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)
        yield file


def _text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _strip_unknown(config):
    for layer in layer_configs(config):
        for key, default in UNKNOWN_TO_OLD_KERAS.get(layer["class_name"], {}).items():
            if layer["config"].get(key) == default:
                del layer["config"][key]
