"""Ops of a quantized graph that other layers stand for here: slices, paddings, lone scales, resizing.

Functions of (`quantized_values.Values`, op), for `quantized_reading`. A part of a map is a convolution of
ones: 64 at fix_point 6, which leaves every value as it is and can round to any grid behind it.
"""

from collections.abc import Sequence

import numpy as np

from dpuflow.base.numerics import Grid
from dpuflow.compiler.quantized_values import MOVING, Pad, Values
from dpuflow.emulator.axes import slice_bounds
from dpuflow.network import Layer
from dpuflow.xir import Op

ONE, ONE_FIX = 64, 6
"""A weight of 1."""
NO_PAD = (0, 0, 0, 0)


def _put(
    values: Values,
    name: str,
    kind: str,
    source: str,
    shape: Sequence[int],
    attrs: dict[str, object],
    weights: np.ndarray | None = None,
) -> str:
    """A layer that passes values on, at the fix_point of its source."""
    layer = Layer(name, kind, [source], tuple(int(n) for n in shape), attrs)
    values.layers[name] = layer
    values.fix_points[name] = values.fix_points[source]
    if weights is not None:
        values.weights[name] = (weights * ONE).astype(np.int8), ONE_FIX
        layer.weights = weights.astype(np.float32)
    return name


def vector(values: Values, op: Op) -> str:
    """The first input of an op as a vector: the layer, or a flattened map of one pixel in front of it."""
    source = values.source(op)
    shape = values.layers[source].shape
    if len(shape) == 1:
        return source
    if shape[:2] != (1, 1):
        values.fail(op, f"reads a map {list(shape)} as a vector")
    return _put(values, f"{op.name}_flat", "flatten", source, shape[2:], {})


def share_grids(values: Values) -> None:
    """Layers of ones in front of what only moves values, where these come on another grid than it has.

    A concatenation of maps of several fix_points, for example; moving and rounding commute.
    """
    for name in list(values.layers):
        layer = values.layers[name]
        if layer.op not in MOVING:
            continue
        for source in dict.fromkeys(layer.inputs):
            if values.fix_points[source] != values.fix_points[name]:
                copied = _on_grid_of(values, source, name)
                layer.inputs = [copied if n == source else n for n in layer.inputs]


def _on_grid_of(values, source, reader):
    shape, name = values.layers[source].shape, f"{reader}/{source}"
    if len(shape) == 1:
        _put(values, name, "dense", source, shape, {"activation": "NONE"}, np.eye(shape[0]))
    else:
        window = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": NO_PAD, "activation": "NONE"}
        ones = np.ones((1, 1, 1, shape[-1]))
        _put(values, name, "depthwise_conv", source, shape, window, ones)
    values.fix_points[name] = values.fix_points[reader]
    rest = [n for n in values.layers if n != name]
    rest.insert(rest.index(reader), name)
    values.layers = {n: values.layers[n] for n in rest}
    return name


def strided_slice(values: Values, op: Op) -> None:
    """Rows, columns and channels, one after the other; of a vector its values."""
    source = values.source(op)
    shape = values.layers[source].shape
    bounds = [range(*each) for each in slice_bounds(op, (1, *shape))]
    for axis, chosen in enumerate(bounds):
        if len(chosen) == shape[axis]:
            continue
        name = op.name if axis == len(shape) - 1 else f"{op.name}_{'rows' if axis == 0 else 'columns'}"
        if axis == len(shape) - 1:
            source = _channels(values, name, source, chosen)
        else:
            source = _pixels(values, name, source, axis, chosen)
    values.value[op.name] = source
    if source != values.value[op.inputs["input"][0]]:
        values.borrowed.add(source)


def _channels(values, name, source, chosen):
    shape = values.layers[source].shape
    weights = np.zeros((len(chosen), shape[-1]))
    weights[np.arange(len(chosen)), list(chosen)] = 1
    if len(shape) == 1:
        return _put(values, name, "dense", source, (len(chosen),), {"activation": "NONE"}, weights)
    window = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": NO_PAD, "activation": "NONE"}
    return _put(values, name, "conv", source, (*shape[:2], len(chosen)), window, weights[:, None, None, :])


def _pixels(values, name, source, axis, chosen):
    shape = list(values.layers[source].shape)
    length, step = shape[axis], chosen.step if len(chosen) > 1 else shape[axis]
    shape[axis] = len(chosen)
    if chosen.start == 0 and len(chosen) == -(-length // step):
        factor = (1, step) if axis == 0 else (step, 1)
        return _put(values, name, "downsample", source, shape, {"factor": factor})
    window = max(chosen.start + 1, length - len(chosen) * step + 1)
    kernel, stride = ((window, 1), (step, 1)) if axis == 0 else ((1, window), (1, step))
    weights = np.zeros((1, *kernel, shape[-1]))
    weights[(0, chosen.start, 0) if axis == 0 else (0, 0, chosen.start)] = 1
    attrs = {"kernel": kernel[::-1], "stride": stride[::-1], "dilation": (1, 1), "pad": NO_PAD}
    return _put(values, name, "depthwise_conv", source, shape, {**attrs, "activation": "NONE"}, weights)


def pad(values: Values, op: Op) -> None:
    """Zeros around a map, which wait for the convolution or average pool behind."""
    (name,) = op.inputs["input"]
    paddings = [int(n) for n in op.attr("paddings")]
    zeros = not any(op.attrs.get("constant_values") or [0])
    zeros &= op.attr("mode").upper() in ("CONSTANT", "0")
    if not zeros or len(paddings) != 8 or any(paddings[:2] + paddings[6:]):
        values.fail(op, "pads with something else than zeros, or another axis than height and width")
    top, bottom, left, right = paddings[2:6]
    inner, before = values.padded.get(name, (name, NO_PAD))
    around: Pad = (before[0] + left, before[1] + right, before[2] + top, before[3] + bottom)
    values.layer_of(op, inner)
    values.padded[op.name] = inner, around


def scale(values: Values, op: Op) -> None:
    """A batch normalization that nothing could be folded into: a depthwise convolution of one pixel."""
    source = values.source(op)
    channels = values.layers[source].shape[-1]
    if len(values.layers[source].shape) != 3 or op.attr("axis") not in (-1, 3):
        values.fail(op, "scales another axis than the channels of a map")
    window = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": NO_PAD, "activation": "NONE"}
    values.add(op, "depthwise_conv", [source], window)
    layer = values.layers[op.name]
    for argument, table, key in (("scale", values.weights, "weights"), ("bias", values.biases, "bias")):
        for name in op.inputs.get(argument, ()):
            if name not in values.integers:
                values.fail(op, f"its {argument} is no int8 constant behind a fix op")
            data, fix_point = values.integers[name]
            data = data.reshape((1, 1, 1, channels) if key == "weights" else (channels,))
            table[op.name] = data, fix_point
            setattr(layer, key, Grid(fix_point).reals(data).astype(np.float32))


def resize(values: Values, op: Op) -> None:
    """By whole factors, nearest either way, bilinear up; the output's size tells the factor."""
    source = values.layer_of(op, op.inputs["input"][0])
    height, width, _ = values.layers[source].shape
    _, high, wide, _ = (int(n) for n in op.tensor.shape)
    grid = {
        (False, False): "asymmetric",
        (True, False): "align_corners",
        (False, True): "half_pixel",
    }.get((bool(op.attr("align_corners")), bool(op.attr("half_pixel_centers"))))
    mode, up, down = op.attr("mode").upper(), (wide // width, high // height), (width // wide, height // high)
    larger = (width * up[0], height * up[1]) == (wide, high)
    smaller = (wide * down[0], high * down[1]) == (width, height)
    if mode == "NEAREST" and grid in ("asymmetric", "half_pixel") and larger:
        values.add(op, "upsample", [values.moved(op)], {"factor": up})
    elif mode == "NEAREST" and grid == "asymmetric" and smaller:
        values.add(op, "downsample", [values.moved(op)], {"factor": down})
    elif mode == "BILINEAR" and grid is not None:
        values.add(op, "resize_bilinear", [values.source(op)], {"size": (wide, high), "grid": grid})
    else:
        values.fail(op, "resizes in a way that no DPU does")
