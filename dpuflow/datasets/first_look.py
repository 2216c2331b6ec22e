"""How large the images of a data set are, from the first line of its CSV."""

import functools
import zipfile
from collections.abc import Mapping
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.datasets.csv_forms import first_form
from dpuflow.datasets.image_csv import ImageShape, open_csv
from dpuflow.datasets.locate import find_in_folder, named_paths, parts_of, pick

DRAWN = (28, 28, 1)
"""Of kind synthetic, and of Sign Language MNIST."""


def image_shape(entry: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """(H, W, C) that a dataset's config entry stands for; None where only a job can tell.

    A file that cannot be read is no error here: `sources.obtain` says what is wrong with it.
    """
    given = ImageShape.of_config(entry.get("image") or None)
    if given is not None:
        return given.as_tuple()
    source = entry["source"]
    if source["kind"] != "files":
        return DRAWN if source["kind"] == "synthetic" or "handle" not in source else None
    try:
        return _header_shape(named_paths(source), source.get("csv"), parts_of("test" in entry)[0])
    except (UserError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError):
        return None


def _header_shape(named, settings, part):
    if "zip" not in named:
        path = named.get("train") or find_in_folder(named["folder"], part)
        with open_csv(path) as stream:
            return first_form(stream, path, settings, None)[0].shape.as_tuple()
    with zipfile.ZipFile(named["zip"]) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/")]
        member = pick(members, part, named["zip"])
        with open_csv(functools.partial(archive.open, member), member) as stream:
            return first_form(stream, member, settings, None)[0].shape.as_tuple()
