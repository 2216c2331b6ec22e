"""Masks: for each picture another of the same size whose pixels say the class; how they are read and
prepared.

A mask's pixel is its class, in a grey picture or in one with a palette; 255 belongs to no class. The key
annotations.values
gives each class a value of its own instead, a number or [red, green, blue].
"""

import io
import logging
from collections.abc import Collection, Mapping, Sequence
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
    part_of_path,
    read_lists,
)
from dpuflow.datasets.picture_source import Source
from dpuflow.datasets.placement import Placement
from dpuflow.datasets.tasks import NO_CLASS

log = logging.getLogger(__name__)

FOLDERS = (
    "mask",
    "masks",
    "label",
    "labels",
    "annotation",
    "annotations",
    "segmentationclass",
    "gt",
    "labelids",
)
"""Names of folders whose pictures are masks; so are those that end with one of ENDS."""
ENDS = ("annot", "_mask", "_masks", "_labels", "_gt")
SUFFIXES = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_L")
"""What a mask's name may have behind the picture's."""
MAX_CLASSES = 255


def find(source: Source, settings: Mapping[str, Any], class_names: Collection[object] | None) -> Found:
    """The pictures of a source that have a mask; settings : the key annotations."""
    if class_names is None:
        raise UserError(
            f"{source.place}: annotations: masks need class_names (name of pixel value 0, 1, ...)"
        )
    masks = [name for name in source.pictures if _is_mask(name)]
    pictures = [name for name in source.pictures if not _is_mask(name)]
    if not masks or not pictures:
        raise UserError(
            f"{source.place}: found {len(pictures)} pictures and {len(masks)} masks; expected "
            "images/NAME.jpg and "
            "masks/NAME.png (folders of masks are called masks, labels, annotations or SegmentationClass)"
        )
    pairing = Pairing(source, pictures)
    mask_of: dict[str, str] = {}
    for mask in masks:
        picture = next(filter(None, (pairing.picture_of(mask, stem) for stem in _stems(mask))), None)
        if picture is None:
            raise UserError(f"{source.place} ({mask}): there is no picture for this mask")
        if picture in mask_of:
            raise UserError(f"{source.place}: {picture} has two masks, {mask_of[picture]} and {mask}")
        mask_of[picture] = mask
    without = [name for name in pictures if name not in mask_of]
    if without:
        log.warning(
            "warning: %s: %d pictures have no mask and are left out (first: %s)",
            source.place,
            len(without),
            without[0],
        )
    items = [
        Annotated(name, name, f"{source.place} ({mask_of[name]})", NO_BOXES, (), NO_FLAGS, mask=mask_of[name])
        for name in pictures
        if name in mask_of
    ]
    given = settings.get("parts", {})
    lists = [name for name in source.others if name.lower().endswith(".txt")]
    part_of = read_lists(source, lists, list(mask_of), given)
    if part_of:
        items = [item for item in items if item.name in part_of]
    else:
        part_of = {item.name: part_of_path(item.name, given) for item in items}
    return Found(by_part(items, part_of, source.place), [str(name) for name in class_names])


def _is_mask(name):
    folders = [folder.casefold() for folder in PurePosixPath(name).parts[:-1]]
    return any(folder in FOLDERS or folder.endswith(ENDS) for folder in folders)


def _stems(mask):
    stem = PurePosixPath(mask).stem
    return [stem, *(stem.removesuffix(end) for end in SUFFIXES if stem.endswith(end))]


def mask_classes(content: bytes, where: str, classes: int, values: Sequence[Any] | None = None) -> np.ndarray:
    """The class of each pixel of a mask file, uint8 (h, w), NO_CLASS where it has none.

    classes : how many there are. values : the key annotations.values. UserError names a value that no
    class has.
    """
    pixels, index = _pixels(content, where)
    if pixels.ndim == 3 and not (values and isinstance(values[0], list | tuple)):
        grey = pixels[..., 0]
        if (pixels == grey[..., None]).all():  # a grey picture that was saved in colours
            pixels = index = grey
    if values is None:
        if pixels.ndim == 3:
            raise UserError(
                f"{where}: a mask in colours; say which colour is which class: annotations: "
                "{values: [[0, 0, 0], [255, 0, 0]]}"
            )
        table = np.full(256, -1, np.int16)
        table[:classes], table[NO_CLASS] = np.arange(classes), NO_CLASS
        shown = f"0 to {classes - 1}, and {NO_CLASS} for no class"
    else:
        pixels, table = _by_values(pixels, values, where)
        shown = ", ".join(map(str, values))
    found = table[pixels]
    if (found < 0).any():
        row, column = (int(i) for i in np.argwhere(found < 0)[0])
        value = index[row, column]
        raise UserError(
            f"{where}: pixel ({column}, {row}) of the mask is {value.tolist()}, expected {shown}; see "
            "class_names and annotations.values"
        )
    return found.astype(np.uint8)


def _by_values(pixels, values, where):
    """(one number for each pixel, table number -> class or -1) of masks whose values are given."""
    colours = isinstance(values[0], list | tuple)
    if colours != (pixels.ndim == 3):
        kind = "in colours" if pixels.ndim == 3 else "of one number for each pixel"
        raise UserError(f"{where}: a mask {kind}, which annotations.values does not fit")
    if not colours:
        table = np.full(256, -1, np.int16)
        if NO_CLASS not in values:
            table[NO_CLASS] = NO_CLASS
        table[list(values)] = np.arange(len(values))
        return pixels, table
    known = {tuple(value): number for number, value in enumerate(values)}
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    keys = np.array(sorted((r << 16) + (g << 8) + b for r, g, b in known), np.int32)
    classes = {(r << 16) + (g << 8) + b: number for (r, g, b), number in known.items()}
    place = np.searchsorted(keys, packed).clip(0, len(keys) - 1)
    table = np.array([*(classes[int(key)] for key in keys), -1], np.int16)
    return np.where(keys[place] == packed, place, len(keys)), table


def _pixels(content, where):
    """(what a mask's pixels are looked up by, the same for messages): (h, w) uint8 or (h, w, 3) uint8."""
    from PIL import Image

    from dpuflow.datasets.picture_files import _DAMAGE, FORMATS, MAX_PIXELS

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            if file.size[0] * file.size[1] > MAX_PIXELS:
                raise UserError(f"{where}: {file.size[0]} x {file.size[1]} pixels; {MAX_PIXELS} at most")
            if file.format == "JPEG":
                raise UserError(f"{where}: a mask as JPG, whose pixels are not exact; save it as PNG")
            file.load()
            if file.mode in ("P", "L"):
                pixels = np.asarray(file)
            elif file.mode == "1":
                pixels = np.asarray(file).astype(np.uint8)
            elif file.mode in ("RGB", "RGBA", "LA", "PA"):
                pixels = np.asarray(file.convert("RGB"))
            else:  # 16 bits
                pixels = np.asarray(file)
                if pixels.ndim != 2 or pixels.size == 0 or pixels.min() < 0 or pixels.max() > 255:
                    raise UserError(f"{where}: pixels beyond 0 to 255, which are no classes")
                pixels = pixels.astype(np.uint8)
    except Image.DecompressionBombError as error:
        raise UserError(f"{where}: {error}") from None
    except _DAMAGE as error:
        raise UserError(f"{where}: not a whole picture ({error}); save it again as PNG") from None
    return pixels, pixels


def placed_mask(mask: np.ndarray, where: str, placement: Placement, shape: tuple[int, int]) -> np.ndarray:
    """A mask as it lies in the prepared picture, uint8 `shape` (H, W), NO_CLASS beside it.

    The nearest pixel: each pixel of the prepared picture has the class of the original's at its centre.
    """
    if mask.shape != (placement.size[1], placement.size[0]):
        raise UserError(
            f"{where}: a mask of {mask.shape[1]} x {mask.shape[0]}, but the picture has "
            f"{placement.size[0]} x "
            f"{placement.size[1]} pixels"
        )
    result = np.full(shape, NO_CLASS, np.uint8)
    left, top, right, bottom = placement.place
    columns = _nearest(placement.part[0], placement.part[2], right - left)
    rows = _nearest(placement.part[1], placement.part[3], bottom - top)
    result[top:bottom, left:right] = mask[np.ix_(rows, columns)]
    return result


def _nearest(low, high, count):
    """Which pixels of low..high the centres of `count` equal stretches lie in."""
    return low + (2 * np.arange(count) + 1) * (high - low) // (2 * count)
