"""Which picture files the configuration means. Free of NumPy: Snakemake asks at each start."""

import os
from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.hints import absent

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"),
    *(".heic", ".heif", ".avif"),
)
"""Of pictures; the last three cannot be read, and that is said, not passed over."""


def find_pictures(images: str | list[str] | None) -> list[str]:
    """Sorted paths of the picture files meant by the config key predict.images.

    images : a folder (searched at any depth, hidden files left out), a file, or a list of
        files and folders. UserError when it is missing or holds none, or
        when a name has braces.
    """
    if not images:
        raise UserError("predict.images: not given; name a folder: snakemake predict --config images=FOLDER")
    found: dict[str, None] = {}
    for entry in images if isinstance(images, list) else [images]:
        found |= dict.fromkeys(_pictures_of(Path(os.path.expanduser(str(entry)))))
    for path in found:
        if "{" in path or "}" in path:
            raise UserError(f"predict.images: {path}: rename it; a workflow takes braces for wildcards")
    return list(found)


def _pictures_of(path):
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise UserError(f"predict.images: {path}: {absent(path)}")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise UserError(f"predict.images: {path}: no {', '.join(SUFFIXES[:8])} files in this folder")
    return [str(file) for file in files]


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths relative to their common folder, so that no absolute path gets into an artifact."""
    parents = [os.path.dirname(os.path.abspath(path)) for path in paths]
    base = os.path.commonpath(parents) if parents else ""
    return [Path(os.path.relpath(path, base)).as_posix() for path in paths]
