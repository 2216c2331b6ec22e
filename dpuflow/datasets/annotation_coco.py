"""Boxes as COCO writes them: JSON files with images, annotations and categories."""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

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
)
from dpuflow.datasets.picture_layout import WHOLE
from dpuflow.datasets.picture_source import Source

log = logging.getLogger(__name__)

OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")
"""Beginnings of names of COCO's files that are about something else than boxes."""
KEPT = ("id", "file_name", "width", "height", "image_id", "category_id", "bbox", "iscrowd", "name")
TABLES = ("images", "annotations", "categories")


def find(source: Source, settings: Mapping[str, Any], class_names: Collection[object] | None) -> Found:
    """The pictures that the JSON files of a source list; settings : the key annotations."""
    files = [name for name in source.others if name.lower().endswith(".json")]
    boxes = [name for name in files if not PurePosixPath(name).name.startswith(OTHER_TASKS)]
    if not boxes:
        raise UserError(f"{source.place}: annotations: coco, but there is no .json file with boxes in it")
    pairing, given = Pairing(source, source.pictures), settings.get("parts", {})
    items: dict[str, Annotated] = {}
    part_of: dict[str, str] = {}
    categories: dict[int, str] = {}
    for file in boxes:
        where = f"{source.place} ({file})"
        content = load(source.read(file), where)
        for number, name in _categories(content, where).items():
            if categories.setdefault(number, name) != name:
                raise UserError(
                    f"{where}: category {number} is {name}, but {categories[number]} in another file"
                )
        part = _part(file, given) if len(boxes) > 1 or _part(file, given) != WHOLE else None
        for item in pictures(content, where, pairing, file, categories):
            if item.name in items:
                raise UserError(f"{where}: lists {item.path}, and so does {items[item.name].where}")
            items[item.name] = item
            part_of[item.name] = part or part_of_path(item.name, given)
    without = [name for name in source.pictures if name not in items]
    if without:
        log.warning(
            "warning: %s: %d pictures are listed in no JSON file and are left out (first: %s)",
            source.place,
            len(without),
            without[0],
        )
    every = [categories[number] for number in sorted(categories)]
    leave_out = settings.get("other_classes") == "leave_out"
    if class_names is None:
        names = list(dict.fromkeys(every))
    else:
        used = {name for item in items.values() for name in item.classes}
        names = ordered_names(used, class_names, source.place, leave_out)
    return Found(by_part(items.values(), part_of, source.place), names)


def _part(file, given):
    """What a JSON file's name or folders tell: instances_val2017.json, train/_annotations.coco.json."""
    for name in (file, PurePosixPath(file).name):
        if name in given:
            return given[name]
    for word in _words(file):
        part = meant_part(word, given)
        if part:
            return part
    return part_of_path(file, given)


def _words(file):
    return [word for word in re.split(r"[_.\-]", PurePosixPath(file).stem) if word]


def load(content: bytes, where: str) -> dict[str, Any]:
    """A COCO file without what is not needed of it (polygons are most of it); UserError for what is none."""

    def lean(entry: dict[str, Any]) -> dict[str, Any]:
        if "image_id" in entry or "file_name" in entry:
            if "segmentation" in entry and not entry.get("bbox"):
                entry["bbox"] = _around(entry["segmentation"])
            return {key: entry[key] for key in KEPT if key in entry}
        return entry

    try:
        found = json.loads(content, object_hook=lean)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not whole JSON ({error})") from None
    for table in TABLES:
        rows = found.get(table) if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"{where}: no COCO file: expected a list {table!r} in it")
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise UserError(f"{where}: {table}[{index}]: expected an object, found {type(row).__name__}")
    return found


def _around(polygons):
    """The bounding box of polygons [[x, y, x, y, ...], ...]; None for what is none (run lengths)."""
    if not isinstance(polygons, list) or not polygons:
        return None
    if not all(isinstance(one, list) and len(one) >= 6 and len(one) % 2 == 0 for one in polygons):
        return None
    values = [value for one in polygons for value in one]
    if not all(isinstance(value, int | float) for value in values):
        return None
    left, top, right, bottom = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return [left, top, right - left, bottom - top]


def _number(row, key, where):
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{where}.{key}: expected a whole number, found {value!r:.40}")
    return value


def _text(row, key, where):
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}.{key}: expected a text, found {value!r:.40}")
    return value


def _categories(content, where):
    found: dict[int, str] = {}
    for index, row in enumerate(content["categories"]):
        place = f"{where}: categories[{index}]"
        number, name = _number(row, "id", place), _text(row, "name", place)
        if number in found:
            raise UserError(f"{place}.id: {number} is there twice")
        found[number] = name
    return found


def pictures(
    content: Mapping[str, Any], where: str, pairing: Pairing, file: str, categories: Mapping[int, str]
) -> list[Annotated]:
    """The pictures of one COCO file with their boxes."""
    boxes: dict[int, list[Any]] = defaultdict(list)
    for index, row in enumerate(content["annotations"]):
        place = f"{where}: annotations[{index}]"
        image, kind, box = (
            _number(row, "image_id", place),
            _number(row, "category_id", place),
            row.get("bbox"),
        )
        if kind not in categories:
            raise UserError(f"{place}.category_id: there is no category {kind}")
        if not isinstance(box, list) or len(box) != 4:
            raise UserError(
                f"{place}.bbox: expected [x, y, width, height] (or segmentation with polygons), "
                f"found {box!r:.40}"
            )
        x, y, width, height = numbers(box, place, "bbox")
        crowd = row.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise UserError(f"{place}.iscrowd: expected 0 or 1, found {crowd!r:.40}")
        boxes[image].append(([x, y, x + width, y + height], categories[kind], bool(crowd), index))
    items, known = [], set()
    for index, row in enumerate(content["images"]):
        place = f"{where}: images[{index}]"
        number, path = _number(row, "id", place), _text(row, "file_name", place)
        if number in known:
            raise UserError(f"{place}.id: {number} is there twice")
        known.add(number)
        pure = PurePosixPath(path.replace("\\", "/"))
        picture = pairing.picture_of(f"{PurePosixPath(file).parent}/{pure}", pure.stem, _words(file))
        if picture is None:
            raise UserError(f"{place}.file_name: there is no picture {path[:80]!r} in {pairing.place}")
        size = None
        if row.get("width") and row.get("height"):
            size = _number(row, "width", place), _number(row, "height", place)
        items.append(_annotated(picture, where, boxes.get(number, []), size))
    stray = sorted(set(boxes) - known)
    if stray:
        raise UserError(
            f"{where}: annotations[{boxes[stray[0]][0][3]}].image_id: there is no image {stray[0]}"
        )
    return items


def _annotated(picture, where, rows, size):
    return Annotated(
        picture,
        picture,
        where,
        np.array([row[0] for row in rows], np.float64) if rows else NO_BOXES,
        tuple(row[1] for row in rows),
        np.array([row[2] for row in rows], bool) if rows else NO_FLAGS,
        tuple(f"annotations[{row[3]}]" for row in rows),
        size,
    )
