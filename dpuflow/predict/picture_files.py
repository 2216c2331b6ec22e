"""Picture files of a user's own -> what a network takes.

A file is turned upright (EXIF orientation), cut to a centred rectangle with the sides of
the data set's images (a square for square ones), made grey or RGB and resized by Pillow,
whose bicubic filter widens when it shrinks (antialiased). Transparent pixels become white.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 2**25
"""Of one file: its header may claim any number, and a network looks at a few thousand of them."""


@dataclass
class Picture:
    """One file, read.

    Attributes
    ----------
    original : upright PIL image, mode L or RGB.
    crop : (left, top, right, bottom) of the part that was used, pixels of `original`.
    pixels : uint8 (H, W, C), as the network sees it before its input scaling.
    """

    original: object
    crop: tuple[int, int, int, int]
    pixels: np.ndarray


def read_picture(path, shape, invert=False):
    """The Picture of a PNG or JPG file.

    shape : (H, W, C) of the data set, C 1 (grey, ITU-R 601 luma) or 3 (RGB).
    invert : swap dark and light.
    UserError when the file is damaged, not a picture, or of another format.
    """
    original = _upright(path)
    height, width, channels = shape
    crop = centred_crop(original.size, width, height)
    part = original.crop(crop).convert("L" if channels == 1 else "RGB")
    from PIL import Image

    pixels = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC)).reshape(shape)
    return Picture(original, crop, 255 - pixels if invert else pixels)


def centred_crop(size, width, height):
    """Largest centred (left, top, right, bottom) in an image of `size` (w, h) with sides width : height."""
    across, down = size
    if across * height >= down * width:
        used = max(1, round(down * width / height)), down
    else:
        used = across, max(1, round(across * height / width))
    left, top = (across - used[0]) // 2, (down - used[1]) // 2
    return left, top, left + used[0], top + used[1]


def _upright(path):
    """The file as an upright 8-bit grey or RGB image."""
    from PIL import Image, ImageOps

    try:
        # in memory, where a chunk that claims 4 GB reads as what is there
        content = io.BytesIO(Path(path).read_bytes())
        with Image.open(content, formats=FORMATS) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise UserError(
                    f"{path}: {width} x {height} pixels; save it with {MAX_PIXELS} pixels at most"
                )
            file.load()
            return _eight_bits(ImageOps.exif_transpose(file))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (Image.DecompressionBombError, *_DAMAGE) as error:
        reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({error})"
        raise UserError(
            f"{path}: not a whole PNG or JPG image{reason}; remove it or save it again as one of these"
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


def _eight_bits(image):
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # 16 bits per pixel: convert() would clip, not scale
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
