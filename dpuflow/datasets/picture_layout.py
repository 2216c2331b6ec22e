"""Which picture belongs to which class and to which part of the data set: told by folders or by a list.

Folders: CLASS/... or train/CLASS/..., test/CLASS/... (also validation and calibration), below any number
of folders that hold all of it; what lies deeper belongs to the class. A list: `picture_list`.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dpuflow.base.errors import UserError
from dpuflow.base.hints import did_you_mean
from dpuflow.datasets.labels import MAX_PICTURE_LABEL
from dpuflow.datasets.picture_list import PARTS, rows_of, safe_name
from dpuflow.datasets.picture_source import Source, is_picture

WHOLE = "whole"
"""The part of all pictures where no parts are told."""

PART_WORD = r"train(ing)?|test(ing)?|val(id(ation)?)?"


class Item(NamedTuple):
    """One picture."""

    path: str
    """As it is recorded: without the folders that hold everything."""
    name: str
    """As its Source knows it."""
    label: str
    """Name of its class."""


def by_folders(source: Source) -> dict[str, list[Item]]:
    """Part -> Items, sorted by path; {WHOLE: Items} without parts."""
    if not source.pictures:
        raise UserError(f"{source.place}: no pictures in it; expected CLASS/*.jpg or train/CLASS/*.jpg")
    prefix = _common_folders(source.pictures)
    inner = [name[len(prefix) :] for name in source.pictures]
    tops = {_top(path) for path in inner if "/" in path}
    of_parts = {top for top in tops if top.casefold() in PARTS}
    if of_parts and of_parts != tops:
        raise UserError(
            f"{source.place}: {', '.join(sorted(of_parts))} beside {sorted(tops - of_parts)[0]}: parts or "
            "classes? expected either CLASS/*.jpg or nothing but train, validation, test and calibration"
        )
    parts: dict[str, list[Item]] = {}
    meant: dict[str, str] = {}
    for path, name in zip(inner, source.pictures, strict=True):
        folders = path.split("/")[:-1]
        part = WHOLE
        if of_parts and folders:
            top, part = folders[0], PARTS[folders[0].casefold()]
            if meant.setdefault(part, top) != top:
                raise UserError(f"{source.place}: both {meant[part]} and {top}; put them into one folder")
            folders = folders[1:]
        if not folders:
            raise UserError(
                f"{source.place}: {name} lies in no folder of a class; expected CLASS/*.jpg, or "
                "a CSV file of paths and labels (datasets.*.source.list); where it has no label, name the "
                "folder that has, and take a share of it for the test, test: {fraction: 0.2, seed: 1}"
            )
        parts.setdefault(part, []).append(Item(path, name, folders[0]))
    _refuse_disguised(source.place, {item.label for items in parts.values() for item in items})
    return parts


def empty_classes(source: Source) -> list[str]:
    """Names of the folders that stand where classes do (`by_folders`) and hold no picture in any part."""
    prefix = _common_folders(source.pictures)
    of_parts = _top(source.pictures[0][len(prefix) :]).casefold() in PARTS

    def class_of(folder: str) -> str | None:
        names = folder[len(prefix) :].split("/") if f"{folder}/".startswith(prefix) else [""]
        if of_parts != (names[0].casefold() in PARTS):
            return None
        return "/".join(names[of_parts:][:1]) or None

    full = {class_of(name.rpartition("/")[0]) for name in source.pictures}
    found = {class_of(folder) for folder in source.folders} - full
    return sorted(name for name in found if name is not None)


def _refuse_disguised(place, classes):
    """Classes like seg_train and seg_test are parts that the data set's makers named in their own way."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for top in classes:
        word = re.search(PART_WORD, top.casefold())
        if word:
            frame = top.casefold()[: word.start()], top.casefold()[word.end() :]
            found.setdefault(frame, {})[PARTS[word[0]]] = top
    for parts in found.values():
        if {"train", "test"} <= set(parts):
            raise UserError(
                f"{place}: {parts['train']} and {parts['test']} look like parts, not like classes; "
                "expected train/CLASS/*.jpg and test/CLASS/*.jpg: rename them, or move what they hold"
            )


def _top(path):
    return path.split("/", 1)[0]


def _common_folders(names):
    """The folders, with a slash at their end, that hold all classes or parts."""
    prefix = ""
    while True:
        rest = [name[len(prefix) :] for name in names]
        top = _top(rest[0])
        whole = all(path.startswith(f"{top}/") and path.count("/") >= 2 for path in rest)
        if not whole or top.casefold() in PARTS:
            return prefix
        prefix += f"{top}/"


def by_list(source: Source, path: Path) -> dict[str, list[Item]]:
    """Part -> Items, sorted by path, of the pictures that a CSV file names; the others are left out."""
    known = set(source.pictures) | set(source.others)
    parts: dict[str, list[Item]] = {}
    lines: dict[str, int] = {}
    for line, row in rows_of(path):
        name = safe_name(row["path"], f"{path}: line {line}", source.place)
        if name not in known:
            raise UserError(f"{path}: line {line}: {row['path']} is not in {source.place}")
        if not is_picture(name):
            raise UserError(f"{path}: line {line}: {row['path']} is no picture by its suffix")
        if name in lines:
            raise UserError(f"{path}: line {line}: {name} is there twice (line {lines[name]})")
        lines[name] = line
        part = WHOLE
        if row["split"]:
            if row["split"].casefold() not in PARTS:
                hint = did_you_mean(row["split"], tuple(PARTS))
                raise UserError(f"{path}: line {line}, column split: found {row['split']!r}; {hint}")
            part = PARTS[row["split"].casefold()]
        parts.setdefault(part, []).append(Item(name, name, row["label"]))
    if not parts:
        raise UserError(f"{path}: no pictures in it; expected lines of path,label below a header")
    return {part: sorted(items) for part, items in parts.items()}


def classes_of(
    items: Iterable[Item], class_names: Collection[object] | None, numbers: bool, place: str
) -> tuple[list[str | None], Mapping[str, int]]:
    """(names by label, None where a label has none; label of each class that an Item may have).

    class_names : the configuration's, which fix the order; None: the classes found, in the order of
    their characters' code points. numbers : whether labels that are all whole numbers mean themselves.
    """
    found = sorted({item.label for item in items})
    names = None if class_names is None else [None if name is None else str(name) for name in class_names]
    if numbers and all(label.isdecimal() and label.isascii() for label in found):
        most = max(map(int, found))
        if most > MAX_PICTURE_LABEL:
            raise UserError(f"{place}: found the label {most}, expected 0 to {MAX_PICTURE_LABEL}")
        if names is None:
            here = set(map(int, found))
            names = [str(label) if label in here else None for label in range(most + 1)]
        if most >= len(names) or any(names[int(label)] is None for label in found):
            raise UserError(f"{place}: label {most} has no name in class_names")
        return names, {label: int(label) for label in found}
    if names is None:
        names = list(found)
    labels = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names) if name is not None}
    for label in found:
        if label not in labels:
            hint = did_you_mean(label, tuple(labels)) if len(labels) < 50 else ""
            raise UserError(f"{place}: class {label} is not in class_names; {hint}".rstrip("; "))
    return names, labels
