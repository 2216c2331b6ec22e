"""Picture files of a user's own -> what a network takes.

A file is turned upright (EXIF orientation), cut to a centred rectangle with the sides of
the data set's images (a square for square ones), made grey or RGB and resized by Pillow,
whose bicubic filter widens when it shrinks (antialiased). Transparent pixels become white.
"""

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpuflow.base.errors import UserError

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


def read_picture(path: Path | str, shape: tuple[int, int, int], invert: bool = False) -> Picture:
    """The Picture of a file in one of FORMATS.

    shape : (H, W, C) of the data set, C 1 (grey, ITU-R 601 luma) or 3 (RGB).
    invert : swap dark and light.
    UserError when the file is damaged, not a picture, or of another format.
    """
    from PIL import Image

    decoded, size = _upright(path)
    height, width, channels = shape
    part = decoded.crop(centred_crop(decoded.size, width, height)).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC)).reshape(shape)
    decoded.thumbnail((KEPT_SIDE, KEPT_SIDE))
    crop = centred_crop(size, width, height)
    return Picture(decoded, crop, 255 - pixels if invert else pixels, size)


def read_pictures(
    paths: Iterable[str], shape: tuple[int, int, int], invert: bool = False
) -> tuple[dict[str, Picture], dict[str, str]]:
    """(pictures, faults): the Pictures of the files that can be read, by path, and why the others cannot."""
    pictures, faults = {}, {}
    for path in paths:
        try:
            pictures[path] = read_picture(path, shape, invert)
        except UserError as error:
            faults[path] = str(error)
    return pictures, faults


def centred_crop(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """Largest centred (left, top, right, bottom) in an image of `size` (w, h) with sides width : height."""
    across, down = size
    if across * height >= down * width:
        used = max(1, round(down * width / height)), down
    else:
        used = across, max(1, round(across * height / width))
    left, top = (across - used[0]) // 2, (down - used[1]) // 2
    return left, top, left + used[0], top + used[1]


def _upright(path):
    """(the file as an upright 8-bit grey or RGB image, its whole upright size)."""
    from PIL import Image, ImageOps

    kind = OTHER_PICTURES.get(Path(path).suffix.lower())
    if kind:
        raise UserError(f"{path}: a picture in {kind}, which is not read here; save it as JPG or PNG")
    try:
        # in memory, where a chunk that claims 4 GB reads as what is there
        content = io.BytesIO(Path(path).read_bytes())
        with Image.open(content, formats=FORMATS) as file:
            size = file.size
            if size[0] * size[1] > MAX_PIXELS:
                raise UserError(
                    f"{path}: {size[0]} x {size[1]} pixels; save it with {MAX_PIXELS} pixels at most"
                )
            if size[0] * size[1] > LARGE and file.format in ("JPEG", "MPO"):
                file.draft(None, (DECODED_SIDE, DECODED_SIDE))
            file.load()
            upright = ImageOps.exif_transpose(file)
            # decoded at a fraction, it tells by its longer side whether it was turned
            turned = (upright.width < upright.height) != (size[0] < size[1])
            return _eight_bits(upright, path), tuple(reversed(size)) if turned else size
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
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
