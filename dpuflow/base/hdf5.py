"""HDF5 files of our own: sealed with a checksum, and every fault of one is a UserError.

The HDF5 library trusts what it reads: a flipped bit can send it into an endless loop, and one in
the data is not noticed at all. So a file ends with a line (behind what HDF5 calls the end of the
file, where every reader ignores it) that holds the SHA-256 of all bytes before it; who opens the
file compares first. A file of `LARGE` bytes or more has a checksum for each MiB instead (`block_seal`),
so that opening it costs no more than what is read of it.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import h5py

from dpuflow.base.block_seal import BLOCK, DamagedBlockError, VerifiedFile, append_block_seal, content_length
from dpuflow.base.errors import UserError, about
from dpuflow.base.files import atomic_path
from dpuflow.base.hdf5_stream import NewHdf5File

SEAL = b"\ndpuflow sha256 "
SEAL_BYTES = len(SEAL) + 64 + 1
LARGE = 64 << 20
"""Bytes: hashing this many takes a tenth of a second or less."""


@contextmanager
def new_hdf5(path: Path | str) -> Iterator[NewHdf5File]:
    """A new h5py.File that gets its name and its seal when the block succeeds.

    UserError when it cannot be written, whatever the block made of that.
    """
    with atomic_path(path) as temporary:
        file = NewHdf5File(temporary)
        try:
            yield file
        finally:
            file.finish()
        seal(temporary)


@contextmanager
def open_hdf5(path: Path | str, what: str, sealed: bool = True) -> Iterator[h5py.File]:
    """An h5py.File to read; UserError for whatever is wrong with it, here or in the block.

    what : "a dataset file of dpuflow", for messages. sealed : whether the file must hold its
        seal (False: somebody else's file, or one that was checked before). What is read of a large
        file with checksums by blocks is compared in any case.
    """
    with _user_errors(path, what) as streams, _opened(path, what, sealed, streams) as file:
        yield file


class OpenHdf5:
    """An h5py.File that stays open from one reading to the next: what was compared is not compared again.

    Errors of whoever holds it are none of the file's: only what happens within `reading` is.
    """

    def __init__(self, path: Path | str, what: str, sealed: bool = True) -> None:
        """As `open_hdf5`."""
        self.path, self.what = path, what
        self._streams: list[VerifiedFile] = []
        self._closing = ExitStack()
        with _user_errors(path, what, self._streams):
            self._file = self._closing.enter_context(_opened(path, what, sealed, self._streams))

    @contextmanager
    def reading(self) -> Iterator[h5py.File]:
        """The file; UserError for whatever is wrong with it in the block."""
        with _user_errors(self.path, self.what, self._streams):
            yield self._file

    def close(self) -> None:
        """Close it."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def _opened(path, what, sealed, streams):
    """An h5py.File; the stream that it is read through, if any, is put into `streams`."""
    if content_length(path) is not None:
        with VerifiedFile(path) as stream:
            streams.append(stream)
            with about(path), h5py.File(stream, "r") as file:
                yield file
        return
    if sealed:
        check_seal(path, what)
    with about(path), h5py.File(path, "r") as file:
        yield file


@contextmanager
def _user_errors(path, what, streams=None):
    """Whatever goes wrong in the block as a UserError; gives the list of streams to ask for faults."""
    streams = [] if streams is None else streams
    try:
        try:
            yield streams
        except Exception:
            faults = [stream.fault for stream in streams if stream.fault]
            if faults:  # h5py hides it behind errors of its own
                raise DamagedBlockError(faults[0]) from None
            raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: damaged or not an HDF5 file ({error}); remove it and run again") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # h5py has no exceptions of its own: damage shows as any of these
        raise UserError(f"{path}: not {what} ({error}); remove it and run again") from None


def seal(path: Path | str) -> None:
    """Append the seal to a closed file (in place of the one it has)."""
    blocks = content_length(path)
    if blocks is not None or os.path.getsize(path) >= LARGE:
        append_block_seal(path, os.path.getsize(path) if blocks is None else blocks)
        return
    digest, length = _digest(path)
    with open(path, "r+b") as stream:
        stream.truncate(length)
        stream.seek(length)
        stream.write(SEAL + digest + b"\n")


def check_seal(path: Path | str, what: str) -> None:
    """UserError unless the file is, byte for byte, as it was when it was sealed."""
    if content_length(path) is not None:
        with _user_errors(path, what) as streams, VerifiedFile(path) as stream:
            streams.append(stream)
            while stream.read(BLOCK):
                pass
        return
    digest, length = _digest(path)
    with open(path, "rb") as stream:
        stream.seek(length)
        found = stream.read()
    if found != SEAL + digest + b"\n":
        raise UserError(
            f"{path}: damaged or not an HDF5 file that dpuflow wrote, so not {what}: the checksum at its end "
            "is missing or does not fit; remove it and run again"
        )


def _digest(path):
    """(hexadecimal SHA-256 of everything before the seal, how many bytes that is)."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        stream.seek(max(0, size - SEAL_BYTES))
        length = size - SEAL_BYTES if stream.read().startswith(SEAL) else size
        stream.seek(0)
        digest, left = hashlib.sha256(), length
        while left and (chunk := stream.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode(), length


def stored_values(group: h5py.Group, name: str, dtype: type | None = None, axes: int | None = None) -> Any:
    """The whole content of a dataset, or None when there is none of this name.

    ValueError unless it lies in this very file in full, has the dtype and so many axes.
    """
    if name not in group:
        return None
    item = group[name]
    check_stored(item, dtype, axes)
    return item[()]


def check_stored(item: h5py.Dataset, dtype: type | None = None, axes: int | None = None) -> None:
    """ValueError unless a dataset is wholly in this file: not a claim of a size, not a link elsewhere."""
    if not isinstance(item, h5py.Dataset) or item.is_virtual or item.external or item.shape is None:
        raise ValueError(f"{item.name} holds no values in this file")
    if dtype is not None and item.dtype != dtype:
        raise ValueError(f"{item.name} holds {item.dtype}, expected {dtype}")
    if axes is not None and item.ndim != axes:
        raise ValueError(f"{item.name} has {item.ndim} axes, expected {axes}")
    if item.id.get_storage_size() < item.size * item.dtype.itemsize:
        raise ValueError(f"{item.name} of shape {item.shape} is not stored in full")
