"""Where the descent of `rounding` starts: integers rounded in turn, each making good the errors before it.

The least squares of a layer's output is a lattice problem: of all integer vectors the one nearest to a
real one, in the metric of the inputs' second moments. Inputs are alike (neighbouring pixels, three
colours), so rounding each weight for itself is far from it, and single steps find no way out: two weights
would have to move against each other. Babai's nearest plane (1986) fixes one coordinate and moves the real
values of those that are left to where they make good most of its error; for the weights of networks
Frantar et al. 2023 (GPTQ, arXiv:2210.17323) do the same.
"""

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN

OWN_MOMENTS = 64
"""Inputs up to which each channel has the moments of the samples that count for it; beyond, all share one."""
MOST_INPUTS = 1280
"""Inputs beyond which it costs too much (the cube of them)."""
RUN = 512
"""Rows whose sums of products of two int8 are exact in float32, with whatever BLAS."""
DAMPING = 1e-7
"""Share of the mean moment on the diagonal: inputs that are always zero."""


def moments(inputs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Sums of products of inputs (S, K), whole numbers in float32, over the rows of mask (S,).

    Exact, as float64 (K, K).
    """
    total = np.zeros((inputs.shape[1],) * 2)
    for start in range(0, len(inputs), RUN):
        run = inputs[start : start + RUN]
        total += (run if mask is None else run * mask[start : start + RUN, None]).T @ run
    return total


def shared_moments(inputs: np.ndarray) -> np.ndarray | None:
    """`moments` of all rows where a layer's channels share them."""
    return moments(inputs) if OWN_MOMENTS < inputs.shape[1] <= MOST_INPUTS else None


def nearest_plane(
    inputs: np.ndarray,
    mask: np.ndarray,
    residual: np.ndarray,
    penalty: np.ndarray,
    bias_step: float | None,
    start: np.ndarray,
    anchors: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    shared: np.ndarray | None = None,
) -> np.ndarray:
    """Integers (K, OC), or (1 + K, OC) with the biases in front, by the nearest plane.

    Parameters
    ----------
    inputs : float32 (S, K), integers; mask : float32 (S, OC), 1 where a sample counts for a channel.
    residual : float32 (S, OC), what is missing at `start`, 0 where it does not count.
    penalty : (OC,), of the square of a weight's distance from its anchor. anchors : real weights (K, OC).
    bias_step : what a bias counts in the residual's unit; None: no biases.
    start : (K, OC) or (1 + K, OC). ends : least and greatest weights (K, OC).
    shared : `shared_moments` of the inputs.
    """
    first = 0 if bias_step is None else 1
    gradient = np.concatenate(
        [np.full((first, start.shape[1]), bias_step) * residual.sum(axis=0), inputs.T @ residual]
    ).astype(np.float64)
    gradient[first:] += penalty * (anchors - start[first:])
    metric = _metrics(inputs, mask, bias_step, shared)
    held = penalty
    if shared is not None:  # a channel's moments are its share of the rows times those of all
        share = np.maximum(mask.mean(axis=0, dtype=np.float64), 1 / len(mask))
        gradient, held = gradient / share, np.atleast_1d((penalty / share).mean())
    size, diagonal = start.shape[0], np.arange(start.shape[0])
    metric[:, diagonal[first:], diagonal[first:]] += held[:, None]
    damping = DAMPING * np.trace(metric, axis1=1, axis2=2) / size
    metric[:, diagonal, diagonal] += damping[:, None] + np.finfo(np.float32).tiny
    # biases are the coarsest, then the inputs that weigh most: what follows makes good their errors
    power = np.square(inputs).mean(axis=0, dtype=np.float64)
    order = np.concatenate([diagonal[:first], first + np.argsort(-power, kind="stable")])
    order = order[::-1]  # from the last to the first, as a triangular system is solved
    real = (start + _solved(metric, gradient))[order].T
    triangle = np.linalg.cholesky(metric[:, order[:, None], order])
    triangle /= np.diagonal(triangle, axis1=1, axis2=2)[:, None, :].copy()
    low, high = (np.concatenate([np.full((first, e.shape[1]), end), e])[order].T for e, end in _padded(ends))
    now, found = real.copy(), np.empty_like(real)
    for k in reversed(range(size)):
        found[:, k] = np.clip(np.rint(now[:, k]), low[:, k], high[:, k])
        now[:, :k] += triangle[:, k, :k] * (real[:, k] - found[:, k])[:, None]
    values = np.empty_like(start, dtype=np.float32)
    values[order] = found.T
    return values


def _padded(ends: tuple[np.ndarray, np.ndarray]) -> list[tuple[np.ndarray, int]]:
    return [(ends[0], INT8_MIN), (ends[1], INT8_MAX)]


def _metrics(
    inputs: np.ndarray, mask: np.ndarray, bias_step: float | None, shared: np.ndarray | None
) -> np.ndarray:
    """Second moments (1 or OC, n, n), float64, with the bias as the first input."""
    if shared is not None:
        own, sums, counts = shared[None], inputs.sum(axis=0, dtype=np.float64)[None], np.array([len(inputs)])
    else:
        own = np.stack([moments(inputs, mask[:, c]) for c in range(mask.shape[1])])
        sums, counts = (mask.T @ inputs).astype(np.float64), mask.sum(axis=0, dtype=np.float64)
    if bias_step is None:
        return own.copy()
    size = own.shape[1] + 1
    metric = np.empty((len(own), size, size))
    metric[:, 1:, 1:] = own
    metric[:, 0, 1:] = metric[:, 1:, 0] = bias_step * sums
    metric[:, 0, 0] = bias_step**2 * counts
    return metric


def _solved(metric: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """metric^-1 gradient, (n, OC)."""
    if len(metric) == 1:
        return np.linalg.solve(metric[0], gradient)
    return np.linalg.solve(metric, gradient.T[:, :, None])[:, :, 0].T
