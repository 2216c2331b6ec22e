"""Streams that keep their position themselves."""

import io
import os


class PlacedStream(io.RawIOBase):
    """A stream to read up to `_length` bytes from a position of its own; a subclass has `readinto`."""

    def __init__(self, length: int) -> None:
        self._position, self._length = 0, length

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of every file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position
