"""Predictions of a Keras model, every image counted."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dpuflow.base.tensorflow_env import tensorflow

Predictor = Callable[[np.ndarray], np.ndarray]
"""float inputs (N, H, W, C) -> float32 outputs (N, classes)."""


def predictor(model: Any, batch_size: int = 512) -> Predictor:
    """Return ``predict(x)``: softmax output (N, classes) float32 for float inputs (N, H, W, C).

    Every image counts, the last partial batch too. Plain calls of one compiled
    function: `model.predict` would build a tf.data pipeline each time.
    """
    tf = tensorflow()
    call = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)

    def predict(x: np.ndarray) -> np.ndarray:
        batches = range(0, len(x), batch_size)
        return np.concatenate([call(tf.constant(x[i : i + batch_size])).numpy() for i in batches])

    return predict
