""".npy files written block by block are those that NumPy writes at once."""

import io

import numpy as np
import pytest

from dpuflow.base.npy import BlockReader, NpyBlocks, write_npy


def written_at_once(images):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, images, version=(1, 0))
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 5, 4, 3), (1300, 5, 4, 1), (9, 1024, 1024, 1)])
def test_blocks_are_the_bytes_that_numpy_writes(tmp_path, shape):
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    blocks = NpyBlocks(images)
    expected = written_at_once(images)
    assert len(blocks) == len(expected) and b"".join(blocks) == expected == b"".join(blocks)
    assert max(map(len, blocks)) <= max(512 * 20, 8 << 20)
    write_npy(tmp_path / "i.npy", images)
    assert (tmp_path / "i.npy").read_bytes() == expected


def test_a_reader_of_blocks_gives_any_number_of_bytes():
    data = bytes(range(200)) * 5
    blocks = [data[:3], b"", data[3:700], data[700:]]
    reader = io.BufferedReader(BlockReader(iter(blocks)))
    assert reader.read(7) + reader.read(900) + reader.read() == data and reader.read(1) == b""
