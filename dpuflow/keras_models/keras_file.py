"""`keras_trained_model.h5`: legacy Keras H5 that old TensorFlow releases read, too."""

import json
import warnings

import h5py

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_bytes
from dpuflow.base.tensorflow_env import keras

UNKNOWN_TO_OLD_KERAS = {
    "InputLayer": {"optional": False},  # refused up to TensorFlow 2.12
    "GlobalAveragePooling2D": {"keepdims": False},  # refused up to TensorFlow 2.5
}
"""Config keys per layer class, with their default, that the Keras of an old TensorFlow refuses
(measured; facts seed-system.md, "Compatibility"). At its default a key says nothing and is left out."""

CODE_CARRIERS = ("Lambda", "TFOpLambda", "SlicingOpLambda")
"""Layer classes whose config can carry Python code."""


def save_model(model, path):
    """Save architecture, weights, training settings and optimizer state as H5.

    The `model_config` is cleaned of keys that TensorFlow 2.3 to 2.12 does not know and
    kept as bytes, because TensorFlow 2.3 calls ``.decode`` on it.
    """
    # in memory: on a full disk the HDF5 library ends in a segmentation fault instead of an error
    with h5py.File("model.h5", "w", driver="core", backing_store=False) as file:
        with warnings.catch_warnings():  # Keras recommends its newer format each time
            warnings.simplefilter("ignore")
            model.save(file, save_format="h5")
        for attribute in ("model_config", "training_config"):
            if attribute in file.attrs:
                value = json.loads(_text(file.attrs[attribute]))
                _strip_unknown(value)
                del file.attrs[attribute]
                file.attrs[attribute] = json.dumps(value).encode("utf-8")
        file.flush()
        write_bytes(path, file.id.get_file_image())


def load_model(path, *, compile=False):
    """Load an H5 model; UserError for anything that is not a safe Keras H5 model.

    A Lambda layer is refused before Keras sees the file: its config holds Python
    bytecode that loading would execute.
    """
    for layer in _layer_configs(read_config(path)["config"]):
        if layer.get("class_name") in CODE_CARRIERS:
            raise UserError(
                f"{path}: layer {layer.get('config', {}).get('name')!r} is a {layer['class_name']}, which "
                "carries Python code and has no place on a DPU; rebuild the model without it"
            )
    try:
        return keras().models.load_model(path, compile=compile)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise UserError(f"{path}: Keras cannot load this model ({reason})") from None


def read_config(path):
    """The `model_config` of an H5 model as a dict, without importing Keras."""
    try:
        with h5py.File(path, "r") as file:
            if "model_config" not in file.attrs:
                raise UserError(
                    f"{path}: holds no model_config, so it is weights only or no Keras model; "
                    "save the whole model (model.save) in the H5 format"
                )
            return json.loads(_text(file.attrs["model_config"]))
    except OSError as error:
        raise UserError(f"{path}: not a readable HDF5 file ({error})") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: model_config is not JSON ({error})") from None


def _text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _layer_configs(value):
    """Every {"class_name": ..., "config": ...} mapping, however deep."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for child in value.values():
            yield from _layer_configs(child)
    elif isinstance(value, list):
        for child in value:
            yield from _layer_configs(child)


def _strip_unknown(config):
    for layer in _layer_configs(config):
        for key, default in UNKNOWN_TO_OLD_KERAS.get(layer["class_name"], {}).items():
            if layer["config"].get(key) == default:
                del layer["config"][key]
