"""The calibration set: provably not test images, and recorded (`datasets.splits` chooses it)."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import images_at_a_time
from dpuflow.quantize import blocks
from dpuflow.quantize.blocks import Images, Pixels


def batches(images: Pixels) -> Iterator[np.ndarray]:
    """Contiguous images of one input, a few at a time."""
    step = images_at_a_time(images.shape[1:])
    for start in range(0, len(images), step):
        yield np.ascontiguousarray(images[start : start + step])


def _hashes(images: Images | Iterable[np.ndarray]) -> Iterator[bytes]:
    """One hash per image (of all inputs together) of its bytes: equal content, equal hash."""
    for parts in zip(*map(_images, blocks.of_each(images)), strict=True):
        yield hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _images(images: Any) -> Iterator[bytes]:
    for part in batches(images) if hasattr(images, "shape") else images:
        for image in part:
            yield image.tobytes()


def refuse_test_images(calibration_images: Images, test_images: Images | Iterable[np.ndarray]) -> None:
    """UserError if any calibration image is byte-identical to a test image.

    test_images : uint8 (N, H, W, C), for each input where there are several; or arrays (n, H, W, C), one
        after the other.
    """
    test = set(_hashes(test_images))
    count = blocks.count(calibration_images)
    found = [i for i, digest in enumerate(_hashes(calibration_images)) if digest in test]
    if found:
        shown = ", ".join(str(i) for i in found[:10])
        raise UserError(
            f"calibration: {len(found)} of {count} images are also test images "
            f"(positions {shown}); calibrate on training images that do not occur in the test split"
        )


def calibration_record(
    images: Images, indices: ArrayLike | None = None, labels: ArrayLike | None = None
) -> dict[str, Any]:
    """What quantization.json says about the calibration set."""
    digest = hashlib.sha256()
    for pixels in blocks.of_each(images):
        for part in batches(pixels):
            digest.update(part.tobytes())
    record: dict[str, Any] = {"images": blocks.count(images), "images_sha256": digest.hexdigest()}
    if indices is not None:
        record["indices_sha256"] = hashlib.sha256(np.asarray(indices, "<i8").tobytes()).hexdigest()
    if labels is not None:
        classes, counts = np.unique(np.asarray(labels), return_counts=True)
        record["per_class"] = {str(c): int(n) for c, n in zip(classes, counts, strict=True)}
    return record
