"""Fast exact kernels of the integer operations, on NumPy and BLAS.

int8 dot products run as float32 matrix products wherever every partial sum provably
stays below 2**24 (docs/reference/numerics.md, "Exactness in floating point"), as float64 ones
elsewhere. Activations travel between kernels as float32 arrays that hold integers of
[-128, 127]. Each kernel is made once for given input shapes and then called on blocks
of images: ``kernel([x, ...], workspace) -> y``.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import DTypeLike

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.device.dpuczdx8g import REFERENCE_GUARD_BITS, average_pool_factor
from dpuflow.emulator import oracle
from dpuflow.emulator.convolution_kernels import CONVOLUTIONS
from dpuflow.emulator.operations import (
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    InsideAverage,
    Nonlinear,
    Operation,
    PixelShuffle,
    Pool,
    Resample,
    Slice,
    output_shape,
)
from dpuflow.emulator.requantise import OutOfRangeError, Requantise
from dpuflow.emulator.resampling import Blended, Picked
from dpuflow.emulator.workspace import VALUE, Kernel, Workspace, padded
from dpuflow.ops.pooling import InsideAveragePool
from dpuflow.ops.rearranging import pixel_shuffle
from dpuflow.xir.shapes import Shape

log = logging.getLogger("dpuflow")


class PoolKernel:
    """Max or average pooling, separable: first along rows, then along columns."""

    def __init__(self, op: Pool, shape: Shape) -> None:
        self.op = op
        kernel_w, kernel_h = op.kernel
        _, self.out_h, self.out_w, _ = output_shape(op, [shape])
        self.combine, self.fill = {"MAX": (np.maximum, -128), "AVG": (np.add, 0)}[op.kind]
        factor, shift, largest = 1, op.shift, 128
        if op.kind == "AVG":
            factor, bits = average_pool_factor(kernel_h, kernel_w)
            shift, largest = bits + op.shift, 128 * kernel_h * kernel_w * factor
        elif shift == 0:
            self.requantise = None
            return
        self.requantise = Requantise([largest], shift, Nonlinear(), 0)
        self.factor = factor * self.requantise.scale

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        op, (x,) = self.op, inputs
        dtype = VALUE if self.requantise is None else self.requantise.dtype
        source = padded(self, x, op.pad, workspace, dtype, self.fill)
        n, _, w, c = source.shape
        (kernel_w, kernel_h), (step_w, step_h) = op.kernel, op.stride
        rows = workspace.take(self, "rows", (n, self.out_h, w, c), dtype)
        self._reduce(lambda k: source[:, k : k + (self.out_h - 1) * step_h + 1 : step_h], kernel_h, rows)
        out = workspace.take(self, "reduced", (n, self.out_h, self.out_w, c), dtype)
        self._reduce(lambda k: rows[:, :, k : k + (self.out_w - 1) * step_w + 1 : step_w], kernel_w, out)
        if self.requantise is None:
            return out
        out *= dtype.type(self.factor)
        return self.requantise(out, workspace.take(self, "out", out.shape))

    def _reduce(self, part: Callable[[int], np.ndarray], count: int, out: np.ndarray) -> None:
        if count == 1:
            np.copyto(out, part(0))
            return
        self.combine(part(0), part(1), out=out)
        for k in range(2, count):
            self.combine(out, part(k), out=out)


class InsideAverageKernel:
    """Average pooling of what lies in the map, in float64: each window with its own factor."""

    def __init__(self, op: InsideAverage, shape: Shape) -> None:
        operator = InsideAveragePool(op.kernel, op.stride, op.pad)
        self.operator, self.shift = operator, -op.shift
        operator.counts(shape[1:])

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        result = np.floor(self.operator.average(inputs[0], self.shift) + 0.5)
        return np.clip(result, INT8_MIN, INT8_MAX, out=result).astype(VALUE)


class EltwiseKernel:
    """Element-wise addition with guard bits, or multiplication, of any number of inputs."""

    def __init__(self, op: Eltwise, shapes: Sequence[Shape]) -> None:
        self.op = op
        if op.kind == "ADD":
            lowest = min(op.fix_in)
            self.shifts = [REFERENCE_GUARD_BITS - (fix - lowest) for fix in op.fix_in]
            shift, largest = (
                REFERENCE_GUARD_BITS + lowest - op.fix_out,
                sum(128 << REFERENCE_GUARD_BITS for _ in op.fix_in),
            )
        else:
            shift, largest = sum(op.fix_in) - op.fix_out, 128 ** len(op.fix_in)
        self.requantise = Requantise([largest], shift, op.nonlinear, op.fix_out)
        self.shape = np.broadcast_shapes(*(shape[1:] for shape in shapes))

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        dtype = self.requantise.dtype
        sums = workspace.take(self, "sums", (inputs[0].shape[0], *self.shape), dtype)
        if self.op.kind == "MUL":
            np.copyto(sums, inputs[0])
            for x in inputs[1:]:
                sums *= x
        else:
            sums.fill(0)
            for x, shift in zip(inputs, self.shifts, strict=True):
                scaled = x * dtype.type(2.0**shift)
                sums += np.floor(scaled, out=scaled) if shift < 0 else scaled
        if self.requantise.scale != 1:
            sums *= dtype.type(self.requantise.scale)
        return self.requantise(sums, workspace.take(self, "out", sums.shape))


class ConcatKernel:
    """Inputs side by side, each through a table where its fix_point is not the output's."""

    def __init__(self, op: Concat, dtype: DTypeLike) -> None:
        self.axis = op.axis
        every = np.arange(-128, 128, dtype=np.int8)
        rounded = [oracle.concat(Concat(0, (shift,)), every).astype(dtype) for shift in op.shifts]
        self.tables = [table if shift else None for table, shift in zip(rounded, op.shifts, strict=True)]

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        parts = [
            x if table is None else table[x.astype(np.int16) + 128]
            for x, table in zip(inputs, self.tables, strict=True)
        ]
        # a constant among the inputs is one image for all
        images = np.broadcast_shapes(*(part.shape[:1] for part in parts))
        return np.concatenate([np.broadcast_to(p, (*images, *p.shape[1:])) for p in parts], axis=self.axis)


class TableKernel:
    """Any function of one int8 value: a table of 256 entries."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table.astype(VALUE)

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        return self.table[inputs[0].astype(np.int16) + 128]


class ShuffleKernel:
    """Pixels to channels or back, through a table where the fix_point changes."""

    def __init__(self, op: PixelShuffle, dtype: DTypeLike) -> None:
        self.op = op
        every = np.arange(-128, 128, dtype=np.int8)
        self.table = oracle.concat(Concat(0, (op.shift,)), every).astype(dtype) if op.shift else None

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        (x,) = inputs
        if self.table is not None:
            x = self.table[x.astype(np.int16) + 128]
        return pixel_shuffle(x, self.op.scale, self.op.upscale)


class SliceKernel:
    """Every so many values of each axis, through a table where the fix_point changes."""

    def __init__(self, op: Slice, dtype: DTypeLike) -> None:
        self.index = op.index
        every = np.arange(-128, 128, dtype=np.int8)
        self.table = oracle.concat(Concat(0, (op.shift,)), every).astype(dtype) if op.shift else None

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        x = inputs[0][self.index]
        return x if self.table is None else self.table[x.astype(np.int16) + 128]


class OracleKernel:
    """The slow implementation, for shifts that no floating-point type can hold exactly."""

    def __init__(self, op: Operation) -> None:
        self.op = op

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        return oracle.apply(self.op, *(x.astype(np.int8) for x in inputs)).astype(VALUE)


def resample_kernel(op: Resample, shape: Shape, dtype: DTypeLike = VALUE) -> Kernel:
    """Kernel of a Resample; `dtype` is of a NEAREST or STRIDE kernel's input and output."""
    if op.kind == "BILINEAR":
        return Blended(op, shape)
    every = np.arange(-128, 128, dtype=np.int8)
    return Picked(op, shape, dtype, oracle.concat(Concat(0, (op.shift,)), every))


def numpy_kernel(op: Operation, shapes: Sequence[Shape]) -> Kernel:
    """NumPy kernel of `op` for inputs of `shapes` (batch first, its size is free): float32 in and out.

    The slow kernel where no floating-point type holds the numbers, and for an operation that has no fast
    one yet, which is logged: never wrong, only slow.
    """
    oracle.require(op)
    maker = KERNELS.get(type(op))
    if maker is None:
        log.warning(
            "warning: no fast kernel of %s (dpuflow.emulator.kernels); it runs on the slow exact one",
            type(op).__name__,
        )
        return OracleKernel(op)
    try:
        return maker(op, shapes)
    except OutOfRangeError:
        return OracleKernel(op)


KERNELS: dict[type, Callable[..., Kernel]] = {
    Conv: lambda op, shapes: CONVOLUTIONS[op.kind](op, shapes[0]),
    Pool: lambda op, shapes: PoolKernel(op, shapes[0]),
    InsideAverage: lambda op, shapes: InsideAverageKernel(op, shapes[0]),
    Eltwise: EltwiseKernel,
    Concat: lambda op, shapes: ConcatKernel(op, VALUE),
    Resample: lambda op, shapes: resample_kernel(op, shapes[0]),
    PixelShuffle: lambda op, shapes: ShuffleKernel(op, VALUE),
    Slice: lambda op, shapes: SliceKernel(op, VALUE),
    HardSigmoid: lambda op, shapes: TableKernel(oracle.apply(op, np.arange(-128, 128, dtype=np.int8))),
}
"""Operation -> its NumPy kernel."""
