"""A checksum at the end of an xmodel: a flipped bit in a weight passes every check of the format.

The seal is `PREFIX` and the SHA-256 of all bytes before it. To protobuf it is one field with a number that
nobody uses, which every reader passes over and every tool that writes the graph anew leaves out. A file
without a seal (the vendor's, for instance) is taken as it is.
"""

import hashlib
from pathlib import Path

from dpuflow.base.errors import UserError

_LABEL = b"dpuflow sha256: "
_DIGEST = hashlib.sha256().digest_size
PREFIX = bytes([0xFA, 0xFF, 0x7F, len(_LABEL) + _DIGEST]) + _LABEL
"""Tag of protobuf's field 262,143 with wire type 2 (bytes), its length, and a label for human readers."""

SIZE = len(PREFIX) + _DIGEST
"""Bytes of a seal."""


def sealed(data: bytes) -> bytes:
    """`data` (bytes) with its seal."""
    return data + PREFIX + hashlib.sha256(data).digest()


def unsealed(data: bytes, source: Path | str) -> bytes:
    """`data` without its seal, if it has one; UserError when the seal is another content's.

    source : what the message calls the data.
    """
    content, seal = data[:-SIZE], data[-SIZE:]
    if not seal.startswith(PREFIX):
        return data
    if hashlib.sha256(content).digest() != seal[len(PREFIX) :]:
        raise UserError(
            f"{source}: damaged: its bytes are not those that were written (the SHA-256 at its end is "
            "another one); remove it and run again"
        )
    return content
