"""dataset.h5 from picture files: read once, decoded by threads, written as a stream.

Rows of each part are shuffled (always alike), because files come class by class and "the last tenth"
would be a class. Nothing depends on the order in which a folder or a zip lists its files.
"""

import hashlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import new_hdf5
from dpuflow.base.progress import counted
from dpuflow.datasets import duplicates
from dpuflow.datasets.dataset_writing import (
    CHUNK_ROWS,
    SHOWN_CLASSES,
    ImageSink,
    Naming,
    write_tables,
    write_texts,
)
from dpuflow.datasets.labels import MAX_PICTURE_LABEL, labels_of
from dpuflow.datasets.locate import expand, picture_paths
from dpuflow.datasets.picture_files import prepared
from dpuflow.datasets.picture_layout import WHOLE, Item, by_folders, by_list, classes_of, empty_classes
from dpuflow.datasets.picture_source import open_source
from dpuflow.datasets.splits import DEFAULT_CALIBRATION, calibration_rows, stratified_choice, validation_split

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 16 << 20
"""Of pictures that are handed on at a time."""
NAMED_FAULTS = 10
"""Files that an error names."""


def build_picture_dataset(path: Path | str, entry: Mapping[str, Any], threads: int = 2) -> dict[str, int]:
    """Write dataset.h5 from the pictures that a data set's entry of kind pictures names; return counts.

    entry : `source`, `image`, `class_names`, `test`, `validation`, `calibration`, `duplicates` of the
        configuration. UserError names every file that is damaged (the first ten).

    Memory holds a few decoded pictures for each thread and `BLOCK_BYTES` of prepared ones.
    """
    image = entry["image"]
    shape = int(image["height"]), int(image["width"]), int(image.get("channels", 1))
    resize = image.get("resize", "crop")
    where = picture_paths(entry["source"])
    with ExitStack() as stack:
        source = stack.enter_context(open_source(expand(where["place"])))
        listed = where.get("list")
        parts = by_list(source, expand(listed)) if listed else by_folders(source)
        _report_others(source, bool(listed))
        if not listed and entry.get("class_names") is None:
            _report_empty(source)
        every = [item for items in parts.values() for item in items]
        place = str(expand(listed)) if listed else source.place
        names, label_of = classes_of(every, entry.get("class_names"), bool(listed), place)
        labels = labels_of(names, MAX_PICTURE_LABEL)
        sides = divided(parts, lambda item: label_of[item.label], entry, place)
        order = [item for part in ("pool", "validation", "calibration", "test") for item in sides[part]]
        return _write(path, source, order, sides, (labels, label_of), (shape, resize), entry, threads)


def _report_others(source, listed):
    if source.others and not listed:
        log.warning(
            "warning: %s: %d files are no pictures by their suffix and were left out (first: %s)",
            source.place,
            len(source.others),
            source.others[0],
        )


def _report_empty(source):
    empty = empty_classes(source)
    if empty:
        shown = ", ".join(empty[:SHOWN_CLASSES])
        more = f" and {len(empty) - SHOWN_CLASSES} more" if len(empty) > SHOWN_CLASSES else ""
        log.warning(
            "warning: %s: no pictures in %s%s, so the data set has no such class and the classes behind it "
            "count one less; a network that was trained with all of them needs class_names, which keeps "
            "their places",
            source.place,
            shown,
            more,
        )


def divided(
    parts: Mapping[str, list[Any]],
    class_of: Callable[[Any], int],
    entry: Mapping[str, Any],
    place: str,
    example: str = "CLASS/*.jpg",
) -> dict[str, list[Any]]:
    """Items by "pool" (train and, without a part of its own, validation), validation, calibration, test.

    parts : part -> items that sort by their path. class_of : an item's class, of which each gives its
    share. entry : the
    data set's. place, example : what messages call the source, and files in it.
    """
    pool = parts.get(WHOLE, parts.get("train", []))
    test = parts.get("test", [])
    if entry.get("test") and test:
        raise UserError(f"{place}: has pictures for the test already; leave out the setting test")
    if entry.get("test"):
        chosen = stratified_choice([class_of(item) for item in pool], entry["test"])
        test = [item for item, take in zip(pool, chosen, strict=True) if take]
        pool = [item for item, take in zip(pool, chosen, strict=True) if not take]
    if not test:
        raise UserError(
            f"{place}: no pictures for the test; add test/{example}, or divide these with "
            "test: {fraction: 0.2, seed: 1}"
        )
    if parts.get("validation") and entry.get("validation"):
        raise UserError(f"{place}: has pictures for the validation; leave out the setting validation")
    if not pool and not parts.get("calibration") and not parts.get("validation"):
        raise UserError(
            f"{place}: only pictures for the test; the quantizer needs others to calibrate on: "
            f"add calibration/{example} or train/{example}, or give the folder inside of it as the source, "
            "which test: {fraction: 0.5, seed: 1} then divides"
        )
    sides = {
        "pool": pool,
        "validation": parts.get("validation", []),
        "calibration": parts.get("calibration", []),
        "test": test,
    }
    sides = {name: _shuffled(items) for name, items in sides.items()}
    if sides["calibration"]:
        own = sides["calibration"]
        of_class = np.array([class_of(item) for item in own])
        rows = calibration_rows(np.arange(len(own)), of_class, _fitting(entry.get("calibration"), len(own)))
        sides["calibration"] = [own[row] for row in rows]
    return sides


def _shuffled(items: Iterable[Any]) -> list[Any]:
    items = sorted(items)
    return [items[row] for row in np.random.Generator(np.random.PCG64(0)).permutation(len(items))]


def _fitting(calibration, available):
    """The calibration setting; by default no more images than there are."""
    if calibration is not None:
        return calibration
    return DEFAULT_CALIBRATION | {"images": min(DEFAULT_CALIBRATION["images"], available)}


def _write(path, source, order, sides, classes, preparation, entry, threads):
    labels, label_of = classes
    shape, resize = preparation
    image_bytes = int(np.prod(shape))
    digests = {"train": [], "test": []}
    first_test = len(order) - len(sides["test"])

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = max(1, min(CHUNK_ROWS, BLOCK_BYTES // image_bytes))
        images, of_images = [], []

        def prepare(item: Item) -> tuple[np.ndarray, str]:
            content = source.read(item.name)
            made = prepared(content, f"{source.place}: {item.name}", shape, resize)
            return made, hashlib.sha256(content).hexdigest()

        blank = np.zeros(shape, np.uint8), ""
        decoded = counted(in_order(order, prepare, blank, threads), "pictures", len(order))
        for row, (item, (pixels, digest)) in enumerate(zip(order, decoded, strict=True)):
            part = "train" if row < first_test else "test"
            digests[part].append(f"{item.path}\0{label_of[item.label]}\0{digest}\n".encode())
            images.append(pixels)
            of_images.append(label_of[item.label])
            if len(images) == size:
                yield np.stack(images), np.array(of_images, np.uint16)
                images, of_images = [], []
        if images:
            yield np.stack(images), np.array(of_images, np.uint16)

    with new_hdf5(path) as file:
        sink = ImageSink(file, max(1, min(CHUNK_ROWS, CHUNK_BYTES // image_bytes)))
        sink.append(blocks())
        all_labels, hashes = sink.finish()
        split = split_rows(sides, all_labels, hashes, entry, source.place)
        names = naming(source.place, split, [item.path for item in order], first_test)
        policy = entry.get("duplicates", "warn")
        counts = write_tables(file, (all_labels, hashes), labels, split, policy, names, origins_of(digests))
        write_texts(file, "paths", [item.path for item in order])
        file.attrs["resize"] = resize
    return counts


def origins_of(digests: Mapping[str, list[bytes]]) -> dict[str, tuple[str, str]]:
    """Part -> (SHA-256 over what its pictures are, in any order, no file of labels) as data sets keep it."""
    return {
        part: (hashlib.sha256(b"".join(sorted(lines))).hexdigest(), "") for part, lines in digests.items()
    }


def naming(place: str, split: Mapping[str, np.ndarray], paths: Sequence[str], first_test: int) -> Naming:
    """What messages call the rows; paths : of all rows, those of the test from `first_test` on."""
    offset = {"train": 0, "test": first_test}
    return Naming(
        f"{place} (for training)" if split["train"].size else f"{place} (for calibration)",
        f"{place} (for the test)",
        lambda part, row: paths[offset[part] + int(row)],
        "files",
    )


def split_rows(
    sides: Mapping[str, list[Any]],
    labels: np.ndarray,
    hashes: np.ndarray,
    entry: Mapping[str, Any],
    place: str,
) -> dict[str, np.ndarray]:
    """Name -> rows, as `dataset_file` has them, of items that were `divided`; labels, hashes : by row."""
    bounds = np.cumsum([0, *(len(sides[name]) for name in ("pool", "validation", "calibration", "test"))])
    pool, validation, calibration, test = (np.arange(a, b) for a, b in itertools.pairwise(bounds))
    train = pool
    if len(pool) and not len(validation):
        train, validation = validation_split(len(pool), entry.get("validation"))
    if not len(calibration):
        candidates = train if len(train) else validation
        leaked = duplicates.shared_with(hashes[candidates], hashes[test])
        candidates = candidates[~leaked]
        if not len(candidates):
            raise UserError(f"{place}: every picture that might calibrate is a test picture, too")
        calibration = calibration_rows(
            candidates, labels, _fitting(entry.get("calibration"), len(candidates))
        )
    if not len(validation):
        validation = calibration  # labelled pictures that are not for the test: the best there is
    return {"train": train, "validation": validation, "test": test, "calibration": calibration}


def in_order(items: Iterable[Any], prepare: Callable[[Any], Any], blank: Any, threads: int) -> Iterator[Any]:
    """Yield what `prepare` makes of each item, by threads, in the order of the items.

    Where it raises a UserError, `blank` is given instead, and all of them are named in one when the rest
    is read.
    """

    def _one(item):
        try:
            return prepare(item)
        except UserError as error:
            return error

    faults: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Any] = deque()
        rest = iter(items)
        for item in rest:
            ahead.append(pool.submit(_one, item))
            if len(ahead) < 4 * threads:
                continue
            yield _good(ahead.popleft().result(), faults, blank)
        while ahead:
            yield _good(ahead.popleft().result(), faults, blank)
    if faults:
        more = f"; and {len(faults) - NAMED_FAULTS} more" if len(faults) > NAMED_FAULTS else ""
        raise UserError("; ".join(faults[:NAMED_FAULTS]) + more)


def _good(result, faults, blank):
    if isinstance(result, UserError):
        faults.append(str(result))
        return blank
    return result
