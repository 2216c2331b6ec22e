"""Operators that move values between pixels and channels: pixel shuffle, both ways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpuflow.ops.operator import Array, Arrays, Operator, Shape

MAX_SCALE = 16
"""Beyond any network's; bounds memory."""


@dataclass(frozen=True)
class PixelShuffle(Operator):
    """Channels become pixels (`upscale`), or blocks of `scale` x `scale` pixels channels, in PyTorch's order.

    Channel c of pixel (y * scale + i, x * scale + j) above is channel c * scale**2 + i * scale + j of pixel
    (y, x) below. TensorFlow's order, (i * scale + j) * C + c, is this one behind another order of channels.
    """

    scale: int
    upscale: bool

    kind: ClassVar[str] = "pixel_shuffle"
    moves_bytes: ClassVar[bool] = True
    vendor_aligns: ClassVar[str] = "pool"
    commutes_with_relu: ClassVar[bool] = True

    def check(self) -> None:
        """ValueError when an attribute has an impossible value."""
        if type(self.scale) is not int or not 1 <= self.scale <= MAX_SCALE:
            raise ValueError(f"scale {self.scale!r}: expected a whole number of 1 to {MAX_SCALE}")
        if not isinstance(self.upscale, bool):
            raise ValueError(f"upscale {self.upscale!r}: expected true or false")

    def output_shape(self, inputs: Sequence[Shape], weights: Shape | None = None) -> Shape:
        """(H * scale, W * scale, C / scale**2), or the other way; ValueError where that is not whole."""
        scale = self.scale
        if len(inputs[0]) != 3:
            raise ValueError(f"on an input {inputs[0]}")
        height, width, channels = inputs[0]
        if self.upscale:
            if channels % scale**2:
                raise ValueError(f"{channels} channels into blocks of {scale} x {scale} pixels")
            return height * scale, width * scale, channels // scale**2
        if height % scale or width % scale:
            raise ValueError(f"{height} x {width} pixels in blocks of {scale} x {scale}")
        return height // scale, width // scale, channels * scale**2

    def real(self, inputs: Arrays, weights: Array = None, bias: Array = None) -> np.ndarray:
        """Float32 semantics."""
        return pixel_shuffle(inputs[0], self.scale, self.upscale)

    def operations(self, inputs: Sequence[Shape], output: Shape) -> int:
        """None."""
        return 0


def shuffled(scale: int, upscale: bool, output: Shape) -> tuple[Shape, tuple[int, ...]]:
    """(shape to cut an input into, order of its axes behind the batch's) of a shuffle to `output`."""
    height, width, channels = output
    if upscale:
        return (height // scale, width // scale, channels, scale, scale), (0, 1, 4, 2, 5, 3)
    return (height, scale, width, scale, channels // scale**2), (0, 1, 3, 5, 2, 4)


def pixel_shuffle(x: np.ndarray, scale: int, upscale: bool) -> np.ndarray:
    """x (N, H, W, C) of any type, rearranged as `PixelShuffle` says."""
    n, height, width, channels = x.shape
    if upscale:
        parts = x.reshape(n, height, width, channels // scale**2, scale, scale)
        return parts.transpose(0, 1, 4, 2, 5, 3).reshape(n, height * scale, width * scale, -1)
    parts = x.reshape(n, height // scale, scale, width // scale, scale, channels)
    return parts.transpose(0, 1, 3, 5, 2, 4).reshape(n, height // scale, width // scale, -1)
