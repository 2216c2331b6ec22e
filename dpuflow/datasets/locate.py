"""Where the files of a data set's source lie."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.hints import absent

PARTS = ("train", "test")
WHOLE = "whole"
"""The one CSV file of which a share is for the test."""


FORMS = (("folder",), ("zip",), PARTS)
"""The ways to name the files of kind files."""


PICTURE_KEYS = ("folder", "zip", "list")
"""What a source of kind pictures may name."""


def form_problem(source: Mapping[str, Any], one_file: bool = False) -> str | None:
    """What is wrong with a `source` of kind files or pictures whatever lies on the disk; None if nothing.

    one_file : whether the data set's `test` takes a share of one CSV file for the test.
    """
    if source.get("kind") == "pictures":
        return _picture_problem(source)
    given = [key for key in ("folder", "zip", *PARTS) if source.get(key)]
    if one_file and tuple(given) == PARTS:
        return "found a file for the test, and test.fraction, which takes a share of train; leave one out"
    if tuple(given) in FORMS or (one_file and given == ["train"]):
        return None
    wanted = "needs either folder, or zip, or both train and test"
    if given == ["train"]:
        return (
            f"kind files {wanted}; found train. To take a share of it for the test, give the data set "
            "test: {fraction: 0.2, seed: 1}"
        )
    if len(given) < 2:
        return f"kind files {wanted}; found {given[0] if given else 'none of them'}"
    return (
        f"kind files {wanted}; found {' and '.join(given)} (files are merged key by key: "
        "where another configuration gives the same entry, use a name of your own)"
    )


def _picture_problem(source):
    others = [key for key in source if key not in ("kind", *PICTURE_KEYS)]
    if others:
        return f"kind pictures has no {', '.join(others)}; it takes folder or zip, and list"
    if source.get("folder") and source.get("zip"):
        return "kind pictures takes either folder or zip; found both"
    if not any(source.get(key) for key in PICTURE_KEYS):
        return "kind pictures needs a folder, a zip or a list; found none of them"
    return None


def picture_paths(source: Mapping[str, Any]) -> dict[str, str]:
    """Of a `source` of kind pictures: {"place": folder or zip, "list": CSV file if one is given}.

    A list without folder or zip has its pictures beside it. As the configuration writes them (`expand`).
    """
    listed = source.get("list")
    place = source.get("folder") or source.get("zip") or str(PurePosixPath(str(listed)).parent)
    return {"place": place} | ({"list": listed} if listed else {})


def named_paths(source: Mapping[str, Any]) -> dict[str, Path]:
    """{key: path} of what a `source` of kind files or pictures names, else {}; UserError as `expand`."""
    if source.get("kind") == "pictures":
        return {key: expand(source[key]) for key in PICTURE_KEYS if source.get(key)}
    if source.get("kind") != "files":
        return {}
    return {key: expand(source[key]) for key in ("folder", "zip", *PARTS) if source.get(key)}


def given_files(
    source: Mapping[str, Any], made: Callable[[str], bool] = lambda path: False, *, one_file: bool = False
) -> list[str]:
    """The files that a `source` entry of kind files or pictures names, as texts; [] for the other kinds.

    Only those that exist, or that another job makes (`made`). Pictures in a folder are none of them
    (`picture_changes`). What is missing or ambiguous is left to the job, which says so.
    """
    try:
        named = named_paths(source)
        if "folder" in named and source["kind"] == "files":
            named = {part: find_in_folder(named["folder"], part) for part in parts_of(one_file)}
    except UserError:
        return []
    return [str(path) for path in named.values() if path.is_file() or made(str(path))]


def expand(path: Path | str) -> Path:
    """A path of the config with ~ and $VARIABLES expanded; UserError for one that is not set."""
    text = os.path.expanduser(os.path.expandvars(str(path)))
    if "$" in text:
        raise UserError(f"{path}: the environment variable in this path is not set")
    return Path(text)


def parts_of(one_file: bool) -> tuple[str, ...]:
    """The parts of a data set that have a CSV file each: the whole of it, or PARTS."""
    return (WHOLE,) if one_file else PARTS


def _candidate_names(part):
    return {f"{stem}{part}.csv{end}" for stem in ("sign_mnist_", "") for end in ("", ".gz")}


def pick(paths: Sequence[str], part: str, place: Path | str) -> str:
    """The one path whose name is that of the `part`; the shallowest, plain before .gz.

    Of the WHOLE it is the one of the part train, or the only CSV file.
    """
    if part == WHOLE:
        return _pick_whole(paths, place)
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


def _pick_whole(paths, place):
    parts = {path: PurePosixPath(path).parts for path in paths if path.endswith((".csv", ".csv.gz"))}
    seen = [path for path in paths if path in parts and not any(p[0] in "._" for p in parts[path])]
    if len(seen) == 1:
        return seen[0]
    if any(PurePosixPath(path).name in _candidate_names("train") for path in seen):
        return pick(seen, "train", place)
    found = f"{len(seen)} CSV files ({', '.join(sorted(seen)[:5])})" if seen else "no CSV file"
    raise UserError(f"{place}: found {found} at any depth; name the one to be divided in source.train")


def find_in_folder(folder: Path, part: str) -> Path:
    """Path of the `part` ("train", "test" or WHOLE) CSV below `folder`."""
    if not folder.is_dir():
        what = "a file; give it as zip, or as train and test" if folder.exists() else absent(folder)
        raise UserError(f"{folder}: {what} (datasets.*.source.folder)")
    pattern = "*.csv*" if part == WHOLE else f"*{part}.csv*"
    relative = (str(p.relative_to(folder)) for p in folder.rglob(pattern) if p.is_file())
    return folder / pick(sorted(relative), part, folder)
