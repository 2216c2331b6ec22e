"""Weight rounding by reconstruction: choose the int8 weights and biases that give back the float outputs.

The objective is AdaRound's (Nagel et al. 2020, arXiv:2004.10568) in its asymmetric form:
per layer, the squared difference between the float network's activations and those of the
quantized layer *on the quantized layer's own inputs*, so that errors made upstream are
compensated. ReLU and saturation are part of it: where both sides are cut off, nothing
counts. It is minimised by cyclic coordinate descent directly on the integers, which needs
no relaxation and no learning rate, and is deterministic.
"""

import math

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.network import Layer
from dpuflow.ops.arithmetic import activation_named
from dpuflow.ops.convolution import WeightedWindow, given, weight_matrix, weighted
from dpuflow.ops.operator import Quantized, Window
from dpuflow.quantize import blocks
from dpuflow.quantize.nearest_plane import MOST_INPUTS, nearest_plane, shared_moments
from dpuflow.quantize.settings import Settings

Refined = tuple[Quantized, Quantized | None, float, float]
"""(weights, bias, loss before, loss after)."""

CHANNELS = 64
"""Output channels of one descent: what it reads and writes in each step stays in the processor's cache."""
MORE_ROWS, FEW_WEIGHTS = 3, 1 << 18
"""Layers with fewer weights than that have longer samples: they cost little there, and overfit less."""
HELD = 40
"""How much weights are held where a layer has as many inputs as samples that tell something new, which it
might memorise; in proportion where it has fewer."""
ALIKE = 16
"""Windows side by side, 4 x 4, of which one tells something new."""
RARE = 0.02
"""Share of the samples added to a channel's count of active samples in the penalties."""


def rows_for(layer: Layer, rows: int) -> int:
    """How many rows a layer's sample has: up to MORE_ROWS times `rows` where a descent is cheap."""
    return int(rows * min(MORE_ROWS, max(1.0, FEW_WEIGHTS / given(layer.weights).size)))


class Rows:
    """Which rows of a weighted layer's patch matrix, over all pictures, make up its sample.

    Attributes
    ----------
    chosen : flat positions (picture, row, column) of the output, ascending.
    news : how many of the rows tell something new.
    """

    def __init__(self, layer: Layer, pictures: int, rows: int, seed: int) -> None:
        self.layer = layer
        self.positions = math.prod(layer.shape[:-1])
        total = pictures * self.positions
        self.chosen = np.arange(total)
        if total > rows and self.positions == 1:
            self.chosen = self.chosen[:rows]
        elif total > rows:
            # one generator per layer, so that adding a layer does not change another's sample
            self.chosen = np.sort(np.random.default_rng(seed).choice(total, rows, replace=False))
        self.news = min(len(self.chosen), pictures * max(1, self.positions // ALIKE))

    def __len__(self) -> int:
        return len(self.chosen)

    def within(self, which: slice) -> tuple[slice, np.ndarray]:
        """(which of the rows lie in some pictures, their flat positions counted from there)."""
        first, last = np.searchsorted(
            self.chosen, [which.start * self.positions, which.stop * self.positions]
        )
        return slice(int(first), int(last)), self.chosen[first:last] - which.start * self.positions

    def of_outputs(self, values: np.ndarray, which: slice) -> np.ndarray:
        """The sampled pixels (n, channels) of the outputs of some pictures."""
        return values.reshape(-1, values.shape[-1])[self.within(which)[1]]

    def of_inputs(self, x: np.ndarray, which: slice) -> np.ndarray:
        """The sampled rows (n, K) of the patch matrix of some pictures' inputs x."""
        chosen, operator = self.within(which)[1], self.layer.operator
        if not isinstance(operator, Window):
            return x.reshape(-1, x.shape[-1])[chosen] if self.positions > 1 else x[chosen]
        if not isinstance(operator, WeightedWindow):
            raise TypeError(f"{operator.kind} has no windows with weights")
        image, place = np.divmod(chosen, self.positions)
        row, column = np.divmod(place, self.layer.shape[1])
        view = operator.view(x)
        return view[image, row, column].reshape(len(chosen), math.prod(view.shape[3:]))


class Problem:
    """Reconstruction of one layer's output channels from sampled rows.

    Attributes
    ----------
    inputs : float32 (S, K), integers of the quantized input.
    target : float32 (S, OC), float pre-activations, in units of the accumulator.
    weights : float64 (K, OC), real weights in units of the weight step.
    low, high : clipping of the activation, in accumulator units.
    moments : `nearest_plane.shared_moments` of the inputs.
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
        moments: np.ndarray | None = None,
    ) -> None:
        self.inputs, self.target = inputs, target
        self.weights, self.bias, self.bias_step = weights, bias, bias_step
        self.low, self.high = np.float32(low), np.float32(high)
        self.ridge, self.moments = ridge, moments

    def residual(self, weights: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """(clipped target - output) where it counts, else 0, as (S, OC)."""
        out = self.inputs @ weights.astype(np.float32)
        if bias is not None:
            out += (bias * self.bias_step).astype(np.float32)
        return out

    def losses(self, weights: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Mean squared error of each channel after activation and saturation, float64 (OC,)."""
        out = np.clip(self.residual(weights, bias), self.low, self.high)
        out -= np.clip(self.target, self.low, self.high)
        return np.square(out, out=out).mean(axis=0, dtype=np.float64)

    def active(self, out: np.ndarray) -> np.ndarray:
        """Where the outcome depends on the weights: not cut off on the same side for both."""
        below = (out <= self.low) & (self.target <= self.low)
        above = (out >= self.high) & (self.target >= self.high)
        return ~(below | above)


class Best:
    """Of each channel the weights and bias with the least loss on the samples that were seen."""

    def __init__(self, problem: Problem, weights: np.ndarray, bias: np.ndarray | None) -> None:
        self.problem, self.weights, self.bias = problem, weights.copy(), None if bias is None else bias.copy()
        self.losses = problem.losses(weights, bias)

    def see(self, weights: np.ndarray, bias: np.ndarray | None) -> None:
        """Take over the channels that lose less."""
        losses = self.problem.losses(weights, bias)
        better = losses < self.losses
        self.losses[better] = losses[better]
        self.weights[:, better] = weights[:, better]
        if bias is not None and self.bias is not None:
            self.bias[better] = bias[better]


def descend(
    problem: Problem, weights: np.ndarray, bias: np.ndarray | None, sweeps: int, reach: float
) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Cyclic coordinate descent over the integers, from the nearest plane where that loses less.

    weights : (K, OC) integers to start from; bias : (OC,) integers or None.
    reach : how far a weight may move from its real value, in steps (1: floor or ceiling).
    Returns of each channel the best (weights, bias) seen, and their loss, by the loss on the samples.
    """
    weights, bias = weights.astype(np.float32), None if bias is None else bias.astype(np.float32)
    best = Best(problem, weights, bias)
    if not sweeps:
        return best.weights, best.bias, float(best.losses.mean())
    # both ends clipped: a weight beyond the range at this fix_point stays saturated
    low = np.clip(np.ceil(problem.weights - reach), INT8_MIN, INT8_MAX).astype(np.float32)
    high = np.clip(np.floor(problem.weights + reach), INT8_MIN, INT8_MAX).astype(np.float32)
    real = problem.weights.astype(np.float32)
    columns = np.ascontiguousarray(problem.inputs.T)  # (K, S)
    power = np.square(columns).mean(axis=1)
    order = np.argsort(-power, kind="stable")
    target = np.clip(problem.target, problem.low, problem.high)

    def missing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(samples that count, what they lack, penalties of the channels) at the present weights."""
        out = problem.residual(weights, bias)
        mask = problem.active(out).astype(np.float32)
        # a channel that hardly fires gives little evidence: it stays near its real weights
        count = mask.sum(axis=0) + np.float32(RARE * len(mask))
        return mask, (target - np.maximum(out, problem.low)) * mask, count

    if len(columns) <= min(MOST_INPUTS, len(target)):
        mask, residual, count = missing()
        start = weights if bias is None else np.concatenate([bias[None], weights])
        step = None if bias is None else problem.bias_step
        penalty = (problem.ridge * power.mean() * count).astype(np.float64)
        found = nearest_plane(
            problem.inputs, mask, residual, penalty, step, start, real, (low, high), problem.moments
        )
        best.see(found[-len(real) :], None if bias is None else found[0])
        weights, bias = best.weights.copy(), None if best.bias is None else best.bias.copy()
    for _ in range(sweeps):
        mask, residual, count = missing()
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
        best.see(weights, bias)
    return best.weights, best.bias, float(best.losses.mean())


def refine_layer(
    layer: Layer,
    rows: np.ndarray,
    fix_in: int,
    weights: Quantized,
    bias: Quantized | None,
    fix_out: int,
    target: np.ndarray,
    settings: Settings,
) -> Refined:
    """Refine one weighted layer.

    Parameters
    ----------
    layer : float layer (real weights and bias are the anchors).
    rows : int8 (S, K) of its quantized input (`Rows.of_inputs`); fix_in : their fix_point.
    weights, bias : (int8 array, fix_point), bias may be None.
    fix_out : fix_point of its output.
    target : float32 (S, channels), pre-activations of the float network (`Rows.of_outputs`).
    settings : {"sweeps", "reach", "ridge"}, perhaps "news" (`Rows.news`; else all rows count).

    Returns (weights, bias, loss before, loss after); losses in units of the output step squared.
    """
    refine = _refine_depthwise if weighted(layer.operator).per_channel else _refine_matrix
    return refine(layer, rows, fix_in, weights, bias, fix_out, target, settings)


def _refine_matrix(
    layer: Layer,
    rows: np.ndarray,
    fix_in: int,
    weights: Quantized,
    bias: Quantized | None,
    fix_out: int,
    target: np.ndarray,
    settings: Settings,
) -> Refined:
    """Output channels have the same inputs; CHANNELS of them at a time."""
    rows, shape = rows.astype(np.float32), weights[0].shape
    real, start = (array.reshape(len(array), -1) for array in (given(layer.weights), weights[0]))
    groups = [slice(i, i + CHANNELS) for i in range(0, len(start), CHANNELS)]
    values = np.empty(start.shape, np.int8)
    moments = shared_moments(rows) if settings["sweeps"] else None

    def one(which: slice) -> tuple[np.ndarray | None, float, float]:
        few = None if bias is None else (bias[0][which], bias[1])
        found, shifted, before, after = _solve(
            layer,
            rows,
            fix_in,
            (weight_matrix(start[which]), weights[1]),
            few,
            fix_out,
            target[:, which],
            weight_matrix(real[which]).astype(np.float64),
            settings,
            moments,
        )
        values[which] = found[0].T
        return None if shifted is None else shifted[0], before, after

    parts = blocks.in_turns(one, groups)
    shares = [(min(g.stop, len(start)) - g.start) / len(start) for g in groups]
    before = float(sum(part[1] * share for part, share in zip(parts, shares, strict=True)))
    after = float(sum(part[2] * share for part, share in zip(parts, shares, strict=True)))
    if bias is not None:
        bias = (np.concatenate([given(part[0]) for part in parts]), bias[1])
    return (values.reshape(shape), weights[1]), bias, before, after


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
    moments: np.ndarray | None = None,
) -> Refined:
    unit = fix_in + weights[1]
    scale = 2.0**unit
    activation = activation_named(layer.attrs["activation"])
    low = activation.counts_from * 2.0 ** (unit - fix_out)
    high = activation.limit(fix_out) * 2.0 ** (unit - fix_out)
    news = settings.get("news", len(rows))
    problem = Problem(
        np.ascontiguousarray(rows, np.float32),
        (target * np.float32(scale)).astype(np.float32),
        real * 2.0 ** weights[1],
        None,
        2.0 ** (unit - bias[1]) if bias is not None else 0.0,
        low,
        high,
        settings["ridge"] * HELD * rows.shape[1] / news,
        moments,
    )
    start_bias = None if bias is None else bias[0].astype(np.float32)
    before = float(problem.losses(weights[0], start_bias).mean())
    new, shifted, after = descend(problem, weights[0], start_bias, settings["sweeps"], settings["reach"])
    to_step = 4.0 ** (fix_out - unit)
    new_bias = None if bias is None else (given(shifted).astype(np.int8), bias[1])
    return (new, weights[1]), new_bias, before * to_step, after * to_step


def _refine_depthwise(
    layer: Layer,
    rows: np.ndarray,
    fix_in: int,
    weights: Quantized,
    bias: Quantized | None,
    fix_out: int,
    target: np.ndarray,
    settings: Settings,
) -> Refined:
    """Channel by channel: each has its own few inputs."""
    channels = layer.shape[-1]
    rows = rows.reshape(len(rows), -1, channels)  # int8: a kernel of 5 x 5 makes them many

    def one(c: int) -> Refined:
        start = weights[0][0, :, :, c].reshape(-1, 1)
        real = given(layer.weights)[0, :, :, c].reshape(-1, 1).astype(np.float64)
        few = None if bias is None else (bias[0][c : c + 1], bias[1])
        return _solve(
            layer,
            rows[:, :, c],
            fix_in,
            (start, weights[1]),
            few,
            fix_out,
            target[:, c : c + 1],
            real,
            settings,
        )

    found = blocks.in_turns(one, range(channels))
    values, before, after = weights[0].copy(), 0.0, 0.0
    for c, (new, _, b, a) in enumerate(found):
        values[0, :, :, c] = new[0].reshape(values.shape[1:3])
        before, after = before + b / channels, after + a / channels
    if bias is not None:
        bias = (np.concatenate([given(part[1])[0] for part in found]), bias[1])
    return (values, weights[1]), bias, before, after
