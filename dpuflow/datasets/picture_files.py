"""Picture files of a user's own -> what a network takes.

A file is turned upright (EXIF orientation), cut to a centred rectangle with the sides of
the data set's images (a square for square ones), made grey or RGB and resized by Pillow,
whose bicubic filter widens when it shrinks (antialiased). Transparent pixels become white.
Instead of cutting (crop), the whole picture may be fitted between black bars (pad) or take the
sides of the data set's images whatever its own are (stretch). A data set of picture files
(datasets/picture_dataset.py) is made with `prepared`, too.
"""

import io
import struct
import threading
import zlib
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.datasets.placement import Placement, centred_crop, fitting_sides, placement

if TYPE_CHECKING:
    from PIL import Image


FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""Of moving pictures and of several pages the first one counts."""
FORMAT_NAMES = "PNG, JPG, WebP, TIFF, BMP or GIF"
MAX_PIXELS = 80_000_000
"""Of one file: its header may claim any number, and a network looks at a few thousand of them."""
LARGE = 2**25
"""From here a JPG is decoded at a fraction of its size."""
DECODED_SIDE = 2048
"""Such a JPG keeps at least this many pixels on both sides."""
KEPT_SIDE = 360
"""Of an original, for the page: hundreds of photographs would not fit into memory."""
_ONE_LARGE = threading.Lock()
"""Threads decode such pictures one after the other: each may take some hundred MB."""
OTHER_PICTURES = {".heic": "HEIC", ".heif": "HEIF", ".avif": "AVIF"}


@dataclass
class Picture:
    """One file, read.

    Attributes
    ----------
    original : upright PIL image, mode L or RGB, shrunk to `KEPT_SIDE`.
    crop : (left, top, right, bottom) of the part that was used, pixels of the whole original.
    pixels : uint8 (H, W, C), as the network sees it before its input scaling.
    size : (width, height) of the whole original, upright.
    """

    original: "Image.Image"
    crop: tuple[int, int, int, int]
    pixels: np.ndarray
    size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.size == (0, 0):
            self.size = self.original.size


def prepared(content: bytes, name: str, shape: tuple[int, int, int], resize: str = "crop") -> np.ndarray:
    """Pixels uint8 (H, W, C) of a picture file's bytes, in one of FORMATS.

    shape : (H, W, C) of the data set, C 1 (grey, ITU-R 601 luma) or 3 (RGB).
    resize : "crop", "pad" or "stretch". name : of the file, for the UserError when it is damaged, not a
    picture, or of another format.
    """
    image, size = _upright(content, name)
    return _fitted(image, size, shape, resize)


def placed(
    content: bytes, name: str, shape: tuple[int, int, int], resize: str
) -> tuple[np.ndarray, Placement]:
    """`prepared`, and where the upright original lies in it."""
    image, size = _upright(content, name)
    return _fitted(image, size, shape, resize), placement(size, shape[1], shape[0], resize)


def read_picture(
    path: Path | str, shape: tuple[int, int, int], invert: bool = False, resize: str = "crop"
) -> Picture:
    """The Picture of a file in one of FORMATS.

    shape, resize : see `prepared`. invert : swap dark and light.
    UserError when the file is damaged, not a picture, or of another format.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    decoded, size = _upright(content, str(path))
    pixels = _fitted(decoded, size, shape, resize)
    decoded.thumbnail((KEPT_SIDE, KEPT_SIDE))
    crop = centred_crop(size, shape[1], shape[0]) if resize == "crop" else (0, 0, *size)
    return Picture(decoded, crop, 255 - pixels if invert else pixels, size)


def _fitted(image, size, shape, resize):
    """uint8 (H, W, C) of an upright image, perhaps decoded at a fraction; size : of the whole original."""
    from PIL import Image

    height, width, channels = shape
    mode = "L" if channels == 1 else "RGB"
    sides = width, height
    if resize == "crop":
        box = centred_crop(image.size, width, height)
        image = image if box == (0, 0, *image.size) else image.crop(box)
    elif resize == "pad":
        sides = fitting_sides(size, width, height)  # as `placement` has it
    fitted = image if image.mode == mode else image.convert(mode)
    if fitted.size != sides:  # Pillow would copy it
        fitted = fitted.resize(sides, Image.Resampling.BICUBIC)
    if sides != (width, height):
        canvas = Image.new(mode, (width, height))
        canvas.paste(fitted, ((width - sides[0]) // 2, (height - sides[1]) // 2))
        fitted = canvas
    return np.asarray(fitted).reshape(shape)


def read_pictures(
    paths: Iterable[str], shape: tuple[int, int, int], invert: bool = False, resize: str = "crop"
) -> tuple[dict[str, Picture], dict[str, str]]:
    """(pictures, faults): the Pictures of the files that can be read, by path, and why the others cannot."""
    pictures, faults = {}, {}
    for path in paths:
        try:
            pictures[path] = read_picture(path, shape, invert, resize)
        except UserError as error:
            faults[path] = str(error)
    return pictures, faults


def _upright(content, path):
    """(a file's bytes as an upright 8-bit grey or RGB image, its whole upright size); path : its name."""
    from PIL import Image, ImageOps

    kind = OTHER_PICTURES.get(Path(path).suffix.lower())
    if kind:
        raise UserError(f"{path}: a picture in {kind}, which is not read here; save it as JPG or PNG")
    try:
        # in memory, where a chunk that claims 4 GB reads as what is there
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            size = file.size
            if size[0] * size[1] > MAX_PIXELS:
                raise UserError(
                    f"{path}: {size[0]} x {size[1]} pixels; save it with {MAX_PIXELS} pixels at most"
                )
            large = size[0] * size[1] > LARGE
            if large and file.format in ("JPEG", "MPO"):
                file.draft(None, (DECODED_SIDE, DECODED_SIDE))
            with _ONE_LARGE if large else nullcontext():
                file.load()
                upright = ImageOps.exif_transpose(file)
                # decoded at a fraction, it tells by its longer side whether it was turned
                turned = (upright.width < upright.height) != (size[0] < size[1])
                return _eight_bits(upright, path), tuple(reversed(size)) if turned else size
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: {error}; save it with {MAX_PIXELS} pixels at most") from None
    except _DAMAGE as error:
        reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({error})"
        raise UserError(
            f"{path}: not a whole {FORMAT_NAMES} image{reason}; remove it or save it again as PNG or JPG"
        ) from None


_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow lets through from its plugins on damaged files."""


def _eight_bits(image, path):
    from PIL import Image

    if image.mode == "F":
        raise UserError(
            f"{path}: pixels are fractions, whose black and white nobody knows; save it with 8 bits"
        )
    if image.mode.startswith("I"):  # 16 bits per pixel: convert() would clip, not scale
        values = np.asarray(image)
        if values.size and (values.max() > 0xFFFF or values.min() < 0):
            raise UserError(f"{path}: pixels beyond 16 bits; save it with 8 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
