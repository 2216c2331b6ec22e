"""Operators with weights: convolution, depthwise convolution, dense."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from dpuflow.base.numerics import row_sums
from dpuflow.ops import arithmetic, work
from dpuflow.ops.activations import ACTIVATIONS
from dpuflow.ops.arithmetic import EXACT_FLOAT32, IM2COL_BYTES, TAPS_BYTES
from dpuflow.ops.operator import Array, Arrays, Integers, Operator, Shape, Window

Parameter = TypeVar("Parameter")

AT_A_TIME = 1 << 19
"""Weights that are widened at a time: VGG16's first dense layer has a hundred times as many."""


class Weighted(Operator):
    """Weighted sums, a bias per output channel, an activation (a mixin; `linear` is the operator's own).

    per_channel : whether an output channel sees one input channel only.
    """

    weighted: ClassVar[bool] = True
    per_channel: ClassVar[bool]
    activation: str

    def check_activation(self) -> None:
        """ValueError for an activation that no producer can have."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r}")

    def linear(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted sums without bias, of x's dtype."""
        raise NotImplementedError

    def weights_shape(self, shape: Shape, output: Shape) -> Shape:
        """Shape of the weights between an input and an output of these shapes."""
        raise NotImplementedError

    def output_channels(self, weights: Shape) -> int:
        """Number of output channels of weights of a shape."""
        return weights[self.output_axis]

    def per_output(self, factors: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """One number per output channel, shaped to be multiplied with the weights."""
        shape = [1] * weights.ndim
        shape[self.output_axis] = -1
        return factors.reshape(shape)

    def sum_axes(self, weights: np.ndarray) -> tuple[int, ...]:
        """Axes of the weights that one output channel sums over."""
        return tuple(i for i in range(weights.ndim) if i != self.output_axis % weights.ndim)

    def rows(self, weights: np.ndarray) -> np.ndarray:
        """Weights as (OC, K): what each output channel sums over."""
        return np.moveaxis(weights, self.output_axis, 0).reshape(self.output_channels(weights.shape), -1)

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """Every input as large as it may be, with the weight's sign."""
        values = given(weights)
        sums = np.abs(values).sum(axis=self.sum_axes(values), dtype=np.float64) * sizes[0]
        return float((sums + (0 if bias is None else np.abs(bias))).max())

    def preactivation(self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Sums and bias in float32, before the activation."""
        out = self.linear(x, weights)
        if bias is not None:
            out += bias
        return out

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics; a fused LEAKYRELU has the DPU's slope."""
        return arithmetic.activate(self.preactivation(inputs[0], given(weights), bias), self.activation)

    def needs_float64(self, weights: np.ndarray, bias: np.ndarray | None = None, shift_bias: int = 0) -> bool:
        """True when float32 cannot hold every possible accumulator of these int8 parameters exactly."""
        total = 128 * row_sums(self.rows(weights))[0].max(initial=0)
        if bias is not None:
            total = total + np.abs(bias.astype(np.int64)).max(initial=0) * 2.0 ** max(shift_bias, 0)
        # one bit spare for the half of shift_bias -1, and more for a finer bias
        return bool(2.0 ** max(1, -shift_bias) * total >= EXACT_FLOAT32)

    def accumulate(
        self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray | None, shift_bias: int
    ) -> np.ndarray:
        """acc = sum(x * w) + bias * 2**shift_bias, exact, in units of 2**-(fix_in + fix_w)."""
        dtype = np.float64 if self.needs_float64(weights, bias, shift_bias) else np.float32
        out = self.linear(x.astype(dtype, copy=False), weights)
        if bias is not None:
            out += (bias.astype(np.float64) * 2.0**shift_bias).astype(dtype)
        return out

    def _sums(self, x, fix_in, weights, bias):
        """(`accumulate`'s sums, their fix_point) for weights and a bias with fix_points of their own."""
        values, fix_weights = given(weights)
        unit = fix_in + fix_weights
        data, shift = (None, 0) if bias is None else (bias[0], unit - bias[1])
        return self.accumulate(x, values, data, shift), unit

    def before_rounding(
        self, inputs: Arrays, fix_points: Sequence[int], weights: Integers = None, bias: Integers = None
    ) -> np.ndarray:
        """Exact sums in real units (float32's 24 bits, float64 where sums may need more), activated."""
        total, unit = self._sums(inputs[0], fix_points[0], weights, bias)
        total *= total.dtype.type(2.0**-unit)
        return arithmetic.activate(total, self.activation)

    def unrounded(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """acc / 2**shift_cut."""
        total, unit = self._sums(inputs[0], fix_points[0], weights, bias)
        return np.ldexp(total.astype(np.float64), fix_out - unit)

    def integer(
        self,
        inputs: Arrays,
        fix_points: Sequence[int],
        fix_out: int,
        weights: Integers = None,
        bias: Integers = None,
    ) -> np.ndarray:
        """y = sat8(DPU_ROUND(acc / 2**shift_cut)) (docs/reference/numerics.md, "Convolution")."""
        total, unit = self._sums(inputs[0], fix_points[0], weights, bias)
        return arithmetic.finish(total, unit - fix_out, self.activation, fix_out)


@dataclass(frozen=True)
class WeightedWindow(Weighted, Window):
    """What the convolutions share: weights over the windows of a map."""

    dilation: tuple[int, int]
    activation: str

    def check(self) -> None:
        """ValueError when an attribute has an impossible value."""
        super().check()
        self.check_activation()

    def view(self, x: np.ndarray) -> np.ndarray:
        """All kernel windows (N, OH, OW, KH, KW, IC) of a map."""
        return arithmetic.windows(arithmetic.pad_map(x, self.pad), self.kernel, self.stride, self.dilation)


@dataclass(frozen=True)
class Convolution(WeightedWindow):
    """Weights [OC, KH, KW, IC]."""

    kind: ClassVar[str] = "conv"
    per_channel: ClassVar[bool] = False

    def weights_shape(self, shape: Shape, output: Shape) -> Shape:
        """(OC, KH, KW, IC)."""
        return output[-1], *self.kernel[::-1], shape[-1]

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(OH, OW, OC)."""
        shape = self.window_shape(inputs[0], weights[0] if weights else 0)
        expected = self.weights_shape(inputs[0], shape)
        if weights != expected:
            raise ValueError(f"weights {weights}, expected {expected}")
        return shape

    def linear(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted sums over patch matrices that fit the cache."""
        # not copied in the other order: BLAS reads it either way
        matrix = weights.reshape(len(weights), -1).astype(x.dtype, copy=False).T
        view = self.view(x)
        out = np.empty((*view.shape[:3], len(weights)), x.dtype)
        for piece in _pieces(view.shape[:2], math.prod(view.shape[2:]) * x.itemsize, IM2COL_BYTES):
            np.matmul(
                view[piece].reshape(-1, len(matrix)), matrix, out=out[piece].reshape(-1, matrix.shape[1])
            )
        return out

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """OH OW OC (2 KH KW IC + 1); the 1 is the bias and counts without one, too."""
        return work.conv_workload(output, self.kernel, inputs[0][2])


@dataclass(frozen=True)
class DepthwiseConvolution(WeightedWindow):
    """One filter per channel: weights [1, KH, KW, C]."""

    kind: ClassVar[str] = "depthwise_conv"
    per_channel: ClassVar[bool] = True
    output_axis: ClassVar[int] = -1

    def weights_shape(self, shape: Shape, output: Shape) -> Shape:
        """(1, KH, KW, C)."""
        return 1, *self.kernel[::-1], shape[-1]

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(OH, OW, C)."""
        shape = self.window_shape(inputs[0], inputs[0][-1])
        expected = self.weights_shape(inputs[0], shape)
        if weights != expected:
            raise ValueError(f"weights {weights}, expected {expected}")
        return shape

    def linear(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted sums, tap by tap."""
        view = self.view(x)
        _, kh, kw, channels = weights.shape
        factors = weights[0].astype(x.dtype)
        out = np.zeros((*view.shape[:3], channels), x.dtype)
        for piece in _pieces(view.shape[:2], view.shape[2] * channels * x.itemsize, TAPS_BYTES):
            sums, windows = out[piece], view[piece]
            product = np.empty_like(sums)
            for i in range(kh):
                for j in range(kw):
                    np.multiply(windows[..., i, j, :], factors[i, j], out=product)
                    sums += product
        return out

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """OH OW C (2 KH KW + 1)."""
        return work.depthwise_workload(output, self.kernel)


@dataclass(frozen=True)
class Dense(Weighted):
    """A vector times weights [OC, IN], IN in flattened NHWC order."""

    activation: str

    kind: ClassVar[str] = "dense"
    per_channel: ClassVar[bool] = False

    def check(self) -> None:
        """ValueError when an attribute has an impossible value."""
        self.check_activation()

    def weights_shape(self, shape: Shape, output: Shape) -> Shape:
        """(OC, IN)."""
        return output[-1], math.prod(shape)

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(OC,)."""
        if weights is None or len(weights) != 2 or tuple(inputs[0]) != weights[1:]:
            raise ValueError(f"weights {weights} on an input {inputs[0]}")
        return weights[:1]

    def linear(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """x @ weights.T; weights of another dtype, integers, get x's some rows at a time (sums are exact)."""
        if weights.dtype == x.dtype:
            return np.matmul(x, weights.T)
        out = np.empty((*x.shape[:-1], len(weights)), x.dtype)
        for rows in _rows(weights):
            out[..., rows] = np.matmul(x, weights[rows].astype(x.dtype).T)
        return out

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """OC (2 IN + 1)."""
        return work.conv_workload(output, (1, 1), math.prod(inputs[0]))


def given(parameter: Parameter | None) -> Parameter:
    """The weights, or the bias; ValueError when the layer has none."""
    if parameter is None:
        raise ValueError("a weighted layer without weights, or bias")
    return parameter


def weighted(operator: Operator) -> Weighted:
    """The operator, which has weights; TypeError for one without."""
    if not isinstance(operator, Weighted):
        raise TypeError(f"{operator.kind} has no weights")
    return operator


def weight_matrix(weights: np.ndarray) -> np.ndarray:
    """Weights [OC, ...] as (K, OC), row-contiguous."""
    return np.ascontiguousarray(weights.reshape(weights.shape[0], -1).T)


def _rows(weights: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis, of about AT_A_TIME values each."""
    size = max(1, AT_A_TIME * len(weights) // max(1, weights.size))
    return (slice(start, start + size) for start in range(0, len(weights), size))


def _pieces(shape: tuple[int, ...], row_bytes: int, most: int) -> Iterator[tuple[slice, slice]]:
    """(images, rows) of maps (N, OH) with so many bytes in a row, in pieces of at most `most`."""
    count, height = shape
    images, rows = max(1, most // (height * row_bytes)), max(1, most // row_bytes)
    for start in range(0, count, images):
        for top in range(0, height, height if images > 1 else rows):
            yield slice(start, start + images), slice(top, height if images > 1 else top + rows)
