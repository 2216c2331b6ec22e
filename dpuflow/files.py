"""Files that are either whole or absent: atomic writes, checksums, JSON."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from dpuflow.errors import UserError

_NO_ROOM = {
    errno.ENOSPC: "free space there and run again",
    errno.EDQUOT: "free space there and run again",
    errno.EFBIG: "raise the limit of the file size (ulimit -f) and run again",
    errno.EROFS: "make the file system writable or start in another folder, and run again",
    errno.EACCES: "make the folder writable for you or start in another folder, and run again",
    errno.EPERM: "make the folder writable for you or start in another folder, and run again",
}
"""Reasons why a file cannot be written that are nobody's defect -> what to do about it."""


def write_error(path, error):
    """UserError for an exception while `path` was written, or None if its reason is not the place.

    h5py and TensorFlow tell the system's reason only in their message.
    """
    number, text = getattr(error, "errno", None), str(error)
    if number not in _NO_ROOM:
        number = next((n for n in _NO_ROOM if os.strerror(n).lower() in text.lower()), None)
    if number is None:
        return None
    return UserError(f"{path}: cannot be written ({os.strerror(number)}); {_NO_ROOM[number]}")


@contextmanager
def explained_writing(path):
    """A full disk, a read-only folder and the like, while `path` is written, become a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        explained = write_error(path, error)
        if explained is None:
            raise
        raise explained from None


@contextmanager
def scratch_folder(path):
    """Yield a new folder beside `path` for what will become `path`; it is gone afterwards.

    Folders of processes that were killed are removed first. The folder is locked as long as
    its process lives, so that of a running one is not touched.
    """
    path = Path(path)
    prefix = f".{path.name}."
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent, prefix)
    new = Path(tempfile.mkdtemp(prefix=".new.", dir=path.parent))
    lock = os.open(new, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        # under its name only when it is locked
        folder = new.rename(new.with_name(prefix + new.name.rpartition(".")[2]))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove_abandoned(parent, prefix):
    for entry in sorted(parent.iterdir()):
        if not entry.name.startswith(prefix) or not entry.is_dir():
            continue
        with suppress(OSError):
            lock = os.open(entry, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry)
            finally:
                os.close(lock)


@contextmanager
def atomic_path(path):
    """Yield a temporary sibling of `path`; rename it to `path` if the block succeeds.

    The temporary name keeps the suffix, because some writers (Keras) choose the
    format by it. A failed or killed block never leaves a file under `path`. UserError
    when the place is the reason that it failed (full disk, read-only folder).
    """
    path = Path(path)
    with explained_writing(path), scratch_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        os.replace(temporary, path)


def write_bytes(path, data):
    """Write `data` (bytes) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path, text):
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


class _NumpyEncoder(json.JSONEncoder):
    def default(self, o):
        if isinstance(o, np.generic):
            return o.item()
        if isinstance(o, np.ndarray):
            return o.tolist()
        return super().default(o)


def _pack_number_lists(text):
    """Put lists of plain numbers on one line: a 7,000-entry column is unreadable."""
    return re.sub(
        r"\[\s+(-?[\d.eE+-]+(?:,\s+-?[\d.eE+-]+)*)\s+\]",
        lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]",
        text,
    )


def write_json(path, data):
    """Write `data` as deterministic, readable JSON (insertion order kept, no NaN)."""
    text = json.dumps(data, indent=1, cls=_NumpyEncoder, allow_nan=False, ensure_ascii=False)
    write_text(path, _pack_number_lists(text) + "\n")


def read_json(path):
    """Read a JSON file; UserError names the file when it is missing or malformed."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a JSON file ({error}); remove it and run again") from None


def sha256(path):
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
