"""The one door to TensorFlow: environment first, then the import.

TensorFlow costs 2-7 s to import (facts snakemake.md), so nothing imports it at module
level; functions that need it call `tensorflow()` or `keras()`.
"""

import os


def tensorflow(threads=None):
    """Import TensorFlow, set up for legacy Keras, determinism and a quiet log.

    threads : size of the intra-op pool (None: TensorFlow's default). Only the first
        call in a process can set it; the inter-op pool stays at 1 for determinism.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    if threads is not None and tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:  # pools exist already: an earlier call decided
            pass
    return tf


def keras(threads=None):
    """Legacy Keras 2 (tf_keras): its H5 loads in the Keras of TensorFlow 2.3 to 2.12."""
    tensorflow(threads)
    import tf_keras

    return tf_keras
