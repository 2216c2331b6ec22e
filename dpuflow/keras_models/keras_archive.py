"""`.keras` files: zip archives of config.json, metadata.json and model.weights.h5.

Nothing is unpacked to a disk, and no other member is looked at, so names of members mean nothing here.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.files import parse_json
from dpuflow.base.foreign_file import KERAS_CONFIG
from dpuflow.base.zip_errors import errors_of_zip

METADATA, WEIGHTS = "metadata.json", "model.weights.h5"
MAX_JSON = 64 << 20
MAX_WEIGHTS = 4 << 30
"""Bytes. A DPU's networks have some ten million parameters."""
MAX_RATIO = 100
"""Trained weights hardly shrink; what is far smaller packed than unpacked is made to fill the memory."""


def read_archive_description(path: Path | str) -> tuple[Any, dict[str, str | None]]:
    """(config.json, {"keras_version", "backend": None}); UserError for anything else than such an archive."""
    config = _json(path, KERAS_CONFIG)
    metadata = _json(path, METADATA)
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return config, {"keras_version": None if version is None else str(version), "backend": None}


def read_archive_weights(path: Path | str) -> io.BytesIO:
    """model.weights.h5, in memory."""
    return io.BytesIO(_member(path, WEIGHTS, MAX_WEIGHTS))


def _json(path, name):
    try:
        return parse_json(_member(path, name, MAX_JSON).decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {name} in it is not JSON ({error}); save the model again") from None


def _member(path, name, limit):
    with errors_of_zip(Path(path)), zipfile.ZipFile(path) as archive:
        try:
            member = archive.getinfo(name)
        except KeyError:
            raise UserError(
                f"{path}: a .keras archive without {name}; save the whole model: model.save('model.keras')"
            ) from None
        packed = max(member.compress_size, 1)
        if member.file_size > limit or (member.file_size > 1 << 20 and member.file_size > MAX_RATIO * packed):
            raise UserError(
                f"{path}: {name} in it would take {member.file_size} bytes unpacked from {packed}; this is "
                "no model that Keras saved"
            )
        data = archive.read(member)
        if len(data) != member.file_size:
            raise UserError(f"{path}: {name} in it is cut off; copy the file again")
        return data
