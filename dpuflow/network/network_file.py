"""`network.h5`: the float `Network`, where all ways into dpuflow meet.

Whatever a network was trained with, it comes to this file, and nothing behind it asks where it came
from. A graph that cannot be read as a `Network` may still be of use to the vendor's tools, so the file then
says why instead (`save_refusal`), and who needs the network gets that message.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.files import parse_json
from dpuflow.base.hdf5 import new_hdf5, open_hdf5, stored_values
from dpuflow.network import Layer, Network
from dpuflow.network.check import check_network
from dpuflow.network.stored_ends import store_ends, stored_ends

FORMAT = "dpuflow network 1"
WHAT = "a float network of dpuflow"


def save_network(path: Path | str, network: Network) -> None:
    """Write a float Network to HDF5, byte-identical for equal content.

    One group per layer (``layers/00000``, ...) with the attributes name, op, inputs, shape and settings
    (JSON), and float32 datasets `weights` and `bias` where the layer has them.
    """
    with new_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["name"] = network.name
        store_ends(file, network)
        layers = file.create_group("layers")
        for index, layer in enumerate(network.layers):
            group = layers.create_group(f"{index:05d}")
            group.attrs["name"] = layer.name
            group.attrs["op"] = layer.op
            group.attrs["inputs"] = json.dumps(layer.inputs)
            group.attrs["shape"] = np.asarray(layer.shape, np.int64)
            group.attrs["settings"] = json.dumps(layer.attrs, sort_keys=True)
            for kind, value in (("weights", layer.weights), ("bias", layer.bias)):
                if value is not None:
                    group.create_dataset(kind, data=np.asarray(value, np.float32), track_times=False)


def save_refusal(path: Path | str, error: UserError) -> None:
    """Write why there is no network, for who would need it."""
    with new_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["refusal"] = str(error)


def refusal(path: Path | str) -> str | None:
    """Why the file holds no network; None where it holds one."""
    with open_hdf5(path, WHAT) as file:
        return _refusal(path, file)


def load_network(path: Path | str) -> Network:
    """Read what `save_network` wrote; UserError when it is anything else, or holds a refusal."""
    with open_hdf5(path, WHAT) as file:
        message = _refusal(path, file)
        if message is None:
            layers = [_layer(file["layers"][key]) for key in sorted(file["layers"])]
            network = Network(_text(file.attrs, "name"), layers, stored_ends(file))
            check_network(network)
            return network
    raise UserError(message)


def _refusal(path: Path | str, file: h5py.File) -> str | None:
    if file.attrs.get("format") != FORMAT:
        raise UserError(f"{path}: not {WHAT} (format attribute missing)")
    return _text(file.attrs, "refusal") if "refusal" in file.attrs else None


def _layer(group: h5py.Group) -> Layer:
    settings = parse_json(_text(group.attrs, "settings"))
    return Layer(
        _text(group.attrs, "name"),
        _text(group.attrs, "op"),
        parse_json(_text(group.attrs, "inputs")),
        tuple(int(n) for n in group.attrs["shape"]),
        {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()},
        stored_values(group, "weights", np.float32),
        stored_values(group, "bias", np.float32, 1),
    )


def _text(attrs: Any, name: str) -> str:
    value = attrs[name]
    if not isinstance(value, str):
        raise TypeError(f"attribute {name} is no text")
    return value
