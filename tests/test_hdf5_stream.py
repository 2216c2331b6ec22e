"""Writing HDF5 onto a disk that fills up: whichever write fails, an error and not the process's end."""

import errno
import os

import h5py
import numpy as np
import pytest

from dpuflow.base import hdf5_stream
from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import new_hdf5

ROWS = np.random.default_rng(3).integers(0, 256, (64, 28, 28), dtype=np.uint8)


class FullDisk:
    """A raw file that has room for so many writes."""

    def __init__(self, stream, room):
        self.stream, self.room, self.writes = stream, room, 0

    def write(self, data):
        self.writes += 1
        if self.writes > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.stream.write(data)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def filled(file, check=False):
    """Chunks, many groups and attributes: all that our files hold."""
    images = file.create_dataset(
        "images", shape=(0, 28, 28), maxshape=(None, 28, 28), chunks=(8, 28, 28), track_times=False
    )
    for start in range(0, 64, 16):
        images.resize(start + 16, axis=0)
        images[start:] = ROWS[start : start + 16]
        if check:
            file.check_written()
    for layer in range(12):
        file.create_group(f"l{layer}")["weights"] = np.full((3, 3, layer + 1, 4), layer, np.float32)
        file.attrs[f"name{layer}"] = "x" * layer


def disk_with(monkeypatch, room):
    made = []

    class Stream(hdf5_stream.KeptFaultStream):
        def __init__(self, path):
            super().__init__(path)
            self._stream = FullDisk(self._stream, room)
            made.append(self._stream)

    monkeypatch.setattr(hdf5_stream, "KeptFaultStream", Stream)
    return made


def test_what_is_written_is_read_by_every_reader(tmp_path):
    with new_hdf5(tmp_path / "a.h5") as file:
        filled(file, check=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["images"][()].astype(np.uint8), ROWS)
        assert file["l11/weights"].shape == (3, 3, 12, 4)
        assert file.attrs["name11"] == "x" * 11


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        with new_hdf5(tmp_path / name) as file:
            file.create_dataset("images", data=ROWS, track_times=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def in_a_child(function):
    """Exit status of `function` in a forked process that ends as a program does; its result is the status."""
    child = os.fork()
    if not child:
        status = 99
        try:
            status = function()
        finally:
            h5py._objects.nonlocal_close()  # what the end of a process does
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_whichever_write_fails_it_is_a_sentence(tmp_path, monkeypatch):
    made = disk_with(monkeypatch, room=10**9)
    with new_hdf5(tmp_path / "a.h5") as file:
        filled(file)
    writes = made[0].writes
    assert writes > 40

    def attempt():
        with pytest.raises(UserError, match=r"b\.h5: cannot be written \(No space left on device\)"):  # noqa: SIM117
            with new_hdf5(tmp_path / "b.h5") as file:
                filled(file)
        return 7 if not os.listdir(tmp_path / "only") else 8

    (tmp_path / "only").mkdir()
    for room in range(writes):
        disk_with(monkeypatch, room)
        assert in_a_child(attempt) == 7, room
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.h5", "only"]


def test_a_short_write_is_continued(tmp_path):
    stream = hdf5_stream.KeptFaultStream(tmp_path / "a")

    class Short:
        def __init__(self, stream):
            self.stream = stream

        def write(self, data):
            return self.stream.write(bytes(data)[:3])

        def __getattr__(self, name):
            return getattr(self.stream, name)

    stream._stream = Short(stream._stream)
    assert stream.write(b"0123456789") == 10
    stream.close()
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_who_writes_much_stops_early(tmp_path, monkeypatch):
    disk_with(monkeypatch, room=3)
    rows = []
    with pytest.raises(UserError, match="No space left"):  # noqa: SIM117
        with new_hdf5(tmp_path / "a.h5") as file:
            images = file.create_dataset("images", (20, 5 << 18), "u1", chunks=(1, 5 << 18))
            for row in range(20):  # of chunks that the library does not keep
                images[row] = np.zeros(5 << 18, np.uint8)
                rows.append(row)
                file.check_written()
    assert len(rows) < 6
    assert not (tmp_path / "a.h5").exists()


def test_an_interruption_leaves_from_outside_of_the_library(tmp_path):
    class Interrupted:
        def write(self, data):
            raise KeyboardInterrupt

    stream = hdf5_stream.KeptFaultStream(tmp_path / "a")
    stream._stream.close()
    stream._stream = Interrupted()
    assert stream.write(b"12345") == 5
    assert isinstance(stream.fault, KeyboardInterrupt)
