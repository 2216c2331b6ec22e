"""The pictures of a folder or a zip: their names, and the bytes of each. Never anything outside of it.

Free of NumPy and Pillow, because Snakemake looks at each start (`picture_changes`). Names are paths below
the folder or in the zip, with slashes and in Unicode's composed form, so that they are the same on
every machine. Hidden files and what macOS adds to a zip are left out.
"""

import functools
import os
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dpuflow.base.errors import UserError
from dpuflow.base.hints import absent
from dpuflow.base.zip_errors import errors_of_zip
from dpuflow.datasets.find_pictures import SUFFIXES

LARGEST_FILE = 256 << 20
"""Bytes of one file. A zip's member may unpack to any number."""
LARGEST_TABLE = 1 << 30
"""Bytes of a .json file, which may be about all pictures."""
LEFT_OUT = ("__MACOSX",)


class Source(NamedTuple):
    """Pictures, and what else lies there."""

    place: str
    """The folder or zip, for messages."""
    pictures: tuple[str, ...]
    """Names, sorted."""
    others: tuple[str, ...]
    """Names of files that are no pictures by their suffix, sorted."""
    read: Callable[[str], bytes]
    """Name -> content of the file."""
    folders: tuple[str, ...] = ()
    """Names of the folders, sorted, those without a file, too."""


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """The Source of a folder or a zip; UserError for what leads out of it or is damaged."""
    if path.is_dir():
        folders: list[str] = []
        found = {name: file for name, file, _ in walk(path, folders)}
        yield _source(path, found, folders, lambda file: _content(path, file))
        return
    if not path.exists():
        raise UserError(f"{path}: {absent(path)} (datasets.*.source)")
    with errors_of_zip(path):
        bundle = zipfile.ZipFile(path)
    with bundle:
        found, folders = _members(path, bundle)
        yield _source(path, found, folders, functools.partial(_unpacked, path, bundle))


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its suffix, one that can be read or not."""
    return name.lower().endswith(SUFFIXES)


def _source(path, found, folders, read):
    """found : name -> what `read` takes."""
    names = sorted(found)
    return Source(
        str(path),
        tuple(name for name in names if is_picture(name)),
        tuple(name for name in names if not is_picture(name)),
        lambda name: read(found[name]),
        tuple(sorted(folders)),
    )


def walk(root: Path | str, folders: list[str] | None = None) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield (name, path, os.stat_result) of the files below a folder, in any order.

    folders : takes the names of the folders below it.
    Links are followed as long as they stay below it. UserError for two names that differ only in how
    Unicode writes them.
    """
    real_root = os.path.realpath(root)
    seen: dict[str, str] = {}
    pending: list[tuple[str, str, frozenset[str]]] = [(str(root), "", frozenset())]
    while pending:
        folder, prefix, above = pending.pop()
        real = os.path.realpath(folder)
        if real in above:
            raise UserError(f"{folder}: a link to a folder that it lies in; remove it")
        with _listing(folder) as entries:
            for entry in entries:
                if _left_out(entry.name):
                    continue
                name = prefix + unicodedata.normalize("NFC", entry.name)
                if entry.is_symlink():
                    _check_link(entry.path, real_root)
                if entry.is_dir():
                    if folders is not None:
                        folders.append(name)
                    pending.append((entry.path, f"{name}/", above | {real}))
                    continue
                if name in seen:
                    raise UserError(f"{entry.path}: its name looks like that of {seen[name]}; rename one")
                seen[name] = entry.path
                found = entry.stat()
                if stat.S_ISREG(found.st_mode):
                    yield name, entry.path, found


def _listing(folder):
    try:
        return os.scandir(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


def _left_out(name):
    return name.startswith(".") or name in LEFT_OUT


def _check_link(path, real_root):
    target = os.path.realpath(path)
    if not os.path.exists(target):
        raise UserError(f"{path}: a link to nothing; remove it")
    if os.path.commonpath([target, real_root]) != real_root:
        raise UserError(f"{path}: a link that leads out of {real_root}; put the file itself there")


def _content(root, path):
    try:
        with open(path, "rb") as stream:
            # no more than there is: to read up to a limit, Python takes memory for all of it
            content = stream.read(min(os.fstat(stream.fileno()).st_size, _most(path)) + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return _of_fair_size(content, path, _most(path))


def _members(archive, bundle):
    """Name -> ZipInfo of the files in a zip, and the names of its folders."""
    found, folders = {}, set()
    for info in bundle.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))  # some programs on Windows write these
        if not path.parts or any(_left_out(part) for part in path.parts if part != ".."):
            continue
        if info.filename.endswith(("/", "\\")):
            folders.add(unicodedata.normalize("NFC", str(path)))
            continue
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{archive}: {info.filename!r} leads out of the archive; pack it anew")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"{archive}: {info.filename} is a link; pack the file itself")
        name = unicodedata.normalize("NFC", str(path))
        if name in found:
            raise UserError(f"{archive}: {info.filename} is there twice; pack it anew")
        found[name] = info
        folders.update(str(parent) for parent in PurePosixPath(name).parents if parent.parts)
    return found, folders


def _unpacked(archive, bundle, info):
    with errors_of_zip(archive), bundle.open(info) as stream:
        most = _most(info.filename)
        return _of_fair_size(stream.read(most + 1), f"{archive} ({info.filename})", most)


def _most(name):
    return LARGEST_TABLE if str(name).lower().endswith(".json") else LARGEST_FILE


def _of_fair_size(content, name, most):
    if len(content) > most:
        raise UserError(f"{name}: more than {most >> 20} MiB; no picture for a network is as large")
    return content
