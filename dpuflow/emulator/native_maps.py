"""Where maps lie: with borders, inside others, and in one arena for those that live at different times."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dpuflow.emulator import c_kernels
from dpuflow.emulator.operations import Pad
from dpuflow.xir.shapes import Shape

NO_PAD: Pad = (0, 0, 0, 0)


@dataclass(eq=False)
class Tensor:
    """A map, or a part of one: `within` holds it, from `channel` on.

    `same` has the same bytes in another shape.
    """

    h: int
    w: int
    c: int
    within: "Tensor | None" = None
    channel: int = 0
    same: "Tensor | None" = None
    border: Pad = NO_PAD
    first: int = -1
    last: int = -1
    at: int = 0

    @property
    def root(self) -> "Tensor":
        """The map that holds the bytes."""
        tensor = self
        while tensor.within or tensor.same:
            tensor = tensor.within or tensor.same  # type: ignore[assignment]
        return tensor

    @property
    def offset(self) -> int:
        """Channels before its first one in the root's pixel."""
        return self.channel + (self.within.offset if self.within else 0)

    @property
    def dense(self) -> bool:
        """Whether its bytes lie in one piece."""
        return not self.within and self.border == NO_PAD

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)."""
        return self.h, self.w, self.c

    @property
    def row(self) -> int:
        """Bytes of a row with its border."""
        return (self.w + self.border[0] + self.border[1]) * self.c

    @property
    def bytes(self) -> int:
        """Bytes of an image with its border."""
        return self.row * (self.h + self.border[2] + self.border[3])

    def map(self, block: int) -> c_kernels.Map:
        """Its place; the root's `at` counts bytes of one image."""
        if self.same:
            h, w, c = self.shape
            at, image = self.same.root.at * block, self.h * self.w * self.c
            return c_kernels.Map(at, image, w * c, c, h, w, c, 0, 0, 0, 0)
        root = self.root
        left, right, top, bottom = root.border
        at = root.at * block + top * root.row + left * root.c + self.offset
        places = at, root.bytes, root.row, root.c
        return c_kernels.Map(*places, *self.shape, left, right, top, bottom)


def larger(first: Pad, second: Pad) -> Pad:
    """The border that is enough for both."""
    left, right, top, bottom = map(max, first, second)
    return left, right, top, bottom


def flat(shape: Shape) -> tuple[int, int, int]:
    """(h, w, c) of a tensor's shape (batch first)."""
    dimensions = (1, 1, 1, *shape[1:])
    return math.prod(dimensions[:-2]), dimensions[-2], dimensions[-1]


def arrange(tensors: Iterable[Tensor]) -> int:
    """Give every root its place among those that live at the same time; bytes of an image.

    The largest first, each at the lowest place that is free for as long as it lives.
    """
    placed: list[Tensor] = []
    for root in sorted({tensor.root: None for tensor in tensors}, key=lambda t: (-t.bytes, t.first)):
        root.at = 0
        alive = [o for o in placed if o.first <= root.last and root.first <= o.last]
        for other in sorted(alive, key=lambda o: o.at):
            if root.at + _room(root) <= other.at:
                break
            root.at = max(root.at, other.at + _room(other))
        placed.append(root)
    return max((root.at + _room(root) for root in placed), default=0)


def _room(tensor: Tensor) -> int:
    return -(-tensor.bytes // c_kernels.ALIGNMENT) * c_kernels.ALIGNMENT
