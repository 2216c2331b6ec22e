"""What a writer of files needs against killed processes and full disks: scratch folders and plain reasons."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpuflow.base.errors import UserError


class WriteError(UserError):
    """A file cannot be written where it should be."""


_NO_ROOM = {
    errno.ENOSPC: "free space there and run again",
    errno.EDQUOT: "free space there and run again",
    errno.EFBIG: "raise the limit of the file size (ulimit -f) and run again",
    errno.EROFS: "make the file system writable or start in another folder, and run again",
    errno.EACCES: "make the folder writable for you or start in another folder, and run again",
    errno.EPERM: "make the folder writable for you or start in another folder, and run again",
}
"""Reasons why a file cannot be written that are nobody's defect -> what to do about it."""


def write_error(path: Path | str, error: BaseException) -> WriteError | None:
    """WriteError for an exception while `path` was written, or None if its reason is not the place.

    h5py and TensorFlow tell the system's reason only in their message.
    """
    number, text = getattr(error, "errno", None), str(error)
    if number not in _NO_ROOM:
        number = next((n for n in _NO_ROOM if os.strerror(n).lower() in text.lower()), None)
    if number is None:
        return None
    return WriteError(f"{path}: cannot be written ({os.strerror(number)}); {_NO_ROOM[number]}")


@contextmanager
def explained_writing(path: Path | str) -> Iterator[None]:
    """A full disk, a read-only folder and the like, while `path` is written, become a WriteError."""
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
def scratch_folder(path: Path | str) -> Iterator[Path]:
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
