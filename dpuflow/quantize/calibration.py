"""FixPoints by the vote of calibration batches, as the vendor's frozen-graph quantizer does it.

Per batch every activation gets a fix_point computed on that batch, with everything
upstream already quantized with that batch's fix_points; the most frequent fix_point wins,
ties go to the smaller (docs/reference/quantizers.md).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dpuflow.base.errors import about
from dpuflow.base.numerics import INT8_MAX, INT8_MIN, quantize
from dpuflow.network import Layer, Network
from dpuflow.ops.operator import NO_GRID, Quantized
from dpuflow.quantize import engine
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
) -> FixPoints:
    """FixPoints that one calibration batch x (N, H, W, C) float32 chooses, layer name -> fix_point."""
    fix_points: FixPoints = {}

    def compute(layer: Layer, inputs: Sequence[np.ndarray]) -> np.ndarray:
        fixes = [fix_points.get(name, NO_GRID) for name in layer.inputs]
        if not layer.operator.quantized:
            return layer.operator.integer(inputs, fixes, 0)
        if layer.operator.renames:
            fix_points[layer.name] = fixes[0]
            return engine.float_layer(layer, inputs)
        real = real_output(layer, inputs, fixes, weights.get(layer.name), biases.get(layer.name))
        with about(f"layer {layer.name!r}"):
            fix_points[layer.name] = fix_point = choose_activation(real, method)
        return to_grid(real, fix_point)

    given = engine.by_input(network, x)
    fix_points |= {name: choose_activation(values, input_method) for name, values in given.items()}
    engine.run_layers(network, grids(fix_points, given), network.output_layers, compute)
    return fix_points


def grids(fix_points: FixPoints, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's inputs on their grids: {input's name: int8-valued float32}."""
    return {name: to_grid(x, fix_points[name]) for name, x in given.items()}


def vote(
    network: Network,
    weights: Table,
    biases: Table,
    images: engine.Batch,
    method: str,
    batch: int,
    input_method: str = "non_overflow",
) -> tuple[FixPoints, Votes]:
    """Most frequent fix_point per activation over batches of `batch` images (ties: the smaller).

    images : float32 (N, H, W, C), network input values. The last batch may be short. A batch on which
    an output is zero everywhere does not count unless all are (`ANY_FIX_POINT`, `alignment.place_silent`).
    Returns (fix_points, votes): votes is layer name -> {fix_point: number of batches}.
    """
    counts: dict[str, Counter[int]] = {}
    for start in range(0, engine.count(images), batch):
        x = engine.part(images, slice(start, start + batch))
        for name, fix_point in batch_fix_points(network, weights, biases, x, method, input_method).items():
            counts.setdefault(name, Counter())[fix_point] += 1
    fix_points = {name: _most_frequent(count) for name, count in counts.items()}
    return fix_points, {name: dict(sorted(c.items())) for name, c in counts.items()}


def _most_frequent(count: Counter[int]) -> int:
    """ANY_FIX_POINT only if there is no other, ties to the smaller."""
    return min(count, key=lambda fix_point: (fix_point == ANY_FIX_POINT, -count[fix_point], fix_point))
