"""What NumPy kernels work in: scratch arrays, padded maps, views of their windows."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import DTypeLike

from dpuflow.emulator.operations import Pad, Pair
from dpuflow.xir.shapes import Shape

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
