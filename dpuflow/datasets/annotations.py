"""What all kinds of annotations have in common: which picture they are about, and of which part it is."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.datasets.picture_layout import WHOLE
from dpuflow.datasets.picture_list import PARTS
from dpuflow.datasets.picture_source import Source

POOL = {**PARTS, "trainval": "train"}
"""Name of a folder, a list or a JSON file -> the part that it means."""
SHOWN = 5
"""Names in a message."""


class Annotated(NamedTuple):
    """One picture, and what is in it as its annotation writes it."""

    path: str
    """As it is recorded."""
    name: str
    """As its Source knows it."""
    where: str
    """The annotation's file, for messages."""
    boxes: np.ndarray
    """(n, 4) float64: x1, y1, x2, y2."""
    classes: tuple[str, ...]
    """Name of each box's class."""
    ignored: np.ndarray
    """(n,) bool: neither to be found nor wrong when found (VOC's difficult, COCO's crowds)."""
    places: tuple[str, ...] = ()
    """What to call each box in a message ("line 7")."""
    size: tuple[int, int] | None = None
    """(width, height) of the picture that the annotation claims; None where it does not say."""
    relative: bool = False
    """Whether the boxes are shares of the picture's sides."""
    mask: str = ""
    """The mask's name in the Source (segmentation)."""


class Found(NamedTuple):
    """All annotated pictures of a source."""

    parts: dict[str, list[Annotated]]
    """Part -> pictures, sorted by path; {WHOLE: all} where no parts are told."""
    names: list[str]
    """Names of the classes, in their order."""


NO_BOXES = np.zeros((0, 4))
NO_FLAGS = np.zeros(0, bool)


def meant_part(name: str, given: Mapping[str, str]) -> str | None:
    """The part that a folder's, list's or JSON file's name means: val2017 -> validation; None if none.

    given : the key annotations.parts, which comes first.
    """
    if name in given:
        return given[name]
    bare = re.sub(r"[0-9]+$", "", name.casefold()).rstrip("_-")
    return POOL.get(bare)


def part_of_path(path: str, given: Mapping[str, str]) -> str:
    """The part that the folders of a path tell, the outermost first; WHOLE without one."""
    for folder in PurePosixPath(path).parts[:-1]:
        part = meant_part(folder, given)
        if part:
            return part
    return WHOLE


class Pairing:
    """Pictures by their names without folder and suffix."""

    def __init__(self, source: Source, pictures: Collection[str]) -> None:
        self.place = source.place
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        for name in pictures:
            self.by_stem[PurePosixPath(name).stem].append(name)

    def picture_of(self, label: str, stem: str | None = None, also: Iterable[str] = ()) -> str | None:
        """The picture that a label file is about; None without one. UserError for several.

        stem : the picture's, by default the file's own. also : more names that folders of the picture may
        have.
        Of several pictures of one name the one in the folders that the file lies in, too, is meant.
        """
        found = self.by_stem.get(PurePosixPath(label).stem if stem is None else stem, [])
        if len(found) < 2:
            return found[0] if found else None
        folders = Counter([*PurePosixPath(label).parts[:-1], *also])
        near = [(Counter(PurePosixPath(name).parts[:-1]) & folders).total() for name in found]
        best = [name for name, shared in zip(found, near, strict=True) if shared == max(near)]
        if len(best) > 1:
            raise UserError(
                f"{self.place}: {label} fits {len(best)} pictures: {', '.join(best[:SHOWN])}; put "
                "pictures and "
                "annotations into folders of the same names (images/train and labels/train), or rename one"
            )
        return best[0]


def read_lists(
    source: Source, lists: Iterable[str], pictures: Collection[str], given: Mapping[str, str]
) -> dict[str, str]:
    """{picture: part} of text files called train.txt, val.txt, ... with a picture's name in each line."""
    pairing = Pairing(source, pictures)
    part_of: dict[str, str] = {}
    told_by: dict[str, str] = {}
    meant = {name: meant_part(PurePosixPath(name).stem, given) for name in lists}
    told = {
        part for name, part in meant.items() if part and PurePosixPath(name).stem.casefold() != "trainval"
    }
    for name, part in sorted(meant.items()):
        both = PurePosixPath(name).stem.casefold() == "trainval" and "train" in told
        if part is None or both:
            continue
        for number, line in enumerate(text_of(source, name).splitlines(), 1):
            entry = line.strip()
            if not entry:
                continue
            picture = _listed(pairing, entry)
            if picture is None:
                bare = _listed(Pairing(source, source.pictures), entry)
                wrong = (
                    f"no picture {entry!r} in {source.place}" if bare is None else f"{bare} has no annotation"
                )
                raise UserError(f"{source.place} ({name}): line {number}: {wrong}")
            if part_of.get(picture, part) != part:
                raise UserError(
                    f"{source.place}: {picture} is in {told_by[picture]} and in {name}; a picture belongs to "
                    "one part"
                )
            part_of[picture], told_by[picture] = part, name
    return part_of


def _listed(pairing, entry):
    """The picture of a list's line: a stem, or a path of which the last folders count."""
    path = entry.replace("\\", "/")
    suffix = PurePosixPath(path).suffix.lower()
    stem = PurePosixPath(path).stem if suffix in _SUFFIXES else PurePosixPath(path).name
    return pairing.picture_of(path, stem)


_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


def text_of(source: Source, name: str) -> str:
    """A text file of the source; UserError where it is none."""
    try:
        return source.read(name).decode("utf-8-sig")
    except ValueError:
        raise UserError(f"{source.place} ({name}): not a text in UTF-8") from None


def ordered_names(
    found: Collection[str], given: Collection[object] | None, what: str, leave_out: bool
) -> list[str]:
    """Names of the classes: those that class_names gives, else all found, sorted.

    UserError where a class was found that class_names lacks, unless such objects are to be left out.
    """
    if given is None:
        return sorted(found)
    names = [str(name) for name in given if name is not None]
    others = sorted(set(found) - set(names))
    if others and not leave_out:
        shown = ", ".join(others[:SHOWN]) + (" and more" if len(others) > SHOWN else "")
        raise UserError(
            f"{what}: classes that class_names lacks: {shown}; add them, or say "
            "annotations: {other_classes: leave_out}"
        )
    return names


def numbers(values: Iterable[object], where: str, what: str) -> list[float]:
    """Finite numbers of an annotation; UserError for anything else."""
    result = []
    for value in values:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if isinstance(value, bool) or not abs(number) < 1e9:
            raise UserError(f"{where}: {what}: expected a number, found {_short(value)}")
        result.append(number)
    return result


def _short(value):
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def by_part(items: Iterable[Annotated], part_of: Mapping[str, str], place: str) -> dict[str, list[Annotated]]:
    """Part -> Annotated, sorted; UserError where only some of the pictures have a part."""
    parts: dict[str, list[Annotated]] = defaultdict(list)
    for item in items:
        parts[part_of.get(item.name, WHOLE)].append(item)
    if WHOLE in parts and len(parts) > 1:
        others = ", ".join(sorted(set(parts) - {WHOLE}))
        raise UserError(
            f"{place}: {len(parts[WHOLE])} pictures belong to no part (first: "
            f"{min(parts[WHOLE]).path}), beside "
            f"others for {others}; say annotations: {{parts: {{FOLDER: train}}}}, or list all of them"
        )
    return {part: sorted(items, key=lambda item: item.path) for part, items in parts.items()}
