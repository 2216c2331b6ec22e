import json

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.files import atomic_path, read_json, sha256, write_json, write_text


def test_atomic_path_renames_only_a_finished_file(tmp_path):
    target = tmp_path / "a" / "model.h5"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.suffix == ".h5"
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.fault("disk", "writer that fails half-way", "right")
def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "x.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_json_keeps_order_and_number_lists_on_one_line(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, {"b": 1, "a": np.array([1, -2, 3]), "f": np.float64(0.5), "s": ["x", "y"]})
    text = path.read_text()
    assert '"a": [1, -2, 3]' in text
    assert text.index('"b"') < text.index('"a"')
    assert json.loads(text) == {"b": 1, "a": [1, -2, 3], "f": 0.5, "s": ["x", "y"]}


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "r.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("results", "malformed JSON file", "refused")
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1,"])
def test_malformed_json_names_the_file(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.json"):
        read_json(path)


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
