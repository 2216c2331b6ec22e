"""The steps of a random network: how each draws its parameters, and the layers that it adds.

`draw(rng)` gives plain numbers that know nothing of where the step will stand; `apply(maker, step, sources)`
fits them to its source and adds layers, or raises ValueError where that cannot be.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from dpuflow.network.groups import dense_kernel

MOST = 6000
"""Values of the largest map: what keeps hundreds of networks a minute possible."""
MOST_OF_WIDE = 60_000
"""The same of the few networks whose maps take several pieces on a DPU."""
LONGEST = 700
"""Values of the longest vector in front of a dense layer."""
SMALLEST_CONV = {
    "number": 0, "kernel": [1, 1], "stride": [1, 1], "dilation": [1, 1], "pad": [0, 0, 0, 0], "units": 1,
    "bias": False, "spread": 0.0, "size": 1.0,
}  # fmt: skip


@dataclass
class Kind:
    """A kind of step. often : how often it is chosen, against the others."""

    draw: Any
    apply: Any
    often: float = 1.0


def numbers(rng, options, count):
    """Some of the options."""
    return [int(n) for n in rng.choice(options, count)]


# -- windows --------------------------------------------------------------------------------


def draw_window(rng):
    """kernel, stride, padding as parts of what the kernel allows, dilation."""
    kernel = numbers(rng, [1, 1, 2, 3, 3, 3, 4, 5, 7], 2)
    if rng.random() < 0.5:
        kernel[1] = kernel[0]
    stride = numbers(rng, [1, 1, 1, 2, 2, 3, 4], 2)
    same = rng.random() < 0.4
    pad = [(kernel[i // 2] - 1) // 2 for i in range(4)] if same else numbers(rng, [0, 0, 1, 2, 6], 4)
    dilation = numbers(rng, [1, 2, 3], 2) if rng.random() < 0.15 else [1, 1]
    return {"kernel": kernel, "stride": stride, "pad": pad, "dilation": dilation}


def fitted(step, shape, dilated=False):
    """Attributes of a window that fits a map: smaller kernels and less padding where it is small."""
    if len(shape) != 3:
        raise ValueError("a window on a vector")
    sizes = shape[1], shape[0]
    dilation = tuple(step["dilation"]) if dilated else (1, 1)
    kernel = tuple(
        k if (k - 1) * d < size else size if d == 1 else 1
        for k, d, size in zip(step["kernel"], dilation, sizes, strict=True)
    )
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    pad = tuple(min(p, reach[i // 2]) for i, p in enumerate(step["pad"]))
    attrs = {"kernel": kernel, "stride": tuple(step["stride"]), "pad": pad}
    return attrs | ({"dilation": dilation} if dilated else {})


def draw_weighted(rng):
    """A window, filters, bias, and how large and how unlike the channels' weights are."""
    return {
        **draw_window(rng),
        "units": int(rng.choice([1, 2, 3, 4, 5, 8, 9, 12, 16, 17, 24, 33, 70])),
        "bias": bool(rng.random() < 0.8),
        "spread": float(rng.choice([0.0, 0.0, 1.0, 3.0])),
        "size": float(rng.choice([1.0, 1.0, 1.0, 1.0, 1e-3, 30.0, 0.0])),
    }


def parameters(maker, step, shape, fan_in, axis, channels):
    """float32 weights of a shape whose outputs are about as large as the inputs, and biases or None."""
    rng = maker.rng
    weights = rng.normal(size=shape) * step["size"] / np.sqrt(fan_in)
    by_channel = np.exp2(rng.normal(size=channels) * step["spread"])
    weights = weights * by_channel.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    bias = rng.normal(size=channels) * 0.3 * max(step["size"], 0.1) if step["bias"] else None
    return weights.astype(np.float32), None if bias is None else bias.astype(np.float32)


def sliding(op, depthwise=False):
    """apply of a convolution."""

    def apply(maker, step, sources):
        source = sources[0]
        transposed = op.startswith("transposed")
        attrs = fitted(step, maker.shape(source), dilated=not transposed)
        channels = maker.shape(source)[2]
        units = channels if depthwise else step["units"]
        (width, height), inputs = attrs["kernel"], 1 if depthwise else channels
        shape = (1, height, width, channels) if depthwise else (units, height, width, channels)
        axis = 3 if depthwise else 0
        weights, bias = parameters(maker, step, shape, width * height * inputs, axis, units)
        attrs |= {"activation": "NONE", "dilation": attrs.get("dilation", (1, 1))}
        return maker.add(op, [source], attrs, weights, bias)

    return apply


def grouped(maker, step, sources):
    """A convolution in parts that do not see each other, as readers make it: with zeros between them."""
    height, width, channels = map_of(maker, sources[0])
    groups = [n for n in range(2, channels + 1) if channels % n == 0]
    if not groups:
        raise ValueError("one channel")
    count = groups[step["which"] % len(groups)]
    each, units = channels // count, count * (step["units"] % 4 + 1)
    attrs = fitted(step, (height, width, channels), dilated=True)
    (kernel_width, kernel_height), fan_in = attrs["kernel"], prod(attrs["kernel"]) * each
    shape = kernel_height, kernel_width, each, units
    weights, bias = parameters(maker, step, shape, fan_in, 3, units)
    weights = np.ascontiguousarray(dense_kernel(weights, channels).transpose(3, 0, 1, 2))
    return maker.add("conv", sources[:1], {**attrs, "activation": "NONE"}, weights, bias)


def flat(maker, source):
    """A vector of a map."""
    return source if len(maker.shape(source)) == 1 else maker.add("flatten", [source])


def dense(maker, step, sources):
    """A dense layer, behind a flatten if need be."""
    source = flat(maker, sources[0])
    (count,) = maker.shape(source)
    if count > LONGEST:
        raise ValueError("a long vector")
    weights, bias = parameters(maker, step, (step["units"], count), count, 0, step["units"])
    return maker.add("dense", [source], {"activation": "NONE"}, weights, bias)


def pool(op):
    """apply of a pooling."""

    def apply(maker, step, sources):
        attrs = fitted(step, maker.shape(sources[0]))
        if op == "avg_pool_inside":
            attrs["stride"] = tuple(map(min, attrs["stride"], attrs["kernel"]))
        return maker.add(op, sources[:1], attrs)

    return apply


def whole_average(maker, step, sources):
    """Global average pooling."""
    height, width, _ = map_of(maker, sources[0])
    attrs = {"kernel": (width, height), "stride": (1, 1), "pad": (0, 0, 0, 0)}
    return maker.add("avg_pool", sources[:1], attrs)


def map_of(maker, source):
    """The shape of what must be a map."""
    if len(maker.shape(source)) != 3:
        raise ValueError("not a map")
    return maker.shape(source)


# -- one value in, one value out -------------------------------------------------------------


def draw_activation(rng):
    """Which."""
    return {"op": str(rng.choice(["relu", "relu", "relu6", "leaky_relu", "hard_sigmoid", "sigmoid"]))}


def activate(maker, step, sources):
    """An activation."""
    attrs = {"alpha": 0.1} if step["op"] == "leaky_relu" else {}
    return maker.add(step["op"], sources[:1], attrs)


def batch_norm(maker, step, sources):
    """Scales of either sign are rare, as in trained networks."""
    channels = maker.shape(sources[0])[-1]
    scale = np.exp2(maker.rng.normal(size=channels) * step["spread"]).astype(np.float32)
    if step["negative"]:
        scale *= maker.rng.choice(np.array([-1, 1], np.float32), channels)
    bias = (maker.rng.normal(size=channels) * 0.5).astype(np.float32)
    return maker.add("batch_norm", sources[:1], None, scale, bias)


def prelu(maker, step, sources):
    """A slope for each channel below zero, as the ONNX reader makes it: a x + (1 - a) relu(x)."""
    channels = maker.shape(sources[0])[-1]
    slopes, none = maker.rng.uniform(-0.2, 0.9, channels).astype(np.float32), np.zeros(channels, np.float32)
    share = maker.add("batch_norm", sources[:1], None, slopes, none)
    rest = maker.add("relu", [maker.add("batch_norm", sources[:1], None, 1 - slopes, none)])
    return maker.add("add", [share, rest], {"activation": "NONE"})


def gate(maker, step, sources):
    """x times its own gate (swish, hard swish), in either order."""
    gated = maker.add(step["op"], sources[:1])
    return maker.add("multiply", [sources[0], gated][:: -1 if step["swapped"] else 1])


def draw_gate(rng):
    """Which gate, on which side."""
    return {"op": str(rng.choice(["hard_sigmoid", "sigmoid"])), "swapped": bool(rng.random() < 0.3)}


# -- of several inputs -----------------------------------------------------------------------


def add(maker, step, sources):
    """With one of the maps of the same shape."""
    others = maker.same_shape(sources[0])
    return maker.add("add", [sources[0], others[step["which"] % len(others)]], {"activation": "NONE"})


def residual(maker, step, sources):
    """x + an odd 'same' convolution of x, with an activation on the way."""
    height, width, channels = map_of(maker, sources[0])
    step = {**step, "units": channels, "stride": [1, 1], "dilation": [1, 1]}
    step["kernel"] = [min(k, size) | 1 for k, size in zip(step["kernel"], (width, height), strict=True)]
    step["kernel"] = [k if k <= size else 1 for k, size in zip(step["kernel"], (width, height), strict=True)]
    step["pad"] = [(step["kernel"][i // 2] - 1) // 2 for i in range(4)]
    x = sliding("depthwise_conv", True)(maker, step, sources)
    x = maker.add("relu", [x])
    x = sliding("conv")(maker, {**step, "kernel": [1, 1], "pad": [0] * 4}, [x])
    return maker.add("add", [sources[0], x], {"activation": "NONE"})


def multiply(maker, step, sources):
    """By a map of the same shape, or by one factor per channel."""
    shape = maker.shape(sources[0])
    fits = (shape, (1, 1, shape[-1]), shape[-1:])
    others = [layer.name for layer in maker.layers if layer.shape in fits and not maker.is_float(layer.name)]
    pair = [sources[0], others[step["which"] % len(others)]]
    return maker.add("multiply", pair[:: -1 if step["swapped"] else 1])


def squeeze(maker, step, sources):
    """x times one factor per channel that is made of its averages."""
    pooled = whole_average(maker, step, sources)
    plain = {**step, "kernel": [1, 1], "stride": [1, 1], "pad": [0] * 4, "dilation": [1, 1]}
    hidden = maker.add("relu", [sliding("conv")(maker, plain, [pooled])])
    excited = sliding("conv")(maker, {**plain, "units": maker.shape(sources[0])[2]}, [hidden])
    return maker.add("multiply", [sources[0], maker.add(step["op"], [excited])])


def concat(maker, step, sources):
    """With one or two of the maps of the same height and width, or vectors."""
    first = maker.shape(sources[0])
    others = [layer.name for layer in maker.layers if layer.shape[:-1] == first[:-1]]
    others = [name for name in others if len(maker.shape(name)) == len(first)]
    chosen = [sources[0], *(others[which % len(others)] for which in step["others"])]
    return maker.add("concat", chosen[:: -1 if step["swapped"] else 1], {"axis": len(first)})


def unlike_concat(maker, step, sources):
    """Joins maps of unlike sizes of which the finer is read elsewhere, too: requantized in front of it."""
    convolve, one = sliding("conv"), {"kernel": [1, 1], "stride": [1, 1], "pad": [0] * 4, "dilation": [1, 1]}
    coarse = convolve(maker, {**step, **one, "size": 30.0}, sources)
    fine = convolve(maker, {**step, **one, "size": 1.0}, sources)
    joined = maker.add("concat", [coarse, fine], {"axis": 3})
    both = [convolve(maker, {**step, **one, "size": 1.0}, [name]) for name in (joined, fine)]
    return maker.add("add", both, {"activation": "NONE"})


def second_input(maker, step, sources):
    """An input of its own, joined to what is there along the channels."""
    height, width, _ = map_of(maker, sources[0])
    other = maker.append("input", [], (height, width, step["units"]))
    return maker.add("concat", [sources[0], other], {"axis": 3})


# -- other sizes -----------------------------------------------------------------------------


def shuffle(maker, step, sources):
    """Pixels to channels or back; more pixels in front where they do not make whole blocks."""
    height, width, _ = map_of(maker, sources[0])
    scale, source = step["scale"], sources[0]
    if not step["upscale"] and (height % scale or width % scale):
        source = maker.add("upsample", [source], {"factor": (scale, scale)})
    return maker.add("pixel_shuffle", [source], {"scale": scale, "upscale": step["upscale"]})


def by_factor(op):
    """Nearest, or every n-th pixel."""
    return lambda maker, step, sources: maker.add(op, sources[:1], {"factor": tuple(step["factor"])})


def bilinear(maker, step, sources):
    """By factors, or to any size."""
    height, width, _ = map_of(maker, sources[0])
    size = (width * step["factor"][0], height * step["factor"][1])
    return maker.add(
        "resize_bilinear", sources[:1], {"size": tuple(step["size"] or size), "grid": step["grid"]}
    )


def draw_bilinear(rng):
    """Factors or a size, and the grid."""
    return {
        "factor": numbers(rng, [1, 2, 2, 3, 4], 2),
        "size": numbers(rng, range(1, 20), 2) if rng.random() < 0.3 else None,
        "grid": str(rng.choice(["half_pixel", "asymmetric", "align_corners"])),
    }


# -- drawing ---------------------------------------------------------------------------------


def alone(maker, step, sources):
    """A layer without attributes."""
    return maker.add(step["op"], sources[:1])


def nothing(rng):
    """No parameters."""
    return {}


def draw_which(rng):
    """Numbers by which another map is chosen."""
    swapped = bool(rng.random() < 0.3)
    return {"which": int(rng.integers(64)), "others": numbers(rng, range(64), 2), "swapped": swapped}


def with_units(draw):
    """Also a number of channels."""
    return lambda rng: {**draw(rng), "units": int(rng.integers(1, 6))}


KINDS = {
    "conv": Kind(draw_weighted, sliding("conv"), 4),
    "depthwise": Kind(draw_weighted, sliding("depthwise_conv", True), 2),
    "transposed": Kind(draw_weighted, sliding("transposed_conv"), 1),
    "transposed depthwise": Kind(draw_weighted, sliding("transposed_depthwise_conv", True), 0.7),
    "grouped": Kind(lambda rng: {**draw_weighted(rng), "which": int(rng.integers(64))}, grouped, 0.7),
    "dense": Kind(draw_weighted, dense, 1),
    "flatten": Kind(nothing, lambda maker, step, sources: flat(maker, sources[0]), 0.3),
    "max_pool": Kind(draw_window, pool("max_pool"), 1),
    "avg_pool": Kind(draw_window, pool("avg_pool"), 1),
    "avg_pool_inside": Kind(draw_window, pool("avg_pool_inside"), 0.7),
    "global": Kind(nothing, whole_average, 0.4),
    "activation": Kind(draw_activation, activate, 3),
    "batch_norm": Kind(
        lambda rng: {"spread": float(rng.choice([0.0, 0.5, 2.0])), "negative": bool(rng.random() < 0.2)},
        batch_norm, 2,
    ),
    "prelu": Kind(nothing, prelu, 0.4),
    "gate": Kind(draw_gate, gate, 1),
    "squeeze": Kind(lambda rng: {**draw_weighted(rng), **draw_gate(rng)}, squeeze, 0.7),
    "add": Kind(draw_which, add, 1.5),
    "residual": Kind(draw_weighted, residual, 1),
    "multiply": Kind(draw_which, multiply, 0.7),
    "concat": Kind(draw_which, concat, 1.5),
    "unlike concat": Kind(draw_weighted, unlike_concat, 0.4),
    "second input": Kind(with_units(nothing), second_input, 0.2),
    "pixel_shuffle": Kind(
        lambda rng: {"scale": int(rng.choice([1, 2, 2, 3])), "upscale": bool(rng.random() < 0.6)},
        shuffle, 0.7,
    ),
    "upsample": Kind(lambda rng: {"factor": numbers(rng, [1, 2, 2, 3], 2)}, by_factor("upsample"), 0.7),
    "downsample": Kind(lambda rng: {"factor": numbers(rng, [1, 2, 2, 3], 2)}, by_factor("downsample"), 0.5),
    "bilinear": Kind(draw_bilinear, bilinear, 0.7),
    "CPU between": Kind(
        lambda rng: {"op": str(rng.choice(["tanh", "float_sigmoid", "softmax", "exp"]))}, alone, 0.15
    ),
}  # fmt: skip
"""Steps that may stand anywhere."""
