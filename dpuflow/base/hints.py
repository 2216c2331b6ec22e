"""What a mistyped name was probably meant to be, for error messages."""

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any


def nearest(name: object, valid: Iterable[Any], most: int = 1) -> list[str]:
    """Up to `most` of the valid names that resemble `name`, best first; case does not count."""
    lower = {str(candidate).lower(): str(candidate) for candidate in valid}
    return [lower[match] for match in difflib.get_close_matches(str(name).lower(), lower, most, 0.5)]


def did_you_mean(name: object, valid: Collection[Any], most: int = 1) -> str:
    """End of a message: "did you mean seed?", or all valid names in their order where none is near."""
    close = nearest(name, valid, most)
    return f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(map(str, valid))}"


def no_entry(config: Mapping[str, Any], section: str, name: object) -> str:
    """Message about a name that a section of the configuration does not have."""
    return f"{section} has no entry {name!r}; {did_you_mean(name, config[section])}"


MOST_NEIGHBOURS = 5000
"""Entries of a folder that are looked at for a similar name."""


def absent(path: Path | str) -> str:
    """Why there is nothing at `path`: "no such file; did you mean models/mine.h5?".

    A folder on the way that is missing is named instead, with its own neighbours.
    """
    path = Path(path)
    missing, what = path, "no such file or folder"
    while missing.parent != missing and not missing.parent.exists():
        missing, what = missing.parent, f"there is no folder {missing.parent}"
    folder = missing.parent
    if not folder.is_dir():
        return f"{folder} is a file, not a folder"
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_NEIGHBOURS))
    except OSError as error:
        return f"{what} ({folder}: {error.strerror})"
    names = [name for name in names if not name.startswith(".")]
    if missing == path and not names:
        return f"{what}; {folder.absolute()} is empty"
    if nearest(missing.name, names):
        hint = " or ".join(str(folder / name) for name in nearest(missing.name, names, 2))
        return f"{what}; did you mean {hint}?"
    return what if path.is_absolute() else f"{what}; paths count from {Path.cwd()}"
