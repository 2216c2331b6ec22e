"""Whether the pictures of a folder are those of last time, without thousands of input files for Snakemake.

A rule has the `fingerprint` of the contents among its params: when it changes, the job runs. So that
not every start reads every picture, the SHA-256 of each file is kept in a file of the folder
`.snakemake`, and holds as long as the size and the times of the file stay (as Git's index does it);
20,000 pictures then take some tenths of a second. The file may be deleted at any time.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.datasets.locate import expand, picture_paths
from dpuflow.datasets.picture_list import listed_names
from dpuflow.datasets.picture_source import is_picture, walk

MEMORY = Path(".snakemake/dpuflow_pictures")
FRESH_NS = 2_000_000_000
"""A file changed so shortly before it was read might change again with the same time: not remembered."""


ANNOTATIONS = (".xml", ".json", ".txt", ".yaml", ".yml", ".names")
"""Suffixes of what says what pictures show."""


def fingerprint_of(source: Mapping[str, Any], annotated: bool = False) -> str:
    """`fingerprint` of what a `source` of kind pictures names; "" for a zip, which is an input file.

    annotated : whether the files that say what the pictures show count, too.
    """
    where = picture_paths(source)
    try:
        folder = expand(where["place"])
        names = listed_names(expand(where["list"]), folder) if "list" in where else None
    except UserError:
        return ""
    others = ANNOTATIONS if annotated else ()
    return fingerprint(folder, names, others=others) if folder.is_dir() else ""


def fingerprint(
    folder: Path,
    names: Collection[str] | None = None,
    memory: Path = MEMORY,
    others: tuple[str, ...] = (),
) -> str:
    """A short text that changes with the names and contents of the pictures below a folder.

    names : only these pictures count (None: all). others : suffixes of other files that count. memory :
    where digests are kept. A folder that
    cannot be read gives "", and the job says what is wrong.
    """
    place = memory / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"
    known, kept, changed = _remembered(place), {}, False
    digest, begun = hashlib.sha256(), time.time_ns()
    try:
        for name, path, found in sorted(walk(folder)):
            counts = is_picture(name) or name.lower().endswith(others)
            if not counts or (names is not None and name not in names):
                continue
            facts = [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
            entry = known.get(name)
            if not entry or entry[:3] != facts:
                with open(path, "rb") as stream:
                    entry = [*facts, hashlib.file_digest(stream, "sha256").hexdigest()]
                changed = True
            if max(facts[1:]) < begun - FRESH_NS:
                kept[name] = entry
            digest.update(f"{name}\0{entry[3]}\n".encode("utf-8", "surrogateescape"))
    except (UserError, OSError):
        return ""
    if changed:
        _remember(place, kept)
    return digest.hexdigest()[:16]


def _remembered(place):
    try:
        found = json.loads(place.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: entry for name, entry in found.items() if isinstance(entry, list) and len(entry) == 4}


def _remember(place, entries):
    """Kept if that is possible: where it is not, the pictures are read again the next time."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as stream:
            json.dump(entries, stream)
        os.replace(stream.name, place)
    except (OSError, ValueError):
        pass
