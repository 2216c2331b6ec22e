"""dataset.h5 of pictures with boxes or masks: what tasks other than classification learn from and are
judged by.

Pictures go the way of `picture_dataset`; their boxes or masks are brought to the prepared picture with
them, and
how each picture was prepared is recorded (`placement`), so that an answer finds its way back.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import new_hdf5
from dpuflow.base.progress import counted
from dpuflow.datasets import annotation_coco, annotation_masks, annotation_voc, annotation_yolo
from dpuflow.datasets.annotations import Annotated
from dpuflow.datasets.dataset_writing import CHUNK_ROWS, ImageSink, write_frame, write_texts
from dpuflow.datasets.labels import MAX_PICTURE_LABEL, Labels, labels_of
from dpuflow.datasets.locate import expand, picture_paths
from dpuflow.datasets.mask_writing import MaskSink
from dpuflow.datasets.picture_dataset import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    divided,
    in_order,
    naming,
    origins_of,
    split_rows,
)
from dpuflow.datasets.picture_files import placed
from dpuflow.datasets.picture_source import Source, open_source
from dpuflow.datasets.placement import Placement
from dpuflow.datasets.targets import Boxes, write_boxes

log = logging.getLogger(__name__)

READERS = {
    "voc": annotation_voc.find,
    "coco": annotation_coco.find,
    "yolo": annotation_yolo.find,
    "masks": annotation_masks.find,
}
"""Value of annotations.format -> what finds the annotated pictures of a source."""
BEYOND = 1.0
"""Pixels by which a box may leave its picture without a word: tools round."""
LEFT = 0.25
"""Where resize: crop leaves less than this share of a box, nobody could find the object: it is ignored."""
DEFAULT_RESIZE = "pad"


class Prepared(NamedTuple):
    """One picture, ready."""

    pixels: np.ndarray
    """uint8 (H, W, C)."""
    digest: str
    """SHA-256 of all that it was made of."""
    placement: Placement
    boxes: np.ndarray
    """(n, 4) in the prepared picture, those that are left of it."""
    classes: np.ndarray
    """(n,)."""
    ignored: np.ndarray
    """(n,)."""
    mask: np.ndarray | None
    """uint8 (H, W)."""
    oddities: tuple[int, int]
    """Boxes without area, and boxes that left the picture."""


def build_annotated_dataset(path: Path | str, entry: Mapping[str, Any], threads: int = 2) -> dict[str, int]:
    """Write dataset.h5 for a data set's entry with a `task` and `annotations`; return counts.

    UserError names the file and the row or element of what cannot be read. Memory holds a few decoded
    pictures for
    each thread, `picture_dataset.BLOCK_BYTES` of prepared ones, and all boxes.
    """
    image, settings = entry["image"], entry["annotations"]
    shape = int(image["height"]), int(image["width"]), int(image.get("channels", 1))
    with open_source(expand(picture_paths(entry["source"])["place"])) as source:
        found = READERS[settings["format"]](source, settings, entry.get("class_names"))
        if not any(found.parts.values()):
            raise UserError(f"{source.place}: no annotated pictures in it")
        labels = labels_of(found.names, MAX_PICTURE_LABEL)
        if entry["task"] == "segmentation" and labels.outputs > annotation_masks.MAX_CLASSES:
            raise UserError(f"class_names: {labels.outputs} classes, but masks take 255 at most")
        sides = divided(found.parts, lambda item: 0, entry, source.place, "NAME.jpg with its annotation")
        order = [item for part in ("pool", "validation", "calibration", "test") for item in sides[part]]
        return _write(path, source, order, sides, labels, shape, entry, threads)


def prepare(
    source: Source, item: Annotated, names: list[str], shape: tuple[int, int, int], entry: Any
) -> Prepared:
    """One annotated picture as dataset.h5 has it; UserError for a box or mask that does not fit it."""
    content = source.read(item.name)
    resize = entry["image"].get("resize", DEFAULT_RESIZE)
    pixels, where = placed(content, f"{source.place}: {item.name}", shape, resize)
    if item.size is not None and item.size != where.size:
        raise UserError(
            f"{item.where}: is about a picture of {item.size[0]} x {item.size[1]}, but "
            f"{item.name} has {where.size[0]} x "
            f"{where.size[1]} pixels (upright, as its EXIF entry says)"
        )
    digest = hashlib.sha256(content)
    mask, boxes = None, _no_boxes()
    if item.mask:
        drawn = source.read(item.mask)
        digest.update(drawn)
        values = entry["annotations"].get("values")
        mask = annotation_masks.mask_classes(drawn, item.where, len(names), values)
        mask = annotation_masks.placed_mask(mask, item.where, where, shape[:2])
    else:
        boxes = _placed_boxes(item, names, where)
        for part in (boxes[0], boxes[1], boxes[2]):
            digest.update(np.ascontiguousarray(part).tobytes())
    corners, classes, ignored, oddities = boxes
    return Prepared(pixels, digest.hexdigest(), where, corners, classes, ignored, mask, oddities)


def _no_boxes():
    return np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), (0, 0)


def _placed_boxes(item, names, where):
    """(boxes, classes, ignored, oddities) of an Annotated in its prepared picture."""
    width, height = where.size
    boxes = item.boxes * np.array([width, height] * 2) if item.relative else item.boxes
    high = np.array([width, height] * 2, np.float64)
    for row in np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1)):
        raise UserError(
            f"{item.where}: {item.places[row]}: a box whose end lies before its beginning: {boxes[row]}"
        )
    inside = np.clip(boxes, 0, high)
    solid = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    for row in np.flatnonzero(solid & ~(inside[:, :2] < inside[:, 2:]).all(axis=1)):
        raise UserError(
            f"{item.where}: {item.places[row]}: a box {boxes[row].tolist()} outside of its "
            f"picture of {width} x {height}"
        )
    beyond = solid & (np.abs(boxes - inside).max(axis=1, initial=0) > BEYOND)
    known = {name: number for number, name in enumerate(names)}
    kept = solid & np.array([name in known for name in item.classes], bool)
    prepared = where.to_prepared(inside).astype(np.float32)
    visible = (prepared[:, :2] < prepared[:, 2:]).all(axis=1)
    cut = _areas(prepared) < LEFT * _areas(_unclipped(inside, where))
    rows = np.flatnonzero(kept & visible)
    classes = np.array([known[item.classes[row]] for row in rows], np.int64)
    oddities = int((~solid).sum()), int(beyond.sum())
    return prepared[rows], classes, (item.ignored | cut)[rows], oddities


def _unclipped(boxes, where):
    scale = [(where.place[i + 2] - where.place[i]) / (where.part[i + 2] - where.part[i]) for i in (0, 1)]
    return boxes * np.array(scale * 2)


def _areas(boxes):
    boxes = boxes.astype(np.float64)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _write(path, source, order, sides, labels, shape, entry, threads):
    image_bytes = int(np.prod(shape))
    digests: dict[str, list[bytes]] = {"train": [], "test": []}
    first_test = len(order) - len(sides["test"])
    names, done = list(labels.names), _Gathered()

    with new_hdf5(path) as file:
        chunk = max(1, min(CHUNK_ROWS, CHUNK_BYTES // image_bytes))
        masks = MaskSink(file, shape[:2], chunk) if entry["task"] == "segmentation" else None

        def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            size = max(1, min(CHUNK_ROWS, BLOCK_BYTES // image_bytes))
            images: list[np.ndarray] = []
            empty = Placement((1, 1), (0, 0, 1, 1), (0, 0, 1, 1))
            none = None if masks is None else np.zeros(shape[:2], np.uint8)
            corners, classes, ignored, oddities = _no_boxes()
            pixels = np.zeros(shape, np.uint8)
            blank = Prepared(pixels, "", empty, corners, classes, ignored, none, oddities)
            made = in_order(order, lambda item: prepare(source, item, names, shape, entry), blank, threads)
            for row, (item, one) in enumerate(zip(order, counted(made, "pictures", len(order)), strict=True)):
                part = "train" if row < first_test else "test"
                digests[part].append(f"{item.path}\0{one.digest}\n".encode())
                done.add(item, one)
                images.append(one.pixels)
                if masks is not None:
                    masks.append(one.mask)
                if len(images) == size:
                    yield np.stack(images), np.zeros(size, np.uint16)
                    images = []
            if images:
                yield np.stack(images), np.zeros(len(images), np.uint16)

        sink = ImageSink(file, chunk)
        sink.append(blocks())
        same, hashes = sink.finish()
        done.report(source.place)
        if masks is not None:
            masks.finish()
            masks.check_values(source.place, entry["annotations"])
        split = split_rows(sides, same, hashes, entry, source.place)
        paths = [item.path for item in order]
        called, origins = naming(source.place, split, paths, first_test), origins_of(digests)

        def write_targets() -> None:
            if masks is None:
                write_boxes(file, done.boxes(split, labels, source.place))
            geometry = np.array([one.numbers for one in done.placements], np.int32)
            file.create_dataset("geometry", data=geometry, track_times=False)

        policy = entry.get("duplicates", "warn")
        counts = write_frame(file, (same, hashes), labels, split, write_targets, policy, called, origins)
        write_texts(file, "paths", paths)
        file.attrs["resize"] = entry["image"].get("resize", DEFAULT_RESIZE)
        file.attrs["task"] = entry["task"]
    return counts | ({} if masks is not None else {"boxes": done.count})


class _Gathered:
    """What is kept of all pictures until the end."""

    def __init__(self) -> None:
        self.placements: list[Placement] = []
        self.parts: list[Prepared] = []
        self.flat: list[str] = []
        self.outside: list[str] = []

    def add(self, item: Annotated, one: Prepared) -> None:
        self.placements.append(one.placement)
        self.parts.append(one._replace(pixels=None, mask=None))  # type: ignore[arg-type]
        self.flat += [item.where] * one.oddities[0]
        self.outside += [item.where] * one.oddities[1]

    @property
    def count(self) -> int:
        return sum(len(part.boxes) for part in self.parts)

    def report(self, place: str) -> None:
        for files, what in (
            (self.flat, "boxes have no area and are left out"),
            (self.outside, "boxes reach beyond their pictures and are cut"),
        ):
            if files:
                log.warning("warning: %s: %d %s (first: %s)", place, len(files), what, files[0])

    def boxes(self, split: Mapping[str, np.ndarray], labels: Labels, place: str) -> Boxes:
        """All of them; UserError where the test shows no object, a warning for classes that a part lacks."""
        counts = [len(part.boxes) for part in self.parts]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        result = Boxes(
            np.concatenate([part.boxes for part in self.parts]),
            np.concatenate([part.classes for part in self.parts]),
            np.concatenate([part.ignored for part in self.parts]),
            offsets,
        )
        for name in ("train", "test"):
            seen = result.of(split[name])
            found = set(seen.classes[~seen.ignored].tolist())
            if name == "test" and not found:
                raise UserError(
                    f"{place}: the pictures for the test show no object of {', '.join(labels.names)}"
                )
            missing = [labels.name(label) for label in labels.present if label not in found]
            if missing and len(split[name]):
                log.warning("warning: the %s pictures show no %s", name, ", ".join(missing[:30]))
        return result
