"""Where the files of a data set's source lie."""

import os
from pathlib import Path, PurePosixPath

from dpuflow.base.errors import UserError

PARTS = ("train", "test")


def given_files(source):
    """The existing files that a `source` entry of kind files names, as texts; [] for the other kinds.

    What is missing or ambiguous is left to `sources.obtain`, which says so.
    """
    if source.get("kind") != "files":
        return []
    try:
        if source.get("folder"):
            paths = [find_in_folder(expand(source["folder"]), part) for part in PARTS]
        else:
            paths = [expand(source[key]) for key in ("zip", *PARTS) if source.get(key)]
    except UserError:
        return []
    return [str(path) for path in paths if path.is_file()]


def expand(path):
    """A path of the config with ~ and $VARIABLES expanded; UserError for one that is not set."""
    text = os.path.expanduser(os.path.expandvars(str(path)))
    if "$" in text:
        raise UserError(f"{path}: the environment variable in this path is not set")
    return Path(text)


def _candidate_names(part):
    return {f"{stem}{part}.csv{end}" for stem in ("sign_mnist_", "") for end in ("", ".gz")}


def pick(paths, part, place):
    """The one path whose name is that of the `part`; the shallowest, plain before .gz."""
    matches = [path for path in paths if PurePosixPath(path).name in _candidate_names(part)]
    if not matches:
        raise UserError(
            f"{place}: found no {part} file at any depth; "
            f"expected sign_mnist_{part}.csv or {part}.csv, plain or .gz"
        )
    depth = min(len(PurePosixPath(path).parts) for path in matches)
    top = [path for path in matches if len(PurePosixPath(path).parts) == depth]
    stems = {path.removesuffix(".gz") for path in top}
    if len(stems) > 1:
        raise UserError(
            f"{place}: found several {part} files: {', '.join(sorted(top))}; name them in train and test"
        )
    return min(top, key=len)


def find_in_folder(folder, part):
    """Path of the `part` ("train" or "test") CSV below `folder`."""
    if not folder.is_dir():
        what = "a file; give it as zip, or as train and test" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what} (datasets.*.source.folder)")
    relative = (str(p.relative_to(folder)) for p in folder.rglob(f"*{part}.csv*") if p.is_file())
    return folder / pick(sorted(relative), part, folder)
