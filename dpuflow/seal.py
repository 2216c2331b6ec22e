"""A checksum at the end of a file: a flipped bit in a weight passes every check of the format, but not this.

The seal is `PREFIX` and the SHA-256 of all bytes before it. Readers that do not know it pass over it: to
protobuf (an `.xmodel`) it is one field with a number that nobody uses, and HDF5 ignores what follows the end
that its superblock names. A file without a seal (the vendor's, or one that another tool rewrote) is taken as
it is.
"""

import hashlib
from pathlib import Path

from dpuflow.errors import UserError

_LABEL = b"dpuflow sha256: "
_DIGEST = hashlib.sha256().digest_size
PREFIX = bytes([0xFA, 0xFF, 0x7F, len(_LABEL) + _DIGEST]) + _LABEL
"""Tag of protobuf's field 262,143 with wire type 2 (bytes), its length, and a label for human readers."""

SIZE = len(PREFIX) + _DIGEST
"""Bytes of a seal."""


def sealed(data):
    """`data` (bytes) with its seal."""
    return data + PREFIX + hashlib.sha256(data).digest()


def unsealed(data, source):
    """`data` without its seal, if it has one; UserError when the seal is another content's.

    source : what the message calls the data.
    """
    content, seal = data[:-SIZE], data[-SIZE:]
    if not seal.startswith(PREFIX) or len(seal) != SIZE:
        return data
    _compare(hashlib.sha256(content), seal, source)
    return content


def seal_file(path):
    """Append its seal to a file."""
    with open(path, "r+b") as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
        stream.write(PREFIX + digest)


def check_file(path):
    """Whether a file has a seal; UserError when it is another content's. OSError as of `open`."""
    size = Path(path).stat().st_size - SIZE
    if size < 0:
        return False
    with open(path, "rb") as stream:
        stream.seek(size)
        seal = stream.read()
        if not seal.startswith(PREFIX):
            return False
        stream.seek(0)
        digest = hashlib.sha256()
        while size > 0 and (block := stream.read(min(size, 1 << 20))):
            digest.update(block)
            size -= len(block)
    _compare(digest, seal, path)
    return True


def _compare(digest, seal, source):
    if digest.digest() != seal[len(PREFIX) :]:
        raise UserError(
            f"{source}: damaged: its bytes are not those that were written (the SHA-256 at its end is "
            "another one); remove it and run again"
        )
