"""Where the numbers come from: versions, commit, configuration, commands, checksums."""

import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from dpuflow.base.files import sha256

PACKAGES = (
    "tensorflow",
    "tf_keras",
    "numpy",
    "pandas",
    "h5py",
    "protobuf",
    "snakemake",
)


def versions() -> dict[str, str | None]:
    """Version of dpuflow, Python and the packages that shape the numbers; None when not installed."""
    from dpuflow import __version__

    found: dict[str, str | None] = {"dpuflow": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit(folder: Path | str = ".") -> str | None:
    """Abbreviated git commit of `folder`, "-dirty" when tracked files differ from it; None without git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def provenance(
    config: Any = None, commands: Iterable[str] = (), commit_id: str | None = None
) -> dict[str, Any]:
    """What the report says about its making. commands : list of strings, shown as given."""
    return {"commit": commit_id, "versions": versions(), "commands": list(commands), "config": config}


def checksums(paths: Iterable[Path | str]) -> dict[str, dict[str, Any]]:
    """{path: {"bytes", "sha256"}} of files, in the order of their paths."""
    return {
        Path(path).as_posix(): {"bytes": Path(path).stat().st_size, "sha256": sha256(path)}
        for path in sorted(map(str, paths))
    }
