"""Resizing of maps, for the operators of CPU layers (cpu_ops.py).

Where each output pixel reads stands in the description: "rows" and "columns" of whole pixels, or of two
each, between which the parameters "row_share" and "column_share" mix. Floats are float32, step by step,
as the vendor's runner has them.
"""

import numpy as np


def _mixed(x, op, arrays):
    """Between the two columns, then between the two rows of each output pixel."""
    x = x.astype(np.float32)
    (left, right), (top, bottom) = op["columns"], op["rows"]
    first, second = x[:, :, left], x[:, :, right]
    x = first + (second - first) * arrays["column_share"][:, None]
    first, second = x[:, top], x[:, bottom]
    return first + (second - first) * arrays["row_share"][:, None, None]


def resize(op, arrays):
    """Floats: not rounded."""
    if "row_share" in arrays:
        return lambda inputs: _mixed(inputs[0], op, arrays)
    return lambda inputs: inputs[0][:, op["rows"]][:, :, op["columns"]]


def resize_fix(op, arrays):
    """int8 values, times `factor`, rounded (halves up) and saturated."""
    function, factor = resize(op, arrays), op["factor"]
    if factor == 1 and "row_share" not in arrays:
        return function

    def run(inputs):
        result = np.floor(function(inputs).astype(np.float64) * factor + 0.5)
        return np.minimum(np.maximum(result, -128), 127).astype(np.int8)

    return run
