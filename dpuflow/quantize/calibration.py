"""FixPoints by the vote of calibration batches, as the vendor's frozen-graph quantizer does it.

Per batch every activation gets a fix_point computed on that batch, with everything
upstream already quantized with that batch's fix_points; the most frequent fix_point wins,
ties go to the smaller (docs/reference/quantizers.md).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from dpuflow.base.errors import about
from dpuflow.base.numerics import INT8_MAX, INT8_MIN, quantize
from dpuflow.network import Layer, Network
from dpuflow.ops.operator import NO_GRID, Quantized
from dpuflow.quantize import blocks, engine
from dpuflow.quantize.fix_points import ANY_FIX_POINT, FixPoints, Table, choose_activation, choose_weights

Votes = dict[str, dict[int, int]]
"""Layer name -> {fix_point: number of batches}."""


def quantize_parameters(network: Network, method: str) -> tuple[Table, Table]:
    """FixPoints and int8 values of all weights and biases.

    Returns (weights, biases): layer name -> (int8 array, fix_point). All-zero tensors get
    the fix_point of their partner's scale later (`alignment`), here ANY_FIX_POINT.
    """
    weights: Table = {}
    biases: Table = {}
    for layer in network.layers:
        if not layer.operator.weighted:
            continue
        for table, value in ((weights, layer.weights), (biases, layer.bias)):
            if value is not None:
                with about(f"layer {layer.name!r}"):
                    fix_point = choose_weights(value, method)
                table[layer.name] = (quantize(value, fix_point, "STD_ROUND"), fix_point)
    return weights, biases


def real_output(
    layer: Layer,
    inputs: Sequence[np.ndarray],
    fixes: Sequence[int],
    weights: Quantized | None = None,
    bias: Quantized | None = None,
) -> np.ndarray:
    """Output of a layer before its own quantization, in real units.

    inputs : int8-valued float32 arrays, one per input; fixes : their fix_points.
    weights, bias : (int8 array, fix_point) of a weighted layer.
    Exact up to float32's 24 bits (float64 where sums may need more).
    """
    if bias is not None and bias[1] == ANY_FIX_POINT:  # all zero
        bias = None
    return layer.operator.before_rounding(inputs, fixes, weights, bias)


def to_grid(x: np.ndarray, fix_point: int) -> np.ndarray:
    """Real activations -> int8-valued float32 at `fix_point` (DPU_ROUND, saturated)."""
    grid = x * x.dtype.type(2.0**fix_point)
    grid += x.dtype.type(0.5)
    np.floor(grid, out=grid)
    return np.clip(grid, INT8_MIN, INT8_MAX, out=grid).astype(np.float32, copy=False)


def batch_fix_points(
    network: Network,
    weights: Table,
    biases: Table,
    x: engine.Batch,
    method: str,
    input_method: str = "non_overflow",
    most: int | None = None,
) -> FixPoints:
    """FixPoints that one calibration batch x (N, H, W, C) float32 chooses, layer name -> fix_point.

    most : values per tensor that errors are summed over (None: all).
    """
    fix_points: FixPoints = {}
    scratch = np.empty(0, np.uint8)
    given = engine.by_input(network, x)
    count = engine.count(x)
    flow = blocks.Flow(network, count, np.int8)

    def reals(layer: Layer) -> tuple[np.ndarray, Sequence[tuple[float, float]]]:
        """The layer's exact outputs for the whole batch, and the range of each block."""
        nonlocal scratch
        fixes = [fix_points.get(name, NO_GRID) for name in layer.inputs]
        parameters = weights.get(layer.name), biases.get(layer.name)

        def compute(which: slice) -> np.ndarray:
            return real_output(layer, flow.inputs(layer, which), fixes, *parameters)

        first = compute(slice(0, min(size, count)))
        shape = (count, *layer.shape)
        needed = math.prod(shape) * first.itemsize
        if scratch.nbytes < needed:  # one for all layers: fresh memory costs more than the arithmetic
            scratch = np.empty(needed, np.uint8)
        out = scratch[:needed].view(first.dtype).reshape(shape)

        def one(which: slice) -> tuple[float, float]:
            part = first if which.start == 0 else compute(which)
            out[which] = part
            return part.min(), part.max()

        return out, blocks.in_blocks(one, count, size)

    def floats(layer: Layer, which: slice) -> np.ndarray:
        """What the CPU computes in float."""
        fixes = [fix_points.get(name, NO_GRID) for name in layer.inputs]
        return engine.cpu_layer(layer, flow.inputs(layer, which), fixes)

    for layer in blocks.needed(network):
        if layer.op == "input":
            pixels = given[layer.name]
            fix_points[layer.name] = choose_activation(pixels, input_method)
            flow.compute(layer, partial(gridded, pixels, fix_points[layer.name]))
        elif not layer.operator.quantized:
            flow.compute(layer, partial(floats, layer))
        elif layer.operator.renames:
            fix_points[layer.name] = fix_points[layer.inputs[0]]
            flow.compute(layer, partial(flow.real, layer))
        else:
            size = blocks.block_of(network, layer)
            real, ranges = reals(layer)
            ends = np.min(ranges, axis=0)[0], np.max(ranges, axis=0)[1]
            fixed = layer.operator.fixed_output
            with about(f"layer {layer.name!r}"):
                fix_point = choose_activation(real, method, ends, most) if fixed is None else fixed
            fix_points[layer.name] = fix_point
            flow.compute(layer, partial(gridded, real, fix_point))
    flow.close()
    return fix_points


def gridded(values: np.ndarray, fix_point: int, which: slice) -> np.ndarray:
    """Some pictures of real values on the grid."""
    return to_grid(values[which], fix_point)


def gridded_input(network: Network, x: blocks.Batch, name: str, fix_point: int, which: slice) -> np.ndarray:
    """One input of some pictures on its grid."""
    return to_grid(engine.by_input(network, x[which])[name], fix_point)


def grids(fix_points: FixPoints, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's inputs on their grids: {input's name: int8-valued float32}."""
    return {name: to_grid(x, fix_points[name]) for name, x in given.items()}


def vote(
    network: Network,
    weights: Table,
    biases: Table,
    images: blocks.Batch,
    method: str,
    batch: int,
    input_method: str = "non_overflow",
    most: int | None = None,
) -> tuple[FixPoints, Votes]:
    """Most frequent fix_point per activation over batches of `batch` images (ties: the smaller).

    images : float32 (N, H, W, C), network input values. The last batch may be short. A batch on which
    an output is zero everywhere does not count unless all are (`ANY_FIX_POINT`, `alignment.place_silent`).
    most : see `batch_fix_points`. Returns (fix_points, votes): votes is layer name -> {fix_point: number
    of batches}.
    """
    images = blocks.batch(images)
    counts: dict[str, Counter[int]] = {}
    for start in range(0, len(images), batch):
        x = images[start : start + batch]
        chosen = batch_fix_points(network, weights, biases, x, method, input_method, most)
        for name, fix_point in chosen.items():
            counts.setdefault(name, Counter())[fix_point] += 1
    fix_points = {name: most_frequent(count) for name, count in counts.items()}
    return fix_points, {name: dict(sorted(c.items())) for name, c in counts.items()}


def most_frequent(count: Mapping[int, int]) -> int:
    """ANY_FIX_POINT only if there is no other, ties to the smaller."""
    return min(count, key=lambda fix_point: (fix_point == ANY_FIX_POINT, -count[fix_point], fix_point))
