"""Boxes as PASCAL VOC writes them: one XML file for each picture; lists in ImageSets tell the parts.

XML of strangers: expat reads it without document types, so there are no entities that could expand or fetch.
Coordinates stand as they are written, as continuous ones: what counts pixels from 1 is off by half a
pixel at most.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.datasets.annotations import (
    NO_BOXES,
    Annotated,
    Found,
    Pairing,
    by_part,
    numbers,
    ordered_names,
    part_of_path,
    read_lists,
)
from dpuflow.datasets.picture_source import Source

log = logging.getLogger(__name__)

DEPTH = 32
"""Elements inside of each other: VOC has four."""
LARGEST = 16 << 20
"""Bytes of one XML file."""
SIDES = ("xmin", "ymin", "xmax", "ymax")


def find(source: Source, settings: Mapping[str, Any], class_names: Collection[object] | None) -> Found:
    """The pictures of a source that have an XML file; settings : the key annotations."""
    files = [name for name in source.others if name.lower().endswith(".xml")]
    if not files:
        raise UserError(f"{source.place}: annotations: voc, but there is no .xml file in it")
    pairing, given = Pairing(source, source.pictures), settings.get("parts", {})
    items: dict[str, Annotated] = {}
    for file in files:
        picture = pairing.picture_of(file)
        if picture is None:
            raise UserError(
                f"{source.place} ({file}): there is no picture {PurePosixPath(file).stem}.* for it"
            )
        if picture in items:
            raise UserError(
                f"{source.place}: {picture} has two annotations, {items[picture].where} and {file}"
            )
        items[picture] = annotation(source.read(file), f"{source.place} ({file})", picture)
    without = [name for name in source.pictures if name not in items]
    if without:
        log.warning(
            "warning: %s: %d pictures have no .xml file and are left out (first: %s)",
            source.place,
            len(without),
            without[0],
        )
    lists = [
        n for n in source.others if n.lower().endswith(".txt") and PurePosixPath(n).parent.name == "Main"
    ]
    part_of = read_lists(source, lists, items, given)
    if not part_of:
        part_of = {name: part_of_path(name, given) for name in items}
    found = {name for item in items.values() for name in item.classes}
    leave_out = settings.get("other_classes") == "leave_out"
    names = ordered_names(found, class_names, source.place, leave_out)
    return Found(by_part(items.values(), part_of, source.place), names)


def annotation(content: bytes, where: str, picture: str) -> Annotated:
    """What one XML file says; UserError with its line for what is no annotation."""
    root = parse(content, where)
    if root.tag != "annotation":
        raise UserError(f"{where}: expected <annotation>, found <{root.tag[:40]}>")
    boxes, classes, ignored, places = [], [], [], []
    for number, entry in enumerate(root.findall("object"), 1):
        place = f"line {entry.get(_LINE)}, object {number}"
        name = (entry.findtext("name") or "").strip()
        box = entry.find("bndbox")
        if not name or box is None:
            raise UserError(f"{where}: {place}: has no {'bndbox' if name else 'name'}")
        boxes.append(numbers((box.findtext(side) for side in SIDES), where, f"{place}, bndbox"))
        classes.append(name)
        flag = (entry.findtext("difficult") or "0").strip()
        if flag not in ("0", "1"):
            raise UserError(f"{where}: {place}: difficult is {flag[:20]!r}, expected 0 or 1")
        ignored.append(flag == "1")
        places.append(place)
    size = root.find("size")
    claimed = None
    if size is not None and (size.findtext("width") or "0").strip() not in ("", "0"):
        width, height = numbers((size.findtext(key) for key in ("width", "height")), where, "size")
        claimed = int(width), int(height)
    array = np.array(boxes, np.float64) if boxes else NO_BOXES
    return Annotated(
        picture, picture, where, array, tuple(classes), np.array(ignored, bool), tuple(places), claimed
    )


_LINE = "\0line"
"""Attribute in which `parse` notes an element's line; no name of XML's."""


def parse(content: bytes, where: str) -> ElementTree.Element:
    """An XML text as a tree; UserError for a document type, great depth and what is no XML."""
    if len(content) > LARGEST:
        raise UserError(f"{where}: more than {LARGEST >> 20} MiB; no annotation of one picture is as large")
    parser, builder, depth = expat.ParserCreate(), ElementTree.TreeBuilder(), 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise UserError(f"{where}: line {parser.CurrentLineNumber}: elements nested too deep")
        builder.start(tag, {**attributes, _LINE: str(parser.CurrentLineNumber)})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise UserError(
            f"{where}: line {parser.CurrentLineNumber}: has a document type or entities, which are not read; "
            "remove them"
        )

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError, AssertionError) as error:
        raise UserError(f"{where}: not whole XML ({error})") from None
