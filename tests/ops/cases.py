"""Random operators of every kind with int8 inputs, parameters and positions."""

from dataclasses import dataclass, field, replace

import numpy as np

from dpuflow.ops import ACTIVATIONS, OPERATORS


@dataclass
class Case:
    """An operator and what it works on; inputs int8 (N, ...)."""

    operator: object
    inputs: list
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None
    fix_in: list = field(default_factory=list)
    fix_weights: int = 7
    fix_bias: int = 7
    fix_out: int = 4

    @property
    def parameters(self):
        """(weights, bias) with their positions, or None each."""
        weights = None if self.weights is None else (self.weights, self.fix_weights)
        return weights, None if self.bias is None else (self.bias, self.fix_bias)

    @property
    def shape(self):
        """The output's."""
        weights = None if self.weights is None else self.weights.shape
        return self.operator.output_shape([x.shape[1:] for x in self.inputs], weights)

    def integer(self):
        """The operator's own answer."""
        inputs = [x.astype(np.float32) for x in self.inputs]
        return self.operator.integer(inputs, self.fix_in, self.fix_out, *self.parameters)

    def unrounded(self):
        """Its results before they are rounded."""
        inputs = [x.astype(np.float32) for x in self.inputs]
        return self.operator.unrounded(inputs, self.fix_in, self.fix_out, *self.parameters)

    def on_one_grid(self):
        """The same with every position the output's."""
        return replace(self, fix_in=[self.fix_out] * len(self.inputs))


def values(rng, *shape):
    """int8: noise, small ones, or the extremes."""
    style = rng.integers(3)
    if style == 0:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-3 - 125 * (style - 1), 4 + 124 * (style - 1), shape).astype(np.int8)


def window_attributes(rng, kind):
    """kernel, stride, pad and, of a convolution, dilation and activation."""
    kernel = tuple(int(n) for n in rng.integers(1, 4, 2))
    attrs = {"kernel": kernel, "stride": tuple(int(n) for n in rng.integers(1, 3, 2))}
    padded = rng.random() < 0.6
    attrs["pad"] = tuple(int(rng.integers(0, kernel[i // 2])) if padded else 0 for i in range(4))
    if "conv" in kind:
        attrs["dilation"] = tuple(int(n) for n in rng.integers(1, 3, 2))
        attrs["activation"] = str(rng.choice(list(ACTIVATIONS)))
    if "transposed" in kind:
        attrs["dilation"] = (1, 1)
    if kind == "avg_pool_inside":
        attrs["stride"] = tuple(min(pair) for pair in zip(attrs["stride"], attrs["kernel"], strict=True))
    return attrs


def gated(rng, x):
    """x and another map, or one factor per channel, in either order."""
    channels_only = [(2, 1, 1, x.shape[3]), (2, x.shape[3])][int(rng.integers(2))]
    inputs = [x, values(rng, *(x.shape if rng.random() < 0.5 else channels_only))]
    return inputs[::-1] if rng.random() < 0.5 else inputs


def shuffled(rng, channels):
    """Attributes and input of a pixel shuffle."""
    scale, upscale = int(rng.integers(1, 4)), bool(rng.integers(2))
    block = (2, 3, channels * scale**2) if upscale else (2 * scale, 3 * scale, channels)
    return {"scale": scale, "upscale": upscale}, [values(rng, 2, *block)]


def resizing_attributes(rng, kind, height, width):
    """Attributes of what changes a map's size without weights; none of anything else."""
    if kind in ("upsample", "downsample"):
        return {"factor": tuple(int(n) for n in rng.integers(1, 4, 2))}
    if kind == "resize_bilinear":
        factors = rng.choice([1, 2, 4], 2)
        grid = str(rng.choice(["half_pixel", "asymmetric"]))
        return {"size": (width * int(factors[0]), height * int(factors[1])), "grid": grid}
    return {}


def random_case(kind, rng):
    """A Case of a kind that a quantized network may hold."""
    height, width, channels = (int(n) for n in rng.integers((5, 5, 1), (8, 8, 5)))
    x = values(rng, 2, height, width, channels)
    attrs, more, inputs = {}, {}, [x]
    if "pool" in kind or "conv" in kind:
        attrs = window_attributes(rng, kind)
    if kind in ("add", "dense"):
        attrs = {"activation": str(rng.choice(list(ACTIVATIONS)))}
    if kind == "add":
        inputs = [x, values(rng, *x.shape)]
    if kind == "multiply":
        inputs = gated(rng, x)
    if kind == "pixel_shuffle":
        attrs, inputs = shuffled(rng, channels)
    if kind == "concat":
        attrs = {"axis": 3}
        inputs = [x, *(values(rng, 2, height, width, int(n)) for n in rng.integers(1, 4, 2))]
    if kind == "dense":
        inputs = [x.reshape(2, -1)]
    attrs |= resizing_attributes(rng, kind, height, width)
    operator = OPERATORS[kind](**attrs)
    if operator.weighted:
        outputs = int(rng.integers(1, 5))
        shapes = {
            "conv": lambda: (outputs, *attrs["kernel"][::-1], channels),
            "depthwise_conv": lambda: (1, *attrs["kernel"][::-1], channels),
            "transposed_conv": lambda: (outputs, *attrs["kernel"][::-1], channels),
            "transposed_depthwise_conv": lambda: (1, *attrs["kernel"][::-1], channels),
            "dense": lambda: (outputs, height * width * channels),
        }
        more["weights"] = values(rng, *shapes[kind]())
        if rng.random() < 0.8:
            more["bias"] = values(rng, channels if "depthwise" in kind else outputs)
        more["fix_weights"] = int(rng.integers(0, 9))
        more["fix_bias"] = int(rng.integers(4, 14))
    return Case(
        operator,
        inputs,
        fix_in=[int(n) for n in rng.integers(2, 8, len(inputs))],
        fix_out=operator.fixed_output or int(rng.integers(0, 7)),
        **more,
    )
