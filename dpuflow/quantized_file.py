"""`quantized_model.h5`: a QuantizedNetwork as a file."""

import json

import h5py
import numpy as np

from dpuflow.errors import UserError
from dpuflow.files import atomic_path
from dpuflow.network import OPS, WEIGHTED, Layer, Network, QuantizedNetwork

FORMAT = "dpuflow quantized model 1"


def write_quantized(path, quantized):
    """Write a QuantizedNetwork to HDF5, byte-identical for equal content.

    One group per layer (``layers/000``, ...) with attributes name, op, inputs,
    shape, settings (JSON) and fix_point, and int8 datasets `weights` and `bias`
    with a fix_point each, next to the float32 parameters before rounding.
    """
    network = quantized.network
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["name"] = network.name
        file.attrs["input_scaling"] = json.dumps(quantized.input_scaling, sort_keys=True)
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


def read_quantized(path):
    """Read what `write_quantized` wrote; UserError when it is anything else."""
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except OSError as error:
        raise UserError(f"{path}: not a readable HDF5 file ({error}); remove it and run again") from None
    except (KeyError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a quantized model of dpuflow ({error})") from None


def _read(file, path):
    if file.attrs.get("format") != FORMAT:
        raise UserError(f"{path}: not a quantized model of dpuflow (format attribute missing)")
    layers, fix_points, weights, biases = [], {}, {}, {}
    for key in sorted(file["layers"]):
        group = file["layers"][key]
        name, op = group.attrs["name"], group.attrs["op"]
        if op not in OPS:
            raise UserError(f"{path}: layer {name!r} has the unknown op {op!r}")
        settings = {
            k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(group.attrs["settings"]).items()
        }
        layers.append(
            Layer(
                name,
                op,
                json.loads(group.attrs["inputs"]),
                tuple(int(n) for n in group.attrs["shape"]),
                settings,
                group["float_weights"][()] if "float_weights" in group else None,
                group["float_bias"][()] if "float_bias" in group else None,
            )
        )
        if "fix_point" in group.attrs:
            fix_points[name] = int(group.attrs["fix_point"])
        if op in WEIGHTED:
            weights[name] = (group["weights"][()], int(group["weights"].attrs["fix_point"]))
            if "bias" in group:
                biases[name] = (group["bias"][()], int(group["bias"].attrs["fix_point"]))
    scaling = json.loads(file.attrs["input_scaling"])
    return QuantizedNetwork(Network(file.attrs["name"], layers), fix_points, weights, biases, scaling)
