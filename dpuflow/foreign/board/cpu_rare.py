"""Operators of CPU layers that few networks have, computed as dpuflow's emulator does."""

import numpy as np
from cpu_integers import concat_fix


def pad(op, arrays):
    """Around each map: paddings are (before, after) per axis, mode is NumPy's."""
    more = {"constant_values": op["value"]} if op["mode"] == "constant" else {}
    return lambda inputs: np.pad(inputs[0], op["paddings"], mode=op["mode"], **more)


def reduction_max(op, arrays):
    """Maximum over axes."""
    axes = tuple(op["axes"])
    return lambda inputs: inputs[0].max(axis=axes, keepdims=op["keep"])


def reduction_max_fix(op, arrays):
    """The same of int8 values, shifted and rounded."""
    largest, shift = reduction_max(op, arrays), concat_fix({"shifts": op["shifts"], "axis": 0}, arrays)
    return lambda inputs: shift([largest(inputs)])


def reduction_sum(op, arrays):
    """Sum over axes: in float64, rounded to float32 once."""
    axes = tuple(op["axes"])
    return lambda inputs: (
        np.asarray(inputs[0], np.float64).sum(axis=axes, keepdims=op["keep"]).astype(np.float32)
    )


def argmax(op, arrays):
    """Place of the largest value, the first of equal ones: float32, or int8."""
    axis, shape = op["axis"], op["shape"]
    dtype = np.int8 if op["type"].endswith("-fix") else np.float32
    return lambda inputs: np.argmax(inputs[0], axis=axis).astype(dtype).reshape([len(inputs[0])] + shape)


def common(inputs):
    """As float32 if any input is."""
    if any(x.dtype == np.float32 for x in inputs):
        return [x.astype(np.float32, copy=False) for x in inputs]
    return inputs


def scale(op, arrays):
    """x * factors (+ offsets) per channel."""

    def run(inputs):
        given = common([inputs[0], arrays["factors"]] + ([arrays["offsets"]] if "offsets" in arrays else []))
        scaled = given[0] * given[1]
        return scaled if len(given) == 2 else scaled + given[2]

    return run


def prelu(op, arrays):
    """x where positive, slopes * x elsewhere, per channel."""

    def run(inputs):
        x, slopes = common([inputs[0], arrays["slopes"]])
        return np.where(x < 0, x * slopes, x)

    return run


def negative(op, arrays):
    """-x."""
    return lambda inputs: np.negative(inputs[0])


OPERATORS = {
    "pad-fix": pad,
    "pad": pad,
    "reduction_max": reduction_max,
    "reduction_max-fix": reduction_max_fix,
    "reduction_sum": reduction_sum,
    "argmax": argmax,
    "argmax-fix": argmax,
    "scale": scale,
    "batchnorm": scale,
    "prelu": prelu,
    "neg": negative,
}
"""Type of an op -> function(op, its parameters) -> function(inputs) -> array."""
