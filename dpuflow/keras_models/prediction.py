"""Predictions of a Keras model, every image counted."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dpuflow.base.tensorflow_env import tensorflow

Predictor = Callable[[np.ndarray], Any]
"""float inputs (N, H, W, C) -> float32 outputs (N, ...), of a model with several outputs a list of them."""


def predictor(model: Any, batch_size: int = 512) -> Predictor:
    """Return ``predict(x)``: output (N, ...) float32 for float inputs (N, H, W, C), of several a list.

    Every image counts, the last partial batch too. Plain calls of one compiled
    function: `model.predict` would build a tf.data pipeline each time.
    """
    tf = tensorflow()
    call = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)

    def predict(x: np.ndarray) -> Any:
        found = [call(tf.constant(x[i : i + batch_size])) for i in range(0, len(x), batch_size)]
        if not isinstance(found[0], list | tuple):
            return np.concatenate([part.numpy() for part in found])
        return [np.concatenate([part.numpy() for part in parts]) for parts in zip(*found, strict=True)]

    return predict
