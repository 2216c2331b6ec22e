"""Large HDF5 files: a checksum for each MiB, compared when the block is first read."""

import os

import h5py
import numpy as np
import pytest

from dpuflow.base import block_seal, hdf5
from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import new_hdf5, open_hdf5, seal

WHAT = "a test file"


@pytest.fixture
def large(tmp_path, monkeypatch):
    """(path of a block-sealed file of some 6 MiB, the bytes of /values in it)."""
    monkeypatch.setattr(hdf5, "LARGE", 2 << 20)
    values = np.random.default_rng(1).integers(0, 256, (60, 100_000), dtype=np.uint8)
    with new_hdf5(tmp_path / "a.h5") as file:
        file.create_dataset("values", data=values, chunks=(3, 100_000), track_times=False)
        file.attrs["format"] = "test"
    return tmp_path / "a.h5", values


def test_what_was_written_is_read(large):
    path, values = large
    assert block_seal.content_length(path) is not None
    with open_hdf5(path, WHAT) as file:
        assert file.attrs["format"] == "test"
        assert np.array_equal(file["values"][7:9], values[7:9])
        assert np.array_equal(file["values"][()], values)
    with h5py.File(path) as file:  # every reader of HDF5 reads it
        assert np.array_equal(file["values"][()], values)


def test_small_files_keep_the_seal_of_one_line(tmp_path):
    with new_hdf5(tmp_path / "a.h5") as file:
        file.attrs["format"] = "test"
    assert block_seal.content_length(tmp_path / "a.h5") is None
    assert (tmp_path / "a.h5").read_bytes()[-hdf5.SEAL_BYTES :].startswith(hdf5.SEAL)


@pytest.mark.fault("data", "a bit of a large dataset.h5 flipped", "refused where it is read")
def test_every_flipped_bit_is_noticed_where_it_is_read(large):
    path, _ = large
    whole = path.read_bytes()
    for at in (*range(0, 2000, 97), len(whole) // 2, len(whole) - 300, len(whole) - 100, len(whole) - 20):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        with (
            pytest.raises(UserError, match=r"a\.h5: damaged or not an HDF5 file"),
            open_hdf5(path, WHAT) as file,
        ):
            file["values"][()]


def test_a_block_that_is_not_read_is_not_compared(large):
    path, values = large
    damaged = bytearray(path.read_bytes())
    damaged[3_500_000] ^= 1
    path.write_bytes(damaged)
    with open_hdf5(path, WHAT) as file:
        assert np.array_equal(file["values"][:5], values[:5])
    with pytest.raises(UserError, match="have changed"), open_hdf5(path, WHAT) as file:
        file["values"][32:40]


def test_truncated_and_lengthened_files_are_refused(large):
    path, _ = large
    whole = path.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], whole + b"x", whole[1:]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.h5: damaged"), open_hdf5(path, WHAT) as file:
            file["values"][()]


def test_sealing_again_changes_nothing(large):
    path, _ = large
    whole = path.read_bytes()
    seal(path)
    assert path.read_bytes() == whole


def test_an_error_of_the_block_stays_what_it_is(large):
    path, _ = large
    with pytest.raises(UserError, match="not a test file"), open_hdf5(path, WHAT) as file:
        file["absent"]
    with pytest.raises(UserError, match="mine"), open_hdf5(path, WHAT):
        raise UserError("mine")


def test_opening_costs_what_is_read(tmp_path, monkeypatch):
    """192 MiB: opening reads the metadata and one MiB around it, not all."""
    with new_hdf5(tmp_path / "a.h5") as file:
        values = file.create_dataset("v", (192, 1 << 20), np.uint8, chunks=(1, 1 << 20), track_times=False)
        for row in range(192):
            values[row] = np.full(1 << 20, row, np.uint8)
    read, pread = [], os.pread
    monkeypatch.setattr(block_seal.os, "pread", lambda *where: read.append(pread(*where)) or read[-1])
    with open_hdf5(tmp_path / "a.h5", WHAT) as file:
        assert file["v"][100, 5] == 100
    assert 1 << 20 <= sum(map(len, read)) < 16 << 20
