"""Operations and a small network for the compiled kernels, with what every difficulty of theirs needs."""

import numpy as np

from dpuflow.emulator import oracle
from dpuflow.emulator.native_program import Node
from dpuflow.emulator.operations import (
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    Pool,
    Resample,
    Slice,
    output_shape,
)

NO_PAD = (0, 0, 0, 0)


def convolution(
    rng, shape, kernel, stride=(1, 1), pad=NO_PAD, dilation=(1, 1), kind="conv2d", group=1, **other
):
    """A Conv with random weights [OC, KH, KW, IC] of `shape` (OC, IC)."""
    outputs, inputs = shape
    sizes = (1, *kernel[::-1], outputs) if kind == "depthwise" else (outputs, *kernel[::-1], inputs // group)
    return Conv(
        kind,
        rng.integers(-128, 128, sizes).astype(np.int8),
        rng.integers(-128, 128, outputs).astype(np.int8),
        **{"stride": stride, "pad": pad, "dilation": dilation, "shift_cut": 10, "shift_bias": 3},
        **{"fix_out": 4, "group": group} | other,
    )


def every_way(rng):
    """Nodes whose maps are bordered, joined, reshaped, resized, shared, and the shape of their source."""
    source = (1, 9, 11, 6)
    ops = [
        ("stem", ["image"], convolution(rng, (32, 6), (3, 3), pad=(1, 1, 1, 1))),
        ("left", ["stem"], convolution(rng, (16, 32), (1, 1))),
        ("right", ["stem"], convolution(rng, (40, 32), (3, 3), pad=(1, 1, 1, 1))),
        ("deep", ["right"], convolution(rng, (40, 40), (5, 5), pad=(2, 2, 2, 2), kind="depthwise")),
        ("inner", ["right", "deep"], Concat(3, (0, 0))),
        ("pooled", ["inner"], Pool("MAX", (3, 3), (1, 1), (1, 1, 1, 1), 0)),
        ("outer", ["left", "inner", "pooled", "left"], Concat(3, (0, 0, 1, 0))),
        ("top", ["pooled"], Slice(((0, 9, 1), (0, 11, 1), (0, 40, 1)), 0)),
        ("rest", ["pooled"], Slice(((0, 9, 1), (0, 11, 1), (40, 80, 1)), 1)),
        ("inside", ["deep"], Slice(((1, 8, 2), (2, 11, 3), (7, 20, 1)), 0)),
        ("swapped", ["rest", "top"], Concat(3, (0, 0))),
        ("filtered", ["top"], convolution(rng, (8, 40), (3, 3), pad=(1, 1, 1, 1))),
        ("mixed", ["outer"], convolution(rng, (33, 192), (3, 3), pad=(0, 1, 1, 0))),
        ("gate", ["mixed"], HardSigmoid(4, 12)),
        ("gated", ["mixed", "gate"], Eltwise("MUL", (4, 7), 4)),
        ("small", ["gated"], Pool("AVG", (2, 2), (2, 2), NO_PAD, 0)),
        ("large", ["small"], Resample("NEAREST", (10, 8), 1)),
        ("up", ["large"], convolution(rng, (33, 33), (3, 4), (2, 3), (1, 0, 0, 1), kind="transposed")),
        ("down", ["up"], Pool("MAX", (2, 3), (2, 3), NO_PAD, 0)),
        ("flat", ["down"], None),
        ("square", ["flat"], None),
        ("again", ["square"], convolution(rng, (9, 33), (3, 3), pad=(1, 1, 1, 1))),
        ("dense", ["again"], convolution(rng, (21, 9), (10, 8))),
    ]
    shapes, nodes = {"image": source}, []
    for name, inputs, op in ops:
        given = [shapes[i] for i in inputs]
        moved = {"flat": (1, 8 * 10 * 33), "square": (1, 8, 10, 33)}
        shapes[name] = moved[name] if op is None else output_shape(op, given)
        nodes.append(Node(name, tuple(inputs), op, shapes[name]))
    return nodes, source


def by_oracle(nodes, images):
    """{name: int8 array} of all nodes."""
    values = {"image": images}
    for node in nodes:
        given = [values[name] for name in node.inputs]
        values[node.name] = (
            given[0].reshape(len(images), *node.shape[1:])
            if node.operation is None
            else oracle.apply(node.operation, *given)
        )
    return values
