"""Weights of a Keras application from an H5 file: of weights (with the top or without), or a whole model."""

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import check_is_hdf5


class Stored(NamedTuple):
    """A layer of a weights file."""

    name: str
    arrays: list[np.ndarray]


def load_weights(path: Path | str, model: Any, what: str) -> None:
    """Set the weights of a model from a file; UserError that names the first layer that does not fit.

    Layers go by their names where the file has them all, else by their order: Keras numbers some layers
    by what was built before them. What the file has behind the model's layers is its top.

    path : H5 of save_weights, of tf_keras.applications or of a whole model (Keras 2). model : without its
    top. what : its name, for messages.
    """
    path = Path(path).expanduser()
    check_is_hdf5(path)
    stored = _layers(path)
    wanted = [layer for layer in model.layers if layer.weights]
    by_name = {layer.name: layer for layer in stored}
    if all(layer.name in by_name for layer in wanted):
        pairs = [(layer, by_name[layer.name]) for layer in wanted]
    else:
        if len(stored) < len(wanted):
            lacking = [layer.name for layer in wanted if layer.name not in by_name]
            raise UserError(
                f"{path}: holds {len(stored)} layers with weights, {what} has {len(wanted)} without its top "
                f"(the file lacks {', '.join(lacking[:3])}{', ...' if lacking[3:] else ''}): "
                "weights of another network"
            )
        pairs = list(zip(wanted, stored, strict=False))
    for layer, found in pairs:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        others = [array.shape for array in found.arrays]
        if shapes != others:
            raise UserError(
                f"{path}: layer {layer.name!r} of {what} has weights of {_shown(shapes)}, {found.name!r} of "
                f"the file {_shown(others)}: weights of another network, of another width (alpha), or for "
                "images with other channels"
            )
        if not all(np.isfinite(array).all() for array in found.arrays):
            raise UserError(f"{path}: layer {found.name!r} has weights that are no finite numbers")
    for layer, found in pairs:
        layer.set_weights(found.arrays)


def _shown(shapes):
    return ", ".join(" x ".join(map(str, shape)) or "one number" for shape in shapes) or "none"


def _layers(path):
    """Stored layers that have weights, in the file's order."""
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names" not in group.attrs:
                raise UserError(
                    f"{path}: holds no weights as Keras 2 writes them (no attribute layer_names); save them "
                    "with model.save_weights('weights.h5'), or take those of tf_keras.applications"
                )
            found = []
            for name in map(_text, group.attrs["layer_names"]):
                layer = group[name]
                arrays = [np.asarray(layer[_text(n)]) for n in layer.attrs["weight_names"]]
                if arrays:
                    found.append(Stored(name, arrays))
    except (OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable file of weights ({error})") from None
    return found


def _text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
