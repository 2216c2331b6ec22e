"""Edits of HDF5 files: groups, datasets and attributes."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
from fuzz_values import NUMBERS

from dpuflow.base.hdf5 import seal


def edit_hdf5(data, edits):
    """An HDF5 file after the edits, with a seal that fits; `data` as it is when it does not open."""
    if not edits:
        return data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        path.write_bytes(data)
        try:
            with h5py.File(path, "r+") as file:
                for action, where, value in edits:
                    _edit_h5(file, action // 2, where, value)
        except Exception:
            return data
        seal(path)  # the checksum fits: what is inside has to be checked
        return path.read_bytes()


def _edit_h5(file, action, where, value):
    objects = []
    file.visititems(lambda name, item: objects.append(item))
    places = [(item, None) for item in objects]
    places += [(item, key) for item in (file, *objects) for key in sorted(item.attrs)]
    item, key = places[int(where * len(places))]
    others = (
        np.float64(np.nan), np.array([], np.int64), np.array([1.5, 2.5]), "text", np.array([2**40]),
        np.int8(-5), np.zeros((3, 0)), "[1", "null", '{"a": [1]}', np.array([[1, 2], [3, 4]]), b"\xff\xfe",
        np.uint64(2**64 - 1),
        np.array(["a", "b"], dtype=object), np.bool_(True), 0, "[" * 5000,
    )  # fmt: skip
    other = others[value % len(others)]
    if key is not None:
        if action % 3 == 0:
            del item.attrs[key]
        elif action % 3 == 1:
            item.attrs[key] = other
        else:
            source, name = places[value % len(places)]
            item.attrs[key] = (source if name is not None else item).attrs[name or key]
        return
    parent, name = item.parent, item.name
    if action % 5 == 0 or not hasattr(item, "shape"):
        if action % 2:
            parent.move(name, name + "x")
        else:
            del parent[name]
        return
    attrs, content = dict(item.attrs), item[()]
    del parent[name]
    if action % 5 == 1:
        made = parent.create_dataset(name, data=other)
    elif action % 5 == 2:  # claims a size and stores nothing
        shape = tuple(NUMBERS[(value + i) % 12] & 0xFFFFF for i in range(len(item_shape(content))))
        made = parent.create_dataset(
            name, shape=shape, dtype=content.dtype, chunks=True if shape and 0 not in shape else None
        )
    elif action % 5 == 3:
        made = parent.create_dataset(name, data=np.asarray(content).reshape(-1)[: value % 7])
    else:
        made = parent.create_dataset(
            name, data=np.roll(content.astype(("i2", "f4", "u1", "i1", "i8")[value % 5]), 1)
        )
    for attr, stored in attrs.items():
        made.attrs[attr] = stored


def item_shape(content):
    return getattr(content, "shape", ())
