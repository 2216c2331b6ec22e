"""What a file is that was named where a Keras model or a frozen graph is expected, and what to do with it.

Told by content, the name's suffix only where the content has no mark of its own. Quick enough to be asked
of every model whenever the configuration is read.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from dpuflow.base.errors import UserError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
KERAS_CONFIG = "config.json"
"""Member of a .keras archive that holds the architecture."""
HEAD = 4096
"""Bytes that are looked at."""

GRAPH_BEGINS = (b"\n", b"\x12", b'"')
"""Tags of a GraphDef's fields node, library and versions. What begins so only its parser can judge: the
length behind a newline may well look like the start of a text."""

ONNX_BEGINS = b"\x08"
"""Tag of a ModelProto's first field, the version of its format."""

SAVE_AS_H5 = "load it where it was made and save it with model.save('model.h5') in Keras"
FREEZE = "write its variables as constants and name that binary .pb file"


@dataclass(frozen=True)
class Expected:
    """A kind of model file: its key in the configuration, what a message calls it, how others become one."""

    key: str
    what: str
    convert: str
    other_way: str


H5 = Expected(
    "keras_h5", "an H5 file", SAVE_AS_H5, "or freeze it and name the graph with frozen_pb instead of keras_h5"
)
GRAPH = Expected(
    "frozen_pb", "a frozen graph", FREEZE, "or save it as H5, named with keras_h5 instead of frozen_pb"
)

SAVED_MODEL = Expected(
    "saved_model", "a SavedModel folder", "export it there with model.export(FOLDER)", "or name its file"
)
ONNX = Expected(
    "onnx",
    "an ONNX model",
    "export it where it was made (PyTorch: torch.onnx.export, docs/onnx.md)",
    "or name it with keras_h5 or frozen_pb instead of onnx",
)

SAVE_WEIGHTS = "load it where it was made and save it with model.save_weights('weights.h5') in Keras 2"
WEIGHTS = Expected("weights", "an H5 file of weights", SAVE_WEIGHTS, "or name the whole model with keras_h5")

EXPECTED = {expected.key: expected for expected in (H5, GRAPH, SAVED_MODEL, ONNX, WEIGHTS)}
"""By the configuration's key that names the file."""


def check_is_hdf5(path: Path | str) -> None:
    """Raise UserError that says what `path` is, unless it begins as an HDF5 file does."""
    _raise(path, problem(path, H5))


def check_may_be_graph(path: Path | str) -> None:
    """Raise UserError that says what `path` is, if it is known to be something else than a GraphDef."""
    _raise(path, problem(path, GRAPH))


def check_is_onnx(path: Path | str) -> None:
    """Raise UserError that says what `path` is, unless it begins as an ONNX model does."""
    _raise(path, problem(path, ONNX))


def _raise(path, found):
    if found:
        raise UserError(f"{path}: {found}")


def is_keras_archive(path: Path | str) -> bool:
    """Whether a file is a `.keras` archive, by its content."""
    try:
        with zipfile.ZipFile(path) as archive:
            return KERAS_CONFIG in archive.namelist()
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return False


def problem(path: Path | str, expected: Expected) -> str | None:
    """What the file or folder `path` is instead of what is expected, and what to do; None where it may be it.

    A GraphDef has no mark of its own: for a frozen graph only what is known to be another kind is told.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, expected)
    if expected is SAVED_MODEL:
        return "is a file, expected a SavedModel folder" if path.exists() else "no such folder"
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if expected is H5 and head.startswith(ZIP) and is_keras_archive(path):
        return None
    if head.startswith(HDF5_SIGNATURE):
        if expected in (H5, WEIGHTS):
            return None
        return f"is an H5 file; name it with keras_h5 instead of {expected.key}"
    return _content(path, head, expected)


def _folder(path, expected):
    if (path / "saved_model.pb").is_file():
        if expected is SAVED_MODEL:
            return None
        return f"is a SavedModel folder, not {expected.what}; name it with saved_model"
    if expected is SAVED_MODEL:
        return "holds no saved_model.pb, so it is no SavedModel; name the folder that holds it"
    return f"is a folder; expected {expected.what}"


def _content(path, head, expected):
    """The rest of the message for a file that is no HDF5."""
    if not head:
        return "is empty; copy or download it again"
    if expected is GRAPH:
        return None if head[:1] in GRAPH_BEGINS else _known(path, head, expected)
    if path.suffix == ".pb":
        return f"is a TensorFlow graph, not {expected.what}; name it with frozen_pb instead of {expected.key}"
    if expected is ONNX and head[:1] == ONNX_BEGINS:
        return None
    known = _known(path, head, expected)
    if expected is ONNX:
        return known or f"is no ONNX model (it begins with {head[:8]!r}); {expected.convert}"
    return known or f"is not an HDF5 file (it begins with {head[:8]!r}), so no Keras H5; {expected.convert}"


def _known(path, head, expected):
    """The rest of the message for a file of another kind that has a mark; None for others."""
    start, wanted, convert = head.lstrip().lower(), f"not {expected.what}", expected.convert
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file it stands for; fetch that with: git lfs pull"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"is a web page (HTML), {wanted}; the download went wrong, get the file itself"
    if head.startswith(ZIP):
        return _archive(path, expected)
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite file, {wanted}; take the model it was made from: {convert}"
    if expected is not ONNX and (path.suffix == ".onnx" or _begins_as_onnx(head)):
        return f"looks like an ONNX file, {wanted}; name it with onnx"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"is a Python pickle, which dpuflow never opens (it could run any program); {convert}"
    if start.startswith(b"{"):
        return f"is JSON, an architecture at most, without weights; {convert}"
    if path.name == "checkpoint" or path.suffix in (".index", ".ckpt", ".meta") or ".data-" in path.name:
        return f"is part of a TensorFlow checkpoint, {wanted}; {convert}"
    return None


def _begins_as_onnx(head):
    """Whether the version of the format is followed by the producer's name, a documentation or the graph."""
    return head[:1] == ONNX_BEGINS and head[2:3] in (b"\x12", b"\x3a", b"\x42")


def _archive(path, expected):
    wanted = expected.what
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return f"is a damaged zip archive; expected {wanted}"
    if KERAS_CONFIG in names:
        return f"is a .keras file, not {wanted}; name it with keras_h5"
    if any(name.endswith("data.pkl") for name in names):
        return f"is a PyTorch file, not {wanted}; export it to ONNX (docs/onnx.md) and name that with onnx"
    inside = [name for name in names if name.endswith((".h5", ".hdf5", ".pb"))]
    return f"is a zip archive; unpack it first{f' (it holds {inside[0]})' if inside else ''}"
