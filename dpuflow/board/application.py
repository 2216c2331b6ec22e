"""The board application as seen from this side: its files, its options, its dump."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "foreign/board"
FILES = (
    "answers.py",
    "app.py",
    "board_info.py",
    "bundle_files.py",
    "cpu_floats.py",
    "cpu_integers.py",
    "cpu_ops.py",
    "cpu_rare.py",
    "cpu_resizing.py",
    "cpu_windows.py",
    "found.py",
    "named.py",
    "parts.py",
    "pixels.py",
)
DECODE = Path(__file__).resolve().parents[1] / "decoding/decode.py"
"""What dpuflow and boards have in common, byte by byte."""
OPTIONS = ("threads", "batch", "limit", "warmup", "runs", "dump", "mode", "save")


def files() -> dict[str, bytes]:
    """{name: content} of the application, as a bundle has it."""
    found = {name: (FOLDER / name).read_bytes() for name in FILES}
    return {**found, DECODE.name: DECODE.read_bytes()}


def arguments(options: Mapping[str, Any] | None) -> list[str]:
    """Command line for options {threads, batch, limit, warmup, runs, dump, mode, save}.

    dump is an image's index, True for the first image, or False.
    """
    words = []
    for name, value in (options or {}).items():
        if name not in OPTIONS:
            raise UserError(
                f"option {name!r} of the board application is unknown; allowed: {', '.join(OPTIONS)}"
            )
        if value is False or value is None:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.append(str(value))
    return words
