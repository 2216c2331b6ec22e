"""Writing HDF5 so that a full disk is an error and not the end of the process.

When the HDF5 library cannot write it keeps what it failed to write, tries again while it closes the
file and again when the process ends, and may end it with a segmentation fault; some of its failures
are noticed only where Python throws an object away, where no exception can be raised. So it writes
through a stream of ours that never fails: the stream keeps the first error, forgets what comes after
it, and whoever writes the file raises that error in the end.
"""

import io
import os
from pathlib import Path

import h5py


class KeptFaultStream(io.RawIOBase):
    """A new file to write and read; the first error is kept in `fault` and not raised."""

    def __init__(self, path: Path | str) -> None:
        """OSError when the file cannot be made."""
        self._stream = open(path, "w+b", buffering=0)  # noqa: SIM115, closed by close()
        self.fault: BaseException | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of every file."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._stream.tell()

    def readinto(self, buffer: object) -> int:
        """Fill a buffer from the position on, with zeros where what was written has been forgotten."""
        # released even when an exception keeps this frame: the memory is HDF5's
        with memoryview(buffer) as view, view.cast("B") as out:  # type: ignore[arg-type]
            done = 0
            try:
                while done < len(out):
                    with out[done:] as rest:
                        count = self._stream.readinto(rest)
                    if not count:
                        break
                    done += count
            except BaseException as error:  # also Ctrl-C: nothing may leave from within the library
                self.fault = self.fault or error
            if self.fault:
                out[done:] = bytes(len(out) - done)
                return len(out)
            return done

    def write(self, data: object) -> int:
        """Write everything at the position, or nothing once there is a fault; how many bytes it was given."""
        with memoryview(data) as view, view.cast("B") as left:  # type: ignore[arg-type]
            done = 0
            while self.fault is None and done < len(left):
                try:
                    with left[done:] as rest:
                        done += self._stream.write(rest) or 0
                except BaseException as error:
                    self.fault = error
            return len(left)

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file."""
        size = self.tell() if size is None else size
        if self.fault is None:
            try:
                self._stream.truncate(size)
            except BaseException as error:
                self.fault = error
        return size

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            try:
                self._stream.close()
            except OSError as error:  # where the system writes late (network file systems)
                self.fault = self.fault or error
        super().close()


class NewHdf5File(h5py.File):
    """An h5py.File to write; whether all of it could be written so far is to be asked."""

    def __init__(self, path: Path | str) -> None:
        """OSError when the file cannot be made."""
        self._kept = KeptFaultStream(path)
        super().__init__(self._kept, "w")

    def check_written(self) -> None:
        """The first error, mostly an OSError, if there was one; for who writes much, so as to stop early."""
        if self._kept.fault:
            raise self._kept.fault

    def finish(self) -> None:
        """Close the file; the first error, mostly an OSError, when something could not be written."""
        self.close()
        self._kept.close()
        self.check_written()
