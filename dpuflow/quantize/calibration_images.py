"""Which images calibrate: from training only, stratified by class, provably not test images."""

import hashlib

import numpy as np

from dpuflow.errors import UserError


def select_calibration(labels, indices, count, seed=0):
    """Choose `count` of the training `indices`, as evenly over the classes as they allow.

    labels : (N,) labels of the whole file; indices : the training indices into it.
    Returns int64 indices, ordered so that any run of consecutive images mixes the classes.
    """
    indices = np.asarray(indices)
    if count > len(indices):
        raise UserError(
            f"calibration.images is {count}, but the training split holds {len(indices)} images; lower it"
        )
    random = np.random.default_rng(seed)
    shuffled = indices[random.permutation(len(indices))]
    queues = [shuffled[labels[shuffled] == c] for c in np.unique(labels[indices])]
    rank = np.concatenate([np.arange(len(queue)) for queue in queues])
    # round robin: first of every class, then second of every class, ...
    order = np.argsort(rank, kind="stable")
    return np.concatenate(queues)[order][:count].astype(np.int64)


def image_hashes(images):
    """Hashes of the images' bytes, as a set: equal content, equal hash."""
    images = np.ascontiguousarray(images)
    return {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images}


def refuse_test_images(calibration_images, test_images):
    """UserError if any calibration image is byte-identical to a test image."""
    test = image_hashes(test_images)
    images = np.ascontiguousarray(calibration_images)
    found = [
        i
        for i, image in enumerate(images)
        if hashlib.blake2b(image.tobytes(), digest_size=16).digest() in test
    ]
    if found:
        shown = ", ".join(str(i) for i in found[:10])
        raise UserError(
            f"calibration: {len(found)} of {len(images)} images are also test images (calibration positions {shown}); "
            "calibrate on training images that do not occur in the test split"
        )


def calibration_record(images, indices=None, labels=None):
    """What quantization.json says about the calibration set."""
    record = {
        "images": len(images),
        "images_sha256": hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest(),
    }
    if indices is not None:
        record["indices_sha256"] = hashlib.sha256(np.asarray(indices, "<i8").tobytes()).hexdigest()
    if labels is not None:
        classes, counts = np.unique(np.asarray(labels), return_counts=True)
        record["per_class"] = {str(c): int(n) for c, n in zip(classes, counts, strict=True)}
    return record
