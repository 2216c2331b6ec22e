"""The seal of large files: a SHA-256 for each MiB, so that who reads a part checks just this part.

Behind the content lie the digests, 32 bytes for each block, and a line with the content's length and
the SHA-256 of that length and the digests. `VerifiedFile` gives out no byte of a block that it has
not compared, so the HDF5 library never sees a damaged one.
"""

import hashlib
import os
from pathlib import Path

from dpuflow.base.placed_stream import PlacedStream

BLOCK = 1 << 20
DIGEST = 32
MARK = b"\ndpuflow blocks "
TRAILER = len(MARK) + 16 + 1 + 64 + 1
"""Bytes of the last line: mark, length (hexadecimal), space, digest (hexadecimal), line end."""


class DamagedBlockError(OSError):
    """A part of the file is not what was sealed."""


def _trailer(length: int, table: bytes) -> bytes:
    size = b"%016x" % length
    return MARK + size + b" " + hashlib.sha256(size + table).hexdigest().encode() + b"\n"


def content_length(path: Path | str) -> int | None:
    """Bytes before the block seal that a file ends with; None if it ends with none."""
    size = os.path.getsize(path)
    if size < TRAILER:
        return None
    with open(path, "rb") as stream:
        stream.seek(size - TRAILER)
        line = stream.read()
    if not line.startswith(MARK):
        return None
    try:
        return min(int(line[len(MARK) : len(MARK) + 16], 16), size)
    except ValueError:
        return size


def append_block_seal(path: Path | str, length: int) -> None:
    """Seal the first `length` bytes of a closed file; whatever follows them is cut off."""
    table = bytearray()
    with open(path, "r+b") as stream:
        stream.truncate(length)
        while chunk := stream.read(BLOCK):
            table += hashlib.sha256(chunk).digest()
        stream.write(table + _trailer(length, bytes(table)))


class VerifiedFile(PlacedStream):
    """A block-sealed file to read; DamagedBlockError (kept in `fault`) where it is not as it was sealed."""

    def __init__(self, path: Path | str):
        length = content_length(path)
        super().__init__(length or 0)
        self._stream = open(path, "rb", buffering=0)  # noqa: SIM115, closed by close()
        self.fault: str | None = None
        self._table = os.pread(self._stream.fileno(), -(-self._length // BLOCK) * DIGEST, self._length)
        tail = os.pread(self._stream.fileno(), TRAILER + 1, self._length + len(self._table))
        if length is None or tail != _trailer(self._length, self._table):
            self._stream.close()
            raise DamagedBlockError("the checksums at its end do not fit")
        self._seen = bytearray(len(self._table) // DIGEST)

    def readinto(self, buffer: object) -> int:
        """Fill a buffer from the position on; every block is compared when it is first read."""
        # released even when an exception keeps this frame: the memory is HDF5's
        with memoryview(buffer) as view, view.cast("B") as out:  # type: ignore[arg-type]
            start = self._position
            end = min(start + len(out), self._length)
            while self._position < end:
                block = self._position // BLOCK
                first = block * BLOCK
                until = min(end, first + BLOCK)
                with out[self._position - start : until - start] as target:
                    if self._seen[block]:
                        os.preadv(self._stream.fileno(), [target], self._position)
                    else:
                        target[:] = self._compared(block)[self._position - first : until - first]
                self._position = until
        return max(0, end - start)

    def _compared(self, block: int) -> bytes:
        length = min(BLOCK, self._length - block * BLOCK)
        content = os.pread(self._stream.fileno(), length, block * BLOCK)
        if hashlib.sha256(content).digest() != self._table[block * DIGEST : (block + 1) * DIGEST]:
            self.fault = f"bytes {block * BLOCK} to {block * BLOCK + length - 1} have changed"
            raise DamagedBlockError(self.fault)
        self._seen[block] = 1
        return content

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()
