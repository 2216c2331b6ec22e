"""What a file is that was named where a Keras H5 is expected, and what to do with it."""

import zipfile
from pathlib import Path

from dpuflow.base.errors import UserError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAD = 4096
"""Bytes that are looked at."""

SAVE_AS_H5 = "load it where it was made and save it with model.save('model.h5') in Keras 2 (tf_keras)"
AS_GRAPH = "or freeze it and name the graph with frozen_pb instead of keras_h5"


def check_is_hdf5(path):
    """Raise UserError that says what `path` is, unless it begins as an HDF5 file does.

    Told by content, the name's suffix only where the content has no mark of its own.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: {_folder(path)}")
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not head.startswith(HDF5_SIGNATURE):
        raise UserError(f"{path}: {_content(path, head)}")


def _folder(path):
    if (path / "saved_model.pb").is_file():
        return f"is a SavedModel folder, not a Keras H5 file; {SAVE_AS_H5}, {AS_GRAPH}"
    return "is a folder; name the H5 file itself"


def _content(path, head):
    """The rest of the message for a file that is no HDF5."""
    start = head.lstrip().lower()
    if not head:
        return "is empty; copy or download the H5 file again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it stands for; fetch that with: git lfs pull"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page (HTML), not an H5 file; the download went wrong, get the file itself"
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head[4:8] == b"TFL3":
        return (
            f"is a TensorFlow Lite file, not a Keras H5; take the Keras model it was made from: {SAVE_AS_H5}"
        )
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a", b"\x42")):
        return f"looks like an ONNX file, which dpuflow does not read; {SAVE_AS_H5}"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"is a Python pickle, which dpuflow never opens (it could run any program); {SAVE_AS_H5}"
    if start.startswith(b"{"):
        return f"is JSON, an architecture at most, without weights; {SAVE_AS_H5}"
    if path.suffix == ".pb":
        return "is a TensorFlow graph, not a Keras H5; name it with frozen_pb instead of keras_h5"
    if path.name == "checkpoint" or path.suffix in (".index", ".ckpt", ".meta") or ".data-" in path.name:
        return f"is part of a TensorFlow checkpoint, not a Keras H5; {SAVE_AS_H5}"
    return f"is not an HDF5 file (it begins with {head[:8]!r}), so no Keras H5; {SAVE_AS_H5}"


def _archive(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "is a damaged zip archive; expected an H5 file"
    if "config.json" in names and any(name.endswith("weights.h5") for name in names):
        return f"is a .keras file (a zip of Keras' newer format), not an H5; {SAVE_AS_H5}, {AS_GRAPH}"
    if any(name.endswith("data.pkl") for name in names):
        return "is a PyTorch file, not a Keras H5; dpuflow takes Keras H5 files and frozen TensorFlow graphs"
    inside = [name for name in names if name.endswith((".h5", ".hdf5"))]
    return f"is a zip archive; unpack it first{f' (it holds {inside[0]})' if inside else ''}"
