"""Which source files a script depends on: the closure of its imports within dpuflow.

Snakemake sees an edit of a script but not of a module that it imports (facts
snakemake.md, "What makes a rule stale"); a rule carries the digest of these files as a
param. As inputs they would cost about 30 files for each job of a sweep.
"""

import hashlib
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
    root = Path(root)
    found, queue = set(), [Path(script)]
    while queue:
        for module in _imports(root / queue.pop()):
            for path in _files_of(module, root):
                if path not in found:
                    found.add(path)
                    if path.suffix == ".py":
                        queue.append(path)
    return sorted(str(path) for path in found)


def code_digest(script, root):
    """SHA-256 (hex) of the names and contents of `source_files(script, root)`.

    The script itself does not count: Snakemake tracks it.
    """
    root = Path(root)
    lines = [f"{_sha256(root / path)}  {path}" for path in source_files(script, root)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _imports(path):
    """Dotted names under the package that a file imports, as candidates for modules."""
    names = set()
    for module, imported, plain in _IMPORT.findall(path.read_text(encoding="utf-8")):
        if plain:
            names.add(plain)
        else:
            names.add(module)
            names |= {f"{module}.{name}" for name in re.findall(r"\w+", imported)}
    return sorted(names)


@cache
def _files_of(module, root):
    """The files of a dotted name: module, package, parents' `__init__`, data beside them."""
    parts = module.split(".")
    found = []
    for depth in range(1, len(parts) + 1):
        base = Path(*parts[:depth])
        if (root / base).is_dir():
            found.append(base / "__init__.py")
            folder = base if depth == len(parts) else None
        elif (root / base).with_suffix(".py").exists():
            found.append(base.with_suffix(".py"))
            beside = [base.with_suffix(suffix) for suffix in sorted(DATA_SUFFIXES)]
            found.extend(path for path in beside if (root / path).exists())
            folder = base.parent if depth > 2 else None
        else:
            folder = None
        if folder is not None:
            found.extend(_data_files(folder, root))
    return found


@cache
def _data_files(folder, root):
    """Data files below a folder of the package."""
    paths = sorted((root / folder).rglob("*"))
    return [path.relative_to(root) for path in paths if path.suffix in DATA_SUFFIXES]
