"""Integer operations as steps of the compiled kernels: what each needs, packed once.

`describe` says whether the C code can execute an operation exactly, and how: a `Description`, which knows
nothing of where maps lie. `native_program` places maps and fills in the steps. OutOfRangeError means that
sums could leave 32 bits, or a shift the instructions: then a NumPy kernel does the work.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dpuflow.base.numerics import row_sums
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE, REFERENCE_GUARD_BITS, average_pool_factor
from dpuflow.emulator import c_kernels, oracle
from dpuflow.emulator.native_maps import NO_PAD
from dpuflow.emulator.operations import (
    TRANSPOSED,
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    InsideAverage,
    Operation,
    Pad,
    PixelShuffle,
    Pool,
    Resample,
    Slice,
    output_shape,
    plain_of_transposed,
)
from dpuflow.emulator.requantise import OutOfRangeError, Requantise
from dpuflow.emulator.resampling import bilinear, nearest
from dpuflow.xir.shapes import Shape

LARGEST_SHIFT = 30
MOST_INPUTS = 16
MOST_WINDOW_ROWS, MOST_WINDOW_COLUMNS = 16, 64
"""Of a depthwise convolution, dilation included for the columns: what the C code keeps of a row at once."""


@dataclass
class Description:
    """A step without places.

    kind : name of the C function.
    numbers, arrays : members of the C structure.
    border : pixels of zeros that the step reads around its input (left, right, top, bottom).
    weights : a convolution's int8 weights [OC, KH, KW, IC], packed when the layout of its input is known.
    group : convolution of slices.
    sums : what a convolution's sums start with, per output channel.
    bias : what is added to them before a leaky ReLU.
    spread : (h, w, rows, columns) of the map that a transposed convolution reads: its input's pixels so many
    rows and columns apart, zeros between; or None.
    channel : the first one of its input that a step reads, or None: it reads all.
    """

    kind: str
    numbers: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    border: Pad = NO_PAD
    weights: np.ndarray | None = None
    group: int = 1
    sums: np.ndarray | None = None
    bias: np.ndarray | None = None
    spread: tuple[int, int, int, int] | None = None
    channel: int | None = None


def describe(op: Operation, shapes: Sequence[Shape]) -> Description:
    """Description of `op` for inputs of `shapes` (batch first); OutOfRangeError where there is none."""
    maker = _DESCRIPTIONS.get(type(op))
    if maker is None:
        raise OutOfRangeError
    return maker(op, shapes)


def _table(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """uint8 (256,): byte (value + 128) -> byte, of a function of int8 values."""
    every = np.arange(-128, 128, dtype=np.int8)
    return (function(every).astype(np.int16) + 128).astype(np.uint8)


def _rounded(shift: int) -> np.ndarray:
    """Table of round(x / 2**shift), saturated."""
    return _table(lambda every: oracle.concat(Concat(0, (shift,)), every))


def _require(*conditions: bool) -> None:
    if not all(conditions):
        raise OutOfRangeError


def _window(op: Conv | Pool | InsideAverage, shape: Shape) -> tuple[dict[str, int], Pad]:
    """Members of the C structure, and the border that the windows read."""
    (kernel_w, kernel_h), (stride_w, stride_h) = op.kernel, op.stride
    dilation_w, dilation_h = op.dilation if isinstance(op, Conv) else (1, 1)
    left, _, top, _ = op.pad
    _, h, w, _ = shape
    _, out_h, out_w, _ = output_shape(op, [shape])
    last_row = (out_h - 1) * stride_h + (kernel_h - 1) * dilation_h - top
    last_column = (out_w - 1) * stride_w + (kernel_w - 1) * dilation_w - left
    border = (left, max(0, last_column + 1 - w), top, max(0, last_row + 1 - h))
    numbers = {
        **{"kernel_h": kernel_h, "kernel_w": kernel_w, "stride_h": stride_h, "stride_w": stride_w},
        **{"dilation_h": dilation_h, "dilation_w": dilation_w, "pad_top": top, "pad_left": left},
    }
    return numbers, border


def _conv(op: Conv, shapes: Sequence[Shape]) -> Description:
    _require(len(shapes[0]) == 4)
    if op.kind in TRANSPOSED:
        plain, spread = plain_of_transposed(op, shapes[0])
        _require(min(plain.pad) >= 0)
        described = _conv(plain, [spread])
        described.spread = spread[1], spread[2], op.stride[1], op.stride[0]
        return described
    numbers, border = _window(op, shapes[0])
    weights = op.weights
    if op.kind == "depthwise":
        extent = (op.kernel[0] - 1) * op.dilation[0] + 1
        _require(op.kernel[1] <= MOST_WINDOW_ROWS, extent <= MOST_WINDOW_COLUMNS, op.stride[0] <= 16)
        rows = weights[0].reshape(-1, weights.shape[3]).T
    else:
        rows = weights.reshape(weights.shape[0], -1)
    sizes, sums = row_sums(rows)
    largest, start = 128 * sizes, -128 * sums
    kind = {"conv2d": "convolve", "depthwise": "depthwise"}[op.kind]
    described = Description(kind, numbers, {}, border, op.weights, op.group)
    if op.nonlinear.kind == "LEAKYRELU":
        _leaky(op, largest, described)
        described.sums = start
        return described
    steps = Requantise(largest, op.shift_cut, op.nonlinear, op.fix_out, op.bias, op.shift_bias)
    _require(0 <= op.shift_cut <= LARGEST_SHIFT)
    offsets = steps.integer_offsets
    # sums that wrap around on the way end right, if the last one fits
    _require(max(int(a) + abs(v) for a, v in zip(largest, offsets, strict=True)) < 1 << 31)
    described.sums = np.array(offsets, dtype=np.int64) + start
    described.numbers |= {"shift": op.shift_cut, "low": steps.low, "high": steps.high}
    if steps.table is not None:
        described.arrays["table"] = (steps.table.astype(np.int16) + 128).astype(np.uint8)
    return described


def _leaky(op: Conv, largest: np.ndarray, described: Description) -> None:
    """value = sum * 2**fraction + bias, in units of 2**-fraction; both branches round it once."""
    fraction = max(0, -op.shift_bias) if op.bias is not None else 0
    _require(fraction <= 8, op.shift_bias <= LARGEST_SHIFT, op.shift_cut >= 0, op.shift_cut + fraction <= 22)
    up = op.shift_bias + fraction
    biases = [0] * len(largest) if op.bias is None else [int(b) << up for b in op.bias]
    slope, bits = LEAKY_RELU_SLOPE
    half = 1 << (op.shift_cut + fraction + bits - 1)
    bound = max((int(a) << fraction) + abs(b) for a, b in zip(largest, biases, strict=True))
    _require(bound * slope + half < 1 << 31)
    described.bias = np.array(biases, dtype=np.int64)
    numbers = {"leaky": 1, "fraction": fraction, "multiplier": slope, "shift": op.shift_cut}
    described.numbers |= {**numbers, "low": -128, "high": 127}


def _pool(op: Pool, shapes: Sequence[Shape]) -> Description:
    _require(len(shapes[0]) == 4)
    numbers, _ = _window(op, shapes[0])
    if op.kind == "MAX":
        return Description("max_pool", numbers, {"table": _rounded(op.shift)} if op.shift else {})
    factor, shift = _average(op.kernel[1], op.kernel[0], op.shift)
    return Description("average_pool", {**numbers, "multiplier": factor, "shift": shift})


def _average(height: int, width: int, shift: int) -> tuple[int, int]:
    """(factor, shift to the right) of a window's sum for its mean / 2**shift."""
    factor, bits = average_pool_factor(height, width)
    _require(abs(shift) <= LARGEST_SHIFT, bits + shift <= LARGEST_SHIFT)
    factor, shift = factor << max(0, -bits - shift), max(0, bits + shift)
    _require(128 * height * width * factor + (1 << shift) < 1 << 31)
    return factor, shift


def _inside_average(op: InsideAverage, shapes: Sequence[Shape]) -> Description:
    (kernel_w, kernel_h), (left, right, top, bottom) = op.kernel, op.pad
    _require(len(shapes[0]) == 4, max(left, right) < kernel_w, max(top, bottom) < kernel_h)
    numbers, _ = _window(op, shapes[0])
    factors = np.zeros((kernel_h + 1, kernel_w + 1, 2), np.int64)
    for h in range(1, kernel_h + 1):
        for w in range(1, kernel_w + 1):
            factors[h, w] = _average(h, w, op.shift)
    return Description("average_pool", numbers, {"factors": factors})


def _shuffle(op: PixelShuffle, shapes: Sequence[Shape]) -> Description:
    _require(len(shapes[0]) == 4)
    arrays = {"table": _rounded(op.shift)} if op.shift else {}
    return Description("shuffle", {"shift": op.scale, "multiplier": int(op.upscale)}, arrays)


def _slice(op: Slice, shapes: Sequence[Shape]) -> Description:
    """Whole pixels of some of the channels."""
    rows, columns, (channel, _, stride) = op.bounds
    _require(len(shapes[0]) == 4, stride > 0)
    arrays = {"rows": np.arange(*rows), "columns": np.arange(*columns)}
    arrays |= {"table": _rounded(op.shift)} if op.shift else {}
    return Description("pick", {"multiplier": stride}, arrays, channel=channel)


def _eltwise(op: Eltwise, shapes: Sequence[Shape]) -> Description:
    count = len(op.fix_in)
    ranks = {len(shape) for shape in shapes}
    equal = len({tuple(shape[1:]) for shape in shapes}) == 1
    _require(1 < count <= MOST_INPUTS, len(ranks) == 1, equal or max(ranks) <= 4)
    if op.kind == "ADD":
        lowest = min(op.fix_in)
        shifts = [max(REFERENCE_GUARD_BITS - (fix - lowest), -31) for fix in op.fix_in]
        shift, largest = REFERENCE_GUARD_BITS + lowest - op.fix_out, count << (7 + REFERENCE_GUARD_BITS)
    else:
        shifts, shift, largest = [0] * count, sum(op.fix_in) - op.fix_out, 128**count
    _require(-16 <= shift <= 22)
    steps = Requantise([1], 0, op.nonlinear, op.fix_out)  # for its limits and its table
    numbers = {"shift": max(shift, 0), "fraction": max(-shift, 0), "low": steps.low, "high": steps.high}
    largest <<= numbers["fraction"]
    if op.nonlinear.kind == "LEAKYRELU":
        slope, bits = LEAKY_RELU_SLOPE
        numbers |= {"leaky": 1, "multiplier": slope}
        largest = largest * slope + (1 << (numbers["shift"] + bits))
    _require(largest + (1 << numbers["shift"]) < 1 << 31)
    arrays = {"shifts": np.array(shifts, np.int64)}
    if steps.table is not None:
        arrays["table"] = (steps.table.astype(np.int16) + 128).astype(np.uint8)
    return Description({"ADD": "add", "MUL": "multiply"}[op.kind], numbers, arrays)


def _hard_sigmoid(op: HardSigmoid, shapes: Sequence[Shape]) -> Description:
    return Description("copy", arrays={"table": _table(lambda every: oracle.apply(op, every))})


def _concat(op: Concat, shapes: Sequence[Shape]) -> Description:
    """One copy per input; `native_program` leaves out those whose input can be written in its place."""
    rank = len(shapes[0])
    _require(op.axis % rank == rank - 1)
    tables = {f"table{i}": _rounded(shift) for i, shift in enumerate(op.shifts) if shift}
    return Description("concat", arrays=tables)


def _resample(op: Resample, shapes: Sequence[Shape]) -> Description:
    _require(len(shapes[0]) == 4)
    if op.kind == "BILINEAR":
        _require(-LARGEST_SHIFT <= op.shift <= LARGEST_SHIFT)
        return Description("blend", {"shift": op.shift}, _mixed(op, shapes[0]))
    arrays = {
        "rows": nearest(op, shapes[0][1], 1).astype(np.int64),
        "columns": nearest(op, shapes[0][2], 0).astype(np.int64),
    }
    return Description("pick", arrays=arrays | ({"table": _rounded(op.shift)} if op.shift else {}))


def _mixed(op: Resample, shape: Shape) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for axis, name in enumerate(("column", "row")):
        lower, upper, share = bilinear(op, shape[2 - axis], axis)
        places = {f"{name}s": lower, f"upper_{name}s": upper}
        arrays |= {key: place.astype(np.int64) for key, place in places.items()}
        arrays[f"{name}_shares"] = share.astype(np.float32)
    return arrays


_DESCRIPTIONS: dict[type, Callable[..., Description]] = {
    Conv: _conv,
    Pool: _pool,
    InsideAverage: _inside_average,
    PixelShuffle: _shuffle,
    Slice: _slice,
    Eltwise: _eltwise,
    Concat: _concat,
    HardSigmoid: _hard_sigmoid,
    Resample: _resample,
}
"""Class of an operation -> function(operation, shapes); what is missing runs on NumPy."""


def pack_convolution(
    weights: np.ndarray, joined: bool, order: np.ndarray, lanes: int
) -> tuple[np.ndarray, int]:
    """(weights as `convolve.c` reads them, groups of four bytes per tap) of int8 [OC, KH, KW, IC].

    joined : a row of the window lies in one piece. order : see `convolution_order`.
    """
    outputs, kernel_h, kernel_w, _ = weights.shape
    taps = kernel_h if joined else kernel_h * kernel_w
    length = weights[0].size // taps
    quads = -(-length // 4)
    plain, packed = weights.reshape(outputs, taps, length), np.empty(len(order) * taps * quads * 4, np.int8)
    size = 2 * lanes
    for start in range(0, len(order), size):  # two vectors at a time, for the room of one block
        channels = order[start : start + size]
        padded = np.zeros((len(channels), taps, quads * 4), np.int8)
        there = channels < outputs
        padded[there, :, :length] = plain[channels[there]]
        vectors = padded.reshape(-1, lanes, taps, quads, 4).transpose(2, 3, 0, 1, 4)
        packed[start * taps * quads * 4 :][: padded.size] = vectors.reshape(-1)
    return packed, quads


def pack_depthwise(weights: np.ndarray, order: np.ndarray, lanes: int) -> np.ndarray:
    """Weights as `depthwise.c` reads them of int8 [1, KH, KW, C]: [block, rows / 4, KW, 4, lanes, 4 rows].

    order : see `depthwise_order`.
    """
    _, kernel_h, kernel_w, channels = weights.shape
    groups = -(-kernel_h // 4)
    padded = np.zeros((groups * 4, kernel_w, len(order)), np.int8)
    padded[:kernel_h, :, :channels] = weights[0]
    ordered = padded[:, :, order].reshape(groups, 4, kernel_w, -1, 4, lanes)
    return np.ascontiguousarray(ordered.transpose(3, 0, 2, 4, 5, 1)).reshape(-1)


def pack_channels(values: np.ndarray | None, order: np.ndarray) -> np.ndarray:
    """int32: one number per output channel, in the order of the vectors."""
    padded = np.zeros(len(order), np.int64)
    if values is not None:
        padded[: len(values)] = values
    return padded[order].astype(np.int32)


def pairs(known: Description, channels: int, lanes: int) -> bool:
    """Whether the last block's channels fill half a vector at most, so that it does two rows at once."""
    numbers = known.numbers
    square = numbers["kernel_h"] == numbers["kernel_w"] and numbers["kernel_w"] in (3, 5)
    common = square and numbers["dilation_w"] == 1 and numbers["stride_w"] in (1, 2)
    return lanes == 16 and common and 0 < channels % (4 * lanes) <= 2 * lanes


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def convolution_order(outputs: int, lanes: int) -> np.ndarray:
    """Channel of each lane of `convolve.c`'s vectors.

    In a block of two, lane 4 L + i of vector j is channel 8 L + 4 j + i.
    """
    two = np.arange(2 * lanes).reshape(lanes // 4, 2, 4).transpose(1, 0, 2).reshape(-1)
    vectors = _up(outputs, lanes) // lanes
    order = [two + 2 * lanes * b for b in range(vectors // 2)]
    if vectors % 2:
        order.append(np.arange(lanes) + lanes * (vectors - 1))
    return np.concatenate(order)


def depthwise_order(channels: int, lanes: int, paired: bool) -> np.ndarray:
    """Channel of each lane of `depthwise.c`'s vectors; those of a paired last block are there twice.

    Lane 4 L + i of vector j of a block of four is channel 16 L + 4 j + i.
    """
    four = np.arange(4 * lanes).reshape(lanes // 4, 4, 4).transpose(1, 0, 2).reshape(-1)
    order = [four + 4 * lanes * b for b in range(_up(channels, 4 * lanes) // (4 * lanes))]
    if paired:
        order[-1] = four % (2 * lanes) + 4 * lanes * (len(order) - 1)
    return np.concatenate(order)


def run_length(width: int) -> int:
    """Pixels of a run that cover a row with the least work."""
    choices = range(1, c_kernels.longest_run() + 1)
    return min(choices, key=lambda run: (-(-width // run) * (run + 0.7), -run))
