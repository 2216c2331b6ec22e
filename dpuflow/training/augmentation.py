"""Random image changes inside the TensorFlow graph, deterministic by (seed, step).

Every draw is stateless, so a batch's augmentation depends on nothing but the seed and
the number of the step: a run repeats bit for bit whatever the threads do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Augment = Callable[[Any, Any], Any]
"""(step, float32 images) -> images, both TensorFlow's."""


def augmenter(options: Mapping[str, float], seed: int, image_shape: Sequence[int]) -> Augment | None:
    """Return ``augment(step, images)`` for float32 batches (N, H, W, C) in [0, 255].

    options : mapping with any of rotation (degrees), zoom (fraction), shift (fraction of
        the side), shear (fraction), flip (bool), brightness (fraction of 255), contrast
        (fraction), noise (standard deviation in grey levels); each is the half-width of
        a uniform draw. Missing or 0: off. None when nothing is on.
    """
    active = {key: value for key, value in options.items() if value}
    if not active:
        return None
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    height, width, _ = image_shape

    def augment(step: Any, images: Any) -> Any:
        count = tf.shape(images)[0]
        draws = iter(range(100))

        def uniform(limit: float, low: float | None = None) -> Any:
            shape_seed = tf.stack([tf.cast(step, tf.int32), seed * 100 + next(draws)])
            low = -limit if low is None else low
            return tf.random.stateless_uniform([count], shape_seed, low, limit)

        if active.keys() & {"rotation", "zoom", "shift", "shear", "flip"}:
            images = _affine(tf, images, active, uniform, height, width)
        if "contrast" in active:
            factor = 1.0 + uniform(active["contrast"])
            mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
            images = (images - mean) * factor[:, None, None, None] + mean
        if "brightness" in active:
            images += 255.0 * uniform(active["brightness"])[:, None, None, None]
        if "noise" in active:
            shape_seed = tf.stack([tf.cast(step, tf.int32), seed * 100 + next(draws)])
            images += tf.random.stateless_normal(tf.shape(images), shape_seed, 0.0, active["noise"])
        return tf.clip_by_value(images, 0.0, 255.0)

    return augment


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
