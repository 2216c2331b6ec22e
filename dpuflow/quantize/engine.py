"""Layer arithmetic on NumPy: float32 layers, and the DPU's integer arithmetic on float32 BLAS.

Integers travel as float32 arrays of whole numbers. Sums of int8 products are exact in
float32 while 128 * sum|w| + |bias term| stays below 2**24 per output channel (facts
dpu-numerics.md, "Integer semantics"); layers beyond that bound compute in float64.
Exact sums do not depend on their order, so integer results are the same on every
machine and for any number of threads.
"""

import numpy as np
from threadpoolctl import threadpool_limits

from dpuflow.base.numerics import INT8_MAX, INT8_MIN, LEAKY_RELU_SLOPE, RELU6_LIMIT, average_pool_factor
from dpuflow.base.totality import Total
from dpuflow.network import ACTIVATIONS, OPS, WEIGHTED, folded_ops, output_axis

IM2COL_BYTES = 4 << 20
"""Size of one patch matrix: about the second-level cache."""
EXACT_FLOAT32 = 1 << 24


def single_threaded_blas():
    """Context: one BLAS thread. The patch matrices are small; on a shared machine OpenBLAS's
    threads spend five times as long waiting for each other as one thread needs alone (measured)."""
    return threadpool_limits(limits=1, user_api="blas")


def pad_map(x, pad, value=0.0):
    """Pad an NHWC array by (l, r, t, b) with `value`."""
    left, right, top, bottom = pad
    if not any(pad):
        return x
    n, h, w, c = x.shape
    out = np.full((n, h + top + bottom, w + left + right, c), value, x.dtype)
    out[:, top : top + h, left : left + w] = x
    return out


def windows(x, kernel, stride, dilation=(1, 1)):
    """View (N, OH, OW, KH, KW, C) of all kernel windows of an already padded NHWC array."""
    n, h, w, c = x.shape
    (kw, kh), (sw, sh), (dw, dh) = kernel, stride, dilation
    oh, ow = (h - (kh - 1) * dh - 1) // sh + 1, (w - (kw - 1) * dw - 1) // sw + 1
    bn, bh, bw, bc = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (n, oh, ow, kh, kw, c), (bn, bh * sh, bw * sw, bh * dh, bw * dw, bc), writeable=False
    )


def weight_matrix(layer, weights):
    """Weights of a conv [OC, KH, KW, IC] or dense [OC, IN] layer as (K, OC), row-contiguous."""
    return np.ascontiguousarray(weights.reshape(weights.shape[0], -1).T)


def patches(layer, x):
    """Yield (slice of images, patch matrix (rows, K)) of a conv layer, in cache-sized pieces."""
    padded = pad_map(x, layer.attrs["pad"])
    view = windows(padded, layer.attrs["kernel"], layer.attrs["stride"], layer.attrs["dilation"])
    per_image = int(np.prod(view.shape[1:])) * x.itemsize
    step = max(1, IM2COL_BYTES // per_image)
    for start in range(0, len(x), step):
        piece = view[start : start + step]
        yield slice(start, start + len(piece)), piece.reshape(-1, int(np.prod(view.shape[3:])))


def linear(layer, x, weights):
    """Weighted sums without bias: (N, *layer.shape) of x's dtype."""
    return _LINEAR[layer.op](layer, x, weights)


def _dense(layer, x, weights):
    return np.matmul(x, weight_matrix(layer, weights).astype(x.dtype, copy=False))


def _conv(layer, x, weights):
    matrix = weight_matrix(layer, weights).astype(x.dtype, copy=False)
    out = np.empty((len(x), *layer.shape), x.dtype)
    for images, rows in patches(layer, x):
        np.matmul(rows, matrix, out=out[images].reshape(-1, matrix.shape[1]))
    return out


def _depthwise(layer, x, weights):
    view = windows(
        pad_map(x, layer.attrs["pad"]), *(layer.attrs[k] for k in ("kernel", "stride", "dilation"))
    )
    _, kh, kw, _ = weights.shape
    out = np.zeros((len(x), *layer.shape), x.dtype)
    step = max(1, IM2COL_BYTES // (int(np.prod(layer.shape)) * x.itemsize))
    for start in range(0, len(x), step):
        images = slice(start, start + step)
        for i in range(kh):
            for j in range(kw):
                out[images] += view[images, :, :, i, j] * weights[0, i, j].astype(x.dtype)
    return out


_LINEAR = Total(
    "quantize.engine: weighted sums",
    WEIGHTED,
    {"conv": _conv, "depthwise_conv": _depthwise, "dense": _dense},
)


def max_pool(layer, x):
    """Largest value per window; padding counts as lowest."""
    view = windows(pad_map(x, layer.attrs["pad"], -np.inf), layer.attrs["kernel"], layer.attrs["stride"])
    out = view[:, :, :, 0, 0].copy()
    for i in range(view.shape[3]):
        for j in range(view.shape[4]):
            np.maximum(out, view[:, :, :, i, j], out=out)
    return out


def window_sum(layer, x):
    """Sum per pooling window (padding counts as zero)."""
    view = windows(pad_map(x, layer.attrs["pad"]), layer.attrs["kernel"], layer.attrs["stride"])
    if view.shape[1:3] == (1, 1):
        return view.sum(axis=(3, 4))
    out = np.zeros(view.shape[:3] + view.shape[5:], x.dtype)
    for i in range(view.shape[3]):
        for j in range(view.shape[4]):
            out += view[:, :, :, i, j]
    return out


SLOPE = LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]


def activate(x, activation):
    """Apply an activation of `network.ACTIVATIONS` in real numbers (may work in place)."""
    return _ACTIVATE[activation](x)


_ACTIVATE = Total(
    "quantize.engine: activation in real numbers",
    ACTIVATIONS,
    {
        "NONE": lambda x: x,
        "RELU": lambda x: np.maximum(x, 0, out=x),
        "RELU6": lambda x: np.clip(x, 0, 6, out=x),
        "LEAKYRELU": lambda x: np.where(x < 0, x * x.dtype.type(SLOPE), x),
    },
)


def softmax(x):
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def float_layer(layer, inputs):
    """One layer in float32. inputs: arrays (N, ...). Average pooling divides exactly; a fused
    LEAKYRELU has the DPU's slope."""
    return _FLOAT[layer.op](layer, inputs)


def _float_weighted(layer, inputs):
    out = linear(layer, inputs[0], layer.weights)
    if layer.bias is not None:
        out += layer.bias
    return activate(out, layer.attrs["activation"])


def _float_add(layer, inputs):
    return activate(sum(inputs[1:], start=inputs[0].copy()), layer.attrs["activation"])


def _float_average(layer, inputs):
    area = layer.attrs["kernel"][0] * layer.attrs["kernel"][1]
    return window_sum(layer, inputs[0]) / np.float32(area)


def _input(layer, inputs):
    raise ValueError(f"layer {layer.name!r} is an input: it is given, not computed")


_MOVED = {
    "max_pool": lambda layer, inputs: max_pool(layer, inputs[0]),
    "concat": lambda layer, inputs: np.concatenate(inputs, axis=-1),
    "flatten": lambda layer, inputs: inputs[0].reshape(len(inputs[0]), -1),
}
"""What moves or compares values, the same on reals and integers."""

_FLOAT = Total(
    "quantize.engine: a layer in float32",
    OPS,
    {
        **_MOVED,
        **dict.fromkeys(WEIGHTED, _float_weighted),
        "input": _input,
        "add": _float_add,
        "avg_pool": _float_average,
        "softmax": lambda layer, inputs: softmax(inputs[0]),
        "batch_norm": lambda layer, inputs: inputs[0] * layer.weights + layer.bias,
        "relu": lambda layer, inputs: np.maximum(inputs[0], 0),
        "relu6": lambda layer, inputs: np.clip(inputs[0], 0, 6),
        "leaky_relu": lambda layer, inputs: np.where(
            inputs[0] < 0, inputs[0] * np.float32(layer.attrs["alpha"]), inputs[0]
        ),
    },
)


def run_float(network, x, keep=None):
    """Run `network` in float32 on x (N, H, W, C).

    keep : names of layers whose outputs to return (None: the output layer's only).
    Returns dict layer name -> array (N, ...).
    """
    wanted = {network.output.name} if keep is None else set(keep)
    return run_layers(network, np.asarray(x, np.float32), wanted, float_layer)


def run_layers(network, x, wanted, compute):
    """Evaluate layers in order with `compute(layer, inputs)`, freeing what nobody needs any more."""
    last_use = {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}
    values, kept = {}, {}
    for i, layer in enumerate(network.layers):
        value = x if layer.op == "input" else compute(layer, [values[name] for name in layer.inputs])
        values[layer.name] = value
        if layer.name in wanted:
            kept[layer.name] = value
        for name in {*layer.inputs, layer.name}:
            if last_use.get(name, -1) <= i:
                values.pop(name, None)
        if len(kept) == len(wanted):
            break
    return kept


# -- integer arithmetic of the DPU -----------------------------------------------------------


def round_half_up(x):
    """floor(x + 1/2) in x's own precision, in place; exact for grid values below 2**22."""
    x += x.dtype.type(0.5)
    return np.floor(x, out=x)


def saturate(x, activation="NONE"):
    """Clamp to int8 in place; RELU folds into the lower bound."""
    return np.clip(x, LOWEST[activation], INT8_MAX, out=x)


LOWEST = Total(
    "quantize.engine: least int8 behind an activation",
    ACTIVATIONS,
    {"NONE": INT8_MIN, "RELU": 0, "RELU6": 0, "LEAKYRELU": INT8_MIN},
)


def needs_float64(layer, weights, bias=None, shift_bias=0):
    """True when float32 cannot hold every possible accumulator of these int8 parameters exactly."""
    axes = tuple(np.delete(np.arange(weights.ndim), output_axis(layer)))
    total = 128 * np.abs(weights.astype(np.int64)).sum(axis=axes).max(initial=0)
    if bias is not None:
        total = total + np.abs(bias.astype(np.int64)).max(initial=0) * 2.0 ** max(shift_bias, 0)
    # one bit spare for the half of shift_bias -1, and more for a finer bias
    return bool(2.0 ** max(1, -shift_bias) * total >= EXACT_FLOAT32)


def finish(accumulated, shift_cut, activation, fix_point):
    """Accumulator (bias included) -> int8 grid: activation, /2**shift_cut, DPU_ROUND, saturate."""
    x = accumulated
    if activation == "LEAKYRELU":  # the others act by the clamps below; `saturate` refuses unknown ones
        numerator, shift = LEAKY_RELU_SLOPE
        x = np.where(x < 0, x.astype(np.float64) * (numerator / 2**shift), x)
    x = round_half_up(x * x.dtype.type(2.0**-shift_cut))
    x = saturate(x, activation)
    if activation == "RELU6" and fix_point <= 4:
        np.minimum(x, RELU6_LIMIT, out=x)
    return x.astype(np.float32, copy=False)


def accumulate(layer, x, weights, bias, shift_bias):
    """acc = sum(x * w) + bias * 2**shift_bias, exact, in units of 2**-(fix_in + fix_w)."""
    dtype = np.float64 if needs_float64(layer, weights, bias, shift_bias) else np.float32
    out = linear(layer, x.astype(dtype, copy=False), weights.astype(dtype))
    if bias is not None:
        out += (bias.astype(np.float64) * 2.0**shift_bias).astype(dtype)
    return out


def average(layer, x, shift):
    """Sum * M / 2**S * 2**shift as real numbers (exact in float64, float32 where it fits)."""
    multiplier, divisor_shift = average_pool_factor(layer.attrs["kernel"][1], layer.attrs["kernel"][0])
    area = layer.attrs["kernel"][0] * layer.attrs["kernel"][1]
    dtype = np.float32 if 256 * area * multiplier < EXACT_FLOAT32 else np.float64
    return window_sum(layer, x).astype(dtype) * dtype(multiplier * 2.0 ** (shift - divisor_shift))


def add_guarded(inputs, fix_points, fix_out):
    """eltwise ADD before rounding: floor(x * 2**(7 - (fix_k - m))) summed, in units of 2**-fix_out.

    m is the smallest input fix_point (facts xmodel.md section 4, "eltwise-fix ADD").
    """
    lowest = min(fix_points)
    total = sum(
        np.floor(x * np.float32(2.0 ** (7 - (fix - lowest))))
        for x, fix in zip(inputs, fix_points, strict=True)
    )
    return total * np.float32(2.0 ** (fix_out - lowest - 7))


def integer_layer(quantized, layer, inputs):
    """One layer of a QuantizedNetwork on int8-valued float32 arrays; softmax gets real numbers."""
    fixes = [quantized.fix_points[i] for i in layer.inputs]
    return _INTEGER[layer.op](quantized, layer, inputs, fixes, quantized.fix_points.get(layer.name))


def _integer_softmax(quantized, layer, inputs, fixes, fix):
    return softmax(inputs[0].astype(np.float32) * np.float32(2.0 ** -fixes[0]))


def _integer_weighted(quantized, layer, inputs, fixes, fix):
    name = layer.name
    bias = quantized.biases[name][0] if name in quantized.biases else None
    shift_bias = quantized.shift_bias(name) if bias is not None else 0
    total = accumulate(layer, inputs[0], quantized.weights[name][0], bias, shift_bias)
    return finish(total, quantized.shift_cut(name), layer.attrs["activation"], fix)


def _integer_add(quantized, layer, inputs, fixes, fix):
    return finish(add_guarded(inputs, fixes, fix), 0, layer.attrs["activation"], fix)


def _integer_average(quantized, layer, inputs, fixes, fix):
    return finish(average(layer, inputs[0], fix - fixes[0]), 0, "NONE", fix)


def _integer_moved(quantized, layer, inputs, fixes, fix):
    moved = float_layer(layer, [_requantize(x, f, fix) for x, f in zip(inputs, fixes, strict=True)])
    return moved.astype(np.float32, copy=False)


_INTEGER = Total(
    "quantize.engine: a layer in the DPU's integers",
    folded_ops,
    {
        **dict.fromkeys(_MOVED, _integer_moved),
        **dict.fromkeys(WEIGHTED, _integer_weighted),
        "input": lambda quantized, layer, *_: _input(layer, []),
        "add": _integer_add,
        "avg_pool": _integer_average,
        "softmax": _integer_softmax,
    },
)


def _requantize(x, fix_from, fix_to):
    if fix_from == fix_to:
        return x
    return saturate(round_half_up(x * np.float32(2.0 ** (fix_to - fix_from))))


def run_integer(quantized, q, keep=None):
    """Run a QuantizedNetwork on its int8 input q (N, H, W, C), given as any numeric dtype.

    Returns dict layer name -> float32 array of int8 values (softmax: probabilities).
    """
    network = quantized.network
    wanted = {network.output.name} if keep is None else set(keep)
    return run_layers(
        network,
        np.asarray(q, np.float32),
        wanted,
        lambda layer, inputs: integer_layer(quantized, layer, inputs),
    )
