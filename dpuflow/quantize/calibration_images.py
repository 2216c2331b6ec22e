"""The calibration set: provably not test images, and recorded (`datasets.splits` chooses it)."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.errors import UserError


def _hashes(images: np.ndarray) -> list[bytes]:
    """One hash per image of its bytes: equal content, equal hash."""
    images = np.ascontiguousarray(images)
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def refuse_test_images(calibration_images: np.ndarray, test_images: np.ndarray) -> None:
    """UserError if any calibration image is byte-identical to a test image."""
    test = set(_hashes(test_images))
    found = [i for i, digest in enumerate(_hashes(calibration_images)) if digest in test]
    if found:
        shown = ", ".join(str(i) for i in found[:10])
        raise UserError(
            f"calibration: {len(found)} of {len(calibration_images)} images are also test images "
            f"(positions {shown}); calibrate on training images that do not occur in the test split"
        )


def calibration_record(
    images: np.ndarray, indices: ArrayLike | None = None, labels: ArrayLike | None = None
) -> dict[str, Any]:
    """What quantization.json says about the calibration set."""
    record: dict[str, Any] = {
        "images": len(images),
        "images_sha256": hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest(),
    }
    if indices is not None:
        record["indices_sha256"] = hashlib.sha256(np.asarray(indices, "<i8").tobytes()).hexdigest()
    if labels is not None:
        classes, counts = np.unique(np.asarray(labels), return_counts=True)
        record["per_class"] = {str(c): int(n) for c, n in zip(classes, counts, strict=True)}
    return record
