"""Where the numbers come from: versions, commit, configuration, commands, checksums."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

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


def versions():
    """Version of dpuflow, Python and the packages that shape the numbers; None when not installed."""
    from dpuflow import __version__

    found = {"dpuflow": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit(folder="."):
    """Abbreviated git commit of `folder`, "-dirty" when tracked files differ from it; None without git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def provenance(config=None, commands=(), commit_id=None):
    """What the report says about its making. commands : list of strings, shown as given."""
    return {"commit": commit_id, "versions": versions(), "commands": list(commands), "config": config}


def checksums(paths):
    """{path: {"bytes", "sha256"}} of files, in the order of their paths."""
    return {
        Path(path).as_posix(): {"bytes": Path(path).stat().st_size, "sha256": sha256(path)}
        for path in sorted(map(str, paths))
    }
