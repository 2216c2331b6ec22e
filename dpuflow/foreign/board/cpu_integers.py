"""Integer operators of CPU layers: exact, whatever the shifts (cpu_ops.py says how they are described)."""

import numpy as np
from cpu_windows import fold, group_matrices, products, reduce_windows, windows


class Requantise:
    """From exact sums to int8: bias, activation, rounding (halves up), saturation, table.

    y = table[clip(floor(f((sums + bias * 2**shift_bias) / 2**shift) + 1/2), low, high)]; f multiplies
    negative values by slope[0] / 2**slope[1]. `largest` bounds the sums; int64 where that provably
    suffices, else Python's integers.
    """

    def __init__(self, op, largest, bias=None, table=None):
        settings = op["requantise"]
        shift_bias = settings.get("shift_bias", 0)
        self.finer = max(0, -shift_bias)  # bits of the bias below the sums' last one
        self.slope, slope_bits = settings.get("slope") or (None, 0)
        self.slope_bits = slope_bits
        self.shift = settings["shift"] + self.finer + slope_bits
        self.low, self.high, self.table = settings["low"], settings["high"], table
        top = ((int(largest) << self.finer) + (128 << (shift_bias + self.finer))) << (slope_bits + 1)
        if self.shift < 0:
            top <<= -self.shift
        fits = top < 1 << 62 and self.shift < 62
        self.dtype = np.dtype(np.int64 if fits else object)
        self.bias = None
        if bias is not None:
            self.bias = bias.astype(self.dtype) * (1 << (shift_bias + self.finer))

    def __call__(self, sums):
        value = sums.astype(self.dtype)
        if self.finer:
            value = value * (1 << self.finer)
        if self.bias is not None:
            value = value + self.bias
        if self.slope is not None:
            value = np.where(value < 0, value * self.slope, value * (1 << self.slope_bits))
        if self.shift > 0:
            value = (value + (1 << (self.shift - 1))) >> self.shift  # >> floors negative numbers, too
        elif self.shift < 0:
            value = value * (1 << -self.shift)
        value = np.minimum(np.maximum(value, self.low), self.high).astype(np.int8)
        return value if self.table is None else lookup(self.table, value)


def lookup(table, x):
    """Entry x + 128 of a table of 256."""
    return np.take(table, x.astype(np.int16) + 128)


def conv2d_fix(op, arrays):
    """Convolution; every partial sum of integers is exact in the float type chosen for it."""
    weights = arrays["weights"]
    largest = 128 * int(np.abs(weights.astype(np.int64)).reshape(weights.shape[0], -1).sum(axis=1).max())
    matrices = group_matrices(weights, op["group"], np.float32 if largest < 1 << 24 else np.float64)
    finish = Requantise(op, largest, arrays.get("bias"), arrays.get("table"))
    return lambda inputs: finish(products(windows(inputs[0], op), matrices).astype(np.int64))


def depthwise_conv2d_fix(op, arrays):
    """Depthwise convolution; weights [1, KH, KW, C]."""
    weights = arrays["weights"][0].astype(np.int64)
    largest = 128 * int(np.abs(weights).sum(axis=(0, 1)).max())
    dtype = np.int32 if largest < 1 << 31 else np.int64
    weights = weights.astype(dtype)
    finish = Requantise(op, largest, arrays.get("bias"), arrays.get("table"))

    def run(inputs):
        view = windows(inputs[0].astype(dtype), op)
        sums = np.zeros(view.shape[:3] + view.shape[5:], dtype)
        for row in range(view.shape[3]):
            for column in range(view.shape[4]):
                sums += view[:, :, :, row, column] * weights[row, column]
        return finish(sums)

    return run


def pool_fix(op, arrays):
    """Maximum, or sum times the DPU's factor for 1 / (kernel area), which may be each window's own."""
    if "factors" in arrays:

        def averages(inputs):
            sums = reduce_windows(inputs[0].astype(np.float64), op, np.add, 0)
            rounded = np.floor(sums * arrays["factors"] + 0.5)
            return np.minimum(np.maximum(rounded, -128), 127).astype(np.int8)

        return averages
    factor, largest = op["factor"], 128
    if factor is None:
        if not op["requantise"]["shift"]:
            return lambda inputs: reduce_windows(inputs[0], op, np.maximum, -128)
        finish = Requantise(op, largest)
        return lambda inputs: finish(reduce_windows(inputs[0], op, np.maximum, -128))
    finish = Requantise(op, largest * op["kernel"][0] * op["kernel"][1] * factor)
    return lambda inputs: finish(reduce_windows(inputs[0].astype(np.int64), op, np.add, 0) * factor)


def eltwise_fix(op, arrays):
    """ADD: sum of floor(x * 2**(guard - shift of x)); MUL: product."""
    if op["kind"] == "MUL":
        dtype = np.int64 if len(op["inputs"]) < 8 else object
        finish = Requantise(op, 128 ** len(op["inputs"]), table=arrays.get("table"))
        return lambda inputs: finish(fold(np.multiply, [x.astype(dtype) for x in inputs]))
    shifts, guard = op["shifts"], op["guard"]
    finish = Requantise(op, (128 << guard) * len(shifts), table=arrays.get("table"))

    def run(inputs):
        fine = [(x.astype(np.int64) << guard) >> min(62, shift) for x, shift in zip(inputs, shifts)]  # noqa: B905
        return finish(fold(np.add, fine))

    return run


def table_fix(op, arrays):
    """Any function of one int8 value."""
    return lambda inputs: lookup(arrays["table"], inputs[0])


def concat_fix(op, arrays):
    """Joined; inputs of another fix_point are shifted and rounded first."""
    shifts = op["shifts"]
    each = [Requantise({"requantise": {"shift": s, "low": -128, "high": 127}}, 128) for s in shifts]

    def run(inputs):
        parts = [f(x) if s else x for f, s, x in zip(each, shifts, inputs)]  # noqa: B905 (Python 3.6)
        images = max(len(part) for part in parts)  # a constant among them is one image for all
        parts = [part if len(part) == images else np.repeat(part, images, axis=0) for part in parts]
        return np.concatenate(parts, axis=op["axis"])

    return run
