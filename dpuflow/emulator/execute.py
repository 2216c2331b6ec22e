"""Executing a plan over a batch: blocks of images, one worker thread per core.

Consecutive ops run block by block, so intermediates stay in the processor's cache. A
block's result does not depend on its neighbours, so block size and threads change the
speed only.
"""

import math
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from dpuflow.emulator.kernels import Workspace
from dpuflow.emulator.plan import Plan

CACHE_BYTES = 1 << 22
"""Aim for the activations that one block reads and writes in its largest step; smaller blocks
cost more in Python, larger ones leave the processor's cache (measured: flat from here on)."""
LARGEST_BLOCK = 256


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


class Executor:
    """Runs one plan with `threads` worker threads."""

    def __init__(self, plan: Plan, threads: int, bytes_per_value: int) -> None:
        self.plan = plan
        self.threads = threads
        largest = max((math.prod(step.shape[1:]) for step in plan.steps), default=1)
        self.block = max(1, min(LARGEST_BLOCK, CACHE_BYTES // max(1, 2 * largest * bytes_per_value)))
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(threads)

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown()

    def __call__(self, inputs: Mapping[str, np.ndarray], dump: bool = False) -> dict[str, np.ndarray]:
        """{source name: array (N, ...)} -> {name: array (N, ...)} of the outputs, or of all ops."""
        count = next(iter(inputs.values())).shape[0]
        integer = {step.name for step in self.plan.steps if step.integer}
        wanted = [step.name for step in self.plan.steps] if dump else list(self.plan.outputs)
        size = max(1, min(self.block, math.ceil(count / self.threads)))
        ranges = [(start, min(start + size, count)) for start in range(0, count, size)] or [(0, 0)]
        results: dict[str, np.ndarray] = {}
        lock = threading.Lock()

        def run(bounds: tuple[int, int]) -> None:
            start, stop = bounds
            values = self._block({name: x[start:stop] for name, x in inputs.items()})
            with lock:
                for name in wanted:
                    if name not in results:
                        dtype = np.int8 if name in integer else values[name].dtype
                        results[name] = np.empty((count, *values[name].shape[1:]), dtype)
            for name in wanted:
                np.copyto(results[name][start:stop], values[name], casting="unsafe")

        # one matrix product per worker: BLAS threads on top would only get in each other's way
        with _blas().limit(limits=1, user_api="blas"):
            if len(ranges) == 1:
                run(ranges[0])
            else:
                list(self._pool.map(run, ranges))
        return results

    def _block(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        workspace = getattr(self._local, "workspace", None)
        if workspace is None:
            workspace = self._local.workspace = Workspace()
        values = {**self.plan.constants, **inputs}
        for step in self.plan.steps:
            values[step.name] = step.function([values[name] for name in step.inputs], workspace)
        return values
