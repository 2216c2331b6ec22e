"""Boxes as YOLO's tools write them: a text file beside each picture (or in labels/ for images/).

A line is CLASS X Y WIDTH HEIGHT, centre and sides as shares of the picture's; a polygon (CLASS X Y X Y
...) counts by its
bounding box. A picture without a text file, or with an empty one, shows nothing. Names of the classes
come from data.yaml
(names:), classes.txt or *.names, else from class_names.
"""

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import yaml

from dpuflow.base.errors import UserError
from dpuflow.datasets.annotations import (
    NO_BOXES,
    NO_FLAGS,
    Annotated,
    Found,
    Pairing,
    by_part,
    meant_part,
    numbers,
    ordered_names,
    part_of_path,
    read_lists,
    text_of,
)
from dpuflow.datasets.labels import MAX_PICTURE_LABEL
from dpuflow.datasets.picture_source import Source

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
OVER = 1e-3
"""Shares may leave 0 to 1 by so much: tools write six decimals."""


def find(source: Source, settings: Mapping[str, Any], class_names: Collection[object] | None) -> Found:
    """All pictures of a source with the boxes of their text files; settings : the key annotations."""
    given = settings.get("parts", {})
    pairing = Pairing(source, source.pictures)
    texts = [name for name in source.others if name.lower().endswith(".txt")]
    labels: dict[str, str] = {}
    lists: list[str] = []
    for file in texts:
        base = PurePosixPath(file)
        if base.name.casefold() in NAME_FILES or base.name.casefold().startswith("readme"):
            continue
        picture = pairing.picture_of(file)
        if picture is None and meant_part(base.stem, given):
            lists.append(file)
        elif picture is None:
            raise UserError(f"{source.place} ({file}): there is no picture {base.stem}.* for it")
        elif picture in labels:
            raise UserError(f"{source.place}: {picture} has two text files, {labels[picture]} and {file}")
        else:
            labels[picture] = file
    if not labels:
        raise UserError(f"{source.place}: annotations: yolo, but no picture has a .txt file of its name")
    names = _names(source) or (None if class_names is None else [str(name) for name in class_names])
    items = []
    for picture in source.pictures:
        text = text_of(source, labels[picture]) if picture in labels else ""
        where = f"{source.place} ({labels.get(picture, picture)})"
        items.append(annotation(text, where, picture, names))
    part_of = read_lists(source, lists, source.pictures, given)
    if part_of:
        items = [item for item in items if item.name in part_of]
    else:
        part_of = {name: part_of_path(name, given) for name in source.pictures}
    return Found(by_part(items, part_of, source.place), _order(items, names, class_names, settings, source))


def _order(items, names, class_names, settings, source):
    used = {name for item in items for name in item.classes}
    if class_names is not None:
        leave_out = settings.get("other_classes") == "leave_out"
        return ordered_names(used, class_names, source.place, leave_out)
    return names or [str(number) for number in range(max(map(int, used), default=0) + 1)]


def _names(source):
    """The classes' names by number, from the file that tells them; None without one."""
    files = [
        name
        for name in source.others
        if name.lower().endswith((".yaml", ".yml", ".names"))
        or PurePosixPath(name).name.casefold() in NAME_FILES
    ]
    for file in sorted(files, key=lambda name: (name.count("/"), name)):
        where = f"{source.place} ({file})"
        if not file.lower().endswith((".yaml", ".yml")):
            return [line.strip() for line in text_of(source, file).splitlines() if line.strip()]
        try:
            content = yaml.safe_load(text_of(source, file))
        except (yaml.YAMLError, RecursionError) as error:
            raise UserError(f"{where}: not YAML ({str(error).splitlines()[0]})") from None
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict):
            if sorted(names) != list(range(len(names))):
                raise UserError(f"{where}: names: expected the numbers 0 to {len(names) - 1}, each once")
            names = [names[number] for number in range(len(names))]
        if isinstance(names, list) and names:
            return [str(name) for name in names]
    return None


def annotation(text: str, where: str, picture: str, names: list[str] | None) -> Annotated:
    """What one text file says; UserError with its line for what is no box.

    names : by number; None where no file tells them: a class is then called by its number.
    """
    boxes, classes, places = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        place = f"line {number}"
        if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
            raise UserError(
                f"{where}: {place}: expected CLASS X Y WIDTH HEIGHT (or a polygon), found "
                f"{len(fields)} fields"
            )
        kind = fields[0]
        if not (kind.isascii() and kind.isdecimal()) or int(kind) > MAX_PICTURE_LABEL:
            raise UserError(f"{where}: {place}: expected the number of a class, found {kind[:20]!r}")
        if names is not None and int(kind) >= len(names):
            raise UserError(f"{where}: {place}: class {kind}, but there are {len(names)} names (from 0)")
        values = numbers(fields[1:], where, place)
        if min(values) < -OVER or max(values) > 1 + OVER:
            raise UserError(
                f"{where}: {place}: expected shares of the picture from 0 to 1, found {line[:60]!r}"
            )
        boxes.append(_corners(values))
        classes.append(names[int(kind)] if names is not None else str(int(kind)))
        places.append(place)
    array = np.array(boxes, np.float64) if boxes else NO_BOXES
    flags = np.zeros(len(boxes), bool) if boxes else NO_FLAGS
    return Annotated(picture, picture, where, array, tuple(classes), flags, tuple(places), None, True)


def _corners(values):
    if len(values) == 4:
        x, y, width, height = values
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    across, down = values[::2], values[1::2]
    return [min(across), min(down), max(across), max(down)]
