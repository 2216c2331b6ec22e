"""Descriptions of integer operations for `foreign/board/cpu_ops.py`: shifts, clamps, windows, tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.board.resizing_parts import describe_inside_average, describe_resample
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE, REFERENCE_GUARD_BITS, RELU6_LIMIT, average_pool_factor
from dpuflow.emulator import oracle
from dpuflow.emulator.operations import (
    TRANSPOSED,
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    InsideAverage,
    Operation,
    PixelShuffle,
    Pool,
    Resample,
    Slice,
    output_shape,
    plain_of_transposed,
)


def describe_operation(operation: Operation, shape: Sequence[int]) -> dict[str, Any]:
    """Description of an integer operation (`emulator.operations`) on an input of `shape` (batch first).

    Its arrays are under "arrays", by name. TypeError for an operation that has no description.
    """
    describe = _OPERATIONS.get(type(operation))
    if describe is None:
        raise TypeError(f"no description of {operation!r}")
    return describe(operation, shape)


def _requantise(shift, nonlinear=None, fix_out=0, **more):
    """(settings, arrays) of `cpu_integers.Requantise`."""
    kind = nonlinear.kind if nonlinear else "NONE"
    settings = {"shift": int(shift), **more, "low": INT8_MIN, "high": INT8_MAX}
    arrays = {}
    if kind in ("RELU", "RELU6"):
        settings["low"] = 0
    if kind == "RELU6" and fix_out <= 4:
        settings["high"] = RELU6_LIMIT
    if kind == "LEAKYRELU":
        settings["slope"] = list(LEAKY_RELU_SLOPE)
    if kind in ("HSIGMOID", "HSWISH"):
        rounded = oracle.Exact(np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int64))
        arrays["table"] = oracle.activate(rounded, nonlinear, fix_out)
    return settings, arrays


def _window(operation, shape, dilation=(1, 1)):
    return {
        "kernel": [int(n) for n in operation.kernel],
        "stride": list(operation.stride),
        "dilation": list(dilation),
        "pad": list(operation.pad),
        "out": list(output_shape(operation, [shape])[1:3]),
    }


def _conv(operation, shape):
    more = {"shift_bias": int(operation.shift_bias)}
    settings, arrays = _requantise(operation.shift_cut, operation.nonlinear, operation.fix_out, **more)
    arrays["weights"] = operation.weights
    if operation.bias is not None:
        arrays["bias"] = operation.bias
    spread = list(operation.stride) if operation.kind in TRANSPOSED else None
    if spread:
        operation, shape = plain_of_transposed(operation, shape)
    window = _window(operation, shape, operation.dilation)
    return {**window, "spread": spread, "group": operation.group, "requantise": settings, "arrays": arrays}


def _pool(operation, shape):
    factor, shift = None, operation.shift
    if operation.kind == "AVG":
        factor, bits = average_pool_factor(operation.kernel[1], operation.kernel[0])
        shift += bits
    settings, _ = _requantise(shift)
    return {**_window(operation, shape), "factor": factor, "requantise": settings}


def _eltwise(operation, shape):
    if operation.kind == "MUL":
        shift, more = sum(operation.fix_in) - operation.fix_out, {}
    else:
        lowest = min(operation.fix_in)
        shift = REFERENCE_GUARD_BITS + lowest - operation.fix_out
        more = {"guard": REFERENCE_GUARD_BITS, "shifts": [int(fix - lowest) for fix in operation.fix_in]}
    settings, arrays = _requantise(shift, operation.nonlinear, operation.fix_out)
    return {"kind": operation.kind, **more, "requantise": settings, "arrays": arrays}


def _concat(operation, shape):
    return {"axis": operation.axis, "shifts": [int(shift) for shift in operation.shifts]}


def _shuffle(operation, shape):
    return {"scale": operation.scale, "upscale": operation.upscale, "shifts": [int(operation.shift)]}


def _slice(operation, shape):
    return {"bounds": [list(each) for each in operation.bounds], "shifts": [int(operation.shift)]}


def _table(operation, shape):
    return {"arrays": {"table": oracle.apply(operation, np.arange(INT8_MIN, INT8_MAX + 1).astype(np.int8))}}


_OPERATIONS = {
    **{Conv: _conv, Pool: _pool, Eltwise: _eltwise, Concat: _concat, HardSigmoid: _table},
    InsideAverage: describe_inside_average,
    Resample: describe_resample,
    PixelShuffle: _shuffle,
    Slice: _slice,
}
"""Operation -> function(operation, shape of its input), for all of `emulator.operations`."""
