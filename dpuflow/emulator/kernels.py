"""Fast exact kernels of the integer operations, on NumPy and BLAS.

int8 dot products run as float32 matrix products wherever every partial sum provably
stays below 2**24 (docs/reference/numerics.md, "Exactness in floating point"), as float64 ones
elsewhere. Activations travel between kernels as float32 arrays that hold integers of
[-128, 127]. Each kernel is made once for given input shapes and then called on blocks
of images: ``kernel([x, ...], workspace) -> y``.
"""

import logging
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import DTypeLike

from dpuflow.base.numerics import INT8_MAX, INT8_MIN, row_sums
from dpuflow.device.dpuczdx8g import REFERENCE_GUARD_BITS, average_pool_factor
from dpuflow.emulator import oracle
from dpuflow.emulator.operations import (
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    InsideAverage,
    Nonlinear,
    Operation,
    Pad,
    Pair,
    PixelShuffle,
    Pool,
    Resample,
    Slice,
    plain_of_transposed,
    window_output,
)
from dpuflow.emulator.requantise import OutOfRangeError, Requantise
from dpuflow.emulator.resampling import Blended, Picked
from dpuflow.ops.pooling import InsideAveragePool
from dpuflow.ops.rearranging import pixel_shuffle
from dpuflow.xir.shapes import Shape

log = logging.getLogger("dpuflow")

VALUE = np.dtype(np.float32)


class Workspace:
    """Scratch arrays of one worker, allocated once and reused for every block of images.

    An array obtained by `take` is valid until the same owner takes the same purpose again.
    """

    def __init__(self) -> None:
        self._arrays: dict[Hashable, np.ndarray] = {}

    def take(
        self,
        owner: object,
        purpose: Hashable,
        shape: Shape,
        dtype: DTypeLike = VALUE,
        fill: float | None = None,
    ) -> np.ndarray:
        """Array of `shape`; `fill` is written only when the array is made."""
        key = (id(owner), purpose)
        kept = self._arrays.get(key)
        if kept is None or kept.shape[0] < shape[0] or kept.shape[1:] != tuple(shape[1:]):
            kept = np.empty(shape, dtype) if fill is None else np.full(shape, fill, dtype)
            self._arrays[key] = kept
        return kept[: shape[0]]


Kernel = Callable[[Sequence[np.ndarray], Workspace], np.ndarray]
"""Function(inputs, workspace) -> output, batch first; the output may lie in the workspace."""


def padded(
    owner: object, x: np.ndarray, pad: Pad, workspace: Workspace, dtype: DTypeLike, fill: float = 0
) -> np.ndarray:
    """x (N, H, W, C) as `dtype` with a border of `fill`; x itself if nothing changes."""
    left, right, top, bottom = pad
    if not any(pad):
        return x if x.dtype == dtype else x.astype(dtype)
    n, h, w, c = x.shape
    buffer = workspace.take(owner, "padded", (n, h + top + bottom, w + left + right, c), dtype, fill)
    buffer[:, top : top + h, left : left + w] = x
    return buffer


def window_view(
    x: np.ndarray, kernel: Pair, stride: Pair, dilation: Pair, out_h: int, out_w: int
) -> np.ndarray:
    """View (N, OH, OW, KH, KW, C) of the sliding windows of x (N, H, W, C)."""
    n, _, _, c = x.shape
    sn, sh, sw, sc = x.strides
    return np.lib.stride_tricks.as_strided(
        x,
        (n, out_h, out_w, kernel[1], kernel[0], c),
        (sn, sh * stride[1], sw * stride[0], sh * dilation[1], sw * dilation[0], sc),
        writeable=False,
    )


class DenseConv:
    """Convolution as matrix product over unfolded windows; groups one after the other."""

    def __init__(self, op: Conv, shape: Shape) -> None:
        self.op = op
        _, h, w, _ = shape
        (kernel_w, kernel_h), (dil_w, dil_h) = op.kernel, op.dilation
        self.out_h = window_output(h, kernel_h, op.stride[1], dil_h, op.pad[2], op.pad[3])
        self.out_w = window_output(w, kernel_w, op.stride[0], dil_w, op.pad[0], op.pad[1])
        rows = op.weights.reshape(op.weights.shape[0], -1)
        self.requantise = Requantise(
            128 * row_sums(rows)[0], op.shift_cut, op.nonlinear, op.fix_out, op.bias, op.shift_bias
        )
        self.dtype = self.requantise.dtype
        matrix = rows.astype(self.dtype)
        matrix *= self.requantise.scale  # a power of two
        self.matrices = [np.ascontiguousarray(part.T) for part in np.split(matrix, op.group)]
        # few input channels: unfold one window position at a time, in long runs along a row
        self.by_position = op.group == 1 and op.weights.shape[3] * kernel_w < 16
        self.whole = not any(op.pad) and self.out_h == self.out_w == 1 and (kernel_w, kernel_h) == (w, h)
        self.pointwise = not any(op.pad) and op.kernel == (1, 1) and op.stride == (1, 1)

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        op, (x,) = self.op, inputs
        n = x.shape[0]
        source = padded(self, x, op.pad, workspace, self.dtype)
        count, outputs = n * self.out_h * self.out_w, op.weights.shape[0]
        sums = workspace.take(self, "sums", (n, self.out_h, self.out_w, outputs), self.dtype)
        flat = sums.reshape(count, outputs)
        if op.group == 1:
            np.matmul(self._unfold(source, workspace), self.matrices[0], out=flat)
        else:
            width, step = outputs // op.group, op.weights.shape[3]
            for g, matrix in enumerate(self.matrices):
                part = source[..., g * step : (g + 1) * step]
                flat[:, g * width : (g + 1) * width] = self._unfold(part, workspace) @ matrix
        if sums.dtype == VALUE and not self.requantise.leaky:
            return self.requantise(sums, sums)
        return self.requantise(sums, workspace.take(self, "out", sums.shape))

    def _unfold(self, source: np.ndarray, workspace: Workspace) -> np.ndarray:
        """Rows (N * OH * OW, KH * KW * C) of window contents."""
        op = self.op
        n, channels = source.shape[0], source.shape[3]
        size = op.kernel[0] * op.kernel[1] * channels
        count = n * self.out_h * self.out_w
        if op.group == 1 and (self.pointwise or self.whole):
            return source.reshape(count, size)
        view = window_view(source, op.kernel, op.stride, op.dilation, self.out_h, self.out_w)
        if self.by_position:
            columns = workspace.take(self, "columns", (n, size, self.out_h, self.out_w), self.dtype)
            np.copyto(
                columns.reshape(n, *op.kernel[::-1], channels, self.out_h, self.out_w),
                view.transpose(0, 3, 4, 5, 1, 2),
            )
            return _image_rows(columns)
        shape = (n, self.out_h, self.out_w, *op.kernel[::-1], channels)
        rows = workspace.take(self, "rows", shape, self.dtype)
        np.copyto(rows, view)
        return rows.reshape(count, size)


def _image_rows(columns: np.ndarray) -> np.ndarray:
    """(N, K, OH, OW) -> (N * OH * OW, K)."""
    n, size, out_h, out_w = columns.shape
    return columns.reshape(n, size, out_h * out_w).transpose(0, 2, 1).reshape(n * out_h * out_w, size)


class DepthwiseConv:
    """Depthwise convolution: one multiply-add of whole shifted maps per kernel position."""

    def __init__(self, op: Conv, shape: Shape) -> None:
        self.op = op
        _, h, w, _ = shape
        (kernel_w, kernel_h), (dil_w, dil_h) = op.kernel, op.dilation
        self.out_h = window_output(h, kernel_h, op.stride[1], dil_h, op.pad[2], op.pad[3])
        self.out_w = window_output(w, kernel_w, op.stride[0], dil_w, op.pad[0], op.pad[1])
        weights = op.weights[0].astype(np.int64)
        self.requantise = Requantise(
            128 * np.abs(weights).sum(axis=(0, 1)),
            op.shift_cut,
            op.nonlinear,
            op.fix_out,
            op.bias,
            op.shift_bias,
        )
        self.weights = (weights * self.requantise.scale).astype(self.requantise.dtype)

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        op, (x,) = self.op, inputs
        dtype = self.requantise.dtype
        source = padded(self, x, op.pad, workspace, dtype)
        shape = (x.shape[0], self.out_h, self.out_w, x.shape[3])
        sums = workspace.take(self, "sums", shape, dtype)
        product = workspace.take(self, "product", shape, dtype)
        view = window_view(source, op.kernel, op.stride, op.dilation, self.out_h, self.out_w)
        sums.fill(0)
        for row in range(op.kernel[1]):
            for column in range(op.kernel[0]):
                np.multiply(view[:, :, :, row, column], self.weights[row, column], out=product)
                sums += product
        return self.requantise(sums, workspace.take(self, "out", shape))


class TransposedConv:
    """Transposed convolution: an ordinary one of the map with zeros between its pixels."""

    def __init__(self, op: Conv, shape: Shape) -> None:
        plain, spread = plain_of_transposed(op, shape)
        self.op, self.spread = op, spread[1:]
        self.plain = _CONVOLUTIONS[plain.kind](plain, spread)

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        (x,), (step_w, step_h) = inputs, self.op.stride
        wide = workspace.take(self, "spread", (len(x), *self.spread), fill=0)
        wide[:, ::step_h, ::step_w] = x
        return self.plain([wide], workspace)


class PoolKernel:
    """Max or average pooling, separable: first along rows, then along columns."""

    def __init__(self, op: Pool, shape: Shape) -> None:
        self.op = op
        _, h, w, _ = shape
        kernel_w, kernel_h = op.kernel
        self.out_h = window_output(h, kernel_h, op.stride[1], 1, op.pad[2], op.pad[3])
        self.out_w = window_output(w, kernel_w, op.stride[0], 1, op.pad[0], op.pad[1])
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


_CONVOLUTIONS: dict[str, Callable[[Conv, Shape], Kernel]] = {
    "conv2d": DenseConv,
    "depthwise": DepthwiseConv,
    "transposed": TransposedConv,
    "transposed depthwise": TransposedConv,
}
KERNELS: dict[type, Callable[..., Kernel]] = {
    Conv: lambda op, shapes: _CONVOLUTIONS[op.kind](op, shapes[0]),
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
