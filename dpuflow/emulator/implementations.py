"""Which implementation executes an operation: the compiled kernels where they can, else NumPy."""

from collections.abc import Sequence

import numpy as np

from dpuflow.emulator import c_kernels, oracle
from dpuflow.emulator.kernels import ConcatKernel, Kernel, numpy_kernel, resample_kernel
from dpuflow.emulator.operations import Concat, Conv, Operation, Pool, Resample
from dpuflow.emulator.requantise import OutOfRangeError
from dpuflow.xir.shapes import Shape


def prepare(op: Operation, shapes: Sequence[Shape], native: bool = False) -> Kernel:
    """Kernel of `op` for inputs of `shapes` (batch first, its size is free).

    It takes and returns float32 arrays; with `native`, int8 arrays (see `c_kernels.library`).
    """
    oracle.require(op)
    if not native:
        return numpy_kernel(op, shapes)
    try:
        if isinstance(op, Conv):
            return c_kernels.NativeConv(op, shapes[0])
        if isinstance(op, Pool):
            return c_kernels.NativeMaxPool(op, shapes[0])
        if isinstance(op, Concat):
            return ConcatKernel(op, np.int8)
        if isinstance(op, Resample) and op.kind != "BILINEAR":
            return resample_kernel(op, shapes[0], np.int8)
    except OutOfRangeError:
        pass
    return c_kernels.ThroughFloat(numpy_kernel(op, shapes))
