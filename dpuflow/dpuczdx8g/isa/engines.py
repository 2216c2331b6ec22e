"""What each instruction does to memory, for a batch of images at once.

Memory holds int8. Image banks are [entry, image, byte], so that gathering entries copies
long runs. Weight and bias banks are [entry, image, byte], with one "image" for all where the
program loads them from the parameters only. DDR regions are [image, byte], REG_0
(parameters) is [byte]. Source of every formula: docs/reference/instruction-set.md.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from dpuflow.dpuczdx8g.isa.addressing import PADDING
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine
from dpuflow.dpuczdx8g.isa.settings import (
    AVERAGE_POOL,
    DEPTHWISE,
    FILL,
    HARD_SIGMOID,
    LEAKY,
    MAX_POOL,
    MAX_REDUCE,
    PRELU,
)
from dpuflow.dpuczdx8g.isa.steps import Region, Step

FLOAT32_EXACT = 2**24
"""Integers below this are exact in float32."""
INT32_SHIFT = 22
"""Sums below FLOAT32_EXACT that are shifted to the right by at most this stay within 32 bits on their way."""
COLUMNS_BYTES = 2**26
"""Bytes of a CONV's windows, side by side, that are kept for the output channels that follow."""

NOISE_BYTES = 1_000_003
RELU, LEAKY_RELU, RELU6 = 1, 3, 4
RELU6_LIMIT = 96
LEAKY_FACTOR, LEAKY_SHIFT = 26, 8
CODED_LEAKY = 32
"""shift_prelu_n and _p from here on mean a shift to the right by code - 32, below one to the left by code."""
CODED_RIGHT = 8
"""ALU shift codes from here on mean a shift to the right by code - 8."""


class Memory:
    """Banks and DDR regions for `images` images; banks start out as noise.

    Noise, because a DPU's banks hold what the last program left: code that relies on
    anything else must fail here too.
    """

    def __init__(
        self,
        machine: Machine,
        images: int,
        regions: Mapping[str, Region],
        parameters: bytes,
        seed: int = 0,
        weights_per_image: bool = False,
    ) -> None:
        # an odd length, so that the repeated block lies differently in every bank and image
        block = np.random.default_rng(seed).integers(-128, 128, NOISE_BYTES, np.int8)
        self.machine, self.images = machine, images
        self.image = np.resize(block, (machine.image_banks * BANK_DEPTH, images, machine.channels))
        others = (machine.banks - machine.image_banks) * BANK_DEPTH
        self.constant = np.resize(block, (others, images if weights_per_image else 1, machine.channels))
        self.first_constant = machine.image_banks * BANK_DEPTH
        self.regions = {
            name: np.resize(block, (images, region.size))
            for name, region in regions.items()
            if name != "REG_0"
        }
        self.parameters = np.frombuffer(parameters, np.int8)
        self.conv_input: np.ndarray | None = None
        self.conv_columns: np.ndarray | None = None
        self.conv_window: tuple[Any, ...] = ()

    def constants(self, index: np.ndarray, per_image: bool) -> np.ndarray:
        """Entries of the weight or bias banks: index.shape + [image, byte], one image if not `per_image`."""
        entries = self.constant[index - self.first_constant]
        return entries if per_image else entries[..., :1, :]


def execute(step: Step, memory: Memory) -> None:
    """Execute one step on `memory`."""
    engine = _ENGINES.get(step.instruction.name)
    if engine is not None:
        engine(step, memory)


def saturate(values: np.ndarray) -> np.ndarray:
    """Clamp to int8."""
    return np.clip(values, -128, 127).astype(np.int8)


def shift_right_rounding(values: np.ndarray, shift: int) -> np.ndarray:
    """floor(values / 2**shift + 1/2) for integers and shift of any sign."""
    if shift <= 0:
        return values << -shift
    return (values + (1 << (shift - 1))) >> shift


def _load(step, memory):
    op, machine = step.instruction, memory.machine
    length, groups = step.outputs.shape
    if op["broadcast"] == FILL:
        source = None
    elif step.transfer.region == "REG_0":
        source = memory.parameters[None]
    else:
        source = memory.regions[step.transfer.region]
    padded = np.zeros((1 if source is None else len(source), length, groups * machine.channels), np.int8)
    pixels = padded[..., : op["channel"]]
    if source is None:
        pixels[:] = np.array(op["const_value"], np.uint8).astype(np.int8)
    elif step.masked is None:
        pixels[:] = source[:, step.transfer.index]
    else:
        pixels[:, ~step.masked] = source[:, step.transfer.touched]
    if step.masked is not None:
        pixels[:, step.masked] = 0
    entries = padded.reshape(-1, length, groups, machine.channels).transpose(1, 2, 0, 3)
    if op["bank_id"] < machine.image_banks:
        memory.image[step.outputs] = entries
    else:
        memory.constant[step.outputs - memory.first_constant] = entries


def _save(step, memory):
    op = step.instruction
    region = memory.regions[step.transfer.region]
    index = step.transfer.index
    if op["const_en"]:
        region[:, index] = np.array(op["const_value"], np.uint8).astype(np.int8)
        return
    data = memory.image[step.outputs]  # [length, groups, image, byte]
    length, _, images, _ = data.shape
    data = data.transpose(2, 0, 1, 3).reshape(images, length, -1)[..., : op["channel"]]
    if op["argmax"] == 2:
        data = data.argmax(axis=-1)[..., None].astype(np.uint8).astype(np.int8)
    elif op["argmax"] == 3:
        data = data.max(axis=-1)[..., None]
    region[:, index] = data


def _gather(memory, window, padding):
    """Input of a window: [row, column, channel group, image, byte], `padding` outside."""
    masked = window.index == PADDING
    data = memory.image[np.where(masked, 0, window.index)]
    data[masked] = padding
    return data


def _integers(shift):
    """The type that holds what is shifted to the right: int32, which is faster, where that is enough."""
    return np.int32 if 0 <= shift <= INT32_SHIFT else np.int64


def _finish(sums, bias, shift_cut, activation):
    """round(act((2 * sums + bias) / 2**(shift_cut + 1))) saturated (docs/reference/instruction-set.md).

    sums : integers, in float64 and int64 of any size, in other types below FLOAT32_EXACT; bias : below 2**27.
    """
    leaky = activation == LEAKY_RELU
    kind = np.int64 if leaky or sums.dtype in (np.int64, np.float64) else _integers(shift_cut)
    twice = sums.astype(kind)
    twice *= 2
    twice += bias.astype(kind)
    if leaky:
        below = shift_right_rounding(twice * LEAKY_FACTOR, shift_cut + 1 + LEAKY_SHIFT)
        return saturate(np.where(twice < 0, below, shift_right_rounding(twice, shift_cut + 1)))
    if activation == RELU:
        np.maximum(twice, 0, out=twice)
    elif activation == RELU6:
        np.clip(twice, 0, RELU6_LIMIT << (shift_cut + 1), out=twice)
    return saturate(shift_right_rounding(twice, shift_cut + 1))


def _conv_input(step, memory):
    """float32 [row, column, image, channels of all groups]: the layout of one matrix product per tap."""
    data = _gather(memory, step.window, 0)
    unused = step.instruction["channel_offset"]
    if unused:
        data[:, :, -1, :, memory.machine.channels - unused :] = 0
    height, width, groups, images, channels = data.shape
    data = data.transpose(0, 1, 3, 2, 4).reshape(height, width, images, groups * channels)
    return data.astype(np.float32)


def _conv(step, memory):
    init, window = step.init, step.window
    rows, columns, _ = step.outputs.shape
    if not step.same_input:
        memory.conv_input, memory.conv_columns = _conv_input(step, memory), None
    data = memory.conv_input
    # [tap * group, output channel, image (one, or all where they differ), byte]
    weights = memory.constants(step.weights, step.per_image)
    # sums of int8 products are exact in float32 while every partial sum stays below 2**24
    bound = 128 * int(np.abs(weights.astype(np.int32)).sum(axis=(0, 3)).max())
    real = np.float32 if bound < FLOAT32_EXACT else np.float64
    weights = weights.astype(real).transpose(2, 0, 3, 1)  # [image, tap * group, byte, output channel]
    windows = _windows(window, memory, rows, columns) if weights.dtype == np.float32 else None
    if windows is None or len(weights) > 1:
        sums = _products(window, data, weights, rows, columns)
    else:
        products = windows @ weights.reshape(-1, weights.shape[-1])
        sums = products.reshape(rows, columns, memory.images, -1)
    bias = memory.constants(step.bias, step.per_image)[0].astype(np.int64) << init["shift_bias"]
    memory.image[step.outputs[..., 0]] = _finish(sums, bias, init["shift_cut"], init["act_type"])


def _windows(window, memory, rows, columns):
    """float32 [row * column * image, tap * channel]: what a CONV reads, kept for those on the same input.

    None where it takes too much room.
    """
    data, wanted = memory.conv_input, (window.kernel, window.stride, rows, columns)
    if memory.conv_columns is not None and memory.conv_window == wanted:
        return memory.conv_columns
    images, channels = data.shape[2:]
    taps = list(window.taps(rows, columns))
    if rows * columns * images * len(taps) * channels * data.itemsize > COLUMNS_BYTES:
        return None
    found = np.empty((rows, columns, images, len(taps), channels), data.dtype)
    for tap, i, j in taps:
        found[:, :, :, tap] = data[i, j]
    memory.conv_columns = found.reshape(rows * columns * images, len(taps) * channels)
    memory.conv_window = wanted
    return memory.conv_columns


def _products(window, data, weights, rows, columns):
    """Sums over the window: [rows, columns, image, output channel], of the weights' type.

    data : [row, column, image, channel]; weights : [image (one, or all where they differ),
    tap * group, byte, output channel].
    """
    images, channels = data.shape[2:]
    sets, outputs = len(weights), weights.shape[-1]
    weights = weights.reshape(sets, -1, channels, outputs)
    sums = np.zeros((sets, rows * columns * images // sets, outputs), weights.dtype)
    for tap, i, j in window.taps(rows, columns):
        piece = data[i, j].astype(weights.dtype, copy=False).reshape(-1, sets, channels)
        sums += piece.swapaxes(0, 1) @ weights[:, tap]
    return sums.swapaxes(0, 1).reshape(rows, columns, images, outputs)


def _alu(step, memory):
    init, window = step.init, step.window
    mode = init["exec_mode"]
    padding = -128 if mode in (MAX_POOL, MAX_REDUCE) else 0
    data = _gather(memory, window, padding)
    if init["channel_offset"]:
        data[:, :, -1, :, memory.machine.channels - init["channel_offset"] :] = padding
    rows, columns, _ = step.outputs.shape
    pieces = ((tap, data[i, j]) for tap, i, j in window.taps(rows, columns))
    if mode in (MAX_POOL, MAX_REDUCE):
        result = _scaled(reduce(np.maximum, (piece for _, piece in pieces)), init["shift_cut"])
    elif mode == AVERAGE_POOL:
        # at most 2**16 values of 7 bits, times a factor of 7 bits
        total = sum(piece.astype(np.int32) for _, piece in pieces)
        factor = int(np.array(init["multi_factor"], np.uint8).astype(np.int8))
        result = _scaled(total * factor, init["shift_cut"])
    elif mode == HARD_SIGMOID:
        (_, piece) = next(pieces)
        line = 2731 * piece.astype(np.int64) + (3 * 2731 << init["shift_bias"])
        result = saturate(shift_right_rounding(np.clip(line, 0, 2**32), init["shift_cut"]))
    elif mode in (LEAKY, PRELU):
        (_, piece) = next(pieces)
        result = _leaky(step, memory, piece.astype(np.int64))
    else:
        result = _depthwise(step, memory, pieces)
    memory.image[step.outputs] = result


def _scaled(values, code):
    """values * 2**s rounded, with the ALU's code for s (docs/reference/instruction-set.md)."""
    shift = code - CODED_RIGHT if code >= CODED_RIGHT else -code
    if shift == 0 and values.dtype == np.int8:
        return values
    return saturate(shift_right_rounding(values.astype(_integers(shift)), shift))


def _leaky(step, memory, values):
    """x / 2**p where positive, x * slope / 2**n elsewhere, each with a code for its exponent."""
    init = step.init
    if init["exec_mode"] == PRELU:
        slope = memory.constants(step.weights, step.per_image)[0].astype(np.int64)  # [group, image, byte]
    else:
        slope = int(np.array(init["multi_factor"], np.uint8).astype(np.int8))
    positive, negative = (
        code - CODED_LEAKY if code >= CODED_LEAKY else -code
        for code in (init["shift_prelu_p"], init["shift_prelu_n"])
    )
    above, below = shift_right_rounding(values, positive), shift_right_rounding(values * slope, negative)
    return saturate(np.where(values < 0, below, above))


def _depthwise(step, memory, pieces):
    init = step.init
    # [tap, group, image, byte]; up to 2**10 products of 14 bits stay below FLOAT32_EXACT
    weights = memory.constants(step.weights, step.per_image)
    weights = weights.astype(np.int32 if len(weights) < 2**10 else np.int64)
    sums = sum(piece * weights[tap] for tap, piece in pieces)
    bias = np.zeros((), np.int64)
    if init["exec_mode"] == DEPTHWISE:
        # [group, image, byte]
        bias = memory.constants(step.bias, step.per_image).astype(np.int64) << init["shift_bias"]
    return _finish(sums, bias, init["shift_cut"], init["act_type"])


def _elew(step, memory):
    op, operands = step.instruction, step.operands
    multiply = op["elew_type"] == 1
    guard = 4 if multiply else 2
    code = op["shift_write"]
    shift = guard + (code - 16 if code >= 16 else -code)
    # a few values of 9 bits are added, two multiplied
    values = (
        (memory.image[index].astype(_integers(shift)) * 4) >> operand["shift_read"]
        for operand, index in zip(operands, step.inputs, strict=True)
    )
    total = reduce(np.multiply if multiply else np.add, values)
    if op["act_type"]:
        total = np.maximum(total, 0)
    memory.image[step.outputs] = saturate(shift_right_rounding(total, shift))


_ENGINES = {"LOAD": _load, "SAVE": _save, "CONV": _conv, "ALU": _alu, "ELEW": _elew}
