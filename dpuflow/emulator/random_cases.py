"""Random operations and random small graphs, for checking one implementation by another.

Everything is drawn from a NumPy generator, so a seed names a case. The draws favour
what goes wrong: saturation, halves, negative shifts, extreme values, odd sizes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.emulator.attributes import fix_point as fix_point_of
from dpuflow.emulator.operations import (
    DEPTHWISE,
    NONLINEAR,
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    InsideAverage,
    Nonlinear,
    Operation,
    Pad,
    Pair,
    PixelShuffle,
    Pool,
    Resample,
    Slice,
    window_output,
)
from dpuflow.xir import Graph, Op
from dpuflow.xir.shapes import Shape

Case = tuple[Operation, list[np.ndarray]]
"""Operation and its int8 inputs."""


def values(rng: np.random.Generator, shape: int | Shape) -> np.ndarray:
    """int8 array: uniform, small, sparse, or all at one extreme."""
    style = rng.integers(6)
    if style == 0:
        return np.full(shape, rng.choice([-128, 127, 0]), np.int8)
    if style == 1:
        return rng.integers(-3, 4, shape).astype(np.int8)
    if style == 2:
        return rng.choice(np.array([-128, 0, 127], np.int8), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def nonlinear(rng: np.random.Generator, kinds: Sequence[str] = NONLINEAR) -> Nonlinear:
    """Random Nonlinear; half of them none or ReLU."""
    kind = str(rng.choice(kinds[:2] if rng.random() < 0.5 else kinds))
    hsigmoid_in = int(rng.integers(0, 8))
    return Nonlinear(kind, hsigmoid_in, int(rng.integers(7, 22)), int(rng.integers(0, 9)))


def _pair(rng: np.random.Generator, low: int, high: int) -> Pair:
    return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))


def _window(rng: np.random.Generator, largest: int, dilations: int) -> tuple[Pair, Pair, Pair, Pad, Pair]:
    """kernel, stride, dilation, pad, and an input size (h, w) that the kernel fits."""
    kernel, stride, dilation = _pair(rng, 1, largest), _pair(rng, 1, 3), _pair(rng, 1, dilations)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    left, right, top, bottom = (int(rng.integers(0, extent[i // 2])) for i in range(4))
    pad = left, right, top, bottom
    sizes = [
        max(1, extent[axis] - pad[2 * axis] - pad[2 * axis + 1]) + int(rng.integers(0, 6)) for axis in (0, 1)
    ]
    return kernel, stride, dilation, pad, (sizes[1], sizes[0])


def _conv(rng: np.random.Generator, kind: str) -> Case:
    kernel, stride, dilation, pad, (h, w) = _window(rng, 4, 2)
    if kind == "dense":
        kernel, stride, dilation, pad = (w, h), (1, 1), (1, 1), (0, 0, 0, 0)
    group = int(rng.integers(1, 4)) if kind == "conv2d" and rng.random() < 0.2 else 1
    inputs = int(rng.integers(1, 70 if kind == "dense" else 10))
    outputs = group * int(rng.integers(1, 40))
    shape = (1, *kernel[::-1], inputs) if kind in DEPTHWISE else (outputs, *kernel[::-1], inputs)
    channels = inputs * group
    bias = values(rng, shape[3] if kind in DEPTHWISE else outputs) if rng.random() < 0.8 else None
    likely = rng.random() < 0.8
    if "transposed" in kind:
        dilation = (1, 1)
        left, right, top, bottom = (int(rng.integers(0, kernel[i // 2])) for i in range(4))
        pad = left, right, top, bottom
        h, w = (max(size, *kernel) for size in (h, w))  # pads leave at least one pixel
    op = Conv(
        kind="conv2d" if kind == "dense" else kind,
        weights=values(rng, shape),
        bias=bias,
        stride=stride,
        dilation=dilation,
        pad=pad,
        shift_cut=int(rng.integers(0, 14) if likely else rng.integers(-8, 40)),
        shift_bias=int(rng.integers(-1, 10) if likely else rng.integers(-12, 30)),
        fix_out=int(rng.integers(0, 8)),
        group=group,
        nonlinear=nonlinear(rng),
    )
    return op, [values(rng, (int(rng.integers(1, 4)), h, w, channels))]


def _pool(rng: np.random.Generator, kind: str) -> Case:
    kernel, stride, _, pad, (h, w) = _window(rng, 7, 1)
    shift = 0 if rng.random() < 0.5 else int(rng.integers(-3, 4))
    shape = (int(rng.integers(1, 4)), h, w, int(rng.integers(1, 20)))
    return Pool(kind, kernel, stride, pad, shift), [values(rng, shape)]


def _inside_average(rng: np.random.Generator, kind: str) -> Case:
    while True:
        kernel, stride, _, pad, (h, w) = _window(rng, 5, 1)
        last = [  # where the last windows begin
            (window_output(size, kernel[a], stride[a], 1, pad[2 * a], pad[2 * a + 1]) - 1) * stride[a]
            - pad[2 * a]
            for a, size in ((0, w), (1, h))
        ]
        if last[0] < w and last[1] < h:
            break
    shift = 0 if rng.random() < 0.5 else int(rng.integers(-3, 4))
    shape = (int(rng.integers(1, 4)), h, w, int(rng.integers(1, 20)))
    return InsideAverage(kernel, stride, pad, shift), [values(rng, shape)]


def _eltwise(rng: np.random.Generator, kind: str) -> Case:
    count = int(rng.integers(2, 4))
    shape = (int(rng.integers(1, 4)), *_pair(rng, 1, 5), int(rng.integers(1, 20)))
    fixes = tuple(int(f) for f in rng.integers(-4, 12, count))
    op = Eltwise(kind, fixes, int(rng.integers(-6, 12)), nonlinear(rng))
    shapes = [shape] * count
    if kind == "MUL" and rng.random() < 0.5:  # a map and one factor per channel, as depthwise-fix has them
        shapes[int(rng.integers(count))] = (shape[0], 1, 1, shape[3])
    return op, [values(rng, each) for each in shapes]


def _concat(rng: np.random.Generator, kind: str) -> Case:
    shape = (int(rng.integers(1, 4)), *_pair(rng, 1, 5))
    shifts = tuple(int(s) for s in rng.integers(-9, 10, int(rng.integers(1, 4))))
    return Concat(3, shifts), [values(rng, (*shape, int(rng.integers(1, 20)))) for _ in shifts]


def _pixel_shuffle(rng: np.random.Generator, kind: str) -> Case:
    scale, upscale = int(rng.integers(1, 4)), bool(rng.integers(2))
    height, width, channels = (int(n) for n in rng.integers(1, 5, 3))
    shape = (height, width, channels * scale**2) if upscale else (height * scale, width * scale, channels)
    shift = 0 if rng.random() < 0.5 else int(rng.integers(-3, 4))
    return PixelShuffle(scale, upscale, shift), [values(rng, (int(rng.integers(1, 4)), *shape))]


def _slice(rng: np.random.Generator, kind: str) -> Case:
    shape = (int(rng.integers(1, 4)), *_pair(rng, 1, 7), int(rng.integers(1, 20)))
    bounds = []
    for size in shape[1:]:
        begin = int(rng.integers(size))
        bounds.append((begin, int(rng.integers(begin, size)) + 1, int(rng.integers(1, 4))))
    shift = 0 if rng.random() < 0.5 else int(rng.integers(-3, 4))
    return Slice(tuple(bounds), shift), [values(rng, shape)]


def _hard_sigmoid(rng: np.random.Generator, kind: str) -> Case:
    op = HardSigmoid(int(rng.integers(0, 16)), int(rng.integers(0, 32)))
    return op, [values(rng, (2, 3, 3, int(rng.integers(1, 9))))]


def _resample(rng: np.random.Generator, kind: str) -> Case:
    (height, width), factor = _pair(rng, 1, 6), _pair(rng, 1, 9)
    shape = (int(rng.integers(1, 4)), height, width, int(rng.integers(1, 20)))
    shift = 0 if rng.random() < 0.5 else int(rng.integers(-3, 4))
    corners = bool(rng.random() < 0.4)
    grid = {"align_corners": corners, "half_pixel_centers": not corners and bool(rng.random() < 0.5)}
    size = (width * factor[0], height * factor[1])
    if kind == "STRIDE":
        factor = _pair(rng, 1, 3)
        size = (-(-width // factor[0]), -(-height // factor[1]))
    return Resample(kind, size, shift, **grid, scale=factor), [values(rng, shape)]


_KINDS: dict[str, tuple[Callable[[np.random.Generator, str], Case], int]] = {
    "conv2d": (_conv, 4),
    "depthwise": (_conv, 2),
    "dense": (_conv, 2),
    "transposed": (_conv, 1),
    "transposed depthwise": (_conv, 1),
    "MAX": (_pool, 1),
    "AVG": (_pool, 2),
    "inside average": (_inside_average, 1),
    "ADD": (_eltwise, 2),
    "MUL": (_eltwise, 1),
    "concat": (_concat, 1),
    "hard-sigmoid": (_hard_sigmoid, 1),
    "NEAREST": (_resample, 1),
    "BILINEAR": (_resample, 1),
    "STRIDE": (_resample, 1),
    "pixel-shuffle": (_pixel_shuffle, 1),
    "slice": (_slice, 1),
}
KINDS = tuple(_KINDS)


def operation(rng: np.random.Generator, kind: str | None = None) -> tuple[str, Operation, list[np.ndarray]]:
    """(kind, operation, list of int8 inputs)."""
    if kind is None:
        weights = np.array([weight for _, weight in _KINDS.values()], float)
        kind = str(rng.choice(KINDS, p=weights / weights.sum()))
    return kind, *_KINDS[kind][0](rng, kind)


class GraphBuilder:
    """Writes a compiled-form graph op by op: data-fix, upload, ..., download, fix2float, softmax."""

    def __init__(self, rng: np.random.Generator, shape: Shape, fix_point: int) -> None:
        self.rng = rng
        self.graph = Graph("random")
        attrs = {"shape": [1, *shape], "data_type": "XINT8"}
        self._op("input", "data-fix", None, attrs, fix_point)
        self.last = self._op("input_upload_0", "upload", {"input": ["input"]}, {}, fix_point)

    def _op(
        self,
        name: str,
        type_: str,
        inputs: Mapping[str, list[str]] | None,
        attrs: Mapping[str, Any],
        fix_point: int | None,
    ) -> Op:
        op = self.graph.add_op(name, type_, inputs, attrs)
        if fix_point is not None:
            op.tensor.attrs["fix_point"] = fix_point
            op.tensor.attrs["bit_width"] = 8
            op.tensor.attrs["if_signed"] = True
            op.tensor.attrs["round_mode"] = "DPU_ROUND"
        return op

    def _name(self, type_: str) -> str:
        return f"{type_}_{len(self.graph.ops)}"

    def _constant(self, name: str, array: np.ndarray, fix_point: int) -> str:
        attrs = {"shape": list(array.shape), "data_type": "XINT8", "data": array.tobytes()}
        return self._op(name, "const-fix", None, attrs, fix_point).name

    def conv(
        self,
        source: Op,
        outputs: int,
        kernel: Pair,
        stride: Pair = (1, 1),
        pad: Pad = (0, 0, 0, 0),
        activation: str = "RELU",
        kind: str = "conv2d",
    ) -> Op:
        """Convolution with random weights, fixed so that its output neither vanishes nor saturates."""
        rng, name = self.rng, self._name(kind)
        channels = source.tensor.shape[3]
        shape = (
            (outputs, kernel[1], kernel[0], channels) if kind == "conv2d" else (1, *kernel[::-1], channels)
        )
        weights = np.clip(rng.normal(0, 25, shape), -128, 127).astype(np.int8)
        bias = rng.integers(-128, 128, outputs if kind == "conv2d" else channels).astype(np.int8)
        cut = max(
            0, round(np.log2(25 * np.sqrt(weights[0].size if kind == "conv2d" else kernel[0] * kernel[1])))
        )
        fix_in, fix_weights = fix_point_of(source), 7
        inputs = {
            "input": [source.name],
            "weights": [self._constant(f"{name}_weights", weights, fix_weights)],
            "bias": [self._constant(f"{name}_bias", bias, fix_in + fix_weights - int(rng.integers(-1, 7)))],
        }
        attrs: dict[str, Any] = {
            "kernel": list(kernel),
            "stride": list(stride),
            "dilation": [1, 1],
            "pad": list(pad),
        }
        attrs |= {"nonlinear": activation, **({"group": 1} if kind == "conv2d" else {})}
        return self._op(name, f"{kind}-fix", inputs, attrs, fix_in + fix_weights - cut)

    def pool(self, source: Op, kind: str, kernel: Pair, stride: Pair) -> Op:
        """Pooling without padding; the fix_point stays."""
        attrs: dict[str, Any] = {
            "kernel": list(kernel),
            "stride": list(stride),
            "pad": [0, 0, 0, 0],
            "type": kind,
        }
        name = self._name("pool")
        return self._op(name, "pool-fix", {"input": [source.name]}, attrs, fix_point_of(source))

    def add(self, sources: Sequence[Op], activation: str = "NONE") -> Op:
        """Element-wise sum."""
        attrs = {"type": "ADD", "nonlinear": activation}
        fix = min(fix_point_of(s) for s in sources) - int(self.rng.integers(0, 2))
        return self._op(self._name("add"), "eltwise-fix", {"input": [s.name for s in sources]}, attrs, fix)

    def concat(self, sources: Sequence[Op]) -> Op:
        """Channels side by side, at the fix point of one of them or near it."""
        inputs = {"input": [s.name for s in sources]}
        fix_point = fix_point_of(sources[0]) + int(self.rng.integers(-1, 2))
        return self._op(self._name("concat"), "concat-fix", inputs, {"axis": 3}, fix_point)

    def dense(self, source: Op, outputs: int, activation: str = "NONE") -> Op:
        """Convolution whose kernel is the whole map."""
        _, h, w, _ = source.tensor.shape
        return self.conv(source, outputs, (w, h), activation=activation)

    def finish(self, source: Op) -> Graph:
        """Flatten, download, fix2float, softmax; returns the graph."""
        fix = fix_point_of(source)
        flat = {"shape": [1, int(np.prod(source.tensor.shape))]}
        self._op("flat", "reshape-fix", {"input": [source.name]}, flat, fix)
        self._op("flat_download_0", "download", {"input": ["flat"]}, {}, fix)
        grid = {"fix_point": fix, "bit_width": 8, "round_mode": "DPU_ROUND", "if_signed": True}
        self._op("logits", "fix2float", {"input": ["flat_download_0"]}, grid, None)
        self._op("softmax", "softmax", {"input": ["logits"]}, {"axis": -1}, None)
        return self.graph


def graph(rng: np.random.Generator) -> Graph:
    """Random small network: convolutions, pools, a residual sum, a concat, two dense layers."""
    size, channels = int(rng.integers(6, 13)), int(rng.integers(1, 5))
    build = GraphBuilder(rng, (size, size + int(rng.integers(0, 3)), channels), int(rng.integers(3, 8)))
    x = build.conv(
        build.last, int(rng.integers(4, 20)), (3, 3), pad=(1, 1, 1, 1), activation=_activation(rng)
    )
    for _ in range(int(rng.integers(1, 4))):
        choice = rng.integers(5)
        width = x.tensor.shape[3]
        if choice == 0 and min(x.tensor.shape[1:3]) >= 4:
            x = build.pool(x, str(rng.choice(["MAX", "AVG"])), (2, 2), (2, 2))
        elif choice == 1:
            x = build.conv(
                x, width, (3, 3), pad=(1, 1, 1, 1), activation=_activation(rng), kind="depthwise-conv2d"
            )
        elif choice == 2:
            branch = build.conv(x, width, (3, 3), pad=(1, 1, 1, 1), activation="NONE")
            x = build.add([x, branch], activation=str(rng.choice(["NONE", "RELU"])))
        elif choice == 3:
            parts = [build.pool(x, kind, (1, 1), (1, 1)) for kind in ("MAX", "AVG")]
            x = build.concat(parts)
        else:
            x = build.conv(x, int(rng.integers(4, 40)), (1, 1), activation=_activation(rng))
    x = build.dense(x, int(rng.integers(8, 40)), activation="RELU")
    return build.finish(build.dense(x, int(rng.integers(2, 30))))


def _activation(rng: np.random.Generator) -> str:
    return str(rng.choice(["NONE", "RELU", "RELU", "RELU6", "LEAKYRELU"]))


def sign_network(
    rng: np.random.Generator, widths: Sequence[int] = (32, 64, 64), hidden: int = 128, classes: int = 25
) -> Graph:
    """Random weights in the shape of a small image classifier: 28x28x1, 3x3 convolutions, 2x2 pools."""
    build = GraphBuilder(rng, (28, 28, 1), 6)
    x = build.last
    for width in widths:
        x = build.conv(x, width, (3, 3), pad=(1, 1, 1, 1))
        x = build.pool(x, "MAX", (2, 2), (2, 2))
    x = build.dense(x, hidden, activation="RELU")
    return build.finish(build.dense(x, classes))
