"""Child processes find this package, whatever their working directory."""

import os
from pathlib import Path


def export_package(root: Path | str) -> None:
    """Put `root`, the folder that holds the package, first on PYTHONPATH for all child processes."""
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(root), *(path for path in known if path and path != str(root))]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
