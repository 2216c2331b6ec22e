"""The weights of a file of Keras 3 -> the layers of the model that Keras 2 built of its configuration.

Each layer's arrays are found by the layer's path in the file, never by counting, and must have the shapes
of the layer's weights. What lies in another file (external links, external storage) is not looked at.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import check_stored
from dpuflow.keras_models.keras3_config import is_graph
from dpuflow.keras_models.keras3_operations import is_operation

CONTAINERS = ("layers", "_layer_checkpoint_dependencies", "_functional/layers", "_layers")
"""Where an archive holds a model's layers, by the release of Keras that wrote it."""
GROUP = "model_weights"


def load_weights(
    path: Path | str, source: BinaryIO | str | Path, model: Any, config: Mapping[str, Any]
) -> None:
    """Give `model` its weights.

    source : model.weights.h5 of a .keras archive, or an H5 file of a whole model (with `model_weights`).
    config : the file's model_config, of which `model` is the translation.

    UserError : arrays missing, left over, of other shapes or no float numbers; a damaged file.
    """
    try:
        with h5py.File(source, "r") as file:
            arrays = _arrays(file)
            if GROUP in file:
                _load_by_name(path, arrays, model)
            else:
                _load_by_path(path, arrays, _names(file), model, config, "")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: its weights are no readable HDF5 file ({error})") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # h5py has no exceptions of its own: damage shows as any of these
        raise UserError(
            f"{path}: its weights cannot be read ({error}); copy or save the file again"
        ) from None


def _arrays(file):
    """{path: dataset} of what lies in the file itself; Keras on Windows wrote backslashes."""
    found = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.replace("\\", "/")] = item

    file.visititems(collect)
    return found


def _names(file):
    """{path of a group of arrays: name of the layer that it says it is of}; newer releases write it."""
    found = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and isinstance(item.attrs.get("name"), str):
            found[name.replace("\\", "/").removesuffix("vars").rstrip("/")] = item.attrs["name"]

    file.visititems(collect)
    return found


# -- archives: by the classes' names and their order -----------------------------------------


def _load_by_path(path, arrays, names, model, config, prefix):
    listed = config["config"]
    listed = listed["layers"] if isinstance(listed, dict) else listed
    container = _container(arrays, prefix)
    counts: dict[str, int] = {}
    for layer in listed:
        options = layer["config"]
        inner = layer["class_name"] == "Sequential" or is_graph(layer)
        if not inner and is_operation(layer):
            continue
        stem = snake_case(layer["class_name"])
        number = counts[stem] = counts.get(stem, -1) + 1
        where = f"{container}/{stem}_{number}" if number else f"{container}/{stem}"
        built = _layer(model, options["name"])
        if built is None:
            continue  # inputs of a Sequential, which are no layers of the built model
        said = names.get(where, options["name"])
        if said != options["name"]:
            raise UserError(
                f"{path}: its weights lie in another order than its layers: {where} is of {said!r}, expected "
                f"{options['name']!r}; save the model again"
            )
        if inner:
            _load_by_path(path, arrays, names, built, layer, f"{where}/")
            continue
        found = {
            key.rpartition("/")[2]: value for key, value in arrays.items() if _parent(key) == f"{where}/vars"
        }
        order = sorted(found, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))
        _assign(path, built, [found[key] for key in order])


def _container(arrays, prefix):
    for name in CONTAINERS:
        if any(key.startswith(f"{prefix}{name}/") for key in arrays):
            return f"{prefix}{name}"
    return f"{prefix}{CONTAINERS[0]}"


def snake_case(name: str) -> str:
    """A class's name as Keras writes it in paths: BatchNormalization -> batch_normalization."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _parent(path):
    return path.rpartition("/")[0]


def _layer(model, name):
    return next((layer for layer in model.layers if layer.name == name), None)


# -- H5: by the layers' names ----------------------------------------------------------------


def _load_by_name(path, arrays, model):
    for top in model.layers:
        prefix = f"{GROUP}/{top.name}/"
        own = {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}
        leaves = list(_leaves(top))
        used: set[str] = set()
        for layer, places in leaves:
            if not layer.weights:
                layer.finalize_state()
                continue
            alike = [p for _, p in leaves if p[-1] == places[-1]]
            found = {k: v for k, v in own.items() if _is_of(k, places, len(leaves) == 1, alike)}
            used |= found.keys()
            _assign(path, layer, _in_order(layer, found))
        left = sorted(own.keys() - used)
        if left:
            raise UserError(f"{path}: layer {top.name!r}: no place for its weights {', '.join(left[:3])}")


def _leaves(layer, places=()):
    """(layer, names from the outermost model to it) of each layer that is no model."""
    places = (*places, layer.name)
    if not hasattr(layer, "layers"):
        yield layer, places
        return
    for child in layer.layers:
        yield from _leaves(child, places)


def _is_of(key, places, alone, alike):
    """Whether an array's path (..., layer, variable) is of the layer at `places`."""
    parts = key.split("/")[:-1]
    if alone:
        return True
    if not parts or parts[-1] != places[-1]:
        return False
    # layers of one name in two inner models: their models' names tell them apart
    return len(alike) == 1 or tuple(parts[-2:]) == tuple(places[-2:])


def _in_order(layer, found):
    """Arrays in the order of the layer's weights, by the variables' names, which both Keras share."""
    by_name = {key.rpartition("/")[2].partition(":")[0]: value for key, value in found.items()}
    wanted = [weight.name.rpartition("/")[2].partition(":")[0] for weight in layer.weights]
    renamed = {"depthwise_kernel": "kernel"} if "kernel" in by_name else {}
    wanted = [name if name in by_name else renamed.get(name, name) for name in wanted]
    if len(by_name) != len(found) or sorted(by_name) != sorted(wanted):
        raise ValueError(f"layer {layer.name!r} has the weights {sorted(found)}, expected {wanted}")
    return [by_name[name] for name in wanted]


# -- both ------------------------------------------------------------------------------------


def _assign(path, layer, datasets):
    wanted = [tuple(weight.shape) for weight in layer.weights]
    found = [item.shape for item in datasets]
    if found != wanted:
        raise UserError(
            f"{path}: layer {layer.name!r} has weights of the shapes {wanted}, the file holds {found}; "
            "save the model again"
        )
    values = []
    for item in datasets:
        check_stored(item)
        if item.dtype.kind not in "fiu":
            raise ValueError(f"{item.name} holds {item.dtype}, expected float32")
        value = np.asarray(item[()])
        if not np.isfinite(value).all():
            raise UserError(
                f"{path}: layer {layer.name!r} has weights that are not finite; train the model again"
            )
        values.append(value.astype(np.float32))
    if values:
        layer.set_weights(values)
    layer.finalize_state()
