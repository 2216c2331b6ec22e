"""Random image changes inside the TensorFlow graph, deterministic by (seed, step).

Every draw is stateless, so a batch's augmentation depends on nothing but the seed and
the number of the step: a run repeats bit for bit whatever the threads do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError

SPATIAL = {"rotation", "zoom", "shift", "shear", "flip", "flip_vertical", "crop"}
COLOUR = {"saturation", "hue"}
YIQ = [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
"""Red, green, blue -> luma and two axes of colour (the television norm NTSC)."""

Augment = Callable[[Any, Any], Any]
"""(step, float32 images) -> images, both TensorFlow's."""
AugmentBoth = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(step, float32 images, targets) -> (images, targets)."""
Move = Callable[[Any, Any], Any]
"""(targets, transforms (N, 8) from a new image's pixel to an old one's) -> targets of the new images."""


def augmenter(options: Mapping[str, float], seed: int, image_shape: Sequence[int]) -> Augment | None:
    """Return ``augment(step, images)``, for images without targets that move; see `augmenter_of_both`."""
    both = augmenter_of_both(options, seed, image_shape)
    return (lambda step, images: both(step, images, None)[0]) if both else None


def augmenter_of_both(
    options: Mapping[str, float], seed: int, image_shape: Sequence[int], move: Move | None = None
) -> AugmentBoth | None:
    """Return ``augment(step, images, targets)`` for float32 batches (N, H, W, C) in [0, 255].

    options : mapping with any of rotation (degrees), zoom (fraction), shift (fraction of
        the side), shear (fraction), flip (bool), brightness (fraction of 255), contrast
        (fraction), saturation (fraction), hue (degrees), noise (standard deviation in grey levels);
        each is the half-width of a uniform draw. crop: greatest share of each side that is cut off,
        at either end, before the rest is brought to the full size. flip_vertical (bool): upside down.
        Missing or 0: off. None when nothing is on.
    move : how targets follow their images; None where they stay as they are (labels).

    UserError for saturation and hue on images that are not red, green, blue.
    """
    active = {key: value for key, value in options.items() if value}
    if not active:
        return None
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    height, width, channels = image_shape
    coloured = sorted(active.keys() & COLOUR)
    if coloured and channels != 3:
        raise UserError(
            f"training.augmentation: {' and '.join(coloured)} is for images of 3 channels, these have "
            f"{channels}"
        )

    def augment(step: Any, images: Any, targets: Any) -> tuple[Any, Any]:
        count = tf.shape(images)[0]
        draws = iter(range(100))

        def uniform(limit: float, low: float | None = None) -> Any:
            shape_seed = tf.stack([tf.cast(step, tf.int32), seed * 100 + next(draws)])
            low = -limit if low is None else low
            return tf.random.stateless_uniform([count], shape_seed, low, limit)

        if active.keys() & SPATIAL:
            transforms = _affine(tf, active, uniform, height, width)
            images = _resampled(tf, images, transforms)
            targets = targets if move is None else move(targets, transforms)
        if "contrast" in active:
            factor = 1.0 + uniform(active["contrast"])
            mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
            images = (images - mean) * factor[:, None, None, None] + mean
        if "brightness" in active:
            images += 255.0 * uniform(active["brightness"])[:, None, None, None]
        if coloured:
            images = _colours(tf, images, active, uniform)
        if "noise" in active:
            shape_seed = tf.stack([tf.cast(step, tf.int32), seed * 100 + next(draws)])
            images += tf.random.stateless_normal(tf.shape(images), shape_seed, 0.0, active["noise"])
        return tf.clip_by_value(images, 0.0, 255.0), targets

    return augment


def _colours(tf, images, active, uniform):
    """Hue turned and saturation stretched about the grey of each pixel: one matrix for each image, in YIQ."""
    gain = 1.0 + uniform(active.get("saturation", 0.0))
    angle = uniform(active.get("hue", 0.0) * math.pi / 180)
    cos, sin, zero = gain * tf.cos(angle), gain * tf.sin(angle), tf.zeros_like(angle)
    turned = tf.stack(
        [tf.stack(row, 1) for row in ([zero + 1.0, zero, zero], [zero, cos, -sin], [zero, sin, cos])], 1
    )
    to_yiq = np.array(YIQ, np.float32)
    matrix = np.linalg.inv(to_yiq).astype(np.float32) @ turned @ to_yiq
    flat = tf.reshape(images, [tf.shape(images)[0], -1, 3])
    return tf.reshape(tf.matmul(flat, matrix, transpose_b=True), tf.shape(images))


def _affine(tf, active, uniform, height, width):
    """Rotation, zoom, shear, shift, crop and flips together: transforms (N, 8), output -> input pixel."""
    angle = uniform(active.get("rotation", 0.0) * math.pi / 180)
    scale_x = 1.0 + uniform(active.get("zoom", 0.0))
    scale_y = 1.0 + uniform(active.get("zoom", 0.0))
    shear = uniform(active.get("shear", 0.0))
    shift_x = width * uniform(active.get("shift", 0.0))
    shift_y = height * uniform(active.get("shift", 0.0))
    if active.get("flip"):
        scale_x *= tf.sign(uniform(1.0) + 1e-9)
    if active.get("flip_vertical"):
        scale_y *= tf.sign(uniform(1.0) + 1e-9)
    if "crop" in active:
        left_x, left_y = (1.0 - uniform(active["crop"], 0.0) for _ in range(2))
        scale_x, scale_y = scale_x * left_x, scale_y * left_y
        shift_x += width * (1.0 - left_x) * uniform(0.5)
        shift_y += height * (1.0 - left_y) * uniform(0.5)
    cos, sin = tf.cos(angle), tf.sin(angle)
    a0, a1 = cos * scale_x, (cos * shear - sin) * scale_y
    b0, b1 = sin * scale_x, (sin * shear + cos) * scale_y
    # output pixel -> input pixel, about the image's centre
    cx, cy = (width - 1) / 2, (height - 1) / 2
    a2 = cx - a0 * cx - a1 * cy + shift_x
    b2 = cy - b0 * cx - b1 * cy + shift_y
    zero = tf.zeros_like(a0)
    return tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


def _resampled(tf, images, transforms, interpolation="BILINEAR", fill_mode="NEAREST", fill=0.0):
    """Images (N, H, W, C) of the same size, each of their pixels read where the transform says."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.shape(images)[1:3],
        interpolation=interpolation,
        fill_mode=fill_mode,
        fill_value=fill,
    )


def move_masks(masks: Any, transforms: Any, nothing: int) -> Any:
    """Masks uint8 (N, H, W) as their images are moved; `nothing` where a pixel comes from outside."""
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    grid = tf.cast(masks, tf.float32)[..., None]
    moved = _resampled(tf, grid, transforms, "NEAREST", "CONSTANT", float(nothing))
    return tf.cast(moved[..., 0], tf.uint8)


def move_boxes(boxes: Any, transforms: Any) -> Any:
    """Corners (N, M, 4: x1, y1, x2, y2 in pixels) as their images are moved, not cut at the edges.

    Of a turned or sheared box the upright one around it.
    """
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    a0, a1, a2, b0, b1, b2 = (transforms[:, k, None, None] for k in range(6))
    # all four corners, in the pixels' own numbers (the middle of pixel 0 is 0)
    x = tf.gather(boxes, [0, 2, 0, 2], axis=2) - 0.5 - a2
    y = tf.gather(boxes, [1, 1, 3, 3], axis=2) - 0.5 - b2
    determinant = a0 * b1 - a1 * b0
    new_x, new_y = (b1 * x - a1 * y) / determinant + 0.5, (a0 * y - b0 * x) / determinant + 0.5
    return tf.stack(
        [reduce(part, 2) for reduce in (tf.reduce_min, tf.reduce_max) for part in (new_x, new_y)], axis=2
    )
