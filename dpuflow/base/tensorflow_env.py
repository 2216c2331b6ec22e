"""The one door to TensorFlow: environment first, then the import.

TensorFlow costs seconds to import (benchmarks/job_start.py), so nothing imports it at module
level; functions that need it call `tensorflow()` or `keras()`.
"""

import gc
import os
import sys
import tempfile
from contextlib import contextmanager
from typing import Any

THREADS = 2
"""Least size of the intra-op pool. Kernels split their sums by it, which decides the last
bits of a trained weight: with fewer cores the same threads take turns, and the bytes stay."""


def tensorflow(threads: int | None = None) -> Any:
    """Import TensorFlow, set up for legacy Keras, determinism and a quiet log.

    threads : size of the intra-op pool, if more than THREADS. Only the first call in a
        process can set it; the inter-op pool stays at 1 for determinism.
    """
    threads = max(THREADS, threads or 0)
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # level 2 would still print a CUDA error on every machine without a GPU
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _quiet_stderr(), _quick_import("pandas", "tf_keras"):
        import tensorflow as tf

    # the TensorFlow 1 calls that the conversion needs warn on each use
    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:  # pools exist already: an earlier call decided
            pass
    return tf


def keras(threads: int | None = None) -> Any:
    """Legacy Keras 2 (tf_keras): its H5 loads in the Keras of TensorFlow 2.3 to 2.12."""
    tensorflow(threads)
    with _quiet_stderr(), _quick_import("pandas"):
        import tf_keras

    return tf_keras


@contextmanager
def _quick_import(*optional):
    """Import TensorFlow in less than two thirds of the time: without these packages, not yet imported.

    TensorFlow takes its Keras along, and that pandas, where they are installed: the one is wanted in some
    stages only (`keras`), the other for data frames, which nobody here hands to it. Garbage collection
    stops: it would search a growing heap, all of which stays, again and again.
    """
    away = [name for name in optional if name not in sys.modules]
    collecting = gc.isenabled()
    sys.modules.update(dict.fromkeys(away))  # None: an import of it fails
    gc.disable()
    try:
        yield
    finally:
        for name in away:
            del sys.modules[name]
        if collecting:
            gc.enable()


@contextmanager
def _quiet_stderr():
    """Hold back what the C++ side prints while loading; TensorFlow's log level does not reach it.

    Shown after all when the import fails.
    """
    if "tf_keras" in sys.modules:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(saved, captured.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
