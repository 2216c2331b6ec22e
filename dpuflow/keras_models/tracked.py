"""What a value of the original model is in its rebuilt copy: the bookkeeping of `rebuild`.

Between two layers the copy may hold a value in another order of its last axis (a BGR reversal that the
next convolution will absorb, a Flatten that read channels first), before arithmetic that is still to be
done (Rescaling and the like, gathered into one step), or in another shape.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass
class Tracked:
    """One value: original = (tensor * scale + offset)[..., order].

    tensor : symbolic tensor of the copy.
    order : int array over the last axis, or None where nothing moved.
    scale, offset : float64 scalars or arrays over the last axis of `tensor`; scale None: nothing to be done.
    name : of the first layer of the pending arithmetic.
    forms : tensors that hold the same values in the same sequence in other shapes.
    """

    tensor: Any
    order: np.ndarray | None = None
    scale: np.ndarray | None = None
    offset: np.ndarray | float = 0.0
    name: str = ""
    forms: tuple[Any, ...] = ()
    settled: "Tracked | None" = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape without the batch."""
        return tuple(self.tensor.shape[1:])

    @property
    def channels(self) -> int:
        return self.shape[-1]

    def affine(self, scale: ArrayLike, offset: ArrayLike, name: str) -> "Tracked":
        """This value times `scale` plus `offset`, constants in the original's order; nothing computed yet."""
        scale, offset = (unorder(self.order, np.asarray(v, np.float64)) for v in (scale, offset))
        before = (1.0, 0.0) if self.scale is None else (self.scale, self.offset)
        return Tracked(
            self.tensor,
            self.order,
            np.asarray(before[0] * scale),
            np.asarray(before[1] * scale + offset),
            self.name or name,
        )

    def reordered(self, positions: np.ndarray) -> "Tracked":
        """original[..., positions]."""
        order = np.arange(self.channels) if self.order is None else self.order
        order = order[positions]
        same = (order == np.arange(len(order))).all()
        return Tracked(self.tensor, None if same else order, self.scale, self.offset, self.name)


def unorder(order: np.ndarray | None, array: np.ndarray, axis: int = -1) -> np.ndarray:
    """Parameters in the original's order along `axis` -> in the copy's; scalars stay."""
    if order is None or array.ndim == 0:
        return array
    moved = np.empty_like(array)
    index: list[Any] = [slice(None)] * array.ndim
    index[axis] = order
    moved[tuple(index)] = array
    return moved


def per_channel(constant: ArrayLike, channels: int) -> np.ndarray | None:
    """A constant of an operation on a map as a scalar or a vector (channels,); None for anything else."""
    array = np.asarray(constant, np.float64)
    if array.size == 1:
        return array.reshape(())
    return array.reshape(-1) if array.size == channels and array.shape[-1] == channels else None


def leaves(value: Any) -> list[Any]:
    """What lies in nested lists and tuples, in order."""
    if isinstance(value, (list, tuple)):
        return [leaf for child in value for leaf in leaves(child)]
    return [value]
