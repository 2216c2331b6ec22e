"""Where maps lie: with borders, inside others, and in one arena for those that live at different times."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dpuflow.base.aligned import ALIGNMENT
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
    images: int = 1
    at: int = 0
    """Of a root: first and last step that use it, images that it holds at once, its place in the arena."""

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

    def map(self, image: int) -> c_kernels.Map:
        """Its place, as seen from one image of the block."""
        root = self.root
        first = root.at + (image * root.bytes if root.images > 1 else 0)
        if self.same:
            h, w, c = self.shape
            return c_kernels.Map(first, h * w * c, w * c, c, h, w, c, 0, 0, 0, 0)
        left, right, top, bottom = root.border
        at = first + top * root.row + left * root.c + self.offset
        places = at, root.bytes, root.row, root.c
        return c_kernels.Map(*places, *self.shape, left, right, top, bottom)


def larger(first: Pad, second: Pad) -> Pad:
    """The border that is enough for both."""
    left, right, top, bottom = map(max, first, second)
    return left, right, top, bottom


def row_for_row(first: Tensor, second: Tensor) -> bool:
    """Whether both are all rows of one map, so that a row of one has no bytes of another row of the other."""
    for tensor in (first, second):
        while tensor.within:
            if tensor.shape[:2] != tensor.within.shape[:2]:
                return False
            tensor = tensor.within
        if tensor.same:
            return False
    return first.root is second.root


def flat(shape: Shape) -> tuple[int, int, int]:
    """(h, w, c) of a tensor's shape (batch first)."""
    dimensions = (1, 1, 1, *shape[1:])
    return math.prod(dimensions[:-2]), dimensions[-2], dimensions[-1]


def set_lives(steps: Sequence[Sequence[Tensor]], at_once: Sequence[bool], block: int) -> None:
    """Set when every root lives and how many images it holds, given each step's tensors.

    at_once : whether a step does a block of images at once. Neighbouring steps that do not are done image by
    image: a map that only they use holds one image; any other one lives through all of them, because the next
    image comes to the first of these steps when the last one is done with the image before.
    """
    for i, tensors in enumerate(steps):
        for tensor in tensors:
            root = tensor.root
            root.first = i if root.first < 0 else root.first
            root.last, root.images = i, block
    groups, start = [], 0
    for i in range(1, len(steps) + 1):
        if i == len(steps) or at_once[i] or at_once[start]:
            if not at_once[start]:
                groups.append((start, i - 1))
            start = i
    for root in {tensor.root: None for tensors in steps for tensor in tensors}:
        first, last = root.first, root.last
        for start, end in groups:
            if start <= first and last <= end:
                root.images = 1
            elif first <= end and start <= last:
                root.first, root.last = min(root.first, start), max(root.last, end)


def set_lives_of_one(steps: Sequence[Sequence[Tensor]]) -> None:
    """The same for one image, where a step may begin while the one before it is still at work.

    So a map lives one step longer than it is used.
    """
    roots = {tensor.root: None for tensors in steps for tensor in tensors}
    for root in roots:
        root.first = -1
    set_lives(steps, [True] * len(steps), 1)
    for root in roots:
        root.last += 1


def arrange(tensors: Iterable[Tensor]) -> int:
    """Give every root its place among those that live at the same time; bytes in all.

    The largest first, each at the lowest place that is free for as long as it lives.
    """
    placed: list[Tensor] = []
    for root in sorted({tensor.root: None for tensor in tensors}, key=lambda t: (-_room(t), t.first)):
        root.at = 0
        alive = [o for o in placed if o.first <= root.last and root.first <= o.last]
        for other in sorted(alive, key=lambda o: o.at):
            if root.at + _room(root) <= other.at:
                break
            root.at = max(root.at, other.at + _room(other))
        placed.append(root)
    return max((root.at + _room(root) for root in placed), default=0)


def _room(tensor: Tensor) -> int:
    return -(-tensor.bytes * tensor.images // ALIGNMENT) * ALIGNMENT
