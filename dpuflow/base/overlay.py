"""A file with changes that are kept in memory: what is not changed is read from the file."""

import os
from pathlib import Path

from dpuflow.base.placed_stream import PlacedStream

PAGE = 4096


class Overlay(PlacedStream):
    """An existing file to read and write, of which the file itself notices nothing."""

    def __init__(self, path: Path | str) -> None:
        """OSError when the file cannot be read."""
        self._stream = open(path, "rb", buffering=0)  # noqa: SIM115, closed by close()
        self._pages: dict[int, bytearray] = {}
        self._original = os.fstat(self._stream.fileno()).st_size
        """So much of the file as has not been cut off."""
        super().__init__(self._original)

    def writable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill a buffer from the position on."""
        with memoryview(buffer) as view, view.cast("B") as out:  # type: ignore[arg-type]
            start = self._position
            count = max(0, min(len(out), self._length - start))
            have = max(0, min(count, self._original - start))
            done = 0
            while done < have:
                with out[done:have] as rest:
                    part = os.preadv(self._stream.fileno(), [rest], start + done)
                if not part:
                    raise OSError("the file has become shorter while it was read")
                done += part
            out[have:count] = bytes(count - have)
            for number in self._pages.keys() & range(start // PAGE, -(-(start + count) // PAGE)):
                first = max(start, number * PAGE)
                last = min(start + count, (number + 1) * PAGE)
                page = self._pages[number]
                out[first - start : last - start] = page[first - number * PAGE : last - number * PAGE]
        self._position += count
        return count

    def write(self, data: object) -> int:
        """Keep bytes at the position."""
        with memoryview(data) as view, view.cast("B") as content:  # type: ignore[arg-type]
            written = 0
            while written < len(content):
                number, within = divmod(self._position, PAGE)
                count = min(PAGE - within, len(content) - written)
                page = self._pages.get(number) or self._page(number)
                page[within : within + count] = content[written : written + count]
                self._pages[number] = page
                self._position += count
                written += count
                self._length = max(self._length, self._position)
            return written

    def _page(self, number):
        """A page as it is now."""
        have = max(0, min(PAGE, self._original - number * PAGE))
        return bytearray(os.pread(self._stream.fileno(), have, number * PAGE).ljust(PAGE, b"\0"))

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen it; what is behind the end is zeros from then on."""
        size = self._position if size is None else size
        for number in [n for n in self._pages if (n + 1) * PAGE > size]:
            kept = self._pages[number][: max(0, size - number * PAGE)]
            self._pages[number] = kept.ljust(PAGE, b"\0")
        self._length, self._original = size, min(self._original, size)
        return size

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()
