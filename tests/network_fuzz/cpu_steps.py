"""The steps that stand at a network's end: layers of the CPU, which compute real numbers."""

from math import prod

import numpy as np

from tests.network_fuzz.steps import Kind, alone, draw_which, nothing, with_units


def arithmetic(maker, step, sources):
    """With a constant, broadcast along some axes."""
    shape, rng = maker.shape(sources[0]), maker.rng
    size = tuple(int(rng.choice([1, n])) for n in shape)
    other = maker.constant(rng.uniform(0.5, 2, size) * rng.choice([-1, 1]))
    pair = [sources[0], other]
    swapped = step["swapped"] and step["op"] != "float_divide"
    return maker.add(step["op"], pair[:: -1 if swapped else 1])


def reshape(maker, step, sources):
    """To two axes."""
    count = prod(maker.shape(sources[0]))
    first = int(maker.rng.choice([n for n in range(1, count + 1) if count % n == 0]))
    return maker.add("float_reshape", sources[:1], {"target": (first, count // first)})


def transpose(maker, step, sources):
    """Any order."""
    order = (0, *(int(n) + 1 for n in maker.rng.permutation(len(maker.shape(sources[0])))))
    return maker.add("transpose", sources[:1], {"order": order})


def cut(maker, step, sources):
    """A part along each axis."""
    shape, rng = maker.shape(sources[0]), maker.rng
    begin = tuple(int(rng.integers(0, n)) for n in shape)
    end = tuple(int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, shape, strict=True))
    strides = tuple(int(n) for n in rng.integers(1, 3, len(shape)))
    return maker.add("float_slice", sources[:1], {"begin": begin, "end": end, "strides": strides})


def join(maker, step, sources):
    """A constant at the end of an axis."""
    shape = maker.shape(sources[0])
    axis = step["which"] % len(shape)
    more = maker.constant(maker.rng.normal(size=(*shape[:axis], 2, *shape[axis + 1 :])))
    return maker.add("float_concat", [sources[0], more], {"axis": axis + 1})


def matmul(maker, step, sources):
    """With a constant matrix."""
    last = maker.shape(sources[0])[-1]
    matrix = maker.constant(maker.rng.normal(size=(last, step["units"])) / np.sqrt(last))
    return maker.add("float_matmul", [sources[0], matrix])


def argmax(maker, step, sources):
    """Along some axis."""
    axis = 1 + step["which"] % len(maker.shape(sources[0]))
    return maker.add("argmax", sources[:1], {"axis": axis})


TAILS = {
    "arithmetic": Kind(
        lambda rng: {
            "op": str(rng.choice(["float_add", "float_subtract", "float_multiply", "float_divide"])),
            "swapped": bool(rng.random() < 0.3),
        },
        arithmetic,
    ),
    "float_reshape": Kind(nothing, reshape),
    "transpose": Kind(nothing, transpose),
    "float_slice": Kind(nothing, cut),
    "float_concat": Kind(draw_which, join),
    "float_matmul": Kind(with_units(nothing), matmul),
    "argmax": Kind(draw_which, argmax),
    "alone": Kind(lambda rng: {"op": str(rng.choice(["softmax", "tanh", "float_sigmoid", "exp"]))}, alone, 2),
}
"""Steps that stand at the end: the CPU's."""
