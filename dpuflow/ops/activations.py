"""Activations that a layer may have fused behind it, as plain data.

Every stage's table of activations (`base.totality.Total`) has just the keys of `ACTIVATIONS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE, RELU6_LIMIT

SLOPE = LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]


@dataclass(frozen=True)
class Activation:
    """What one fused activation is.

    Attributes
    ----------
    formula : for people.
    real : float arrays -> float arrays (may work in place).
    lowest : least int8 that can leave it.
    counts_from : output step below which an error no longer shows (fine-tuning).
    commutes_with_scale : f(s x) = s f(x) for every s > 0.
    before_rounding : what happens to an accumulator: "nothing" (the clamps do it all) or "slope"
        (negative ones are multiplied by 26/256). Stages keep tables of these (`rules`).
    limit : fix_point of the output -> greatest int8 that can leave it.
    """

    formula: str
    real: Callable[[np.ndarray], np.ndarray]
    before_rounding: str
    lowest: int = INT8_MIN
    counts_from: float = INT8_MIN
    commutes_with_scale: bool = True
    limit: Callable[[int], int] = lambda fix_point: INT8_MAX


def _relu6_limit(fix_point: int) -> int:
    """Integer 96, 6.0 at fix_point 4; from 5 on 6.0 lies beyond int8 (docs/reference/numerics.md)."""
    return RELU6_LIMIT if fix_point <= 4 else INT8_MAX


ACTIVATIONS: dict[str, Activation] = {
    "NONE": Activation("x", lambda x: x, "nothing"),
    "RELU": Activation("max(x, 0)", lambda x: np.maximum(x, 0, out=x), "nothing", lowest=0, counts_from=0),
    "RELU6": Activation(
        "min(max(x, 0), 6)",
        lambda x: np.clip(x, 0, 6, out=x),
        "nothing",
        lowest=0,
        counts_from=0,
        commutes_with_scale=False,
        limit=_relu6_limit,
    ),
    # the output goes on falling far below, a tenth as fast
    "LEAKYRELU": Activation(
        "x, below 0 x * 26/256",
        lambda x: np.where(x < 0, x * x.dtype.type(SLOPE), x),
        "slope",
        counts_from=-np.inf,
    ),
}


def rules() -> set[str]:
    """Every value of `before_rounding`: the vocabulary of the stages' tables."""
    return {activation.before_rounding for activation in ACTIVATIONS.values()}
