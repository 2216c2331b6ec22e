"""Float operators of CPU layers, computed in the order in which dpuflow's emulator does."""

import numpy as np
from cpu_windows import fold, group_matrices, products, reduce_windows, windows


def folded(function):
    """Maker of an element-wise operator; in float32 if any input is."""

    def run(inputs):
        if any(x.dtype == np.float32 for x in inputs):
            inputs = [x.astype(np.float32, copy=False) for x in inputs]
        return fold(function, inputs)

    return lambda op, arrays: run


def float32(function):
    """Maker of a function of one value in float32."""
    return lambda op, arrays: lambda inputs: function(inputs[0].astype(np.float32))


def sigmoid(op, arrays):
    """1 / (1 + exp(-x)) in float32; exp of at most 88, below float32's largest."""

    def run(inputs):
        x = inputs[0].astype(np.float32)
        return np.float32(1) / (np.float32(1) + np.exp(-np.maximum(x, np.float32(-88))))

    return run


def matrix_product(x, matrices):
    """x (N, ..., K) times matrices (N or 1, K, M): float32, summed in float64 in the order of K."""
    flat = x.astype(np.float64).reshape(len(x), -1, x.shape[-1])
    matrices = matrices.astype(np.float64)
    total = np.zeros((len(x), flat.shape[1], matrices.shape[-1]))
    for k in range(flat.shape[-1]):
        total += flat[:, :, k, None] * matrices[:, k, None, :]
    return total.astype(np.float32).reshape(x.shape[:-1] + matrices.shape[-1:])


def round_half_up(x):
    """floor(x + 1/2), exact also where adding 1/2 would round."""
    floor = np.floor(x)
    return floor + (x - floor >= 0.5)


ROUNDING = {
    "DPU_ROUND": round_half_up,
    "STD_ROUND": lambda x: np.copysign(round_half_up(np.abs(x)), x),
    "PY3_ROUND": np.rint,
}


def grid(op):
    """function(x) -> integers (as float64) of a fixed-point grid."""
    rounding = ROUNDING[op["round_mode"]]
    return lambda x: np.clip(
        rounding(np.ldexp(np.asarray(x, np.float64), op["fix_point"])), op["low"], op["high"]
    )


def fix(op, arrays):
    """Rounded to the grid 2**-fix_point, still real."""
    to_grid = grid(op)
    return lambda inputs: np.ldexp(to_grid(inputs[0]), -op["fix_point"])


def float2fix(op, arrays):
    """float -> int8."""
    to_grid = grid(op)
    return lambda inputs: to_grid(inputs[0]).astype(np.int8)


def fix2float(op, arrays):
    """int8 -> float32, exact."""
    return lambda inputs: np.ldexp(inputs[0].astype(np.float32), -op["fix_point"])


def softmax(op, arrays):
    """Softmax in float32 with the maximum subtracted."""
    axis = op["axis"]

    def run(inputs):
        x = inputs[0].astype(np.float32)
        power = np.exp(x - x.max(axis=axis, keepdims=True))
        return power / power.sum(axis=axis, keepdims=True)

    return run


def conv2d(op, arrays):
    """Float convolution in float64."""
    matrices, bias = group_matrices(arrays["weights"], op["group"], np.float64), arrays.get("bias", 0)
    return lambda inputs: products(windows(inputs[0].astype(np.float64), op), matrices) + bias


def depthwise_conv2d(op, arrays):
    """Float depthwise convolution in float64."""
    weights, bias = arrays["weights"][0].astype(np.float64), arrays.get("bias", 0)

    def run(inputs):
        view = windows(inputs[0].astype(np.float64), op)
        return np.einsum("nhwklc,klc->nhwc", view, weights) + bias

    return run


def maxpool2d(op, arrays):
    """Maximum of each window; padding never wins."""
    return lambda inputs: reduce_windows(inputs[0].astype(np.float64), op, np.maximum, -np.inf)


def window_sums(x, op):
    """Sum of each window in float64."""
    return windows(np.asarray(x, np.float64), op).sum(axis=(3, 4))


def avgpool2d(op, arrays):
    """Mean of each window; padding counts as zeros, or not at all."""

    def run(inputs):
        if op["count_include_pad"]:
            return window_sums(inputs[0], op) / (op["kernel"][0] * op["kernel"][1])
        ones = np.ones((1,) + inputs[0].shape[1:3] + (1,))
        return window_sums(inputs[0], op) / window_sums(ones, op)

    return run


def mul(op, arrays):
    """Product; or an average pool, mean or hard sigmoid before its division, times `scale`."""
    if op.get("joined") == "avgpool2d":
        return lambda inputs: window_sums(inputs[0], op) * op["scale"]
    if op.get("joined") == "reduction_mean":
        axes = tuple(op["axes"])
        return lambda inputs: inputs[0].astype(np.float64).sum(axis=axes, keepdims=op["keep"]) * op["scale"]
    if op.get("joined") == "hard-sigmoid":
        return lambda inputs: shifted_relu6(inputs[0]) * op["scale"]
    return folded(np.multiply)(op, arrays)


def shifted_relu6(x):
    """relu6(x + 3), six times the hard sigmoid."""
    return np.clip(np.asarray(x, np.float64) + 3, 0, 6)


def hard_sigmoid(op, arrays):
    """relu6(x + 3) / 6."""
    return lambda inputs: shifted_relu6(inputs[0]) / 6


def mean(op, arrays):
    """Mean over axes, in float32."""
    axes = tuple(op["axes"])
    return lambda inputs: (
        np.asarray(inputs[0], np.float64).mean(axis=axes, keepdims=op["keep"]).astype(np.float32)
    )


def norm(op, arrays):
    """Euclidean length along an axis, in float32."""

    def run(inputs):
        squares = np.square(np.asarray(inputs[0], np.float64))
        return np.sqrt(squares.sum(axis=op["axis"], keepdims=op["keep"])).astype(np.float32)

    return run


def matmul(op, arrays):
    """x @ weight (+ bias) in float64, either operand's last two axes swapped on request."""

    def run(inputs):
        left = np.swapaxes(inputs[0], -1, -2) if op["transpose_a"] else inputs[0]
        right = np.swapaxes(inputs[1], -1, -2) if op["transpose_b"] else inputs[1]
        if np.float32 in (left.dtype, right.dtype):
            out = matrix_product(left, right if right.ndim > 2 else right[None])
            return out + inputs[2].astype(np.float32) if len(inputs) > 2 else out
        out = np.matmul(np.asarray(left, np.float64), np.asarray(right, np.float64))
        return out + inputs[2] if len(inputs) > 2 else out

    return run


def relu(op, arrays):
    """Not below 0, and not above `limit` if there is one."""
    if op.get("limit") is None:
        return lambda inputs: np.maximum(inputs[0], 0)
    return lambda inputs: np.clip(inputs[0], 0, op["limit"])


def leaky_relu(op, arrays):
    """alpha * x below 0."""
    return lambda inputs: np.where(inputs[0] < 0, inputs[0] * op["alpha"], inputs[0])
