"""Which source files a script depends on: the closure of its imports within dpuflow.

Snakemake sees an edit of a script but not of a module that it imports (facts
snakemake.md, "What makes a rule stale"); a rule declares these files as inputs.
"""

import ast
from functools import cache
from pathlib import Path

PACKAGE = "dpuflow"
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


@cache
def _imports(path):
    """Dotted names under the package that a file imports, as candidates for modules."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return sorted(name for name in names if name.split(".")[0] == PACKAGE)


def _files_of(module, root):
    """The files of a dotted name: module, package, parents' `__init__`, data beside them."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        base = Path(*parts[:depth])
        if (root / base).is_dir():
            yield base / "__init__.py"
            for path in sorted((root / base).rglob("*")):
                if path.suffix in DATA_SUFFIXES and depth == len(parts):
                    yield path.relative_to(root)
        elif (root / base).with_suffix(".py").exists():
            yield base.with_suffix(".py")
            if depth > 2:
                folder = root / base.parent
                yield from (
                    path.relative_to(root)
                    for path in sorted(folder.rglob("*"))
                    if path.suffix in DATA_SUFFIXES and path.is_file()
                )
