"""Inputs that machine code is verified on: images for the network, maps for every layer.

Images: of the calibration images and some made ones, those whose maps (as the emulator
computes them) reach the most clamps and zeros. Maps: made for the layer that reads them, so
that its sums reach both ends of its range and its halves, which no image may do.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.numerics import row_sums
from dpuflow.dpuczdx8g.native import branches
from dpuflow.dpuczdx8g.native.operations import Shape
from dpuflow.network import WEIGHTED, Layer, QuantizedNetwork
from dpuflow.ops import kinds
from dpuflow.ops.pooling import AveragePool
from dpuflow.xir import Graph, Op

MAP_KINDS = (
    *("noise", "quiet noise", "extremes", "small values", "all -128", "all 127"),
    *("windows of the greatest sums", "windows of the least sums"),
)
"""The maps that every layer is given, one image each."""
TELLING = ("noise", "windows of the greatest sums", "windows of the least sums")
"""Those of them that reach nearly all branches."""
IMAGES = 8
"""Images of the network at most; the least is FEWEST."""
FEWEST = 4
CANDIDATES = 48
"""Images to choose from, and FEWEST_CANDIDATES of a large network."""
FEWEST_CANDIDATES = 8
WORK = 4e9
"""Multiplications and values that choosing among candidates may cost."""
MADE_IMAGES = ("all -128", "all 127", "noise", "extremes", "small values", "blocks")
TRIES = 1024
"""Maps tried at most for a half in a layer of few outputs."""
TRIED_SUMS = 2e8
AT_ONCE = 1 << 20
"""Values of such maps at the same time, 8 bytes each."""

AVERAGES = kinds(lambda operator: issubclass(operator, AveragePool))
"""Kinds of average pooling."""

Reader = tuple[Layer, tuple[int, int], tuple[int, int], tuple[int, int, int, int], np.ndarray | None]
"""A layer that reads a map, its kernel and stride (w, h), pad (l, r, t, b) and OHWI weights, if it has."""


def noise(
    random: np.random.Generator, shape: tuple[int, ...], least: int = -128, greatest: int = 127
) -> np.ndarray:
    """int8 array of equally likely values [least, greatest]."""
    return random.integers(least, greatest + 1, shape, np.int8)


def made_images(random: np.random.Generator, shape: Shape) -> np.ndarray:
    """int8 (len(MADE_IMAGES), *shape)."""
    height, width, channels = shape
    blocks = noise(random, (math.ceil(height / 4), math.ceil(width / 4), channels))
    return np.stack(
        [
            np.full(shape, -128, np.int8),
            np.full(shape, 127, np.int8),
            noise(random, shape),
            random.choice(np.array([-128, 127], np.int8), shape),
            noise(random, shape, -3, 3),
            blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width],
        ]
    )


def candidates(
    work: float, calibration: np.ndarray | None, shape: Shape, random: np.random.Generator
) -> tuple[np.ndarray, int]:
    """(images int8 (N, *shape), how many of them are from the calibration: the first ones).

    work : multiplications and values per image, which bounds their number.
    calibration : int8 images or None.
    """
    count = int(min(CANDIDATES, max(FEWEST_CANDIDATES, WORK // max(work, 1))))
    made = made_images(random, shape)
    if calibration is None or not len(calibration):
        return np.concatenate([made, noise(random, (FEWEST, *shape))]), 0
    step = max(1, len(calibration) // max(1, count - len(made)))
    taken = np.asarray(calibration)[::step][: max(FEWEST // 2, count - len(made))]
    return np.concatenate([taken, made]), len(taken)


def choose(maps: Mapping[str, np.ndarray], from_calibration: int) -> list[int]:
    """Indices of the images that together reach every (map, extreme) that one of them reaches.

    maps : op name -> int8 (N, ...) over all candidates; from_calibration : the first so many are.
    At least FEWEST where there are as many, half of them from the calibration.
    """
    count = len(next(iter(maps.values())))
    reaches: list[set[tuple[str, int]]] = [set() for _ in range(count)]
    for name, array in maps.items():
        flat = array.reshape(count, -1)
        for value in (-128, 0, 96, 127):
            for image in np.flatnonzero((flat == value).any(axis=1)):
                reaches[image].add((name, value))
    chosen: list[int] = []
    seen: set[tuple[str, int]] = set()
    while len(chosen) < IMAGES:
        best = max(range(count), key=lambda i: len(reaches[i] - seen))
        if not reaches[best] - seen:
            break
        chosen.append(best)
        seen |= reaches[best]
    calibration = [i for i in range(from_calibration) if i not in chosen]
    have = sum(i < from_calibration for i in chosen)
    chosen += calibration[: max(0, FEWEST // 2 - have)]
    rest = [i for i in range(count) if i not in chosen]
    return sorted(chosen + rest[: max(0, FEWEST - len(chosen))])


def layer_maps(
    quantized: QuantizedNetwork, shape: Shape, readers: Sequence[Reader], random: np.random.Generator
) -> np.ndarray:
    """Maps (len(MAP_KINDS), *shape) int8 for the layers that read them.

    readers : (layer, kernel (w, h), stride (w, h), pad (l, r, t, b), OHWI weights) of each
        convolution, depthwise convolution, dense layer and (weights None) average pooling among them.
    """
    maps = np.stack(
        [
            noise(random, shape),
            noise(random, shape, -32, 31),
            random.choice(np.array([-128, 127], np.int8), shape),
            noise(random, shape, -3, 3),
            np.full(shape, -128, np.int8),
            np.full(shape, 127, np.int8),
            noise(random, shape),
            noise(random, shape),
        ]
    )
    for number, (layer, kernel, stride, pad, weights) in enumerate(readers):
        if weights is None:
            _averages(maps[1], branches.average_halves(quantized, layer), kernel, stride, pad)
            continue
        for image, sign in ((6, 1), (7, -1)):
            _aligned(maps[image], kernel, stride, pad, weights, sign, number, len(readers))
        found = _with_half(quantized, layer, shape, random)
        if found is not None:
            maps[number % 2] = found
    return maps


def _averages(image, sums, kernel, stride, pad):
    """Write windows into `image` that have these sums, one after the other."""
    height, width, channels = image.shape
    (kernel_w, kernel_h), number = kernel, 0
    for top in _starts(height, kernel_h, stride[1], pad[2]):
        for left in _starts(width, kernel_w, stride[0], pad[0]):
            for channel in range(channels if len(sums) else 0):
                whole, rest = divmod(int(sums[number * 101 % len(sums)]), kernel_w * kernel_h)
                window = np.full(kernel_w * kernel_h, whole, np.int8)
                window[:rest] += 1
                image[top : top + kernel_h, left : left + kernel_w, channel] = window.reshape(kernel_h, -1)
                number += 1


def _aligned(image, kernel, stride, pad, weights, sign, first, every):
    """Write windows into `image` whose sums are as great (sign 1) or small (-1) as they can be.

    Windows that do not touch, one output channel after the other, from the strongest on; of `every`
    readers of the map this one has the windows first, first + every...
    """
    height, width, _ = image.shape
    (kernel_w, kernel_h), (stride_w, stride_h) = kernel, stride
    strength, _ = row_sums(weights.reshape(len(weights), -1))
    order = np.argsort(-strength, kind="stable")
    corners = [
        (top, left)
        for top in _starts(height, kernel_h, stride_h, pad[2])
        for left in _starts(width, kernel_w, stride_w, pad[0])
    ]
    for number in range(first, len(corners), every):
        top, left = corners[number]
        pattern = weights[order[number // every % len(order)]] * sign > 0
        image[top : top + kernel_h, left : left + kernel_w] = np.where(pattern, 127, -128)


def _starts(size, kernel, stride, pad):
    """First rows (columns) of windows inside the map that do not overlap."""
    apart = math.ceil(kernel / stride) * stride
    begin = -pad % stride
    return range(begin, size - kernel + 1, apart)


def _with_half(quantized, layer, shape, random):
    """A map on which a layer of few outputs rounds a half; None when noise has one anyway, or none does."""
    outputs, cut = math.prod(layer.shape), quantized.shift_cut(layer.name)
    if outputs * 4 > 2 ** (cut + 3):
        return None
    cost = outputs * math.prod(quantized.weights[layer.name][0].shape[1:])
    tries = int(min(TRIES, max(1, TRIED_SUMS // cost)))
    loudness = 2 ** random.integers(1, 8, (tries, 1, 1, 1))
    best, most, together = None, 0, max(1, AT_ONCE // math.prod(shape))
    for start in range(0, tries, together):
        loud = loudness[start : start + together]
        maps = (random.integers(-128, 128, (len(loud), *shape)) * loud >> 7).astype(np.int8)
        real = branches.unrounded(quantized, layer, [maps])
        hits = branches.halves(quantized, layer, real).reshape(len(maps), -1).sum(axis=1)
        if hits.max() > most:
            best, most = maps[hits.argmax()], hits.max()
    return best


def readers_of(
    graph: Graph, quantized: QuantizedNetwork, consumers: Iterable[Op], shape: Shape
) -> list[Reader]:
    """`readers` of `layer_maps` among the ops that read a map of `shape`, or its bytes as another one."""
    found: list[Reader] = []
    for op in consumers:
        layer = quantized.network[op.name]
        if layer.op not in (*WEIGHTED, *AVERAGES):
            continue
        window: Any = (tuple(op.attr(name)) for name in ("kernel", "stride", "pad"))
        kernel, stride, pad = window
        if layer.op in AVERAGES:
            found.append((layer, kernel, stride, pad, None))
        elif layer.op == "dense":  # reads all of the map, whatever it takes it for
            weights = quantized.weights[op.name][0].reshape(-1, *shape)
            found.append((layer, (shape[1], shape[0]), (1, 1), (0, 0, 0, 0), weights))
        else:
            # a depthwise layer's [1, KH, KW, C] serves all channels with one window
            weights = quantized.weights[op.name][0].reshape(graph.op(op.inputs["weights"][0]).tensor.shape)
            found.append((layer, kernel, stride, pad, weights))
    return found
