"""NumPy kernels of the convolutions (`kernels.py`)."""

from collections.abc import Callable, Sequence

import numpy as np

from dpuflow.base.numerics import row_sums
from dpuflow.emulator.operations import Conv, output_shape, plain_of_transposed
from dpuflow.emulator.requantise import Requantise
from dpuflow.emulator.workspace import VALUE, Kernel, Workspace, padded, window_view
from dpuflow.xir.shapes import Shape


class DenseConv:
    """Convolution as matrix product over unfolded windows; groups one after the other."""

    def __init__(self, op: Conv, shape: Shape) -> None:
        self.op = op
        (_, h, w, _), (kernel_w, kernel_h) = shape, op.kernel
        _, self.out_h, self.out_w, _ = output_shape(op, [shape])
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
        _, self.out_h, self.out_w, _ = output_shape(op, [shape])
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
        self.plain = CONVOLUTIONS[plain.kind](plain, spread)

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        (x,), (step_w, step_h) = inputs, self.op.stride
        wide = workspace.take(self, "spread", (len(x), *self.spread), fill=0)
        wide[:, ::step_h, ::step_w] = x
        return self.plain([wide], workspace)


CONVOLUTIONS: dict[str, Callable[[Conv, Shape], Kernel]] = {
    "conv2d": DenseConv,
    "depthwise": DepthwiseConv,
    "transposed": TransposedConv,
    "transposed depthwise": TransposedConv,
}
"""Kind of a Conv -> class of its kernel."""
