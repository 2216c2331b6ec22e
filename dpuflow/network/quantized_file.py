"""`quantized_model.h5`: a QuantizedNetwork as a file."""

import json
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.files import parse_json
from dpuflow.base.hdf5 import new_hdf5, open_hdf5, stored_values
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.network.check import check
from dpuflow.network.stored_ends import store_ends, stored_ends

FORMAT = "dpuflow quantized model 1"


def write_quantized(path: str | Path, quantized: QuantizedNetwork) -> None:
    """Write a QuantizedNetwork to HDF5, byte-identical for equal content.

    One group per layer (``layers/000``, ...) with attributes name, op, inputs,
    shape, settings (JSON) and fix_point, and int8 datasets `weights` and `bias`
    with a fix_point each, next to the float32 parameters before rounding.
    """
    network = quantized.network
    with new_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["name"] = network.name
        file.attrs["input_scaling"] = json.dumps(quantized.input_scaling, sort_keys=True)
        store_ends(file, network)
        layers = file.create_group("layers")
        for index, layer in enumerate(network.layers):
            group = layers.create_group(f"{index:03d}")
            group.attrs["name"] = layer.name
            group.attrs["op"] = layer.op
            group.attrs["inputs"] = json.dumps(layer.inputs)
            group.attrs["shape"] = np.asarray(layer.shape, np.int64)
            group.attrs["settings"] = json.dumps(layer.attrs, sort_keys=True)
            if layer.name in quantized.fix_points:
                group.attrs["fix_point"] = quantized.fix_points[layer.name]
            for kind, table, value in (
                ("weights", quantized.weights, layer.weights),
                ("bias", quantized.biases, layer.bias),
            ):
                if layer.name in table:
                    data, fix_point = table[layer.name]
                    dataset = group.create_dataset(kind, data=data.astype(np.int8), track_times=False)
                    dataset.attrs["fix_point"] = fix_point
                if value is not None:
                    group.create_dataset(
                        f"float_{kind}", data=np.asarray(value, np.float32), track_times=False
                    )


def read_quantized(path: str | Path, floats: bool = True) -> QuantizedNetwork:
    """Read what `write_quantized` wrote; UserError when it is anything else.

    floats : False leaves out the float32 parameters of layers that have int8 ones, four fifths of the file:
        nothing behind the quantizer computes with them.
    """
    with open_hdf5(path, "a quantized model of dpuflow") as file:
        if file.attrs.get("format") != FORMAT:
            raise UserError(f"{path}: not a quantized model of dpuflow (format attribute missing)")
        quantized = _read(file, floats)
        check(quantized)
        return quantized


def _text(attrs, name):
    value = attrs[name]
    if not isinstance(value, str):
        raise TypeError(f"attribute {name} is no text")
    return value


def _whole(attrs, name):
    value = attrs[name]
    if not isinstance(value, int | np.integer):
        raise TypeError(f"attribute {name} is no whole number")
    return int(value)


def _read(file, floats):
    layers, fix_points, weights, biases = [], {}, {}, {}
    for key in sorted(file["layers"]):
        group = file["layers"][key]
        name, op = _text(group.attrs, "name"), _text(group.attrs, "op")
        settings = {
            k: tuple(v) if isinstance(v, list) else v
            for k, v in parse_json(_text(group.attrs, "settings")).items()
        }
        layers.append(
            Layer(
                name,
                op,
                parse_json(_text(group.attrs, "inputs")),
                tuple(int(n) for n in group.attrs["shape"]),
                settings,
                *(
                    stored_values(group, f"float_{kind}", np.float32, axes)
                    if floats or kind not in group
                    else None
                    for kind, axes in (("weights", None), ("bias", 1))
                ),
            )
        )
        if "fix_point" in group.attrs:
            fix_points[name] = _whole(group.attrs, "fix_point")
        for kind, table in (("weights", weights), ("bias", biases)):
            if kind in group:
                table[name] = (stored_values(group, kind, np.int8), _whole(group[kind].attrs, "fix_point"))
    scaling = parse_json(_text(file.attrs, "input_scaling"))
    network = Network(_text(file.attrs, "name"), layers, stored_ends(file))
    return QuantizedNetwork(network, fix_points, weights, biases, scaling)
