"""Which source files a script depends on: the closure of what it imports and names within dpuflow.

Snakemake sees that a script was written anew, by its time, but not an edit of a module
that it imports (docs/architecture.md); a rule carries the
digest of all these files as a param. As inputs they would cost about 30 files for each
job of a sweep.
"""

import hashlib
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

PACKAGE = "dpuflow"
_IMPORT = re.compile(
    rf"^[ \t]*(?:from[ \t]+({PACKAGE}[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)"
    rf"|import[ \t]+({PACKAGE}[\w.]*))",
    re.MULTILINE,
)
"""Import statements of the package: read by pattern, because parsing a hundred files costs
a second at each start of Snakemake."""
_RUN = re.compile(rf"-m ({PACKAGE}[\w.]*)")
"""A module that a program of the shell starts."""
_NAMED = re.compile(r"""["'](?:([\w./-]+)/)?([\w.-]+)["']""")
"""A file or folder, alone or by its path."""
DATA_SUFFIXES = {".yaml", ".j2", ".css", ".js", ".c", ".h"}
"""Files of the package that are no modules: templates, tables, sources."""


def source_files(script: Path | str, root: Path | str) -> list[str]:
    """Sorted paths (relative to `root`) of the modules and data that `script` needs.

    Imports inside functions count, and each package above a module with its `__init__`;
    a name imported from a package counts as the module it is. What a file names in
    quotes counts, too: a data file of the package by its file name, and a program or a
    folder of programs (what is sent to a board or run by a child process) beside it by
    its name, elsewhere by its path from the package's folder ("foreign/board").
    """
    root = str(root)
    found, queue = set(), [str(script)]
    while queue:
        for path in _needs(queue.pop(), root):
            if path not in found:
                found.add(path)
                queue.append(path)
    return sorted(found)


def code_digest(script: Path | str, root: Path | str) -> str:
    """SHA-256 (hex) of the names and contents of `script` and of its `source_files`."""
    root = str(root)
    lines = [f"{_sha256(path, root)}  {path}" for path in [str(script), *source_files(script, root)]]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _content(path, root):
    return Path(root, path).read_bytes()


@cache
def _sha256(path, root):
    return hashlib.sha256(_content(path, root)).hexdigest()


@cache
def _needs(path, root):
    """The files that one file imports or names."""
    text, package = _content(path, root).decode(), _package(root)
    modules = _imports(text)
    if not path.endswith(".py"):
        modules |= set(_RUN.findall(text))
    found = {file for module in modules for file in _files_of(module, package)}
    folder = path.rpartition("/")[0]
    for above, name in set(_NAMED.findall(text)):
        place = f"{PACKAGE}/{above}" if above else folder
        found |= package.programs.get((place, name), set())
        found |= set() if above else package.data.get(name, set())
    return found


def _imports(text):
    """Dotted names under the package that a text imports, as candidates for modules."""
    names = set()
    for module, imported, plain in _IMPORT.findall(text):
        if plain:
            names.add(plain)
        else:
            names.add(module)
            names |= {f"{module}.{name}" for name in re.findall(r"\w+", imported)}
    return names


def _files_of(module, package):
    """The files of a dotted name: the module, or the package's `__init__`, and the parents' `__init__`."""
    parts = module.split(".")
    bases = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return {path for base in bases for path in (f"{base}/__init__.py", f"{base}.py") if path in package.files}


@dataclass(frozen=True)
class _Package:
    """The package's files: all; data by file name; programs and folders of them by (folder above, name)."""

    files: set
    data: dict
    programs: dict


@cache
def _package(root):
    """What lies in the package, but for compiled files."""
    files = set()
    for folder, _, names in os.walk(Path(root, PACKAGE)):
        if not folder.endswith("__pycache__"):
            files |= {f"{Path(folder).relative_to(root).as_posix()}/{name}" for name in names}
    data, programs = defaultdict(set), defaultdict(set)
    for path in files:
        folder, _, name = path.rpartition("/")
        if PurePosixPath(name).suffix in DATA_SUFFIXES:
            data[name].add(path)
            continue
        programs[folder, name].add(path)
        while folder != PACKAGE:
            above, _, name = folder.rpartition("/")
            if f"{folder}/__init__.py" not in files:  # a folder that is no package
                programs[above, name].add(path)
            folder = above
    return _Package(files, data, programs)
