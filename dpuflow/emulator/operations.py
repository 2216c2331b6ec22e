"""The integer operations of a DPU model, as plain data.

Both implementations - `oracle` (slow, obvious) and `kernels` (fast) - execute these
descriptions, so a test can hand one and the same operation to the two of them.
Shapes exclude nothing: activations are NHWC with the batch first, `kernel`, `stride`,
`dilation` are (w, h), `pad` is (left, right, top, bottom), as in XIR (docs/reference/xmodel.md). Numerics:
docs/reference/numerics.md.
"""

from dataclasses import dataclass, field

import numpy as np

NONLINEAR = ("NONE", "RELU", "RELU6", "LEAKYRELU", "HSIGMOID", "HSWISH")
CONV_KINDS = ("conv2d", "depthwise")
POOL_KINDS = ("MAX", "AVG")
ELTWISE_KINDS = ("ADD", "MUL")
GUARD_BITS = 7
"""Extra bits that eltwise ADD keeps below its inputs' common step (docs/reference/numerics.md)."""


def _require(kind, known):
    """ValueError for a kind that no implementation has, so that none takes it for another one."""
    if kind not in known:
        raise ValueError(f"kind {kind!r}; known are {', '.join(known)}")


@dataclass(frozen=True)
class Nonlinear:
    """The activation fused into an operation.

    hsigmoid_in: fix_point of the value that enters the hard sigmoid; shift_hsigmoid,
    shift_hswish: right shifts behind it (attributes of the same names in XIR).
    """

    kind: str = "NONE"
    hsigmoid_in: int = 0
    shift_hsigmoid: int = 0
    shift_hswish: int = 0

    def __post_init__(self):
        _require(self.kind, NONLINEAR)


@dataclass(frozen=True)
class Conv:
    """conv2d-fix, depthwise-conv2d-fix, and dense as a convolution.

    Attributes
    ----------
    kind : "conv2d" or "depthwise".
    weights : int8, [OC, KH, KW, IC / group]; depthwise: [1, KH, KW, C].
    bias : int8 [OC] or None.
    shift_cut, shift_bias : fix_in + fix_weights - fix_out and - fix_bias.
    fix_out : fix_point of the output (RELU6 depends on it).
    """

    kind: str
    weights: np.ndarray
    bias: np.ndarray | None
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int, int, int]
    shift_cut: int
    shift_bias: int
    fix_out: int
    group: int = 1
    nonlinear: Nonlinear = field(default_factory=Nonlinear)

    def __post_init__(self):
        _require(self.kind, CONV_KINDS)

    @property
    def kernel(self):
        """(w, h)."""
        return self.weights.shape[2], self.weights.shape[1]


@dataclass(frozen=True)
class Pool:
    """pool-fix: kind is "MAX" or "AVG"; `shift` = fix_in - fix_out."""

    kind: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int, int, int]
    shift: int

    def __post_init__(self):
        _require(self.kind, POOL_KINDS)


@dataclass(frozen=True)
class Eltwise:
    """eltwise-fix: kind is "ADD" or "MUL"; fix_in has one entry per input."""

    kind: str
    fix_in: tuple[int, ...]
    fix_out: int
    nonlinear: Nonlinear = field(default_factory=Nonlinear)

    def __post_init__(self):
        _require(self.kind, ELTWISE_KINDS)


@dataclass(frozen=True)
class Concat:
    """concat-fix: each input is rounded to the output's fix_point, its shift = fix_in - fix_out."""

    axis: int
    shifts: tuple[int, ...]


@dataclass(frozen=True)
class HardSigmoid:
    """hard-sigmoid-fix: round((q * 2731 + 3 * 2731 * 2**hsigmoid_in) / 2**shift_hsigmoid)."""

    hsigmoid_in: int
    shift_hsigmoid: int


def window_output(size, kernel, stride, dilation, pad_before, pad_after):
    """Output length of a sliding window, FLOOR mode (docs/reference/xmodel.md)."""
    return (size + pad_before + pad_after - ((kernel - 1) * dilation + 1)) // stride + 1
