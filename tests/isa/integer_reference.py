"""The DPU's integer semantics written out naively (docs/reference/numerics.md), and random jobs."""

import numpy as np

from dpuflow.device.dpuczdx8g import average_pool_factor
from dpuflow.dpuczdx8g.native.operations import INPUT, OUTPUT, FeatureMap, Job, Operation


def _round_shift(values, shift):
    """floor(values / 2**shift + 1/2), saturated; exact in Python integers' range."""
    scaled = values.astype(np.float64) / 2.0**shift
    return np.clip(np.floor(scaled + 0.5), -128, 127).astype(np.int8)


def _windows(op, data, padding):
    """[kernel_h * kernel_w] arrays [images, H_out, W_out, C] of padded input."""
    height, width, _ = op.output.shape
    (kernel_h, kernel_w), (stride_h, stride_w), (top, left) = op.kernel, op.stride, op.pad
    needed_h, needed_w = (height - 1) * stride_h + kernel_h, (width - 1) * stride_w + kernel_w
    bottom = max(0, needed_h - top - data.shape[1])
    right = max(0, needed_w - left - data.shape[2])
    padded = np.pad(
        data.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=padding
    )
    for i in range(kernel_h):
        for j in range(kernel_w):
            yield padded[:, i : i + (height - 1) * stride_h + 1 : stride_h][
                :, :, j : j + (width - 1) * stride_w + 1 : stride_w
            ]


def _act(values, activation, shift):
    if activation in ("RELU", "RELU6"):
        values = np.maximum(values, 0)
    if activation == "RELU6":
        values = np.minimum(values, 96 * 2**shift)
    return values


def run_operation(op, parameters, inputs):
    """One operation on int8 arrays [images, H, W, C]."""
    if op.kind == "concat":
        return np.concatenate(inputs, axis=3)
    if op.kind == "add":
        guard = sum(
            np.floor(x.astype(np.float64) * 4 / 2**shift)
            for x, shift in zip(inputs, op.shift_read, strict=True)
        )
        return _round_shift(_act(guard, op.activation, 0), op.shift_cut + 2)
    if op.kind in ("multiply", "scale"):  # scale: its factors (1, 1, C) come behind the map
        return _round_shift(inputs[0].astype(np.int64) * inputs[1], op.shift_cut)
    (data,) = inputs
    if op.kind == "hard_sigmoid":
        line = 2731 * data.astype(np.int64) + 3 * 2731 * 2**op.shift_bias
        return _round_shift(np.clip(line, 0, 2**32), op.shift_cut)
    if op.kind == "max_pool":
        return _round_shift(np.max(list(_windows(op, data, -128)), axis=0), op.shift_cut)
    if op.kind == "avg_pool":
        total = sum(_windows(op, data, 0)) * op.multiplier[0]
        return _round_shift(total, op.shift_cut + op.multiplier[1])
    channels_in, channels = data.shape[3], op.output.shape[2]
    taps = op.kernel[0] * op.kernel[1]
    bias = parameters[op.bias : op.bias + channels].astype(np.int64)
    if op.kind == "conv":
        size = channels * taps * channels_in
        weights = (
            parameters[op.weights : op.weights + size].reshape(channels, taps, channels_in).astype(np.int64)
        )
        total = sum(window @ weights[:, tap].T for tap, window in enumerate(_windows(op, data, 0)))
    else:
        weights = (
            parameters[op.weights : op.weights + taps * channels].reshape(taps, channels).astype(np.int64)
        )
        total = sum(window * weights[tap] for tap, window in enumerate(_windows(op, data, 0)))
    twice = 2 * total + bias * 2**op.shift_bias
    if op.activation == "LEAKYRELU":
        twice = np.where(twice < 0, twice * 26 / 256, twice)
    return _round_shift(_act(twice, op.activation, op.shift_cut + 1), op.shift_cut + 1)


def run_job(job, images):
    """int8 outputs of a Job, in the order of job.outputs."""
    parameters = np.frombuffer(job.parameters, np.int8)
    values = {id(m): images for m in job.inputs}
    for op in job.operations:
        maps = [*op.inputs, op.factors] if op.factors else op.inputs
        values[id(op.output)] = run_operation(op, parameters, [values[id(m)] for m in maps])
    return [values[id(m)] for m in job.outputs]


class JobBuilder:
    """Builds a Job with random parameters, layer by layer."""

    def __init__(self, shape, seed=0):
        self.random = np.random.default_rng(seed)
        self.input = FeatureMap("input", shape, INPUT)
        self.operations = []
        self.blob = bytearray()

    def _store(self, count, low=-128, high=128):
        address = len(self.blob)
        self.blob += self.random.integers(low, high, count, np.int8).tobytes()
        self.blob += bytes(-len(self.blob) % 64)
        return address

    def _append(self, kind, inputs, shape, **values):
        name = f"{kind}_{len(self.operations)}"
        op = Operation(name, kind, inputs, FeatureMap(name, shape), **values)
        self.operations.append(op)
        return op.output

    @staticmethod
    def _out(source, kernel, stride, pad):
        """Output height, width; pad is (top, bottom, left, right)."""
        height = (source.shape[0] + pad[0] + pad[1] - kernel[0]) // stride[0] + 1
        width = (source.shape[1] + pad[2] + pad[3] - kernel[1]) // stride[1] + 1
        return height, width

    def conv(self, source, channels, kernel=(3, 3), stride=(1, 1), pad=(1, 1, 1, 1), activation="RELU"):
        taps = kernel[0] * kernel[1] * source.shape[2]
        return self._append(
            "conv",
            [source],
            (*self._out(source, kernel, stride, pad), channels),
            kernel=kernel,
            stride=stride,
            pad=(pad[0], pad[2]),
            activation=activation,
            bias=self._store(channels),
            weights=self._store(taps * channels),
            # keeps most results inside int8
            shift_cut=max(0, int(np.log2(taps**0.5 * 74 * 74)) - 6),
            shift_bias=int(self.random.integers(0, 8)),
        )

    def depthwise(self, source, kernel=(1, 1), stride=(1, 1), pad=(0, 0, 0, 0), activation="NONE"):
        taps, channels = kernel[0] * kernel[1], source.shape[2]
        return self._append(
            "depthwise",
            [source],
            (*self._out(source, kernel, stride, pad), channels),
            kernel=kernel,
            stride=stride,
            pad=(pad[0], pad[2]),
            activation=activation,
            bias=self._store(channels),
            weights=self._store(taps * channels),
            shift_cut=int(self.random.integers(5, 9)),
            shift_bias=int(self.random.integers(0, 8)),
        )

    def pool(self, source, kind="max_pool", kernel=(2, 2), stride=(2, 2), pad=(0, 0, 0, 0), shift=0):
        return self._append(
            kind,
            [source],
            (*self._out(source, kernel, stride, pad), source.shape[2]),
            kernel=kernel,
            stride=stride,
            pad=(pad[0], pad[2]),
            shift_cut=shift,
            multiplier=average_pool_factor(*kernel) if kind == "avg_pool" else (1, 0),
        )

    def add(self, sources, activation="NONE", shift_read=None, shift_write=1):
        shift_read = shift_read or (0,) * len(sources)
        return self._append(
            "add",
            sources,
            sources[0].shape,
            activation=activation,
            shift_read=shift_read,
            shift_cut=shift_write,
        )

    def hard_sigmoid(self, source, fix_in=6):
        return self._append("hard_sigmoid", [source], source.shape, shift_bias=fix_in, shift_cut=7 + fix_in)

    def multiply(self, sources, shift=7):
        return self._append("multiply", sources, sources[0].shape, shift_read=(0, 0), shift_cut=shift)

    def scale(self, source, factors, shift=7):
        return self._append("scale", [source], source.shape, factors=factors, shift_cut=shift)

    def squeeze_and_excitation(self, source, narrow):
        """A map times one hard sigmoid per channel, made of its averages."""
        x = self.pool(source, "avg_pool", source.shape[:2], (1, 1))
        x = self.conv(x, narrow, (1, 1), pad=(0, 0, 0, 0))
        x = self.conv(x, source.shape[2], (1, 1), pad=(0, 0, 0, 0), activation="NONE")
        return self.scale(source, self.hard_sigmoid(x, 5))

    def concat(self, sources):
        height, width, _ = sources[0].shape
        return self._append("concat", sources, (height, width, sum(s.shape[2] for s in sources)))

    def dense(self, source, units, activation="NONE"):
        return self.conv(source, units, source.shape[:2], pad=(0, 0, 0, 0), activation=activation)

    def job(self, *outputs):
        """The Job, `outputs` in REG_3."""
        address = 0
        for output in outputs:
            output.region, output.address = OUTPUT, address
            address += -(-output.size // 16) * 16
        sizes = {"REG_0": len(self.blob), "REG_2": -(-self.input.size // 16) * 16, "REG_3": address}
        return Job("random", self.operations, [self.input], list(outputs), bytes(self.blob), sizes)

    def images(self, count):
        """Random int8 images."""
        return self.random.integers(-128, 128, (count, *self.input.shape), np.int8)
