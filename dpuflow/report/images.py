"""Dataset images as PNG data URIs."""

import base64
import io

import numpy as np

LARGEST_SIDE = 96
"""Pixels; larger images are shrunk, which keeps the page light."""


def data_uri(image: np.ndarray) -> str:
    """uint8 image (H, W, 1) or (H, W, 3) -> "data:image/png;base64,..."."""
    from PIL import Image

    image = np.asarray(image, dtype=np.uint8)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
