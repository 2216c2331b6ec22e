"""Which source files a script depends on: the closure of its imports within dpuflow.

Snakemake sees an edit of a script but not of a module that it imports (facts
snakemake.md, "What makes a rule stale"); a rule carries the digest of these files as a
param. As inputs they would cost about 30 files for each job of a sweep.
"""

import hashlib
import os
import re
from functools import cache
from pathlib import Path

PACKAGE = "dpuflow"
_IMPORT = re.compile(
    rf"^[ \t]*(?:from[ \t]+({PACKAGE}[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)"
    rf"|import[ \t]+({PACKAGE}[\w.]*))",
    re.MULTILINE,
)
"""Import statements of the package: read by pattern, because parsing a hundred files costs
a second at each start of Snakemake."""
DATA_SUFFIXES = {".yaml", ".j2", ".html", ".css", ".js", ".c", ".proto"}
"""Files beside a module that it reads at run time (templates, tables, sources)."""


def source_files(script, root):
    """Sorted paths (relative to `root`) of the modules and their data that `script` needs.

    Imports inside functions count. A package counts with its `__init__` and the data
    files in its folder; a name imported from a package counts as the module it is.
    """
    found, queue = set(), [str(script)]
    while queue:
        for module in _imports(f"{root}/{queue.pop()}"):
            new = _files_of(module, str(root)) - found
            found |= new
            queue.extend(path for path in new if path.endswith(".py"))
    return sorted(found)


def code_digest(script, root):
    """SHA-256 (hex) of the names and contents of `source_files(script, root)`.

    The script itself does not count: Snakemake tracks it.
    """
    lines = [f"{_sha256(f'{root}/{path}')}  {path}" for path in source_files(script, root)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def _imports(path):
    """Dotted names under the package that a file imports, as candidates for modules."""
    names = set()
    for module, imported, plain in _IMPORT.findall(Path(path).read_text(encoding="utf-8")):
        if plain:
            names.add(plain)
        else:
            names.add(module)
            names |= {f"{module}.{name}" for name in re.findall(r"\w+", imported)}
    return sorted(names)


@cache
def _package(root):
    """All files of the package, relative to `root`: listed once, for a look at each name would cost more."""
    found = set()
    for folder, _, names in os.walk(f"{root}/{PACKAGE}"):
        inside = os.path.relpath(folder, root)
        found |= {f"{inside}/{name}" for name in names}
    return found


@cache
def _files_of(module, root):
    """The files of a dotted name: module, package, parents' `__init__`, data beside them."""
    package, parts, found = _package(root), module.split("."), set()
    for depth in range(1, len(parts) + 1):
        base, folder = "/".join(parts[:depth]), None
        if f"{base}/__init__.py" in package:
            found.add(f"{base}/__init__.py")
            folder = base if depth == len(parts) else None
        elif f"{base}.py" in package:
            found.add(f"{base}.py")
            found |= {base + suffix for suffix in DATA_SUFFIXES if base + suffix in package}
            folder = base.rpartition("/")[0] if depth > 2 else None
        if folder is not None:
            found |= _data_files(folder, root)
    return found


@cache
def _data_files(folder, root):
    """Data files below a folder of the package."""
    return {
        path
        for path in _package(root)
        if path.startswith(f"{folder}/") and os.path.splitext(path)[1] in DATA_SUFFIXES
    }
