"""Descriptions of resizing and of padded averages for `foreign/board/cpu_ops.py`: where pixels are read."""

from collections.abc import Sequence
from typing import Any

from dpuflow.emulator.operations import InsideAverage, Resample
from dpuflow.emulator.resampling import bilinear, nearest
from dpuflow.ops.pooling import InsideAveragePool


def describe_resample(operation: Resample, shape: Sequence[int]) -> dict[str, Any]:
    """Rows and columns that an output of a map (N, H, W, C) reads, and how they mix."""
    factor = 2.0**-operation.shift
    if operation.kind != "BILINEAR":
        places = {
            name: nearest(operation, shape[2 - axis], axis).tolist()
            for axis, name in ((1, "rows"), (0, "columns"))
        }
        return {**places, "factor": factor}
    top, bottom, down = bilinear(operation, shape[1], 1)
    left, right, across = bilinear(operation, shape[2], 0)
    return {
        "rows": [top.tolist(), bottom.tolist()],
        "columns": [left.tolist(), right.tolist()],
        "factor": factor,
        "arrays": {"row_share": down, "column_share": across},
    }


def describe_inside_average(operation: InsideAverage, shape: Sequence[int]) -> dict[str, Any]:
    """The window of a pool, and the factor of each output pixel."""
    operator = InsideAveragePool(operation.kernel, operation.stride, operation.pad)
    factors = operator.factors(tuple(shape[1:])) * 2.0**-operation.shift
    return {
        "kernel": list(operation.kernel),
        "stride": list(operation.stride),
        "pad": list(operation.pad),
        "out": list(factors.shape[:2]),
        "arrays": {"factors": factors},
    }
