"""Weight rounding by reconstruction: choose the int8 weights and biases that give back the float outputs.

The objective is AdaRound's (Nagel et al. 2020, arXiv:2004.10568) in its asymmetric form:
per layer, the squared difference between the float network's activations and those of the
quantized layer *on the quantized layer's own inputs*, so that errors made upstream are
compensated. ReLU and saturation are part of it: where both sides are cut off, nothing
counts. It is minimised by cyclic coordinate descent directly on the integers, which needs
no relaxation and no learning rate, and is deterministic.
"""

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.network import Layer
from dpuflow.ops.arithmetic import activation_named
from dpuflow.ops.convolution import WeightedWindow, given, weight_matrix, weighted
from dpuflow.ops.operator import Quantized, Window
from dpuflow.quantize.settings import Settings

Refined = tuple[Quantized, Quantized | None, float, float]
"""(weights, bias, loss before, loss after)."""

RARE = 0.02
"""Share of the samples added to a channel's count of active samples in the penalties."""


def sample_rows(layer: Layer, x: np.ndarray, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to `rows` rows of the patch matrix of a weighted layer, and their flat fix_points."""
    sample = _sample_windows if isinstance(layer.operator, Window) else _sample_vectors
    return sample(layer, x, rows, seed)


def _sample_vectors(layer: Layer, x: np.ndarray, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(x))[:rows], x[:rows]


def _sample_windows(layer: Layer, x: np.ndarray, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    operator = layer.operator
    if not isinstance(operator, WeightedWindow):
        raise TypeError(f"{operator.kind} has no windows with weights")
    height, width, _ = layer.shape
    total = len(x) * height * width
    # one generator per layer, so that adding a layer does not change another's sample
    chosen = np.arange(total)
    if total > rows:
        chosen = np.sort(np.random.default_rng(seed).choice(total, rows, replace=False))
    image, fix_point = np.divmod(chosen, height * width)
    view = operator.view(x)
    row, column = np.divmod(fix_point, width)
    return chosen, view[image, row, column].reshape(len(chosen), -1)


class Problem:
    """Reconstruction of one layer's output channels from sampled rows.

    Attributes
    ----------
    inputs : float32 (S, K), integers of the quantized input.
    target : float32 (S, OC), float pre-activations, in units of the accumulator.
    weights : float64 (K, OC), real weights in units of the weight step.
    low, high : clipping of the activation, in accumulator units.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        target: np.ndarray,
        weights: np.ndarray,
        bias: np.ndarray | None,
        bias_step: float,
        low: float,
        high: float,
        ridge: float,
    ) -> None:
        self.inputs, self.target = inputs, target
        self.weights, self.bias, self.bias_step = weights, bias, bias_step
        self.low, self.high = np.float32(low), np.float32(high)
        self.ridge = ridge

    def residual(self, weights: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """(clipped target - output) where it counts, else 0, as (S, OC)."""
        out = self.inputs @ weights.astype(np.float32)
        if bias is not None:
            out += (bias * self.bias_step).astype(np.float32)
        return out

    def loss(self, weights: np.ndarray, bias: np.ndarray | None) -> float:
        """Mean squared error after activation and saturation."""
        out = np.clip(self.residual(weights, bias), self.low, self.high)
        return float(np.square(out - np.clip(self.target, self.low, self.high)).mean(dtype=np.float64))

    def active(self, out: np.ndarray) -> np.ndarray:
        """Where the outcome depends on the weights: not cut off on the same side for both."""
        below = (out <= self.low) & (self.target <= self.low)
        above = (out >= self.high) & (self.target >= self.high)
        return ~(below | above)


def descend(
    problem: Problem, weights: np.ndarray, bias: np.ndarray | None, sweeps: int, reach: float
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Cyclic coordinate descent over the integers.

    weights : (K, OC) integers to start from; bias : (OC,) integers or None.
    reach : how far a weight may move from its real value, in steps (1: floor or ceiling).
    Returns the best (weights, bias, loss) seen, by the loss on the samples.
    """
    best = (weights.copy(), None if bias is None else bias.copy(), problem.loss(weights, bias))
    weights, bias = weights.astype(np.float32), None if bias is None else bias.astype(np.float32)
    # both ends clipped: a weight beyond the range at this fix_point stays saturated
    low = np.clip(np.ceil(problem.weights - reach), INT8_MIN, INT8_MAX).astype(np.float32)
    high = np.clip(np.floor(problem.weights + reach), INT8_MIN, INT8_MAX).astype(np.float32)
    real = problem.weights.astype(np.float32)
    columns = np.ascontiguousarray(problem.inputs.T)  # (K, S)
    power = np.square(columns).mean(axis=1)
    order = np.argsort(-power, kind="stable")
    target = np.clip(problem.target, problem.low, problem.high)
    for _ in range(sweeps):
        out = problem.residual(weights, bias)
        mask = problem.active(out).astype(np.float32)
        residual = (target - np.maximum(out, problem.low)) * mask
        # a channel that hardly fires gives little evidence: it stays near its real weights
        count = mask.sum(axis=0) + np.float32(RARE * len(mask))
        penalty = problem.ridge * power.mean() * count
        if bias is not None:
            step = np.rint(residual.sum(axis=0) / (count * problem.bias_step))
            step = np.clip(bias + step, INT8_MIN, INT8_MAX) - bias
            bias += step
            residual -= mask * (step * np.float32(problem.bias_step))
        curvatures = np.square(columns) @ mask  # (K, OC)
        for k in order:
            column = columns[k]
            gradient = column @ residual + penalty * (real[k] - weights[k])
            step = np.rint(gradient / (curvatures[k] + penalty + 1e-9))
            step = np.clip(weights[k] + step, low[k], high[k]) - weights[k]
            moved = np.flatnonzero(step)
            if not len(moved):
                continue
            weights[k] += step
            if 4 * len(moved) < len(step):
                residual[:, moved] -= column[:, None] * step[moved] * mask[:, moved]
            else:
                residual -= column[:, None] * step * mask
        loss = problem.loss(weights, bias)
        if loss < best[2]:
            best = (weights.copy(), None if bias is None else bias.copy(), loss)
    return best


def refine_layer(
    layer: Layer,
    x: np.ndarray,
    fix_in: int,
    weights: Quantized,
    bias: Quantized | None,
    fix_out: int,
    target: np.ndarray,
    settings: Settings,
    seed: int,
) -> Refined:
    """Refine one weighted layer.

    Parameters
    ----------
    layer : float layer (real weights and bias are the anchors).
    x : integers of its quantized input, float32 (N, ...); fix_in : their fix_point.
    weights, bias : (int8 array, fix_point), bias may be None.
    fix_out : fix_point of its output.
    target : float32 (N, *layer.shape), pre-activations of the float network.
    settings : {"rows", "sweeps", "reach", "ridge"}.

    Returns (weights, bias, loss before, loss after); losses in units of the output step squared.
    """
    refine = _refine_depthwise if weighted(layer.operator).per_channel else _refine_matrix
    return refine(layer, x, fix_in, weights, bias, fix_out, target, settings, seed)


def _refine_matrix(
    layer: Layer,
    x: np.ndarray,
    fix_in: int,
    weights: Quantized,
    bias: Quantized | None,
    fix_out: int,
    target: np.ndarray,
    settings: Settings,
    seed: int,
) -> Refined:
    """All output channels at once: they have the same inputs."""
    chosen, rows = sample_rows(layer, x, settings["rows"], seed)
    real = weight_matrix(given(layer.weights)).astype(np.float64)
    start = weight_matrix(weights[0])
    wanted = target.reshape(-1, target.shape[-1])[chosen]
    new, new_bias, before, after = _solve(
        layer, rows, fix_in, (start, weights[1]), bias, fix_out, wanted, real, settings
    )
    shape = weights[0].shape
    weights = (np.ascontiguousarray(new.T).reshape(shape).astype(np.int8), weights[1])
    return weights, new_bias, before, after


def _solve(
    layer: Layer,
    rows: np.ndarray,
    fix_in: int,
    weights: Quantized,
    bias: Quantized | None,
    fix_out: int,
    target: np.ndarray,
    real: np.ndarray,
    settings: Settings,
) -> tuple[np.ndarray, Quantized | None, float, float]:
    unit = fix_in + weights[1]
    scale = 2.0**unit
    low = activation_named(layer.attrs["activation"]).counts_from * 2.0 ** (unit - fix_out)
    high = INT8_MAX * 2.0 ** (unit - fix_out)
    problem = Problem(
        np.ascontiguousarray(rows, np.float32),
        (target * np.float32(scale)).astype(np.float32),
        real * 2.0 ** weights[1],
        None,
        2.0 ** (unit - bias[1]) if bias is not None else 0.0,
        low,
        high,
        settings["ridge"],
    )
    start_bias = None if bias is None else bias[0].astype(np.float32)
    before = problem.loss(weights[0], start_bias)
    new, shifted, after = descend(problem, weights[0], start_bias, settings["sweeps"], settings["reach"])
    to_step = 4.0 ** (fix_out - unit)
    new_bias = None if bias is None else (given(shifted).astype(np.int8), bias[1])
    return new, new_bias, before * to_step, after * to_step


def _refine_depthwise(
    layer: Layer,
    x: np.ndarray,
    fix_in: int,
    weights: Quantized,
    bias: Quantized | None,
    fix_out: int,
    target: np.ndarray,
    settings: Settings,
    seed: int,
) -> Refined:
    """Channel by channel: each has its own few inputs."""
    chosen, rows = sample_rows(layer, x, settings["rows"], seed)
    channels = layer.shape[-1]
    rows = rows.reshape(len(rows), -1, channels)
    values, new_biases, before, after = weights[0].copy(), [], 0.0, 0.0
    flat_target = target.reshape(-1, channels)[chosen]
    for c in range(channels):
        start = weights[0][0, :, :, c].reshape(-1, 1)
        real = given(layer.weights)[0, :, :, c].reshape(-1, 1).astype(np.float64)
        one = None if bias is None else (bias[0][c : c + 1], bias[1])
        new, new_bias, b, a = _solve(
            layer,
            rows[:, :, c],
            fix_in,
            (start, weights[1]),
            one,
            fix_out,
            flat_target[:, c : c + 1],
            real,
            settings,
        )
        values[0, :, :, c] = new.reshape(values.shape[1:3])
        new_biases.append(new_bias)
        before, after = before + b / channels, after + a / channels
    if bias is not None:
        bias = (np.concatenate([given(b)[0] for b in new_biases]), bias[1])
    return (values, weights[1]), bias, before, after
