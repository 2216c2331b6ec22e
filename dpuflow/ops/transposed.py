"""Transposed convolutions, as XIR has them: zeros between the pixels, then a convolution of stride 1.

`pad` is what is cut off the full output on each side; weights are stored as that convolution takes them
(docs/reference/numerics.md, "Transposed convolution").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.ops import arithmetic
from dpuflow.ops.convolution import Convolution, DepthwiseConvolution, WeightedWindow
from dpuflow.ops.operator import Shape


@dataclass(frozen=True)
class Axis:
    """One phase of a transposed convolution along one axis: the outputs that are `stride` apart.

    Attributes
    ----------
    tap, taps : the first tap of the kernel that meets pixels, and how many do; every `stride`-th.
    pad : zeros in front of the map for an ordinary convolution with these taps; negative where its first
        window begins inside the map.
    length : output pixels.
    """

    tap: int
    taps: int
    pad: int
    length: int


def axis_phase(kernel: int, stride: int, pad: int, place: int, length: int) -> Axis:
    """Outputs place, place + stride, ... of `length`, with `pad` zeros in front of the spread map.

    Output o meets position (o + k - pad) of the spread map at tap k, so pixel (o + k - pad) / stride where
    that is whole: k = tap, tap + stride, ...
    """
    tap, count = (pad - place) % stride, -(-(length - place) // stride)
    if tap >= kernel:
        return Axis(0, 0, 0, count)
    return Axis(tap, -(-(kernel - tap) // stride), (pad - place - tap) // stride, count)


class Transposed(WeightedWindow):
    """What both share (a mixin in front of the convolution whose weights they have)."""

    def check(self) -> None:
        """ValueError when an attribute has an impossible value."""
        super().check()
        if self.dilation != (1, 1):
            raise ValueError(f"dilation {self.dilation!r}: expected (1, 1)")
        for side, cut in enumerate(self.pad):
            if cut >= self.kernel[side // 2]:
                raise ValueError(f"pad {self.pad!r} cuts off more than the kernel {self.kernel!r} makes")

    def _length(self, size, axis, dilation, pad):
        return (size - 1) * self.stride[axis] + self.kernel[axis] - pad

    @property
    def around(self) -> tuple[int, int, int, int]:
        """Zeros around the spread map (l, r, t, b)."""
        left, right, top, bottom = self.pad
        (width, height) = self.kernel
        return width - 1 - left, width - 1 - right, height - 1 - top, height - 1 - bottom

    def spread(self, x: np.ndarray) -> np.ndarray:
        """A map (N, H, W, C) with stride - 1 zeros between its pixels."""
        (step_w, step_h), (n, h, w, c) = self.stride, x.shape
        out = np.zeros((n, (h - 1) * step_h + 1, (w - 1) * step_w + 1, c), x.dtype)
        out[:, ::step_h, ::step_w] = x
        return out

    def view(self, x: np.ndarray) -> np.ndarray:
        """All kernel windows (N, OH, OW, KH, KW, IC) of the spread map."""
        return arithmetic.windows(arithmetic.pad_map(self.spread(x), self.around), self.kernel, (1, 1))

    def linear(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted sums, phase by phase: no zero is multiplied."""
        (step_w, step_h), (left, _, top, _) = self.stride, self.around
        height, width, channels = self.window_shape(x.shape[1:], self.output_channels(weights.shape))
        out = np.zeros((len(x), height, width, channels), x.dtype)
        for row in range(min(step_h, height)):
            for column in range(min(step_w, width)):
                down = axis_phase(self.kernel[1], step_h, top, row, height)
                across = axis_phase(self.kernel[0], step_w, left, column, width)
                if down.taps and across.taps:
                    part = np.ascontiguousarray(weights[:, down.tap :: step_h, across.tap :: step_w])
                    cut = _cut(_cut(x, 1, down), 2, across)
                    out[:, row::step_h, column::step_w] = self._plain(part).linear(cut, part)
        return out

    def _plain(self, weights: np.ndarray) -> WeightedWindow:
        """The ordinary convolution of a phase."""
        raise NotImplementedError

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """Those of the taps that meet pixels, H W OC KH KW (2 IC), and a bias per output value."""
        height, width, channels = inputs[0]
        each = 2 * (1 if self.per_channel else channels)
        return height * width * output[2] * self.area * each + output[0] * output[1] * output[2]


def _cut(x: np.ndarray, axis: int, phase: Axis) -> np.ndarray:
    """The part of a map that a phase reads along an axis, with its zeros."""
    first = -phase.pad
    last = first + phase.length + phase.taps - 1
    inside = [slice(None)] * x.ndim
    inside[axis] = slice(max(0, first), max(0, min(last, x.shape[axis])))
    widths = [(0, 0)] * x.ndim
    widths[axis] = (max(0, -first), max(0, last - max(x.shape[axis], first)))
    return np.pad(x[tuple(inside)], widths)


@dataclass(frozen=True)
class TransposedConvolution(Transposed, Convolution):
    """Weights [OC, KH, KW, IC]."""

    kind: ClassVar[str] = "transposed_conv"

    def _plain(self, weights: np.ndarray) -> WeightedWindow:
        kernel = weights.shape[2], weights.shape[1]
        return Convolution(kernel, (1, 1), (0, 0, 0, 0), (1, 1), "NONE")


@dataclass(frozen=True)
class TransposedDepthwise(Transposed, DepthwiseConvolution):
    """One filter per channel: weights [1, KH, KW, C]."""

    kind: ClassVar[str] = "transposed_depthwise_conv"

    def _plain(self, weights: np.ndarray) -> WeightedWindow:
        kernel = weights.shape[2], weights.shape[1]
        return DepthwiseConvolution(kernel, (1, 1), (0, 0, 0, 0), (1, 1), "NONE")
