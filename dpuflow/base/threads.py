"""How many threads the libraries below NumPy use."""

from contextlib import AbstractContextManager

from threadpoolctl import threadpool_limits


def single_threaded_blas() -> AbstractContextManager:
    """Context: one BLAS thread.

    The matrices of patches are small; on a shared machine OpenBLAS's threads spend five times as long waiting
    for each other as one thread needs alone (measured), and on an idle one they win nothing.
    """
    return threadpool_limits(limits=1, user_api="blas")
