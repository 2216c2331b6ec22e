"""Dataset images as data URIs: small ones exactly (PNG), large ones as small photographs (JPEG)."""

import base64
import io

import numpy as np

EXACT_SIDE = 48
"""Pixels: images up to this size are shown as they are."""
LARGEST_SIDE = 128
"""Pixels: larger images are shrunk to this, which keeps the page light and the picture to be seen."""
QUALITY = 80


def data_uri(image: np.ndarray, largest: int = LARGEST_SIDE) -> str:
    """uint8 image (H, W, 1) or (H, W, 3), shrunk to `largest` pixels -> "data:image/...;base64,..."."""
    from PIL import Image

    image = np.asarray(image, dtype=np.uint8)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    stream = io.BytesIO()
    if max(picture.size) <= EXACT_SIDE:
        picture.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        if max(picture.size) > largest:
            picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        picture.save(stream, "JPEG", quality=QUALITY, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(stream.getvalue()).decode("ascii")
