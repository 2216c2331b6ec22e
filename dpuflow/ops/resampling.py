"""Operators that change a map's size without weights: nearest, every n-th pixel, bilinear.

Semantics: docs/reference/numerics.md, "Resizing".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.ops import work
from dpuflow.ops.operator import Array, Arrays, Operator, Shape

GRIDS = ("half_pixel", "asymmetric", "align_corners")
"""Where an output pixel lies on the input: half_pixel_centers, neither, align_corners (XIR, TensorFlow)."""
MAX_FACTOR = 256
"""Of resizing either way (`xir.map_shapes.MAX_SCALE`); bounds memory."""


def _check_pair(name: str, value: object, greatest: int) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{name} {value!r}: expected 2 numbers")
    if not all(type(n) is int and 1 <= n <= greatest for n in value):
        raise ValueError(f"{name} {value!r}: expected whole numbers of 1 to {greatest}")


def _map(shape: Shape) -> tuple[int, int, int]:
    """(H, W, C); ValueError on a vector."""
    if len(shape) != 3:
        raise ValueError(f"on an input {shape}")
    height, width, channels = shape
    return height, width, channels


@dataclass(frozen=True)
class ByFactor(Operator):
    """Takes pixels as they are, `factor` (w, h) times as many or as few."""

    factor: tuple[int, int]

    moves_bytes: ClassVar[bool] = True
    vendor_aligns: ClassVar[str] = "pool"
    passes_positive_scale: ClassVar[bool] = True
    commutes_with_relu: ClassVar[bool] = True

    def check(self) -> None:
        """ValueError when an attribute has an impossible value."""
        _check_pair("factor", self.factor, MAX_FACTOR)

    def times_behind(self, scale: np.ndarray, output: Shape) -> int:
        """The channels stay."""
        return 1

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None."""
        return 0


@dataclass(frozen=True)
class Upsample(ByFactor):
    """Each pixel `factor` (w, h) times: nearest, by whole factors, on any grid."""

    kind: ClassVar[str] = "upsample"

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(H * factor, W * factor, C)."""
        height, width, channels = _map(inputs[0])
        return height * self.factor[1], width * self.factor[0], channels

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return inputs[0].repeat(self.factor[1], axis=1).repeat(self.factor[0], axis=2)


@dataclass(frozen=True)
class Downsample(ByFactor):
    """The first of every `factor` (w, h) pixels."""

    kind: ClassVar[str] = "downsample"

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(ceil(H / factor), ceil(W / factor), C)."""
        height, width, channels = _map(inputs[0])
        return math.ceil(height / self.factor[1]), math.ceil(width / self.factor[0]), channels

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return np.ascontiguousarray(inputs[0][:, :: self.factor[1], :: self.factor[0]])


@dataclass(frozen=True)
class BilinearKernel:
    """A bilinear resizing by whole factors as a transposed depthwise convolution of int8 weights.

    Attributes
    ----------
    taps : int8 [KH, KW], the same for every channel.
    fix_point : of the taps.
    stride : (w, h), the factors.
    pad : (left, right, top, bottom) in XIR's sense, on the map with one pixel of its edge around it.
    """

    taps: np.ndarray
    fix_point: int
    stride: tuple[int, int]
    pad: tuple[int, int, int, int]


@dataclass(frozen=True)
class ResizeBilinear(Operator):
    """To `size` (w, h) pixels, each mixed of the four around its place; `grid` is one of GRIDS."""

    size: tuple[int, int]
    grid: str

    kind: ClassVar[str] = "resize_bilinear"
    vendor_aligns: ClassVar[str] = "pool"
    passes_positive_scale: ClassVar[bool] = True

    def check(self) -> None:
        """ValueError when an attribute has an impossible value."""
        _check_pair("size", self.size, 1 << 16)
        if self.grid not in GRIDS:
            raise ValueError(f"grid {self.grid!r}: expected one of {', '.join(GRIDS)}")

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(OH, OW, C)."""
        height, width, channels = _map(inputs[0])
        for new, old in ((self.size[1], height), (self.size[0], width)):
            if new > old * MAX_FACTOR:
                raise ValueError(f"of {height} x {width} pixels, more than {MAX_FACTOR} times as many")
        return self.size[1], self.size[0], channels

    def shares_fix_point(self, inputs: Sequence[Shape]) -> bool:
        """A mix is no larger than what it is of."""
        return True

    def largest(self, sizes: Sequence[float], weights: Array = None, bias: Array = None) -> float | None:
        """A mix is no larger than what it is of."""
        return None

    def times_behind(self, scale: np.ndarray, output: Shape) -> int:
        """The shares of a pixel are one together."""
        return 1

    def places(self, axis: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(lower, upper, share of the upper) of the output along an axis (0: width) of `size` pixels.

        The shares are float32, as the vendor's runner has them.
        """
        count = self.size[axis]
        out = np.arange(count, dtype=np.float32)
        if self.grid == "align_corners" and count > 1:
            scale = np.float32(size - 1) / np.float32(count - 1)
        else:
            scale = np.float32(size) / np.float32(count)
        half = np.float32(0.5)
        place = (out + half) * scale - half if self.grid == "half_pixel" else out * scale
        lower = np.maximum(np.floor(place), 0).astype(np.int64)
        upper = np.minimum(np.ceil(place), size - 1).astype(np.int64)
        return lower, upper, place - lower.astype(np.float32)

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32, along the rows first."""
        x = inputs[0].astype(np.float32, copy=False)
        lower, upper, share = self.places(0, x.shape[2])
        left, right = x[:, :, lower], x[:, :, upper]
        x = left + (right - left) * share[:, None]
        lower, upper, share = self.places(1, x.shape[1])
        top, bottom = x[:, lower], x[:, upper]
        return top + (bottom - top) * share[:, None, None]

    def factor(self, shape: Shape) -> tuple[int, int] | None:
        """(w, h) by which a map of a shape grows; None where these are no whole numbers."""
        height, width, _ = _map(shape)
        if self.size[0] % width or self.size[1] % height:
            return None
        return self.size[0] // width, self.size[1] // height

    def kernel(self, shape: Shape) -> BilinearKernel | None:
        """The resizing as convolution; None where int8 weights cannot hold its shares exactly."""
        factor = self.factor(shape)
        if factor is None or self.grid == "align_corners":
            return None
        axes = [_taps(n, self.grid) for n in factor]
        if any(axis is None for axis in axes):
            return None
        (across, shift_w, pad_w), (down, shift_h, pad_h) = [axis for axis in axes if axis is not None]
        taps = np.outer(down, across)
        if taps.max() > INT8_MAX:
            return None
        return BilinearKernel(taps.astype(np.int8), shift_w + shift_h, factor, (*pad_w, *pad_h))

    def result_range(self, fix_points: Sequence[int], fix_out: int) -> tuple[float, float] | None:
        """That of the input."""
        step = 2.0 ** (fix_out - fix_points[0])
        return INT8_MIN * step, INT8_MAX * step

    def rounds_halves(self, fix_points: Sequence[int], fix_out: int) -> bool:
        """Shares of a half or less occur wherever it grows by an even factor; thirds make none."""
        return any(size % 2 == 0 for size in self.size)

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """As a depthwise convolution of the four pixels."""
        return work.depthwise_workload(output, (2, 2))


def _taps(factor: int, grid: str) -> tuple[np.ndarray, int, tuple[int, int]] | None:
    """(whole taps, their fix_point, padding (before, after)) along one axis; None if they are not dyadic."""
    if factor & (factor - 1):
        return None
    if factor == 1:
        return np.ones(1, np.int64), 0, (1, 1)
    rising = np.arange(1, factor + 1)
    if grid == "half_pixel":
        rising = 2 * rising - 1
        return np.concatenate([rising, rising[::-1]]), factor.bit_length(), (3 * factor // 2, 3 * factor // 2)
    return np.concatenate([rising, rising[-2::-1]]), factor.bit_length() - 1, (2 * factor - 1, factor)
