"""Random image changes inside the TensorFlow graph, deterministic by (seed, step).

Every draw is stateless, so a batch's augmentation depends on nothing but the seed and
the number of the step: a run repeats bit for bit whatever the threads do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError

SPATIAL = {"rotation", "zoom", "shift", "shear", "flip", "crop"}
COLOUR = {"saturation", "hue"}
YIQ = [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
"""Red, green, blue -> luma and two axes of colour (the television norm NTSC)."""

Augment = Callable[[Any, Any], Any]
"""(step, float32 images) -> images, both TensorFlow's."""


def augmenter(options: Mapping[str, float], seed: int, image_shape: Sequence[int]) -> Augment | None:
    """Return ``augment(step, images)`` for float32 batches (N, H, W, C) in [0, 255].

    options : mapping with any of rotation (degrees), zoom (fraction), shift (fraction of
        the side), shear (fraction), flip (bool), brightness (fraction of 255), contrast
        (fraction), saturation (fraction), hue (degrees), noise (standard deviation in grey levels);
        each is the half-width of a uniform draw. crop: greatest share of each side that is cut off,
        at either end, before the rest is brought to the full size. Missing or 0: off. None when
        nothing is on.

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

    def augment(step: Any, images: Any) -> Any:
        count = tf.shape(images)[0]
        draws = iter(range(100))

        def uniform(limit: float, low: float | None = None) -> Any:
            shape_seed = tf.stack([tf.cast(step, tf.int32), seed * 100 + next(draws)])
            low = -limit if low is None else low
            return tf.random.stateless_uniform([count], shape_seed, low, limit)

        if active.keys() & SPATIAL:
            images = _affine(tf, images, active, uniform, height, width)
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
        return tf.clip_by_value(images, 0.0, 255.0)

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


def _affine(tf, images, active, uniform, height, width):
    """One bilinear resampling for rotation, zoom, shear, shift and flip together."""
    angle = uniform(active.get("rotation", 0.0) * math.pi / 180)
    scale_x = 1.0 + uniform(active.get("zoom", 0.0))
    scale_y = 1.0 + uniform(active.get("zoom", 0.0))
    shear = uniform(active.get("shear", 0.0))
    shift_x = width * uniform(active.get("shift", 0.0))
    shift_y = height * uniform(active.get("shift", 0.0))
    if active.get("flip"):
        scale_x *= tf.sign(uniform(1.0) + 1e-9)
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
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1),
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )
