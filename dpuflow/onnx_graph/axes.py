"""Where the values of an ONNX tensor stand in a layer's output: an algebra of axes.

ONNX counts (N, C, H, W), a layer has (H, W, C); exporters transpose, split, join and drop axes. None of
that is a layer: it is noted. Each axis of the ONNX tensor behind the batch is a tuple of `Atom`s, which are
parts of the layer's axes, slowest first; an axis of size 1 is the empty tuple. (C, H, W) flattened to a
vector is one axis of three atoms; channels in g groups are two axes of one atom each.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Atom(NamedTuple):
    """A part of a layer's axis: `size` places, `stride` apart, counted along the layer's axis `axis`."""

    axis: int
    size: int
    stride: int = 1


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


def simplified(atoms: Iterable[Atom]) -> Axis:
    """The same order of values in as few atoms as can be: neighbours joined, those of size 1 left out."""
    found: list[Atom] = []
    for atom in atoms:
        if atom.size == 1:
            continue
        last = found[-1] if found else None
        if last is not None and last.axis == atom.axis and last.stride == atom.stride * atom.size:
            found[-1] = Atom(atom.axis, last.size * atom.size, atom.stride)
        else:
            found.append(atom)
    return tuple(found)


def whole(shape: Sequence[int], order: Sequence[int]) -> Axes:
    """A layer's axes, each whole, in this order: whole((H, W, C), (2, 0, 1)) is what ONNX calls CHW."""
    return tuple(simplified([Atom(axis, shape[axis])]) for axis in order)


def size(axis: Iterable[Atom]) -> int:
    """Values along an axis."""
    return math.prod(atom.size for atom in axis)


def sizes(axes: Axes) -> tuple[int, ...]:
    """The shape behind the batch."""
    return tuple(size(axis) for axis in axes)


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """The axes of the same values in a new shape; None where a new axis cuts through an old one unevenly."""
    pending = [atom for axis in axes for atom in axis][::-1]
    result = []
    for wanted in shape:
        taken: list[Atom] = []
        while wanted > 1:
            if not pending:
                return None
            atom = pending.pop()
            if wanted % atom.size == 0:
                taken.append(atom)
                wanted //= atom.size
            elif atom.size % wanted == 0:
                inner = atom.size // wanted
                taken.append(Atom(atom.axis, wanted, atom.stride * inner))
                pending.append(Atom(atom.axis, inner, atom.stride))
                wanted = 1
            else:
                return None
        result.append(simplified(taken))
    return tuple(result) if not pending else None


def positions(axes: Iterable[Axis], shape: Sequence[int]) -> np.ndarray:
    """For each value in ONNX's order its place in the layer's flattened output."""
    places = np.zeros(1, np.int64)
    for axis in axes:
        for atom in axis:
            step = atom.stride * math.prod(shape[atom.axis + 1 :])
            places = (places[:, None] + step * np.arange(atom.size)).reshape(-1)
    return places


def cuts(axes: Axes, shape: Sequence[int]) -> tuple[list[Atom], list[int]] | None:
    """How all values of a layer become ONNX's: (atoms in the layer's order, order of them in ONNX's).

    None where the axes are not all values of the layer.
    """
    atoms = [atom for axis in axes for atom in axis]
    found = sorted(atoms, key=lambda atom: (atom.axis, -atom.stride))
    for number, size in enumerate(shape):
        left = size
        for atom in (atom for atom in found if atom.axis == number):
            if atom.size * atom.stride != left:
                return None
            left = atom.stride
        if left != 1:
            return None
    return found, [found.index(atom) for atom in atoms]


def of_vector(axes: Axes, shape: Sequence[int]) -> Axes:
    """The same axes, of the layer flattened to a vector."""
    return tuple(
        simplified(Atom(0, atom.size, atom.stride * math.prod(shape[atom.axis + 1 :])) for atom in axis)
        for axis in axes
    )


def has_whole(axis: Axis, shape: Sequence[int], number: int) -> bool:
    """Whether an ONNX axis is the layer's axis `number`, whole and in order."""
    return axis == simplified([Atom(number, shape[number])])


def only_of(axis: Axis, number: int) -> bool:
    """Whether an ONNX axis is made of parts of one axis of the layer."""
    return all(atom.axis == number for atom in axis)
