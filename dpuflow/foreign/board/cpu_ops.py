"""The operators of a network's CPU layers, in NumPy.

Python 3.6 or later; part of a dpuflow bundle, next to app.py. meta.json describes each op as plain
data with everything settled (shifts, limits, output sizes), so nothing but arithmetic is left here.
Arrays have the batch first.
"""

import cpu_rare
import numpy as np
from board_info import AppError
from cpu_floats import (
    avgpool2d,
    conv2d,
    depthwise_conv2d,
    fix,
    fix2float,
    float2fix,
    float32,
    folded,
    hard_sigmoid,
    leaky_relu,
    matmul,
    maxpool2d,
    mean,
    mul,
    norm,
    relu,
    sigmoid,
    softmax,
)
from cpu_integers import (
    concat_fix,
    conv2d_fix,
    depthwise_conv2d_fix,
    eltwise_fix,
    pool_fix,
    table_fix,
)
from cpu_resizing import resize, resize_fix


def prepare(op, arrays):
    """function(list of input arrays) -> array for one op of meta.json; `arrays`: the bundle's parameters."""
    if op["type"] not in OPERATORS:
        raise AppError(
            "op {!r} is of type {!r}, which this application cannot run; it knows {}".format(
                op["name"], op["type"], ", ".join(sorted(OPERATORS))
            )
        )
    own = {name: arrays[key] for name, key in op.get("arrays", {}).items()}
    return OPERATORS[op["type"]](op, own)


def move(op, arrays):
    """The values as they are."""
    return lambda inputs: inputs[0]


def reshape(op, arrays):
    """New shape of each image."""
    return lambda inputs: inputs[0].reshape([inputs[0].shape[0]] + op["shape"])


def concat(op, arrays):
    """Joined along an axis."""

    def run(inputs):
        images = max(len(x) for x in inputs)  # a constant among them is one image for all
        parts = [x if len(x) == images else np.repeat(x, images, axis=0) for x in inputs]
        return np.concatenate(parts, axis=op["axis"])

    return run


def strided_slice(op, arrays):
    """Every so many values between two places of each axis."""
    index = (slice(None),) + tuple(slice(*bounds) for bounds in op["bounds"])
    return lambda inputs: inputs[0][index]


def strided_slice_fix(op, arrays):
    """The same of int8 values, shifted and rounded."""
    part, shift = strided_slice(op, arrays), concat_fix({"shifts": op["shifts"], "axis": 1}, arrays)
    return lambda inputs: shift([part(inputs)])


def transpose(op, arrays):
    """Axes in another order."""
    return lambda inputs: np.ascontiguousarray(inputs[0].transpose(op["order"]))


def pixel_shuffle(op, arrays):
    """Channel c * scale**2 + i * scale + j of a pixel is channel c of pixel (i, j) of its block."""

    def run(inputs):
        x, scale = inputs[0], op["scale"]
        n, height, width, channels = x.shape
        if op["upscale"]:
            x = x.reshape(n, height, width, channels // scale**2, scale, scale).transpose(0, 1, 4, 2, 5, 3)
            return x.reshape(n, height * scale, width * scale, -1)
        x = x.reshape(n, height // scale, scale, width // scale, scale, channels).transpose(0, 1, 3, 5, 2, 4)
        return x.reshape(n, height // scale, width // scale, -1)

    return run


def pixel_shuffle_fix(op, arrays):
    """The same of int8 values, shifted and rounded."""
    shuffle, shift = pixel_shuffle(op, arrays), concat_fix({"shifts": op["shifts"], "axis": 3}, arrays)
    return lambda inputs: shuffle([shift(inputs)])


OPERATORS = {
    "conv2d-fix": conv2d_fix,
    "depthwise-conv2d-fix": depthwise_conv2d_fix,
    "transposed-conv2d-fix": conv2d_fix,
    "transposed-depthwise-conv2d-fix": depthwise_conv2d_fix,
    "pool-fix": pool_fix,
    "eltwise-fix": eltwise_fix,
    "depthwise-fix": eltwise_fix,
    "hard-sigmoid-fix": table_fix,
    "concat-fix": concat_fix,
    "upsample-fix": resize_fix,
    "pixel-shuffle-fix": pixel_shuffle_fix,
    "strided_slice-fix": strided_slice_fix,
    "pixel-shuffle": pixel_shuffle,
    "downsample-fix": resize_fix,
    "resize": resize,
    "reshape-fix": reshape,
    "upload": move,
    "download": move,
    "identity": move,
    "reshape": reshape,
    "flatten": reshape,
    "squeeze": reshape,
    "concat": concat,
    "transpose": transpose,
    "fix": fix,
    "fix2float": fix2float,
    "float2fix": float2fix,
    "softmax": softmax,
    "hard-sigmoid": hard_sigmoid,
    "nndct_normalize": norm,
    "reduction_mean": mean,
    "aten::mean": mean,
    "conv2d": conv2d,
    "depthwise-conv2d": depthwise_conv2d,
    "transposed-conv2d": conv2d,
    "transposed-depthwise-conv2d": depthwise_conv2d,
    "maxpool2d": maxpool2d,
    "avgpool2d": avgpool2d,
    "mul": mul,
    "add": folded(np.add),
    "max": folded(np.maximum),
    "min": folded(np.minimum),
    "sub": folded(np.subtract),
    "matmul": matmul,
    "div": folded(np.divide),
    "sigmoid": sigmoid,
    "exp": float32(np.exp),
    "tanh": float32(np.tanh),
    "strided_slice": strided_slice,
    "relu": relu,
    "relu6": relu,
    "leaky-relu": leaky_relu,
}
OPERATORS.update(cpu_rare.OPERATORS)
"""Type of an op (XIR's name) -> function(op, its parameters) -> function(inputs) -> array."""
