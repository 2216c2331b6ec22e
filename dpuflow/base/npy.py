"""`.npy` files of many images, written block by block."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from dpuflow.base.files import atomic_path
from dpuflow.base.numerics import images_at_a_time


class Sliced(Protocol):
    """uint8 (N, H, W, C): an array, or what reads slices of one when they are asked for."""

    @property
    def dtype(self) -> np.dtype:
        """uint8."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> np.ndarray: ...


class NpyBlocks:
    """The bytes of an .npy file (format 1.0, C order) of uint8 images, as blocks; iterates anew each time."""

    def __init__(self, images: Sliced) -> None:
        self.images = images
        header = {"descr": "|u1", "fortran_order": False, "shape": tuple(images.shape)}
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, header)
        self._header = stream.getvalue()

    def __len__(self) -> int:
        """Bytes."""
        return len(self._header) + int(np.prod(self.images.shape))

    def __iter__(self) -> Iterator[bytes]:
        yield self._header
        step = images_at_a_time(self.images.shape[1:])
        for start in range(0, len(self.images), step):
            yield np.ascontiguousarray(self.images[start : start + step], np.uint8).tobytes()


def write_npy(path: Path | str, images: Sliced) -> None:
    """Write uint8 images as .npy, in the oldest version of the format, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        for block in NpyBlocks(images):
            stream.write(block)


class BlockReader(io.RawIOBase):
    """A stream to read of an iterator over blocks of bytes."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._left = blocks, memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill a buffer as far as the block at hand goes."""
        while not self._left:
            try:
                self._left = memoryview(next(self._blocks))
            except StopIteration:
                return 0
        with memoryview(buffer) as view:  # type: ignore[arg-type]
            count = min(len(view), len(self._left))
            view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
