"""A checksum at the end of a protobuf file: a flipped bit in a weight passes every check of the format.

The seal is `PREFIX` and the SHA-256 of all bytes before it. To protobuf it is one field with a number that
nobody uses (in an xmodel, a GraphDef and an ONNX model alike), which every reader passes over. What we wrote
ourselves must hold it: a file that is cut between two fields is a whole one to protobuf.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.files import atomic_path

_LABEL = b"dpuflow sha256: "
_DIGEST = hashlib.sha256().digest_size
PREFIX = bytes([0xFA, 0xFF, 0x7F, len(_LABEL) + _DIGEST]) + _LABEL
"""Tag of protobuf's field 262,143 with wire type 2 (bytes), its length, and a label for human readers."""

SIZE = len(PREFIX) + _DIGEST
"""Bytes of a seal."""
_ANOTHER = (
    "{}: damaged: its bytes are not those that were written (the SHA-256 at its end is another one); remove "
    "it and run again"
)
_MISSING = (
    "{}: damaged, or not written by dpuflow: the checksum at its end is missing (is the file cut?); remove "
    "it and run again"
)


def sealed(data: bytes) -> bytes:
    """`data` (bytes) with its seal."""
    return data + PREFIX + hashlib.sha256(data).digest()


@contextmanager
def sealed_file(path: Path | str) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Gives what writes bytes to `path`, one part behind the other; at the end they get their seal.

    Atomic: a block that fails leaves no file.
    """
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:

        def write(data: bytes | memoryview) -> None:
            stream.write(data)
            digest.update(data)

        yield write
        stream.write(PREFIX + digest.digest())


def seal_file(path: Path | str) -> None:
    """Append the seal to a closed file, in place of the one it has."""
    length, _ = _content(path)
    with open(path, "r+b") as stream:
        stream.truncate(length)
        digest = hashlib.file_digest(stream, "sha256").digest()
        stream.write(PREFIX + digest)


def require_seal(path: Path | str) -> None:
    """UserError unless a file ends with the seal of its content: what dpuflow wrote, as it was written."""
    length, seal = _content(path)
    if not seal:
        raise UserError(_MISSING.format(path))
    digest, left = hashlib.sha256(), length
    with open(path, "rb") as stream:
        while left and (chunk := stream.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    if seal != PREFIX + digest.digest():
        raise UserError(_ANOTHER.format(path))


def _content(path: Path | str) -> tuple[int, bytes]:
    """(bytes before the seal that a file ends with, the seal or b"")."""
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        stream.seek(max(0, size - SIZE))
        end = stream.read()
    return (size - SIZE, end) if end.startswith(PREFIX) else (size, b"")


def unsealed(data: bytes, source: Path | str) -> bytes:
    """`data` without its seal, if it has one; UserError when the seal is another content's.

    source : what the message calls the data.
    """
    content = without_seal(data)
    if content is not data and PREFIX + hashlib.sha256(content).digest() != data[-SIZE:]:
        raise UserError(_ANOTHER.format(source))
    return content


def unsealed_file(path: Path | str, own: bool = False) -> bytes:
    """The content of a file, as `unsealed` gives it of its bytes, once in memory.

    own : whether dpuflow wrote it, so that a missing seal is a UserError, too. OSError: it cannot be read.
    """
    length, seal = _content(path)
    if own and not seal:
        raise UserError(_MISSING.format(path))
    with open(path, "rb") as stream:
        content = stream.read(length)
    if seal and PREFIX + hashlib.sha256(content).digest() != seal:
        raise UserError(_ANOTHER.format(path))
    return content


def length_without_seal(path: Path | str) -> int:
    """Bytes of a file before its seal, if it has one, whatever that says."""
    return _content(path)[0]


def without_seal(data: bytes) -> bytes:
    """`data` without its seal, if it has one, whatever that says.

    For files of the user: what changed one and wrote it again keeps the field that it does not know.
    """
    return data[:-SIZE] if data[-SIZE:].startswith(PREFIX) else data
