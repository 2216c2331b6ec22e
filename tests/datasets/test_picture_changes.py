"""The fingerprint of a folder of pictures: contents and names, whatever the times."""

import os
from itertools import count

import pytest
from counted_calls import counted_calls

from dpuflow.datasets import picture_changes
from dpuflow.datasets.picture_changes import fingerprint, fingerprint_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two pictures and a text, changed long ago; the memory is below tmp_path."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/cat/a.png", "photos/dog/b.jpg", "photos/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(picture_changes, "FRESH_NS", -(10**12))
    return tmp_path / "photos"


SECONDS = count(2)


def later(path, text):
    """Write a file at a time of its own: two writings within a tick have the same one with older kernels."""
    path.write_text(text)
    second = next(SECONDS)
    os.utime(path, (second, second))


def test_it_changes_with_names_and_contents_alone(folder, tmp_path):
    first = fingerprint(folder)
    assert len(first) == 16 and fingerprint(folder) == first
    (folder / "notes.txt").write_text("other")
    os.utime(folder / "cat/a.png", (1, 1))
    assert fingerprint(folder) == first
    later(folder / "cat/a.png", "photos/cat/x.png")  # of the same size
    changed = fingerprint(folder)
    assert changed != first
    later(folder / "cat/a.png", "photos/cat/a.png")
    assert fingerprint(folder) == first
    (folder / "dog/b.jpg").rename(folder / "dog/c.jpg")
    assert fingerprint(folder) not in (first, changed)
    (folder / "dog/c.jpg").rename(folder / "dog/b.jpg")
    (folder / "dog/d.webp").write_text("more")
    assert fingerprint(folder) not in (first, changed)
    (folder / "dog/d.webp").unlink()
    folder.rename(tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == first


def test_what_did_not_change_is_not_read_again(folder, monkeypatch):
    first = fingerprint(folder)
    monkeypatch.setattr(picture_changes.hashlib, "file_digest", None)
    assert fingerprint(folder) == first
    (folder / "cat/a.png").write_text("other")
    with pytest.raises(TypeError):
        fingerprint(folder)


def test_a_fresh_file_is_not_trusted(folder, monkeypatch):
    monkeypatch.setattr(picture_changes, "FRESH_NS", 2 * 10**9)
    first = fingerprint(folder)
    facts = (folder / "cat/a.png").stat()
    (folder / "cat/a.png").write_text("photos/cat/x.png")
    os.utime(folder / "cat/a.png", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert fingerprint(folder) != first


def test_a_damaged_memory_is_made_anew(folder):
    first = fingerprint(folder)
    (memory,) = picture_changes.MEMORY.iterdir()
    for text in ("", "[]", '{"cat/a.png": 5}', '{"cat/a.png": [1]}'):
        memory.write_text(text)
        assert fingerprint(folder) == first


def test_a_list_counts_what_it_names(folder):
    (folder / "list.csv").write_text("path,label\ncat/a.png,cat\n")
    source = {"kind": "pictures", "list": str(folder / "list.csv")}
    first = fingerprint_of(source)
    (folder / "dog/b.jpg").write_text("other")
    assert fingerprint_of(source) == first
    (folder / "cat/a.png").write_text("other")
    assert fingerprint_of(source) not in (first, "")
    assert fingerprint_of({"kind": "pictures", "folder": str(folder / "absent")}) == ""


def test_a_picture_looked_at_again_costs_some_calls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picture_changes, "FRESH_NS", -(10**12))
    for label in range(5):
        (tmp_path / f"photos/{label}").mkdir(parents=True)
        for number in range(100):
            (tmp_path / f"photos/{label}/{number}.jpg").touch()
    first = fingerprint(tmp_path / "photos")
    again, calls = counted_calls(fingerprint, tmp_path / "photos")
    assert again == first
    assert calls < 500 * 60  # 20,000 pictures: a million calls, less than a second


def test_annotations_count_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"picture")
    (folder / "a.xml").write_bytes(b"<annotation/>")
    source = {"kind": "pictures", "folder": str(folder)}
    alone, annotated = fingerprint_of(source), fingerprint_of(source, annotated=True)
    assert alone and annotated and alone != annotated
    (folder / "a.xml").write_bytes(b"<annotation></annotation>")
    assert fingerprint_of(source) == alone
    assert fingerprint_of(source, annotated=True) != annotated
