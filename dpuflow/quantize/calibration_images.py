"""The calibration set: provably not test images, and recorded (`datasets.splits` chooses it)."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.errors import UserError

Images = np.ndarray | Mapping[str, np.ndarray]
"""(N, H, W, C), or {input's name: array} where a network has several inputs."""


def _of_inputs(images: Images) -> list[np.ndarray]:
    arrays = list(images.values()) if isinstance(images, Mapping) else [images]
    return [np.ascontiguousarray(array) for array in arrays]


def _hashes(images: Images) -> list[bytes]:
    """One hash per image (of all inputs together) of its bytes: equal content, equal hash."""
    return [
        hashlib.blake2b(b"".join(array.tobytes() for array in arrays), digest_size=16).digest()
        for arrays in zip(*_of_inputs(images), strict=True)
    ]


def refuse_test_images(calibration_images: Images, test_images: Images) -> None:
    """UserError if any calibration image is byte-identical to a test image."""
    test = set(_hashes(test_images))
    count = len(_of_inputs(calibration_images)[0])
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
    arrays = _of_inputs(images)
    record: dict[str, Any] = {
        "images": len(arrays[0]),
        "images_sha256": hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest(),
    }
    if indices is not None:
        record["indices_sha256"] = hashlib.sha256(np.asarray(indices, "<i8").tobytes()).hexdigest()
    if labels is not None:
        classes, counts = np.unique(np.asarray(labels), return_counts=True)
        record["per_class"] = {str(c): int(n) for c, n in zip(classes, counts, strict=True)}
    return record
