"""A file whose changes stay in memory: as a file that is changed, and the file itself as it was."""

import io

import h5py
import numpy as np

from dpuflow.base.overlay import PAGE, Overlay


def test_it_is_a_file_like_any_other(tmp_path):
    rng = np.random.default_rng(0)
    content = rng.integers(0, 256, 5 * PAGE + 100, np.uint8).tobytes()
    path = tmp_path / "f"
    path.write_bytes(content)
    (tmp_path / "other").write_bytes(content)
    with Overlay(path) as found, open(tmp_path / "other", "r+b", buffering=0) as other:
        for _ in range(400):
            place = int(rng.integers(0, 8 * PAGE))
            for stream in (found, other):
                stream.seek(place)
            kind, count = rng.integers(0, 5), int(rng.integers(0, 2 * PAGE))
            if kind == 0:
                assert found.truncate() == other.truncate()
            elif kind < 3:
                data = rng.integers(0, 256, count, np.uint8).tobytes()
                assert found.write(data) == other.write(data)
            else:
                assert found.read(count) == other.read(count)
            assert found.tell() == other.tell()
        whole = (tmp_path / "other").read_bytes()
        found.seek(0)
        assert found.read() == whole
        assert found.seek(-3, io.SEEK_END) == len(whole) - 3
    assert path.read_bytes() == content


def test_hdf5_is_changed_in_memory_only(tmp_path):
    path = tmp_path / "f.h5"
    values = np.arange(100_000)
    with h5py.File(path, "w") as file:
        file["a"] = values
        file.attrs["text"] = "short"
    before = path.read_bytes()
    with Overlay(path) as stream, h5py.File(stream, "r+") as file:
        del file.attrs["text"]
        file.attrs["text"] = "long " * 3000
        np.testing.assert_array_equal(file["a"][()], values)
        assert file.attrs["text"] == "long " * 3000
    assert path.read_bytes() == before
